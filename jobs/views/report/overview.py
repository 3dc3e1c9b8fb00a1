"""What a run is and what its scores are made of, read in two passes over narrow columns."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.run.reader import Run
from jobs.run.totals import Totals, read_totals
from jobs.views.report.database import connected, one_row

BINS = 2000


@dataclass(frozen=True)
class Scores:
    """How the scores of all pairs are distributed: ``counts`` of ``BINS`` equal steps from ``low`` to ``high``."""

    low: float
    high: float
    counts: tuple[int, ...]

    def quantile(self, share: float) -> float:
        """The score below which that share of the pairs lies, to a step."""
        wanted, seen = share * sum(self.counts), 0
        for at, count in enumerate(self.counts):
            seen += count
            if seen >= wanted and count:
                return self.low + (at + 0.5) * (self.high - self.low) / len(self.counts)
        return self.high

    def coarse(self, bins: int) -> list[tuple[float, float, int]]:
        """(from, to, count) of ``bins`` equal steps; ``bins`` must divide ``BINS``."""
        per, width = len(self.counts) // bins, (self.high - self.low) / bins
        return [
            (self.low + at * width, self.low + (at + 1) * width, sum(self.counts[at * per : (at + 1) * per]))
            for at in range(bins)
        ]


@dataclass(frozen=True)
class Overview:
    """Means over all pairs of the terms that make a score, in the score's unit, and the run's totals.

    ``total`` is the mean sum of a pair's attributions, ``special`` the part of it with special and prompt tokens, which
    are called ``kept``; ``sums_to`` says what that sum is.
    """

    totals: Totals
    scores: Scores
    sums_to: str
    kept: str
    score: float
    total: float
    special: float
    reference_a: float
    reference_b: float
    reference_ab: float


def read_overview(run: Run, format: str) -> Overview:
    """The overview of what the run holds now, at least one pair; RunError where a part is damaged."""
    terms = ("score", "total", "special", "reference_a", "reference_b", "reference_ab")
    with connected(run, "attributions", terms) as con:
        means = ", ".join(f"avg({name}::DOUBLE) AS {name}" for name in terms)
        found = one_row(con, f"SELECT min(score) AS low, max(score) AS high, {means} FROM attributions")
    low, high = float(found.pop("low")), float(found.pop("high"))
    counts = [0] * BINS
    with connected(run, "attributions", ["score"]) as con:
        step = (high - low) / BINS or 1.0
        place = f"least(greatest(floor((score::DOUBLE - {low!r}) / {step!r}), 0), {BINS - 1})::INTEGER"
        for at, count in con.execute(f"SELECT {place} AS place, count(*) FROM attributions GROUP BY place").fetchall():
            counts[at] = int(count)
    totals = read_totals(run.store, format, run.sums_to)
    return Overview(totals, Scores(low, high, tuple(counts)), run.sums_to, _kept(run), **found)


def _kept(run: Run) -> str:
    """What stands in the texts beside words: "special tokens", "special and prompt tokens"."""
    with connected(run, "texts", ["prompt"]) as con:
        prompts = one_row(con, "SELECT coalesce(bool_or(prompt <> ''), false) AS there FROM texts")["there"]
    return "special and prompt tokens" if prompts else "special tokens"
