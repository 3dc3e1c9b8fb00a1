"""Sums over pairs that are the same bit for bit in whatever order the pairs are read.

Every value is first rounded to a multiple of one quantum, chosen so that all sums that can occur are below 2^52 quanta:
then no addition rounds, and addition is associative (pre-rounding; Demmel and Nguyen, "Fast Reproducible Floating-Point
Summation", 2013). The quantum is far below the float32 values' own precision.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


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
    """Where each distinct value of a sorted array begins."""
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
