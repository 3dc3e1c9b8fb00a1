"""Sums over pairs that come out the same bit for bit in whatever order the pairs are read, and intervals for them.

*Order.* Every value is first rounded to a multiple of one quantum, chosen so that all sums that can occur are below
2^52 quanta: then no addition rounds, and addition is associative (pre-rounding; Demmel and Nguyen, "Fast Reproducible
Floating-Point Summation", 2013). The quantum is far below the float32 values' own precision.

*Intervals.* Pairs are put into at most ``BUCKETS`` buckets by a hash of their ids, one pair a bucket where there are
few enough; the bootstrap draws buckets. Buckets of pairs put together by chance have the variance that their
pairs have. In a log it is queries that are put into buckets, with all their pairs: these are not independent.

*Shares of a total.* A total is a sum of values of both signs, so it can be near zero or negative, and a share of it
would mean nothing. A share is therefore always Σ over pairs / Σ over pairs, never a mean of pairs' own shares, and is
left out where the total is less than ``LEAST_TOTAL`` of the sum of absolute values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BUCKETS = 2000
TAILS = (2.5, 97.5)
# The least total, in parts of the sum of absolute values, that a share is taken of.
LEAST_TOTAL = 0.1


def quantum_for(mass: float) -> float:
    """The quantum for sums whose terms' absolute values add up to at most ``mass``."""
    # Bounds of estimates add up to more than the cells do: four binary digits are kept for them.
    return 2.0 ** (math.ceil(math.log2(max(mass, 1e-30))) + 4 - 52)


def quantised(values: Array, quantum: float) -> Array:
    """``values`` as float64, rounded to multiples of ``quantum``."""
    # Adding a number whose last binary digit is worth one quantum rounds the sum to that digit.
    shift = 1.5 * 2.0**52 * quantum
    return (np.asarray(values, np.float64) + shift) - shift


def first_of_each(ordered: Array) -> Array:
    """Where each different value of an array in order begins."""
    return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])


class BucketSums:
    """Sums by bucket and column, ``values`` [buckets, columns] float64."""

    def __init__(self, buckets: int, columns: int, quantum: float) -> None:
        self.values: Array = np.zeros((buckets, columns))
        self._quantum = quantum

    def add(self, bucket: Array, column: Array | int, values: Array) -> None:
        """Add each value at its bucket and column."""
        buckets, columns = self.values.shape
        place = bucket.astype(np.int64) * columns + column
        weights = quantised(values, self._quantum)
        self.values += np.bincount(place, weights, minlength=buckets * columns).reshape(buckets, columns)

    def add_rows(self, bucket: Array, rows: Array) -> None:
        """Add ``rows`` [n, columns], each to its bucket."""
        if not len(bucket):
            return
        order = np.argsort(bucket)
        bucket, rows = bucket[order], quantised(rows[order], self._quantum)
        first = first_of_each(bucket)
        self.values[bucket[first]] += np.add.reduceat(rows, first, axis=0)

    @property
    def total(self) -> Array:
        """Sums over all buckets, [columns]."""
        return self.values.sum(0)


@dataclass(frozen=True)
class Resampling:
    """``weights`` [resamples, buckets]: how often each bucket was drawn."""

    weights: Array

    @staticmethod
    def drawn(buckets: int, resamples: int, seed: int) -> Resampling:
        """Buckets drawn with replacement, the same ones for the same seed."""
        random = np.random.default_rng([seed, 1])
        if buckets == 0 or resamples == 0:
            return Resampling(np.zeros((0, buckets)))
        return Resampling(random.multinomial(buckets, np.full(buckets, 1.0 / buckets), resamples).astype(np.float64))

    def ratio(self, above: Array, below: Array) -> tuple[Array, Array, Array]:
        """Σ above / Σ below and its 95 % interval; arrays [buckets] or [buckets, columns], NaN where Σ below is 0."""
        above, below = np.atleast_2d(above.T).T, np.atleast_2d(below.T).T
        value = divided(above.sum(0), below.sum(0))
        low, high = self.interval(divided(self.weights @ above, self.weights @ below), below != 0)
        return value, low, high

    def share(self, above: Array, total: Array, mass: Array) -> tuple[Array, Array, Array]:
        """Σ above / Σ total and its 95 % interval, NaN where Σ total is too little of the sum of absolute values
        Σ ``mass`` (see ``LEAST_TOTAL``); arrays [buckets] or [buckets, columns]."""
        above, total, mass = (np.atleast_2d(one.T).T for one in (above, total, mass))
        value, drawn = self._shares(above, total, mass)
        return self._where_given(value, drawn, total != 0)

    def share_lift(
        self, above: Array, total: Array, mass: Array, count: Array, counts: Array
    ) -> tuple[Array, Array, Array]:
        """The share of a total over the share of a count, (Σ above / Σ total) / (Σ count / Σ counts), and its interval;
        NaN where there is no share."""
        above, total, mass, counts = (np.atleast_2d(one.T).T for one in (above, total, mass, counts))
        value, drawn = self._shares(above, total, mass)
        value = divided(value, divided(count.sum(0), counts.sum(0)))
        drawn = divided(drawn, divided(self.weights @ count, self.weights @ counts))
        return self._where_given(value, drawn, (total != 0) & (counts != 0))

    def _shares(self, above: Array, total: Array, mass: Array) -> tuple[Array, Array]:
        """Σ above / Σ total of all buckets [columns] and of every draw [resamples, columns]."""
        value = divided(above.sum(0), large_enough(total.sum(0), mass.sum(0)))
        drawn = divided(self.weights @ above, large_enough(self.weights @ total, self.weights @ mass))
        return value, drawn

    def _where_given(self, value: Array, drawn: Array, there: Array) -> tuple[Array, Array, Array]:
        """``value`` and its interval, which is NaN where more draws than its tails hold have no value."""
        low, high = self.interval(drawn, there)
        given = np.isfinite(value)
        if len(drawn):
            given &= 100 * np.isnan(drawn).mean(0) <= TAILS[0]
        return value, np.where(given, low, np.nan), np.where(given, high, np.nan)

    def interval(self, drawn: Array, there: Array) -> tuple[Array, Array]:
        """The 95 % interval of drawn values [resamples, columns]; NaN where nothing was drawn, and where fewer than
        two buckets are ``there`` [buckets, columns]: of one every draw is the same."""
        if not len(drawn):
            nothing = np.full(drawn.shape[1], np.nan)
            return nothing, nothing
        with np.errstate(all="ignore"):
            import warnings

            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a column of NaN alone
                low, high = np.nanpercentile(drawn, TAILS, axis=0)
        several = there.sum(0) > 1
        return np.where(several, low, np.nan), np.where(several, high, np.nan)


def divided(above: Array, below: Array) -> Array:
    """above / below, NaN where ``below`` is 0."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below == 0, np.nan, above / np.where(below == 0, 1.0, below))


def large_enough(total: Array, mass: Array) -> Array:
    """``total`` where a share can be taken of it, else 0; ``mass`` are sums of absolute values."""
    total = np.asarray(total, np.float64)
    return np.where(total >= LEAST_TOTAL * np.asarray(mass, np.float64), total, 0.0)
