"""A run's tables row by row, the slow way: the oracle of the columns that workers write, and runs made for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attribution_core.pairs.columns import SHARES
from attribution_core.results import Cell, ExplainedText, Floats, PairAttribution, largest_cells, text_cells
from attribution_core.text.grouping import Groups
from attribution_core.text.words import word_key
from jobs.run.tables import LIFTS, attribution_schema, text_schema


@dataclass(frozen=True)
class PairSums:
    """What is stored of a pair beside its strongest cells; all in the similarity's own unit.

    ``positive`` and ``negative`` split the total by sign, ``special`` is the sum over cells in the row or column of a
    special or prompt token, ``exact`` over cells whose two groups are the same word (by :func:`word_key`).
    ``largest[k]`` is the sum of the share ``SHARES[k]`` of cells that are largest by absolute value (at least one).
    """

    positive: float
    negative: float
    special: float
    exact: float
    row_sums: Floats
    col_sums: Floats
    largest: tuple[float, ...]
    top: list[Cell]


def summarise(pair: PairAttribution, top_k: int) -> PairSums:
    """The sums and the ``top_k`` strongest cells of a complete matrix."""
    assert pair.complete, "sums are taken of whole matrices"
    matrix = pair.matrix.astype(np.float64)
    of_text = text_cells(pair.a.groups, pair.b.groups)
    words_a, words_b = _words(pair.a.groups), _words(pair.b.groups)
    same = (words_a[:, None] == words_b[None, :]) & of_text
    flat = matrix.ravel()
    descending = flat[np.argsort(-np.abs(flat), kind="stable")]
    cumulated = np.cumsum(descending)
    counts = [max(1, int(np.ceil(share * flat.size - 1e-9))) for share in SHARES]
    return PairSums(
        positive=float(matrix[matrix > 0].sum()),
        negative=float(matrix[matrix < 0].sum()),
        special=float(matrix[~of_text].sum()),
        exact=float(matrix[same].sum()),
        row_sums=pair.row_sums,
        col_sums=pair.col_sums,
        largest=tuple(float(cumulated[count - 1]) for count in counts),
        top=largest_cells(pair.matrix, pair.a.groups, pair.b.groups, top_k),
    )


def _words(groups: Groups) -> NDArray[np.str_]:
    return np.array([word_key(label) for label in groups.labels], dtype=np.str_)


def attribution_row(
    pair: PairAttribution, sums: PairSums, *, pair_id: str, text_a_id: str, text_b_id: str, store: str = "top"
) -> dict[str, Any]:
    """Return a row of ``attributions`` without the columns passed through."""
    rows, cols = pair.matrix.shape
    row: dict[str, Any] = {
        "pair_id": pair_id,
        "text_a_id": text_a_id,
        "text_b_id": text_b_id,
        "score": pair.score,
        "reference_a": pair.reference_a,
        "reference_b": pair.reference_b,
        "reference_ab": pair.reference_ab,
        "total": pair.total,
        "error": pair.error,
        "positive": sums.positive,
        "negative": sums.negative,
        "special": sums.special,
        "exact": sums.exact,
        "rows": rows,
        "cols": cols,
        "row_sums": np.asarray(sums.row_sums, np.float32),
        "col_sums": np.asarray(sums.col_sums, np.float32),
        **{name: getattr(pair, name) for name in LIFTS},
        "largest": [float(value) for value in sums.largest],
        "top": [cell._asdict() for cell in sums.top],
    }
    if store == "full":
        # float16 has values from 6e-8 to 65504. Scaled to at most 1, the large values keep 11 bits of precision.
        scale = float(np.abs(pair.matrix).max(initial=0.0)) or 1.0
        row["matrix"] = (pair.matrix / scale).astype(np.float16).ravel()
        row["matrix_scale"] = scale
    return row


def attribution_table(rows: Sequence[dict[str, Any]], kept: pa.Table | None = None, store: str = "top") -> pa.Table:
    """Return rows of :func:`attribution_row` as a table.

    ``kept`` has the columns passed through, of the same pairs in the same order.
    """
    own = attribution_schema(store)
    table = pa.table({f.name: pa.array([row[f.name] for row in rows], f.type) for f in own}, schema=own)
    if kept is not None:
        for field in kept.schema:
            table = table.append_column(field, kept[field.name])
    return table


def text_row(text: ExplainedText, text_id: str) -> dict[str, Any]:
    """Return a row of ``texts``."""
    row = {
        name: getattr(text, name)
        for name in text_schema().names
        if name not in ("text_id", "groups", "starts", "ends", "kinds")
    }
    groups = text.groups
    return row | {
        "text_id": text_id,
        "groups": groups.labels,
        "starts": groups.starts,
        "ends": groups.ends,
        "kinds": groups.kinds,
    }


def text_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Return rows of :func:`text_row` as a table."""
    return pa.Table.from_pylist(list(rows), schema=text_schema())
