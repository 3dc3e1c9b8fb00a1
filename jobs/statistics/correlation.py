"""Pearson's and Spearman's correlations, bootstrap intervals, and how far an estimate's can be from the true one."""

from __future__ import annotations

import numpy as np

from jobs.statistics.sums import TAILS, Array

# Pairs drawn in one resample; intervals of larger sets are those of so many, shrunk to the set's size.
MOST_DRAWN = 5000


def ranks(values: Array) -> Array:
    """Ranks from 1, equal values sharing the mean of theirs, [n]."""
    return _average_ranks(_codes(values))


def pearson(x: Array, y: Array) -> float:
    """The correlation of two arrays; NaN where one of them does not vary."""
    x, y = x - x.mean(), y - y.mean()
    below = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / below) if below > 0 else float("nan")


def correlations(xs: Array, y: Array, resamples: int, seed: int) -> tuple[Array, Array]:
    """Pearson's and Spearman's correlation of each column of ``xs`` [n, k] with ``y`` [n], each [k, 3]: value and
    the ends of its interval. The order of rows must be one of chance."""
    n, k = xs.shape
    codes = [_codes(xs[:, at]) for at in range(k)]
    code_y = _codes(y)
    values = np.array(
        [[pearson(xs[:, at], y), pearson(_average_ranks(codes[at]), _average_ranks(code_y))] for at in range(k)]
    ).reshape(k, 2)
    drawn = np.full((resamples, k, 2), np.nan)
    m = min(n, MOST_DRAWN)
    if m < n:
        codes, code_y = [_codes(xs[:m, at]) for at in range(k)], _codes(y[:m])
    random = np.random.default_rng([seed, 2])
    for draw in range(resamples if n > 2 else 0):
        which = random.integers(0, m, m)
        taken, rank_y = y[which], _average_ranks(code_y[which])
        for at in range(k):
            drawn[draw, at, 0] = pearson(xs[which, at], taken)
            drawn[draw, at, 1] = pearson(_average_ranks(codes[at][which]), rank_y)
    found = []
    for kind in range(2):
        ends = np.full((2, k), np.nan)
        for at in range(k):
            some = drawn[:, at, kind][np.isfinite(drawn[:, at, kind])]
            if len(some):
                ends[:, at] = values[at, kind] + (np.percentile(some, TAILS) - values[at, kind]) * np.sqrt(m / n)
        found.append(np.column_stack([values[:, kind], *np.clip(ends, -1, 1)]))
    return found[0], found[1]


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


def _codes(values: Array) -> Array:
    """Each value's number among the different ones, from the smallest."""
    return np.unique(values, return_inverse=True)[1]


def _average_ranks(codes: Array) -> Array:
    count = np.bincount(codes)
    return (np.cumsum(count) - (count - 1) / 2)[codes]
