"""What an index stores: rounded rows that sum to the embedding, within bytes that are known, and its snapshots."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from index_files import attributor, contributions_of, facts_of, write_index
from tiny_models import TinyModels, random_text

from attribution_core.pairs.completion import Completion
from attribution_core.results import Contributions
from attribution_core.text.grouping import KINDS
from attribution_core.text.tokenized import ReadText
from jobs.errors import RunError
from jobs.index.format import (
    BATCH,
    CRC,
    PRECISIONS,
    Precision,
    contents_crc,
    document_batch,
    encoded_part,
    id_hash,
    restored,
)
from jobs.index.snapshot import commit_snapshot, load_snapshot, read_ids, snapshot_name, write_ids
from jobs.storage.store import Store

# How far a stored value may be off, in steps of the largest of its row.
ROUNDING = {"int8": 1 / 254 * 1.002, "float16": 2**-11, "float32": 2**-24}


def drawn(groups: int, *, width: int = 384, length: int = 1200, end: int | None = None, seed: int = 0) -> Contributions:
    """Contributions of a document with so many groups, of which the first and the last are special tokens."""
    rng = np.random.default_rng(seed)
    kinds = np.zeros(groups, np.int8)
    kinds[[0, -1]] = KINDS.index("special")
    ends = np.sort(rng.integers(1, length, groups))
    ends[-2] = end or ends[-2]
    tokens = np.zeros(250, np.int64)
    shares = np.where(kinds == 0, 1 / max(1, groups - 2), 0.0)
    text = ReadText(
        "x" * length, "document", "", None, "sentence", tokens, None, tokens > 0, tokens, kinds, kinds == 0,
        ends - 1, ends, shares, lambda _, ids: [str(one) for one in ids],
    )  # fmt: skip
    values, reference = (rng.normal(0, 1 / 60, size).astype(np.float32) for size in ((groups, width), width))
    error = rng.normal(0, 1e-4, width).astype(np.float32)
    return Contributions(text, 8, 1e-2, True, "forward", values, values.sum(0) + reference + error, reference)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rows_are_completed_contributions_and_sum_to_the_embedding(
    precision: Precision, tiny: TinyModels, rng: random.Random
) -> None:
    """Would catch a row of another document, a share of the reference that is missing, and a remainder left out."""
    model = attributor(tiny.load("bert"))
    texts = [". ".join(random_text(rng, 6) for _ in range(rng.randint(1, 4))) for _ in range(9)]
    known = contributions_of(model, dict(zip("abcdefghi", texts, strict=True)))
    batch = document_batch(known, list("abcdefghi"), precision=precision)
    assert batch["text"].to_pylist() == texts
    assert batch["text_hash"].to_pylist() == [id_hash(text) for text in texts]
    for row, one in zip(batch.to_pylist(), known, strict=True):
        groups = one.text.groups
        assert (tuple(row["starts"]), tuple(row["ends"])) == (groups.starts, groups.ends)
        assert [KINDS[kind] for kind in row["kinds"]] == list(groups.kinds)
        assert (row["nodes"], row["tokens"], row["truncated"]) == (one.nodes, len(one.text), one.text.truncated)
        # In float16.
        assert row["residual"] == pytest.approx(one.residual, rel=1e-3, abs=6e-8)
        stored = restored(np.array(row["rows"]), np.array(row["scales"]))
        completed = Completion("score").completed(one)
        most = np.abs(completed).max(axis=1, keepdims=True) * ROUNDING[precision] + 1e-12
        assert (np.abs(stored[:-1] - completed) <= most).all()
        length = float(np.linalg.norm(one.embedding_D))
        # Two roundings in a row: the remainder is as large as a step of the first.
        np.testing.assert_allclose(stored.sum(0), one.embedding_D, rtol=0, atol=length * 1e-4)


def test_a_document_of_250_tokens_takes_less_than_four_kilobytes() -> None:
    batch = document_batch(
        [drawn(9 if at < 45 else 10) for at in range(BATCH)], [f"doc{at:05d}" for at in range(BATCH)]
    )
    one, many = (len(encoded_part([batch] * count)) for count in (1, 9))
    assert (many - one) / 8 / BATCH - 1200 <= 4096


def test_zero_rows_and_tiny_ones_are_stored() -> None:
    one = drawn(5)
    one.values_GD[0] = 0
    one.values_GD[1] = 1e-9
    stored = document_batch([one], ["a"]).to_pylist()[0]
    assert np.isfinite(stored["scales"]).all()
    assert not np.any(stored["rows"][0])


def test_long_documents_have_offsets_of_four_bytes() -> None:
    batches = [document_batch([drawn(4, seed=at) for at in range(BATCH)], ["x"] * BATCH) for _ in range(2)]
    last = document_batch([drawn(4, length=90_000, end=80_000)], ["long"])
    table = pa.ipc.open_file(encoded_part([*batches, last])).read_all()
    assert table.schema.field("starts").type == pa.list_(pa.int32())
    assert table["ends"].to_pylist() == [row for batch in [*batches, last] for row in batch["ends"].to_pylist()]


def test_each_batch_has_the_crc_of_its_contents() -> None:
    """Would catch a sum that leaves out a column, or depends on what a null has beside it."""
    batches = [document_batch([drawn(4, seed=at)] * BATCH, [f"{at}"] * BATCH) for at in range(2)]
    reader = pa.ipc.open_file(encoded_part(batches))
    for at, written in enumerate(batches):
        batch, metadata = reader.get_batch_with_custom_metadata(at)
        assert int(metadata[CRC]) == contents_crc(batch) == contents_crc(written)
    for at, field in enumerate(batches[0].schema):
        kind = field.type if not pa.types.is_boolean(field.type) else pa.bool_()
        other = _changed(batches[0].column(at), kind)
        changed = batches[0].set_column(at, field, other)
        assert contents_crc(changed) != contents_crc(batches[0]), field.name


def _changed(column: pa.Array, kind: pa.DataType) -> pa.Array:
    rows = column.to_pylist()
    changes: dict[str, Any] = {"bool": not rows[0], "string": "other"}
    rows[0] = changes.get(str(kind), [*rows[0][1:], rows[0][0]] if isinstance(rows[0], list) else 77)
    if isinstance(rows[0], list) and rows[0] == column[0].as_py():
        rows[0] = [7, *rows[0][1:]]
    return pa.array(rows, kind)


@pytest.mark.parametrize("text", ["", "a", "doc-1", "naïve café ☕", "漢字" * 1000])
def test_hashes_are_those_of_duckdb(text: str) -> None:
    row = duckdb.execute("select md5_number_upper(?)", [text]).fetchone()
    assert row is not None
    assert id_hash(text) == row[0]


def test_snapshots_are_committed_once_and_the_last_one_is_read(tiny: TinyModels, tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    with pytest.raises(RunError, match="holds no index"):
        load_snapshot(store)
    model = attributor(tiny.load("bert"))
    known = contributions_of(model, {"a": "coffee is good", "b": "coffee is bad", "ü": "rain falls"})
    first = write_index(store, known[:2], ["a", "b"], facts_of(model))
    assert load_snapshot(store) == first
    second = write_index(store, known[1:], ["b", "ü"], first.facts, number=2, before=first)
    assert not commit_snapshot(store, replace(second, dead=99))
    assert load_snapshot(store) == second
    assert load_snapshot(store, 1) == first
    assert (second.documents, second.dead) == (3, 1)
    entries = {entry["hash"]: entry for entry in read_ids(store, second).to_pylist()}
    assert list(entries) == sorted(map(id_hash, ["a", "b", "ü"]))
    assert [entries[id_hash(one)]["part"] for one in ["a", "b", "ü"]] == [0, 1, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is damaged: not JSON"),
        (b"[]", "is damaged"),
        (b'{"version": 9}', "is of a later version"),
        (b'{"number": "x", "version": 1}', "is damaged: number"),
    ],
)
def test_damaged_snapshots_are_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.commit(snapshot_name(3), content)
    with pytest.raises(RunError, match=message) as caught:
        load_snapshot(store)
    assert "\n" not in str(caught.value)


def test_damaged_ids_are_one_line(tiny: TinyModels, tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    model = attributor(tiny.load("bert"))
    known = contributions_of(model, {"a": "coffee is good"})
    snapshot = write_index(store, known, ["a"], facts_of(model))
    with pytest.raises(RunError, match="1 entries for 2 documents"):
        read_ids(store, replace(snapshot, documents=2))
    store.replace(snapshot.ids, store.read(snapshot.ids)[:-40])
    with pytest.raises(RunError, match="is damaged"):
        read_ids(store, snapshot)


def test_blocks_of_ids_are_sorted_and_named_by_their_first_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: random.Random
) -> None:
    monkeypatch.setattr("jobs.index.snapshot.ID_BLOCK", 10)
    store = Store.open(tmp_path)
    hashes = [rng.randrange(1 << 64) for _ in range(35)]
    same = pa.array(range(35), pa.uint32())
    columns = {"hash": pa.array(hashes, pa.uint64()), "text_hash": pa.array(hashes, pa.uint64()), "part": same}
    name = write_ids(store, 4, pa.table({**columns, "row": same}))
    assert name.startswith("ids/00004-")
    reader = pa.ipc.open_file(store.read(name))
    blocks = [reader.get_batch(at) for at in range(reader.num_record_batches)]
    assert [len(block) for block in blocks] == [10, 10, 10, 5]
    firsts = reader.schema.metadata[b"first_hashes"].decode()
    assert firsts == str([block["hash"][0].as_py() for block in blocks])
    table = reader.read_all()
    assert table["hash"].to_pylist() == sorted(hashes)
    assert [hashes[at] for at in table["row"].to_pylist()] == sorted(hashes)
