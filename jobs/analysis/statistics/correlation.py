"""Correlations with bootstrap intervals, and how far an estimate's can be from the true one."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from jobs.analysis.quantiles import TAILS, quantiles
from jobs.analysis.ranks import Array, correlation_matrix, dense_ranks, mean_ranks, pearson
from jobs.analysis.resampling import drawn_rows

# Pairs drawn in one resample; intervals of larger sets are those of so many, shrunk to the set's size.
MOST_DRAWN = 2000
# Clusters drawn in one resample even where they hold more pairs than that: few say little of how much they differ.
FEWEST_CLUSTERS = 50


def correlations(xs: Array, ys: Array, resamples: int, seed: int, cluster: Array | None = None) -> tuple[Array, Array]:
    """Pearson's and Spearman's correlation of each column of ``xs`` [n, k] with each of ``ys`` [n, m], each [m, k, 3]:
    value and the ends of its interval. Rows of one ``cluster`` [n] are drawn together; by default each row is drawn by
    itself. The order of clusters must be random."""
    n, m = ys.shape
    every = np.column_stack([xs, ys])
    values = _both(every, dense_ranks(every), m)
    cluster = np.arange(n) if cluster is None else cluster
    size = np.unique(cluster, return_counts=True)[1]
    clusters = len(size)
    size = size[: max(int(np.searchsorted(np.cumsum(size), MOST_DRAWN)) + 1, FEWEST_CLUSTERS)]
    every = every[np.argsort(cluster, kind="stable")[: size.sum()]]
    dense = dense_ranks(every)
    # Percentiles are of so many clusters: their distance from the value of these is what shrinks.
    centre = _both(every, dense, m)
    draws = drawn_rows(size, resamples if n > 2 and clusters > 1 else 0, [seed, 2])
    drawn = np.array([_both(every[rows], dense[rows], m) for rows in draws]).reshape(-1, *values.shape)
    ends = values + (quantiles(drawn, TAILS) - centre) * np.sqrt(len(size) / clusters)
    pearsons, spearmans = np.stack([values, *np.clip(ends, -1, 1)], axis=-1)
    return pearsons, spearmans


def _both(columns: Array, dense: Array, m: int) -> Array:
    """Pearson's and Spearman's correlation of each of the last ``m`` columns with each of the others, [2, m, k]."""
    kinds = (columns, mean_ranks(dense))
    return np.array([correlation_matrix(one[:, :-m], one[:, -m:]) for one in kinds])


def pearson_within(x: Array, at_least: Array, at_most: Array, y: Array) -> tuple[float, float]:
    """Between which ends Pearson's correlation with ``y`` lies when each true x lies within its own bounds.

    A vector that is off by at most r turns by at most asin(r / length): the correlation is the cosine of an angle.
    """
    off = np.maximum(at_most - x, x - at_least)
    length = float(np.linalg.norm(x - x.mean()))
    distance = float(np.linalg.norm(off))
    value = pearson(x, y)
    if not np.isfinite(value) or distance >= length:
        return -1.0, 1.0
    angle, turn = np.arccos(np.clip(value, -1, 1)), np.arcsin(distance / length)
    return float(np.cos(min(angle + turn, np.pi))), float(np.cos(max(angle - turn, 0.0)))


def ranks_within(x: Array, at_least: Array, at_most: Array) -> tuple[Array, Array, Array]:
    """Ranks of ``x`` and the ends within which the true ones lie: a rank is bounded by how many others are certainly
    below or above. Given to ``pearson_within`` with the ranks of y they bound Spearman's correlation."""
    lowest, highest = np.empty((2, len(x)), np.int64)
    by_least, by_most = np.argsort(at_least), np.argsort(at_most)
    least, most = at_least[by_least], at_most[by_most]
    lowest[by_least] = np.searchsorted(most, least, "left") + 1
    highest[by_most] = np.searchsorted(least, most, "right")
    rank = rankdata(x)
    return rank, np.minimum(lowest, rank), np.maximum(highest, rank)
