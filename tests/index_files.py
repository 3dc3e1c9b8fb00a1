"""Small indexes for the tests, written by the format alone, of a tiny model's documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from attribution_core import Attributor
from attribution_core.results import Contributions
from jobs.index.format import BATCH, Precision, document_batch, encoded_part, id_hash
from jobs.index.snapshot import Facts, Part, Probe, Snapshot, commit_snapshot, write_ids
from jobs.storage.store import Store

PROBE = "a coffee that is not bad"


def attributor(model: Any, **settings: Any) -> Attributor:
    """An Attributor as an index has it: sentences of documents, in retrieval mode."""
    return Attributor(model, **{"mode": "retrieval", "groups": "sentence", "layer": -1, "nodes": 8} | settings)


def facts_of(model: Attributor, precision: Precision = "int8", *, texts: bool = True) -> Facts:
    """The facts of an index of ``model``."""
    read = model.read([PROBE], model.roles[0])
    embedding = model.routes.of(model.roles[0]).embeddings(read)[0]
    return Facts(
        model=model.model_name,
        fingerprint=model.fingerprint(),
        layer=model.layer,
        similarity=model.similarity,
        groups=model.groups,
        precision=precision,
        width=len(embedding),
        prompts={"query": None, "document": None},
        reference="pad",
        probe=Probe(PROBE, tuple(embedding.tolist())),
        texts=texts,
    )


def contributions_of(model: Attributor, documents: Mapping[str, str]) -> list[Contributions]:
    """Contributions of documents by id."""
    return model.contributions(model.read(list(documents.values()), model.roles[1]))


def write_index(
    store: Store,
    known: Sequence[Contributions],
    ids: Sequence[str],
    facts: Facts,
    *,
    number: int = 1,
    part_size: int = 2 * BATCH,
    before: Snapshot | None = None,
) -> Snapshot:
    """Commit a generation of documents and a snapshot of it; documents of ``before`` stay, unless they come again."""
    folder = f"generations/{number:05d}/documents"
    parts: list[Part] = list(before.parts) if before else []
    places: dict[str, tuple[int, int, int]] = dict(_places(store, before)) if before else {}
    for first in range(0, len(known), part_size):
        batches: list[pa.RecordBatch] = []
        for at in range(first, min(first + part_size, len(known)), BATCH):
            here = slice(at, min(at + BATCH, first + part_size))
            precision: Any = facts.precision
            batches.append(document_batch(known[here], ids[here], precision=precision, texts=facts.texts))
        name = f"{folder}/part-{first // part_size:05d}.arrow"
        assert store.commit(name, encoded_part(batches))
        for row, (name_, one) in enumerate(zip(ids[first : first + part_size], known[first:], strict=False)):
            places[name_] = (id_hash(one.text.text), len(parts), row)
        parts.append(Part(name, sum(len(batch) for batch in batches)))
    columns = list(zip(*places.values(), strict=True))
    table = {"hash": [id_hash(one) for one in places], "text_hash": columns[0], "part": columns[1], "row": columns[2]}
    types = {"hash": pa.uint64(), "text_hash": pa.uint64(), "part": pa.uint32(), "row": pa.uint32()}
    ids_file = write_ids(store, number, pa.table({name: pa.array(table[name], types[name]) for name in types}))
    dead = sum(part.documents for part in parts) - len(places)
    snapshot = Snapshot(number, len(places), dead, tuple(parts), ids_file, facts)
    assert commit_snapshot(store, snapshot)
    return replace(snapshot)


def _places(store: Store, snapshot: Snapshot) -> list[tuple[str, tuple[int, int, int]]]:
    found = []
    for number, part in enumerate(snapshot.parts):
        table = pa.ipc.open_file(pa.BufferReader(store.read(part.file))).read_all()
        rows = zip(table["id"].to_pylist(), table["text_hash"].to_pylist(), strict=True)
        found += [(one, (text, number, row)) for row, (one, text) in enumerate(rows)]
    return found
