"""The metrics of the rankings of one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

By = Literal["log", "model"]
# By the name that precedes the cutoff, which stands in for {k}.
MEANINGS = {
    "nDCG": "gain of the first {k} by rank; 1 is the best order possible",
    "R": "share of the relevant documents that are in the first {k} (recall)",
    "RR": "1 / rank of the first relevant one in the first {k} (its mean: MRR)",
    "AP": "precision at the relevant ones in the first {k} (its mean: MAP)",
    "Judged": "share of the first {k} that is judged",
}


def meaning_of(name: str) -> str:
    """Return what a metric such as nDCG@10 says, in plain words."""
    kind, _, cutoff = name.partition("@")
    return MEANINGS[kind].format(k=cutoff)


@dataclass(frozen=True)
class Measure:
    """A metric such as nDCG@10 of one ranking: its mean over ``queries`` and the ends of its 95 % interval.

    ``ranking`` is ``log`` for the log's own order and ``model`` for that by the model's scores. The ends are None where
    fewer than two queries have a value, and where nothing was resampled.
    """

    name: str
    ranking: By
    value: float
    low: float | None
    high: float | None
    queries: int


@dataclass(frozen=True)
class Ranking:
    """The metrics of a run's rankings, as trec_eval computes them.

    ``per_query`` has a row for each of the ``queries`` with judgments, the worst first: ``query``, ``text``,
    ``relevant`` and ``judged`` (how many documents are, those outside the run too), and a column for each metric of
    each ranking, such as ``log nDCG@10``. Queries without a relevant document come last: their metrics are always 0.
    ``cutoff`` is the k of nDCG@k, and ``depth`` how many documents of a query the run holds at most. ``notes`` say what
    was left out and why.
    """

    measures: tuple[Measure, ...]
    per_query: pa.Table
    cutoff: int
    depth: int
    queries: int
    notes: tuple[str, ...] = ()

    def measure(self, kind: str, ranking: By) -> Measure | None:
        """Return the metric at ``cutoff`` whose name begins with ``kind``, such as nDCG; None where there is none."""
        name = f"{kind}@{self.cutoff}"
        return next((one for one in self.measures if (one.name, one.ranking) == (name, ranking)), None)
