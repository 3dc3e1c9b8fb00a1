"""The strongest cells of a matrix, and exact sums of all that is not kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attribution_core.results import Cell, Floats, PairAttribution, largest_cells, text_cells
from attribution_core.text.grouping import Groups
from attribution_core.text.words import word_key

SHARES = (0.01, 0.02, 0.05, 0.10, 0.20, 0.50)


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
