"""Reports what the attributions of a pair sum to: the score, a difference of four scores, or a centred score.

The difference is Σ A = f(a, b) − f(a, r_b) − f(r_a, b) + f(r_a, r_b), for reference texts r_a and r_b. In a shifted
model the three terms with a reference are zero, so it equals the score (Möller et al. 2023, section 2.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.run.histogram import Bins

COLUMNS = ("score", "reference_a", "reference_b", "reference_ab", "total")
# A reference term up to this share of the median score (at least of 1) counts as zero.
ZERO = 1e-6


@dataclass(frozen=True)
class Exactness:
    """Absolute values over ``pairs`` rows, in the unit of the score (cosine or dot product).

    ``reference_a``, ``reference_b`` and ``reference_ab`` are the medians of f(a, r_b), f(r_a, b) and f(r_a, r_b);
    ``reference`` is the largest value of the three. ``gap`` and ``largest_gap`` are the median and the maximum of
    |score − Σ A|. ``size`` is the median score.
    """

    pairs: int = 0
    size: float = 0.0
    reference_a: float = 0.0
    reference_b: float = 0.0
    reference_ab: float = 0.0
    reference: float = 0.0
    gap: float = 0.0
    largest_gap: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether all reference terms are zero, so that the attributions sum to the score."""
        return self.pairs > 0 and self.reference <= ZERO * max(1.0, self.size)

    def sentence(self, sums_to: str) -> str:
        """Return a sentence, without formulas, about what the attributions of this run sum to."""
        if sums_to == "centred":
            return (
                f"a pair's attributions sum to its score minus what average texts share ({self.gap:.2g} at the median)"
            )
        if self.exact:
            size = f"{self.reference:.0e}"
            return f"a pair's attributions sum to its score (an exact model: its references score {size} at most)"
        if sums_to == "score":
            return "a pair's attributions sum to its score"
        return (
            f"a pair's attributions sum to score - a with the reference of b ({self.reference_a:.2g}) - the reference "
            f"of a with b ({self.reference_b:.2g}) + both references ({self.reference_ab:.2g}), at the median "
            f"{self.gap:.2g} away from the score itself"
        )

    def line(self, sums_to: str) -> str:
        """Return :meth:`sentence` as a line of the summary."""
        return f"sum      {self.sentence(sums_to)}"


@dataclass
class ExactnessCounter:
    """Computes an :class:`Exactness` from the rows of a run, batch by batch, in constant memory."""

    _bins: dict[str, Bins] = field(default_factory=lambda: {name: Bins() for name in ("gap", *COLUMNS[:4])})

    def add(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Add n rows; ``columns`` has an array [n] for each name in ``COLUMNS``."""
        values = {name: np.asarray(columns[name], np.float64) for name in COLUMNS}
        finite = np.isfinite(np.stack(list(values.values()))).all(0)
        for name in COLUMNS[:4]:
            self._bins[name].add(np.abs(values[name][finite]))
        self._bins["gap"].add(np.abs(values["score"] - values["total"])[finite])

    def result(self) -> Exactness:
        """Return the values of all rows added so far."""
        terms = COLUMNS[1:4]
        return Exactness(
            pairs=self._bins["gap"].count,
            size=self._bins["score"].median(),
            **{name: self._bins[name].median() for name in terms},
            reference=max(self._bins[name].largest for name in terms),
            gap=self._bins["gap"].median(),
            largest_gap=self._bins["gap"].largest,
        )


def exactness_of(columns: Mapping[str, NDArray[Any]]) -> Exactness:
    """Return the exactness of n rows; ``columns`` has an array [n] for each name in ``COLUMNS``."""
    counter = ExactnessCounter()
    counter.add(columns)
    return counter.result()
