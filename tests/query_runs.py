"""Runs of a retrieval log made by hand: what a log's columns and texts are is up to the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from display_pairs import explained, pair_of
from row_tables import attribution_row, attribution_table, summarise, text_row, text_table

from attribution_core.results import PairAttribution
from jobs.run.tables import LIFTS, commit_shard, reject_table
from jobs.storage.store import Store

LOG = pa.schema([("rank", pa.int32()), ("log_score", pa.float32()), ("tag", pa.string()), ("relevance", pa.int32())])


@dataclass(frozen=True)
class Ranked:
    """A row of the log: ``cells`` are put over small noise, ``kept`` are the columns passed through. ``lifts`` are
    those of the document's words, 0 for words that it does not name, None for a row without lifts; ``query_lifts``
    are those of the query's words."""

    query: str
    document: str
    text: str
    score: float = 0.5
    kept: Mapping[str, Any] = field(default_factory=dict)
    cells: Mapping[tuple[str, str], float] = field(default_factory=dict)
    lifts: Mapping[str, float] | None = None
    query_lifts: Mapping[str, float] = field(default_factory=dict)


def attribution(queries: Mapping[str, str], row: Ranked, at: int) -> PairAttribution:
    """The pair that stands behind row number ``at``."""
    pair = pair_of(
        explained(queries[row.query], role="query"), explained(row.text, role="document"), dict(row.cells), seed=at
    )
    made = {**vars(pair), "score": row.score}
    if row.lifts is not None:
        made["row_lift"] = np.array([row.query_lifts.get(label, 0.0) for label in pair.a.groups.labels], np.float32)
        made["col_lift"] = np.array([row.lifts.get(label, 0.0) for label in pair.b.groups.labels], np.float32)
    return PairAttribution(**made)


def summing(queries: Mapping[str, str], row: Ranked, at: int) -> Ranked:
    """Row number ``at`` with the score that its cells sum to."""
    return replace(row, score=attribution(queries, row, at).total)


def write_run(
    place: str | Path,
    queries: Mapping[str, str],
    shards: Sequence[Sequence[Ranked]],
    *,
    schema: pa.Schema = LOG,
    finished: bool = True,
    texts_of: Sequence[str] | None = None,
    top_k: int = 8,
    format: str = "parquet",
    similarity: str = "cosine",
    sums_to: str | None = None,
    old: bool = False,
) -> Store:
    """A run whose parts hold those rows; every text's row is in the first shard that has it, of queries only those in
    ``texts_of`` where it is given. With ``old`` it is a run of a version that knew neither lifts nor ``sums_to``."""
    run = Store.open(str(place))
    record = {"model": "some/model", "mode": "retrieval", "layer": 4, "similarity": similarity, "format": format}
    if sums_to is not None:
        record["sums_to"] = sums_to
    run.commit("job.yaml", yaml.safe_dump(record).encode())
    written: set[tuple[str, str]] = {("query", q) for q in queries if texts_of is not None and q not in texts_of}
    at = 0
    for index, shard in enumerate(shards):
        rows, texts = [], []
        for row in shard:
            pair = attribution(queries, row, at)
            ids = {"pair_id": f"log:{at}", "text_a_id": row.query, "text_b_id": row.document}
            rows.append(attribution_row(pair, summarise(pair, top_k), **ids))
            for text, text_id in ((pair.a, row.query), (pair.b, row.document)):
                if (text.role, text_id) not in written:
                    texts.append(text_row(text, text_id))
                    written.add((text.role, text_id))
            at += 1
        kept = pa.Table.from_pylist([dict(row.kept) for row in shard], schema=schema)
        # A table without columns has no rows either.
        table = attribution_table(rows, kept if len(schema) else None)
        if old:
            table = table.drop_columns(list(LIFTS))
        commit_shard(run, index, table, text_table(texts), reject_table([]), format)
    if finished:
        run.commit("_SUCCESS", b"")
    return run


QUERIES = {"q1": "hot wing design", "q2": "boundary layer"}


def small_log() -> list[list[Ranked]]:
    """Two queries over two shards, rows in no order; document d3 answers both, and ranks follow no score."""

    def row(query: str, document: str, text: str, rank: int, score: float, relevance: int | None, **cells: float):  # type: ignore[no-untyped-def]
        kept = {"rank": rank, "log_score": score + 0.001, "tag": "mini", "relevance": relevance}
        return Ranked(query, document, text, score, kept, {tuple(k.split("_")): v for k, v in cells.items()})  # type: ignore[misc]

    return [
        [
            row("q1", "d2", "The heated wing of a jet", 3, 0.9, 1, hot_heated=0.4, wing_wing=0.3),
            row("q2", "d3", "A layer on the wing", 1, 0.4, None, layer_layer=0.5),
        ],
        [
            row("q1", "d1", "Nothing at all", 2, 0.3, None, design_all=-0.2),
            row("q1", "d3", "A layer on the wing", 1, 0.5, 2, wing_wing=0.6, design_on=-0.5),
        ],
    ]
