"""Computes medians of any number of non-negative values in constant memory, from a histogram."""

from __future__ import annotations

from typing import Any

import numpy as np

# A bin is a hundredth of a decade wide, so the relative error of a median is at most 2.4 %.
LOWEST, HIGHEST, BINS_A_DECADE = -12, 4, 100


class Bins:
    """A histogram with logarithmic bins; values up to 1e-12 count as 0."""

    def __init__(self) -> None:
        self._bins = np.zeros((HIGHEST - LOWEST) * BINS_A_DECADE + 1, np.int64)
        self.largest = 0.0

    @property
    def count(self) -> int:
        """The number of values added."""
        return int(self._bins.sum())

    def add(self, values: np.ndarray[Any, Any]) -> None:
        """Add non-negative values [n]."""
        self.largest = max(self.largest, float(values.max(initial=0.0)))
        place = (np.log10(np.maximum(values, 10.0**LOWEST)) - LOWEST) * BINS_A_DECADE
        self._bins += np.bincount(np.clip(place, 0, len(self._bins) - 1).astype(np.int64), minlength=len(self._bins))

    def median(self) -> float:
        """Return the median, to within 2.4 %; 0 if no value was added."""
        if self.count == 0:
            return 0.0
        middle = int(np.searchsorted(np.cumsum(self._bins), (self.count + 1) // 2))
        return 0.0 if middle == 0 else float(10.0 ** (LOWEST + (middle + 0.5) / BINS_A_DECADE))
