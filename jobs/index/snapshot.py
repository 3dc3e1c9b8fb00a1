"""Snapshots of an index: which parts it consists of, where each document is, and what a reader checks.

A snapshot is one file, ``snapshots/00001.json``, which names everything that belongs to it. It is committed after what
it names, and nothing that it names is ever changed, so a reader sees one snapshot, whatever is written meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from jobs.errors import RunError
from jobs.index.blocks import damaged_file
from jobs.index.format import CRC, Precision, contents_crc
from jobs.storage.store import Store

if TYPE_CHECKING:
    from pydantic import ValidationError

VERSION = 1
FOLDER = "snapshots"
IDS_FOLDER = "ids"
# Entries of a record batch of the ids file: a reader of S3 fetches one for an id.
ID_BLOCK = 65_536
FIRST_HASHES = b"first_hashes"
MOST_BYTES = 256 << 20
IDS_SCHEMA = pa.schema([("hash", pa.uint64()), ("text_hash", pa.uint64()), ("part", pa.uint32()), ("row", pa.uint32())])


@dataclass(frozen=True)
class Part:
    """A file of documents: its name relative to the index, and how many documents it has, live or not."""

    file: str
    documents: int


@dataclass(frozen=True)
class Probe:
    """A text and its embedding [D] as a query, to check that another embedding is of the index's model."""

    text: str
    embedding: tuple[float, ...]


@dataclass(frozen=True)
class Facts:
    """What all documents of an index have in common, and what a query must agree with.

    ``fingerprint`` is the model's (``Attributor.fingerprint``), ``layer`` counts from 0, ``groups`` is the unit of
    documents, ``width`` is D. ``prompts`` has the job's settings ``query`` and ``document``; None is the model's own.
    ``texts`` says whether parts have the documents' texts, not only offsets.
    """

    model: str
    fingerprint: str
    layer: int
    similarity: Literal["cosine", "dot"]
    groups: str
    precision: Precision
    width: int
    prompts: dict[str, str | None]
    reference: str
    probe: Probe
    texts: bool = True
    trust_remote_code: bool = False
    pickled_weights: bool = False
    sums_to: str = "score"


@dataclass(frozen=True)
class Snapshot:
    """What an index consists of at one time.

    ``documents`` counts the live ones, ``dead`` the rows of all builds that were replaced or removed.
    ``ids`` is the name of the ids file, whose column ``part`` is a place in ``parts``.
    """

    number: int
    documents: int
    dead: int
    parts: tuple[Part, ...]
    ids: str
    facts: Facts
    version: int = VERSION


def snapshot_name(number: int) -> str:
    """Return the name of a snapshot's file."""
    return f"{FOLDER}/{number:05d}.json"


def snapshot_numbers(store: Store) -> list[int]:
    """Return the numbers of an index's snapshots, ascending; empty where there is no index."""
    names = (re.fullmatch(rf"{FOLDER}/(\d{{5,}})\.json", name) for name in store.list(FOLDER))
    return sorted(int(name[1]) for name in names if name)


def load_snapshot(store: Store, number: int | None = None) -> Snapshot:
    """Return the last snapshot of an index, or that of a number.

    Raises:
        RunError: where there is none, or its file is damaged or of a later version.
    """
    # Only the reading of a snapshot needs pydantic, which is slow to import.
    from pydantic import TypeAdapter, ValidationError

    numbers = snapshot_numbers(store)
    if not numbers or (number is not None and number not in numbers):
        if not numbers and store.list("generations/00001/logs"):
            raise RunError(f"{store.url}: its first build is not finished; the same tokenpair index goes on with it")
        missing = f"{FOLDER} is empty or missing" if not numbers else f"there is no snapshot {number}"
        raise RunError(f"{store.url}: holds no index ({missing}); tokenpair index builds one")
    name = snapshot_name(numbers[-1] if number is None else number)
    data = store.read(name, most=MOST_BYTES)
    try:
        fields = json.loads(data)
        version = fields.get("version") if isinstance(fields, dict) else None
        if isinstance(version, int) and version > VERSION:
            raise RunError(f"{store.describe_name(name)}: is of a later version ({version}); install a later tokenpair")
        return TypeAdapter(Snapshot).validate_json(data)
    except ValidationError as error:
        raise damaged_file(store, name, _first_problem(error)) from None
    except ValueError:
        raise damaged_file(store, name, "not JSON") from None


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(place) for place in first['loc']) or 'the file'}: {first['msg']}"


def commit_snapshot(store: Store, snapshot: Snapshot) -> bool:
    """Commit a snapshot, after everything that it names; return False where its number is taken."""
    return store.commit(snapshot_name(snapshot.number), json.dumps(asdict(snapshot), ensure_ascii=False).encode())


def write_ids(store: Store, number: int, ids: pa.Table) -> str:
    """Commit the ids file of snapshot ``number`` and return its name.

    ``ids`` has the columns of :data:`IDS_SCHEMA`, an entry for each live document, in any order.
    """
    table = ids.select(IDS_SCHEMA.names).cast(IDS_SCHEMA).sort_by("hash").combine_chunks()
    blocks = table.to_batches(max_chunksize=ID_BLOCK)
    firsts = json.dumps([block["hash"][0].as_py() for block in blocks])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, IDS_SCHEMA.with_metadata({FIRST_HASHES: firsts.encode()})) as writer:
        for block in blocks:
            writer.write_batch(block, custom_metadata={CRC: b"%d" % contents_crc(block)})
    data = sink.getvalue().to_pybytes()
    name = f"{IDS_FOLDER}/{number:05d}-{hashlib.sha256(data).hexdigest()[:16]}.arrow"
    # A name with the content's digest: a file of that name is this file.
    store.commit(name, data)
    return name


def read_ids(store: Store, snapshot: Snapshot) -> pa.Table:
    """Return the whole ids file of a snapshot, sorted by ``hash``, for updates and scans.

    Raises:
        RunError: where the file is damaged.
    """
    data = store.read(snapshot.ids)
    try:
        with pa.ipc.open_file(pa.BufferReader(data)) as reader:
            table = reader.read_all().select(IDS_SCHEMA.names).cast(IDS_SCHEMA)
        table.validate(full=True)
    except (pa.ArrowException, KeyError, OSError) as error:
        raise damaged_file(store, snapshot.ids, error) from None
    problem = None
    if len(table) != snapshot.documents:
        problem = f"has {len(table)} entries for {snapshot.documents} documents"
    elif len(table) and table["part"].to_numpy().max() >= len(snapshot.parts):
        problem = "names a part that the snapshot does not have"
    if problem:
        raise damaged_file(store, snapshot.ids, problem)
    return table
