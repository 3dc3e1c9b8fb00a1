"""Pearson's and Spearman's correlations, bootstrap intervals, and how far an estimate's can be from the true one."""

from __future__ import annotations

import numpy as np

from jobs.statistics.sums import TAILS, Array

# Pairs drawn in one resample; intervals of larger sets are those of so many, shrunk to the set's size.
MOST_DRAWN = 2000
# Clusters drawn in one resample even where they hold more pairs than that: few say little of how much they differ.
FEWEST_CLUSTERS = 50


def ranks(values: Array) -> Array:
    """Ranks from 1, equal values sharing the mean of theirs, [n]."""
    return _column_ranks(_column_codes(values[:, None]))[:, 0]


def pearson(x: Array, y: Array) -> float:
    """The correlation of two arrays; NaN where one of them does not vary."""
    return float(_with_last(np.column_stack([x, y]))[0])


def correlations(xs: Array, y: Array, resamples: int, seed: int, cluster: Array | None = None) -> tuple[Array, Array]:
    """Pearson's and Spearman's correlation of each column of ``xs`` [n, k] with ``y`` [n], each [k, 3]: value and
    the ends of its interval. Rows of one ``cluster`` [n] are drawn together; by default each row is drawn by itself.
    The order of clusters must be one of chance."""
    n, k = xs.shape
    every = np.column_stack([xs, y])
    values = _both(every, _column_codes(every))
    order, size = _in_clusters(cluster, n)
    clusters = len(size)
    m = min(clusters, max(int(np.searchsorted(np.cumsum(size), MOST_DRAWN)) + 1, FEWEST_CLUSTERS))
    size = size[:m]
    begin = np.cumsum(size) - size
    every = every[order[: size.sum()]]
    codes = _column_codes(every)
    # Percentiles are of so many clusters: their distance from the value of these is what shrinks.
    centre = _both(every, codes)
    drawn = np.full((2, resamples, k), np.nan)
    random = np.random.default_rng([seed, 2])
    for draw in range(resamples if n > 2 and clusters > 1 else 0):
        which = random.integers(0, m, m)
        rows = _ranges(begin[which], size[which])
        drawn[:, draw] = _both(every[rows], codes[rows])
    found = []
    for value, middle, one in zip(values, centre, drawn, strict=True):
        ends = np.full((2, k), np.nan)
        for at in range(k):
            some = one[np.isfinite(one[:, at]), at]
            if len(some):
                ends[:, at] = value[at] + (np.percentile(some, TAILS) - middle[at]) * np.sqrt(m / clusters)
        found.append(np.column_stack([value, *np.clip(ends, -1, 1)]))
    return found[0], found[1]


def _both(columns: Array, codes: Array) -> Array:
    """Pearson's and Spearman's correlation of each column but the last with the last, [2, k]."""
    return np.array([_with_last(columns), _with_last(_column_ranks(codes))])


def _in_clusters(cluster: Array | None, n: int) -> tuple[Array, Array]:
    """Rows in the order of their clusters [n], and how many each cluster has [clusters]."""
    if cluster is None:
        return np.arange(n), np.ones(n, np.int64)
    return np.argsort(cluster, kind="stable"), np.unique(cluster, return_counts=True)[1]


def _ranges(begin: Array, size: Array) -> Array:
    """The numbers begin … begin + size - 1 of every range, one range after the other."""
    ends = np.cumsum(size)
    return np.arange(ends[-1]) + np.repeat(begin - ends + size, size)


def pearson_within(x: Array, at_least: Array, at_most: Array, y: Array) -> tuple[float, float]:
    """Between which ends Pearson's correlation with ``y`` lies when each true x lies within its own bounds.

    A vector that is off by at most r turns by at most asin(r / length): the correlation is the cosine of an angle.
    """
    return _within(x, np.maximum(at_most - x, x - at_least), y)


def spearman_within(x: Array, at_least: Array, at_most: Array, y: Array) -> tuple[float, float]:
    """The same for Spearman's correlation: a rank is bounded by how many others are certainly below or above."""
    lowest = np.searchsorted(np.sort(at_most), at_least, "left") + 1
    highest = np.searchsorted(np.sort(at_least), at_most, "right")
    rank = ranks(x)
    return _within(rank, np.maximum(np.maximum(highest - rank, rank - lowest), 0), ranks(y))


def _within(x: Array, off: Array, y: Array) -> tuple[float, float]:
    length = float(np.linalg.norm(x - x.mean()))
    distance = float(np.linalg.norm(off))
    value = pearson(x, y)
    if not np.isfinite(value) or distance >= length:
        return -1.0, 1.0
    angle, turn = np.arccos(np.clip(value, -1, 1)), np.arcsin(distance / length)
    return float(np.cos(min(angle + turn, np.pi))), float(np.cos(max(angle - turn, 0.0)))


def _with_last(columns: Array) -> Array:
    """Pearson's correlation of each column but the last with the last, [k]; NaN where one does not vary."""
    off = columns - columns.sum(0) / len(columns)
    squares = np.einsum("nk,nk->k", off, off)
    below = np.sqrt(squares[:-1] * squares[-1])
    return np.where(below > 0, (off[:, -1] @ off[:, :-1]) / np.where(below > 0, below, 1.0), np.nan)


def _column_codes(columns: Array) -> Array:
    """Each value's number among the different ones of its column, from the smallest, [n, k]."""
    return np.column_stack([np.unique(column, return_inverse=True)[1] for column in columns.T])


def _column_ranks(codes: Array) -> Array:
    """Ranks from 1 within each column, equal values sharing the mean of theirs, [n, k]."""
    k = codes.shape[1]
    most = int(codes.max(initial=0)) + 1
    place = codes + np.arange(k) * most
    count = np.bincount(place.ravel(), minlength=k * most).reshape(k, most)
    return (np.cumsum(count, axis=1) - (count - 1) / 2).ravel()[place]
