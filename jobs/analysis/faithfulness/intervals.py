"""Means with bootstrap intervals over the pairs of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jobs.analysis.faithfulness.orders import Values

DRAWS = 2000
LEVEL = 0.95
DRAWS_AT_ONCE = 1 << 22

# With fewer independent draws a bootstrap interval covers clearly less than it says.
FEW_DRAWS = 15


def few_draws(draws: int) -> str:
    """What to tell a reader of intervals from so few draws; nothing where they are enough."""
    return f"Only {draws} different first texts: intervals from so few are too narrow." if draws < FEW_DRAWS else ""


@dataclass(frozen=True)
class Mean:
    """A mean with the bounds of its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


class Bootstrap:
    """Resamples pairs by their first text: the documents of one query are one draw, because they are not independent.

    ``firsts`` names the first text of every pair. The same ``seed`` gives the same intervals.
    """

    def __init__(self, firsts: Sequence[str], seed: int) -> None:
        self._cluster = np.unique(np.asarray(firsts, dtype=object).astype(str), return_inverse=True)[1].ravel()
        self._clusters = int(self._cluster.max(initial=-1)) + 1
        self._seed = seed

    @property
    def clusters(self) -> int:
        """How many independent draws the sample has."""
        return self._clusters

    def means(self, values: Values) -> tuple[Values, Values, Values]:
        """Mean, low and high of each column of ``values`` [pairs, columns]."""
        sums = np.zeros((self._clusters, values.shape[1]))
        np.add.at(sums, self._cluster, values)
        counts = np.bincount(self._cluster, minlength=self._clusters).astype(np.float64)
        chance = np.random.default_rng(self._seed)
        found = []
        size = max(1, DRAWS_AT_ONCE // max(self._clusters, 1))
        for at in range(0, DRAWS, size):
            draws = chance.multinomial(
                self._clusters, np.full(self._clusters, 1 / self._clusters), min(size, DRAWS - at)
            ).astype(np.float64)
            found.append(draws @ sums / (draws @ counts)[:, None])
        low, high = np.quantile(np.concatenate(found), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        return values.mean(0), low, high

    def mean(self, values: Values) -> Mean:
        """Mean and interval of one value a pair, [pairs]."""
        mean, low, high = self.means(values[:, None])
        return Mean(float(mean[0]), float(low[0]), float(high[0]))
