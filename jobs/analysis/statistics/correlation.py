"""Pearson's and Spearman's correlations, bootstrap intervals, and how far an estimate's can be from the true one."""

from __future__ import annotations

import numpy as np

from jobs.analysis.statistics.sums import TAILS, Array

# Pairs drawn in one resample; intervals of larger sets are those of so many, shrunk to the set's size.
MOST_DRAWN = 2000
# Clusters drawn in one resample even where they hold more pairs than that: few say little of how much they differ.
FEWEST_CLUSTERS = 50


def ranks(values: Array) -> Array:
    """Ranks from 1, equal values sharing the mean of theirs, [n]."""
    return _column_ranks(_column_codes(values[:, None]))[:, 0]


def pearson(x: Array, y: Array) -> float:
    """The correlation of two arrays; NaN where one of them does not vary."""
    return float(_between(np.column_stack([x, y]), 1)[0, 0])


def correlations(xs: Array, ys: Array, resamples: int, seed: int, cluster: Array | None = None) -> tuple[Array, Array]:
    """Pearson's and Spearman's correlation of each column of ``xs`` [n, k] with each of ``ys`` [n, m], each [m, k, 3]:
    value and the ends of its interval. Rows of one ``cluster`` [n] are drawn together; by default each row is drawn by
    itself. The order of clusters must be one of chance."""
    (n, k), m = xs.shape, ys.shape[1]
    every = np.column_stack([xs, ys])
    values = _both(every, _column_codes(every), m)
    order, size = _in_clusters(cluster, n)
    clusters = len(size)
    drawn_clusters = min(clusters, max(int(np.searchsorted(np.cumsum(size), MOST_DRAWN)) + 1, FEWEST_CLUSTERS))
    size = size[:drawn_clusters]
    begin = np.cumsum(size) - size
    every = every[order[: size.sum()]]
    codes = _column_codes(every)
    # Percentiles are of so many clusters: their distance from the value of these is what shrinks.
    centre = _both(every, codes, m)
    drawn = np.full((resamples, 2, m, k), np.nan)
    random = np.random.default_rng([seed, 2])
    for draw in range(resamples if n > 2 and clusters > 1 else 0):
        which = random.integers(0, drawn_clusters, drawn_clusters)
        rows = _ranges(begin[which], size[which])
        drawn[draw] = _both(every[rows], codes[rows], m)
    ends = np.full((2, *values.shape), np.nan)
    for at in np.ndindex(values.shape):
        some = drawn[(slice(None), *at)]
        some = some[np.isfinite(some)]
        if len(some):
            shrunk = (np.percentile(some, TAILS) - centre[at]) * np.sqrt(drawn_clusters / clusters)
            ends[(slice(None), *at)] = values[at] + shrunk
    found = np.stack([values, *np.clip(ends, -1, 1)], axis=-1)
    return found[0], found[1]


def _both(columns: Array, codes: Array, m: int) -> Array:
    """Pearson's and Spearman's correlation of each of the last ``m`` columns with each of the others, [2, m, k]."""
    return np.array([_between(columns, m), _between(_column_ranks(codes), m)])


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
    rank = ranks(x)
    return rank, np.minimum(lowest, rank), np.maximum(highest, rank)


def _between(columns: Array, m: int) -> Array:
    """Pearson's correlation of each of the last ``m`` columns with each of the others, [m, k]; NaN where one does not
    vary."""
    off = columns - columns.sum(0) / len(columns)
    squares = np.einsum("nk,nk->k", off, off)
    below = np.sqrt(np.outer(squares[-m:], squares[:-m]))
    return np.where(below > 0, (off[:, -m:].T @ off[:, :-m]) / np.where(below > 0, below, 1.0), np.nan)


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
