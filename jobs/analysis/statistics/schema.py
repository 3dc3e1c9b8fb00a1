"""What ``statistics/`` of a run directory holds: `summary.json` (:class:`Summary`) and one Parquet file a table.

``summary.json`` has the run's facts and, for every statistic, its figures, its notes, and a description of each of its
tables. A table lies in ``statistics/<table>.parquet``; the meaning of its columns is in ``TableInfo.columns`` and once
more in the file's own schema, as the field's metadata ``meaning``.

Certainty is given the same way everywhere. ``low`` and ``high`` are the ends of a 95 % interval: bootstrap over pairs
(for a log over its queries, because the documents of a query are similar), percentiles; None where fewer than two pairs
or queries have a value. ``exact`` is true where a number follows from what is stored of every pair; else it is an
estimate from the strongest word pairs, and the true number lies between ``at_least`` and ``at_most`` (None where an end
is not bounded).

A share of the score (or of the total, see ``RunFacts.whole``) is Σ over pairs / Σ over pairs. It is None where that sum
of scores, which may be near zero or negative, is less than a tenth of the sum of absolute values.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.errors import RunError
from jobs.storage.store import Store

FOLDER = "statistics"
SUMMARY = f"{FOLDER}/summary.json"
VERSION = 2

# In the order in which they are computed, shown and reported.
NAMES = (
    "concentration",
    "parts_of_speech",
    "matches",
    "sufficiency",
    "strongest",
    "position",
    "ranking",
    "retrieval",
    "convergence",
)


class Stored(BaseModel):
    """What is written into ``statistics/``: plain values that do not change, and no others."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(Stored):
    """One number. ``unit`` is ``share`` (of one), ``correlation``, ``count``, ``ratio``, or ``""``."""

    name: str
    value: float | None = Field(description="None where it is not defined, as a share of nothing")
    low: float | None = None
    high: float | None = None
    exact: bool = True
    at_least: float | None = None
    at_most: float | None = None
    unit: str = "share"
    meaning: str = ""


class TableInfo(Stored):
    """A table in ``file``, relative to the run directory; ``exact`` is true where every row is."""

    name: str
    file: str
    rows: int
    exact: bool
    meaning: str
    columns: dict[str, str]


class Statistic(Stored):
    """One statistic of a run; ``notes`` say what a reader must know before trusting it."""

    name: str
    title: str
    meaning: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[TableInfo, ...] = ()
    notes: tuple[str, ...] = ()

    def figure(self, name: str) -> Figure:
        """The figure of that name; KeyError where there is none."""
        for figure in self.figures:
            if figure.name == name:
                return figure
        raise KeyError(name)


class Pipeline(Stored):
    """The spaCy pipeline that tagged the texts."""

    name: str
    version: str
    language: str


class RunFacts(Stored):
    """The pairs and settings of the statistics. ``pairs`` were used of ``pairs_in_run``; ``gold`` is the column taken
    as the gold label; ``sums_to`` what a pair's attributions sum to: its score, the difference from a reference, or
    centred. ``level`` is that of the run: without word pairs (words) statistics of these are left out."""

    pairs: int
    pairs_in_run: int
    texts: int
    finished: bool
    groups: str
    mode: str
    store: str
    model: str
    layer: int
    similarity: str
    sums_to: str
    sample: int | None
    seed: int
    resamples: int
    gold: str | None
    pipeline: Pipeline | None
    level: str = "pairs"

    @property
    def drawn(self) -> str:
        """What the bootstrap draws: queries or pairs."""
        return "queries" if self.mode == "retrieval" else "pairs"

    @property
    def whole(self) -> str:
        """What the sum over all of a pair's attributions is called."""
        return whole_of(self.sums_to)


def whole_of(sums_to: str) -> str:
    """What to call the sum over all attributions of a pair: it is the score, or else the total."""
    return "score" if sums_to == "score" else "total"


class Summary(Stored):
    """``summary.json``."""

    version: int
    run: RunFacts
    statistics: dict[str, Statistic]
    notes: tuple[str, ...] = ()

    def figure(self, statistic: str, name: str) -> Figure | None:
        """A figure of a statistic; None where the run does not have it or it is not defined."""
        of_run = self.statistics.get(statistic)
        figures = [one for one in of_run.figures if one.name == name] if of_run else []
        return figures[0] if figures and figures[0].value is not None else None


def read_summary(store: Store) -> Summary:
    """The statistics of a run directory; RunError where there are none, or where another version wrote them."""
    if not store.exists(SUMMARY):
        raise RunError(f"{store.url}: has no statistics yet; compute them with: tokenpair stats {store.url}")
    try:
        return Summary.model_validate_json(store.read(SUMMARY))
    except ValidationError:
        raise RunError(
            f"{store.url}/{SUMMARY}: another version of tokenpair wrote it; compute it again with: "
            f"tokenpair stats {store.url}"
        ) from None
