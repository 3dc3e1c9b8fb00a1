"""The bootstrap: 95 % intervals by drawing pairs with replacement, those of one query or first text together.

*Clusters.* The documents of one query are not independent, so a draw takes all pairs of a cluster. Statistics put pairs
(of a log its queries) into at most ``BUCKETS`` clusters by a hash of their ids, one pair a cluster where there are few
enough: clusters that are merged at random have the same variance as their pairs.

*Shares of a total.* A total is a sum of values of both signs, so it can be near zero or negative, and a share of it
would mean nothing. A share is therefore always Σ over pairs / Σ over pairs, never a mean of pairs' own shares, and is
left out where the total is less than ``LEAST_TOTAL`` of the sum of absolute values.

The same seed gives the same draws and intervals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.analysis.quantiles import TAILS, quantiles

Array = NDArray[Any]

BUCKETS = 2000
# The least total, in parts of the sum of absolute values, that a share is taken of.
LEAST_TOTAL = 0.1
# Draws behind the interval of a mean.
DRAWS = 2000
# With fewer independent draws a bootstrap interval covers clearly less than it says.
FEW_DRAWS = 15


@dataclass(frozen=True)
class Resampling:
    """``weights`` [resamples, clusters]: how often each cluster was drawn."""

    weights: Array

    @staticmethod
    def drawn(clusters: int, resamples: int, seed: int | Sequence[int]) -> Resampling:
        """Draw ``clusters`` clusters with replacement, ``resamples`` times."""
        if clusters == 0 or resamples == 0:
            return Resampling(np.zeros((0, clusters)))
        even = np.full(clusters, 1.0 / clusters)
        return Resampling(np.random.default_rng(seed).multinomial(clusters, even, resamples).astype(np.float64))

    def ratio(self, above: Array, below: Array) -> tuple[Array, Array, Array]:
        """Σ above / Σ below and its interval; arrays [clusters] or [clusters, columns], NaN where Σ below is 0."""
        above, below = _columns(above), _columns(below)
        value = divided(above.sum(0), below.sum(0))
        return value, *_interval(divided(self.weights @ above, self.weights @ below), below != 0)

    def share(self, above: Array, total: Array, mass: Array) -> tuple[Array, Array, Array]:
        """Σ above / Σ total and its interval, NaN where Σ total is too little of the sum of absolute values Σ ``mass``
        (see ``LEAST_TOTAL``); arrays [clusters] or [clusters, columns]."""
        above, total, mass = _columns(above), _columns(total), _columns(mass)
        value, drawn = self._shares(above, total, mass)
        return self._where_defined(value, drawn, total != 0)

    def share_lift(
        self, above: Array, total: Array, mass: Array, count: Array, counts: Array
    ) -> tuple[Array, Array, Array]:
        """The share of a total over the share of a count, (Σ above / Σ total) / (Σ count / Σ counts), and its interval;
        NaN where there is no share."""
        above, total, mass, counts = _columns(above), _columns(total), _columns(mass), _columns(counts)
        value, drawn = self._shares(above, total, mass)
        value = divided(value, divided(count.sum(0), counts.sum(0)))
        drawn = divided(drawn, divided(self.weights @ count, self.weights @ counts))
        return self._where_defined(value, drawn, (total != 0) & (counts != 0))

    def _shares(self, above: Array, total: Array, mass: Array) -> tuple[Array, Array]:
        """Σ above / Σ total of all clusters [columns] and of every draw [resamples, columns]."""
        value = divided(above.sum(0), large_enough(total.sum(0), mass.sum(0)))
        drawn = divided(self.weights @ above, large_enough(self.weights @ total, self.weights @ mass))
        return value, drawn

    def _where_defined(self, value: Array, drawn: Array, there: Array) -> tuple[Array, Array, Array]:
        """``value`` and its interval, which is NaN where more draws than one of its tails holds have no value."""
        low, high = _interval(drawn, there)
        defined = np.isfinite(value)
        if len(drawn):
            defined &= np.isnan(drawn).mean(0) <= TAILS[0]
        return value, np.where(defined, low, np.nan), np.where(defined, high, np.nan)


@dataclass(frozen=True)
class Mean:
    """A mean with the bounds of its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


