"""Hashes of the ids and texts of an index's documents: what updates compare, without the documents' rows."""

from __future__ import annotations

import pyarrow as pa

from jobs.index.blocks import damaged_file
from jobs.index.format import id_hash, part_schema
from jobs.index.snapshot import FOLDER, load_snapshot, read_ids, snapshot_name
from jobs.storage.s3 import StorageSettings
from jobs.storage.store import Store

# The columns of every part, in their order.
_NAMES = part_schema(1, "int8").names


def part_hashes(store: Store, name: str) -> pa.Table:
    """Return the columns hash and text_hash (uint64) of the documents of a part, in its order.

    Raises RunError where the part is damaged.
    """
    table = _columns(store, name, ("id", "text_hash"))
    hashes = [id_hash(key) for key in table["id"].to_pylist()]
    return pa.table({"hash": pa.array(hashes, pa.uint64()), "text_hash": table["text_hash"].combine_chunks()})


def part_texts(store: Store, name: str) -> pa.Table:
    """Return the columns id and text of the documents of a part; RunError where it is damaged."""
    return _columns(store, name, ("id", "text"))


def _columns(store: Store, name: str, columns: tuple[str, ...]) -> pa.Table:
    """Return some columns of a part; no others are read."""
    options = pa.ipc.IpcReadOptions(included_fields=[_NAMES.index(column) for column in columns])

    def read() -> pa.Table:
        with store.open_input(name) as raw, pa.ipc.open_file(raw, options=options) as part:
            return part.read_all().select(columns)

    try:
        return store.attempt("read", name, read)
    except (pa.ArrowException, KeyError) as error:
        raise damaged_file(store, name, error) from None


def indexed_hashes(snapshot_url: str, storage: StorageSettings | None) -> pa.Table:
    """Return the columns hash and text_hash of the documents of a snapshot, given the address of its file."""
    root, _, name = snapshot_url.rpartition(f"/{FOLDER}/")
    store = Store.open(root, storage)
    number = int(name.removesuffix(".json"))
    assert name == snapshot_name(number).rpartition("/")[2], "the address of a snapshot"
    return read_ids(store, load_snapshot(store, number)).select(["hash", "text_hash"])
