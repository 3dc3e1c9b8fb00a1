"""How well two attributions of one pair agree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.analysis import ranks
from jobs.analysis.comparison.alignment import Aligned, summed, summed_cells

Values = NDArray[np.float64]
STRONGEST = 10
# What is computed of a pair; None where it is not defined (one word, or no matrix stored).
MEASURES = ("distance", "cosine_a", "cosine_b", "spearman_a", "spearman_b", "overlap", "cosine_cells", "spearman_cells")


@dataclass(frozen=True)
class Stored:
    """What one run stored of a pair: sums of its groups, strongest cells as [k, 2] and values [k], and the matrix."""

    row_sums: Any
    col_sums: Any
    cells: NDArray[np.int64]
    matrix: Any | None


def agreement(first: Stored, second: Stored, a: Aligned, b: Aligned) -> dict[str, float | None]:
    """The measures of one pair.

    ``distance`` is half the sum of the differences of the words' :func:`shares`, the mean of both texts: 0 where both
    runs give every word the same share, 1 where no word has a share in common. ``cosine`` and ``spearman`` are those
    of the words' sums, and of cells where both runs kept whole matrices. ``overlap`` is the share of the ten strongest
    cells of one run (fewer where it kept fewer) that are among the other's, as pairs of words.
    """
    sums_a = summed(first.row_sums, a.first, a.units), summed(second.row_sums, a.second, a.units)
    sums_b = summed(first.col_sums, b.first, b.units), summed(second.col_sums, b.second, b.units)
    distances = [d for d in (distance(*sums_a), distance(*sums_b)) if d is not None]
    measures: dict[str, float | None] = {
        "distance": float(np.mean(distances)) if distances else None,
        "cosine_a": cosine(*sums_a),
        "cosine_b": cosine(*sums_b),
        "spearman_a": spearman(*sums_a),
        "spearman_b": spearman(*sums_b),
        "overlap": overlap(units_of(first.cells, a.first, b.first), units_of(second.cells, a.second, b.second)),
        "cosine_cells": None,
        "spearman_cells": None,
    }
    if first.matrix is not None and second.matrix is not None:
        shape = (a.units, b.units)
        one = summed_cells(first.matrix, a.first, b.first, shape).ravel()
        other = summed_cells(second.matrix, a.second, b.second, shape).ravel()
        measures |= {"cosine_cells": cosine(one, other), "spearman_cells": spearman(one, other)}
    return measures


def shares(sums: Values) -> Values | None:
    """Words' sums divided by the sum of their absolute values, signs kept; None where every word's sum is 0.

    A pair's own total, which is its score, may be near zero or negative; shares of it would have no bound. These lie
    between −1 and 1.
    """
    mass = float(np.abs(sums).sum())
    return sums / mass if mass > 0 else None


def distance(one: Values, other: Values) -> float | None:
    """Half the sum of the differences of shares, 0 to 1; None where one side has none."""
    first, second = shares(one), shares(other)
    return None if first is None or second is None else float(np.abs(first - second).sum() / 2)


def cosine(one: Values, other: Values) -> float | None:
    """The cosine of two vectors; None where one is zero."""
    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / norm if norm > 0 else None


def spearman(one: Values, other: Values) -> float | None:
    """The correlation of ranks; None below three values, or where one side does not vary."""
    value = ranks.spearman(one, other) if len(one) >= 3 else math.nan
    return None if math.isnan(value) else value


def overlap(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> float | None:
    """The share of the strongest pairs of words that both lists have; None where a list is empty."""
    count = min(len(one), len(other), STRONGEST)
    return len(set(one[:count]) & set(other[:count])) / count if count else None


def units_of(cells: NDArray[np.int64], rows: NDArray[np.int64], cols: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Stored cells, strongest first, as pairs of units, each once; cells of words that one run did not read go."""
    pairs = ((int(rows[i]), int(cols[j])) for i, j in cells.tolist())
    return [cell for cell in dict.fromkeys(pairs) if min(cell) >= 0]