class Bootstrap:
    """Intervals of means over pairs, resampled by their first text: ``firsts`` names that of every pair."""

    def __init__(self, firsts: Sequence[str], seed: int) -> None:
        names, self._cluster = np.unique(np.asarray(firsts, dtype=object).astype(str), return_inverse=True)
        self.clusters = len(names)
        self._weights = Resampling.drawn(self.clusters, DRAWS, seed).weights
        self._below = self._weights @ np.bincount(self._cluster, minlength=self.clusters)

    def means(self, values: Array) -> tuple[Array, Array, Array]:
        """Mean, low and high of each column of ``values`` [pairs, columns]."""
        return values.mean(0), *quantiles(self._weights @ self._sums(values) / self._below[:, None], TAILS)

    def mean(self, values: Array) -> Mean:
        """Mean and interval of one value a pair, [pairs]."""
        return Mean(*(float(one[0]) for one in self.means(values[:, None])))

    def ratios(self, above: Array, below: Array) -> list[Mean]:
        """Σ above / Σ below and its interval, for each column of ``above`` [pairs, columns]; ``below`` [pairs]."""
        drawn = divided(self._weights @ self._sums(above), self._weights @ self._sums(below[:, None]))
        low, high = quantiles(drawn, TAILS)
        return [Mean(*map(float, one)) for one in zip(above.sum(0) / below.sum(), low, high, strict=True)]

    def _sums(self, values: Array) -> Array:
        """The sums [clusters, columns] of values [pairs, columns]."""
        sums = np.zeros((self.clusters, values.shape[1]))
        np.add.at(sums, self._cluster, values)
        return sums


def mean_intervals(values: Array, resamples: int, seed: int) -> tuple[Array, Array, Array]:
    """Mean, low and high of each column of ``values`` [rows, columns], such as metrics of queries, drawn by rows.

    More rows than ``BUCKETS`` are put together at random; fewer than two have no interval (NaN).
    """
    rows = len(values)
    bucket = np.random.default_rng([seed, 2]).permutation(rows) % BUCKETS
    drawn = Resampling.drawn(min(rows, BUCKETS), resamples, [seed, 3])
    sums = np.zeros((min(rows, BUCKETS), values.shape[1]))
    np.add.at(sums, bucket, values)
    return drawn.ratio(sums, np.bincount(bucket)[:, None].astype(np.float64))


def few_draws(draws: int) -> str:
    """A warning about intervals from few draws; "" where there are enough."""
    return f"Only {draws} different first texts: intervals from so few are too narrow." if draws < FEW_DRAWS else ""


def drawn_rows(sizes: Array, resamples: int, seed: int | Sequence[int]) -> Iterator[Array]:
    """The rows of each resample, where rows lie cluster by cluster and cluster c has ``sizes[c]`` of them."""
    begin = np.cumsum(sizes) - sizes
    random = np.random.default_rng(seed)
    for _ in range(resamples):
        drawn = random.integers(0, len(sizes), len(sizes))
        size = sizes[drawn]
        ends = np.cumsum(size)
        yield np.arange(ends[-1]) + np.repeat(begin[drawn] - ends + size, size)


def divided(above: Array, below: Array) -> Array:
    """above / below, NaN where ``below`` is 0."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below == 0, np.nan, above / np.where(below == 0, 1.0, below))


def large_enough(total: Array, mass: Array) -> Array:
    """``total`` where a share can be taken of it, else 0; ``mass`` are sums of absolute values."""
    total = np.asarray(total, np.float64)
    return np.where(total >= LEAST_TOTAL * np.asarray(mass, np.float64), total, 0.0)


def _columns(values: Array) -> Array:
    return np.atleast_2d(values.T).T


def _interval(drawn: Array, there: Array) -> tuple[Array, Array]:
    """The interval of drawn values [resamples, columns]; NaN where fewer than two clusters are ``there`` [clusters,
    columns]: of one every draw is the same."""
    low, high = quantiles(drawn, TAILS)
    several = there.sum(0) > 1
    return np.where(several, low, np.nan), np.where(several, high, np.nan)
