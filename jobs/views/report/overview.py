"""What a run is and what its scores are made of, read from narrow columns."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.analysis.quantiles import quantiles
from jobs.run.reader import Run
from jobs.run.totals import Totals, read_totals
from jobs.views.report.database import connected, one_row

BINS = 25


@dataclass(frozen=True)
class Scores:
    """How the scores of all pairs are distributed: their ``quartiles``, and ``counts`` of equal steps between
    ``edges``."""

    quartiles: tuple[float, float, float]
    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @staticmethod
    def of(values: NDArray[Any]) -> Scores:
        """The distribution of some scores [n]."""
        values = np.asarray(values, np.float64)
        counts, edges = np.histogram(values, BINS)
        low, middle, high = (float(one) for one in quantiles(values, (0.25, 0.5, 0.75)))
        return Scores((low, middle, high), tuple(edges.tolist()), tuple(counts.tolist()))

    @property
    def bins(self) -> list[tuple[float, float, int]]:
        """(from, to, count) of each step."""
        return [(low, high, count) for (low, high), count in zip(pairwise(self.edges), self.counts, strict=True)]


@dataclass(frozen=True)
class Overview:
    """Means over all pairs of the terms that make a score, in the score's unit, and the run's totals.

    ``total`` is the mean sum of a pair's attributions, ``special`` the part of it with special and prompt tokens, which
    are called ``kept``, None in a run without word pairs; ``sums_to`` says what that sum is.
    """

    totals: Totals
    scores: Scores
    sums_to: str
    kept: str
    score: float
    total: float
    special: float | None
    reference_a: float
    reference_b: float
    reference_ab: float

    def parts(self, unit: str) -> list[tuple[str, float]]:
        """What ``total`` is made of: the names of its parts and their values."""
        if self.special is None:
            return [(f"{unit}s and {self.kept}", self.total)]
        return [(f"{unit} pairs", self.total - self.special), *([(self.kept, self.special)] if self.special else [])]


def read_overview(run: Run, format: str) -> Overview:
    """The overview of what the run holds now, at least one pair; RunError where a part is damaged."""
    terms = ("score", "total", "special", "reference_a", "reference_b", "reference_ab")
    with connected(run, {"attributions": terms}) as con:
        means = one_row(
            con, f"SELECT {', '.join(f'avg({name}::DOUBLE) AS {name}' for name in terms)} FROM attributions"
        )
    with connected(run, {"attributions": ["score"]}) as con:
        # Four bytes a pair, as the statistics hold many more of.
        scores = Scores.of(con.execute("SELECT score FROM attributions").fetchnumpy()["score"])
    totals = read_totals(run.store, format, run.sums_to)
    return Overview(totals, scores, run.sums_to, _kept(run), **means)


def _kept(run: Run) -> str:
    """The texts' groups that are not words: "special tokens", "special and prompt tokens"."""
    with connected(run, {"texts": ["prompt"]}) as con:
        prompts = one_row(con, "SELECT coalesce(bool_or(prompt <> ''), false) AS there FROM texts")["there"]
    return "special and prompt tokens" if prompts else "special tokens"
