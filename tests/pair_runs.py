"""Runs of pairs made by hand: which attributions a run holds is up to the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from row_tables import attribution_row, attribution_table, summarise, text_row, text_table

from attribution_core.results import ExplainedText, PairAttribution
from attribution_core.text.grouping import Groups, Kind, Unit
from jobs.run.reader import Run
from jobs.run.tables import commit_shard, reject_table
from jobs.storage.store import Store


@dataclass(frozen=True)
class Row:
    """A pair of a run; its texts are called by themselves."""

    pair_id: str
    pair: PairAttribution
    kept: Mapping[str, Any] = field(default_factory=dict)


def cut_text(
    text: str, pieces: Sequence[str], *, unit: Unit = "word", role: str = "text", **more: Any
) -> ExplainedText:
    """``text`` cut into ``pieces``, which stand in it in this order, between two special tokens."""
    starts, at = [], 0
    for piece in pieces:
        at = text.index(piece, at)
        starts.append(at)
        at += len(piece)
    labels = ("[CLS]", *pieces, "[SEP]")
    kinds: tuple[Kind, ...] = ("special", *("text" for _ in pieces), "special")  # type: ignore[assignment]
    ends = (start + len(piece) for start, piece in zip(starts, pieces, strict=True))
    groups = Groups(unit, labels, (0, *starts, 0), (0, *ends, 0), kinds, tuple(range(len(labels))))
    return ExplainedText(text=text, role=role, groups=groups, tokens=labels)


def words(text: str, role: str = "text") -> ExplainedText:
    """``text`` cut at white space."""
    return cut_text(text, text.split(), role=role)


def attributed(a: ExplainedText, b: ExplainedText, inner: Any, score: float = 0.5) -> PairAttribution:
    """A pair whose text cells are ``inner`` [words of a, words of b] and whose special cells are 0."""
    matrix = np.zeros((len(a.groups), len(b.groups)), np.float32)
    matrix[1:-1, 1:-1] = inner
    total = float(matrix.sum())
    return PairAttribution(
        a=a,
        b=b,
        matrix=matrix,
        row_sums=matrix.sum(1),
        col_sums=matrix.sum(0),
        score=score,
        reference_a=0.0,
        reference_b=0.0,
        reference_ab=total - score,
        total=total,
        error=0.0,
    )


def write_pairs(
    place: str | Path,
    shards: Sequence[Sequence[Row]],
    *,
    kept: pa.Schema | None = None,
    store: str = "top",
    top_k: int = 32,
    finished: bool = True,
    **settings: Any,
) -> Run:
    """A run whose parts hold those rows."""
    target = Store.open(str(place))
    record = {"model": "some/model", "layer": 4, "similarity": "cosine", "groups": "word", "store": store, **settings}
    target.commit("job.yaml", yaml.safe_dump(record).encode())
    written: set[tuple[str, str]] = set()
    for index, shard in enumerate(shards):
        rows, texts = [], []
        for row in shard:
            ids = {"pair_id": row.pair_id, "text_a_id": row.pair.a.text, "text_b_id": row.pair.b.text}
            rows.append(attribution_row(row.pair, summarise(row.pair, top_k), store=store, **ids))
            for text in (row.pair.a, row.pair.b):
                if (text.role, text.text) not in written:
                    texts.append(text_row(text, text.text))
                    written.add((text.role, text.text))
        columns = None if kept is None else pa.Table.from_pylist([dict(row.kept) for row in shard], schema=kept)
        commit_shard(target, index, attribution_table(rows, columns, store), text_table(texts), reject_table([]))
    if finished:
        target.commit("_SUCCESS", b"")
    return Run(target)


def damage(place: Path, folder: str = "attributions") -> None:
    """Overwrite the data of a parquet part, whose footer stays as it is."""
    part = next((place / folder).glob("*.parquet"))
    data = part.read_bytes()
    part.write_bytes(data[:4] + b"\xff" * (len(data) // 3) + data[4 + len(data) // 3 :])
