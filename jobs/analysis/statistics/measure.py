"""The base class of statistics, which add up batches of pairs and then return figures and tables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import duckdb
import numpy as np
import pyarrow as pa

from jobs.analysis.resampling import LEAST_TOTAL, Resampling, large_enough
from jobs.analysis.statistics.batches import Batch, bucket_of
from jobs.analysis.statistics.pairs import Pairs
from jobs.analysis.statistics.schema import Figure, whole_of
from jobs.analysis.statistics.sums import Array, BucketSums, quantum_for
from jobs.analysis.statistics.texts import Texts
from jobs.run.reader import Run

# Sums of lifts come out the same in any order as long as a pair's do not add up to more than this in absolute value.
LIFTS_A_PAIR = 16.0
NO_WORD_PAIRS = "Word pairs are left out: the run has no word pairs (level: words)."
# What columns of several tables mean, said in one place.
COMMON = {
    "side": "whose words: a, b, or both texts together",
    "share": "sum of the attributions that are meant over the sum of all (see the table), each over all pairs; empty "
    f"where the sum of all is less than {LEAST_TOTAL:g} of the sum of absolute values",
    "low": "lower end of the 95 % bootstrap interval of the value before",
    "high": "upper end of it",
    "frequency": "share of the word pairs: what an even spread over all word pairs would give",
    "lift": "share / frequency",
    "lift_low": "lower end of the 95 % bootstrap interval of lift",
    "lift_high": "upper end of it",
    "mean": "what they add to a pair's sum of attributions: mean over pairs, in units of the score",
    "exact": "whether it follows from what is stored of every pair; else it is estimated from the strongest word pairs",
    "at_least": "an estimate's true value is certainly not below this",
    "at_most": "an estimate's true value is certainly not above this",
    "pairs": "how many pairs it was computed from",
    "pair_id": "a pair's id, for: tokenpair show RUN PAIR_ID",
}


@dataclass(frozen=True)
class Table:
    """A result to be written as Parquet; ``columns`` says what each column means (those in COMMON need no word)."""

    name: str
    meaning: str
    data: pa.Table
    columns: Mapping[str, str] = field(default_factory=dict)
    exact: bool = True

    def meanings(self) -> dict[str, str]:
        """What every column means."""
        return {name: self.columns.get(name) or COMMON.get(name, "") for name in self.data.column_names}


@dataclass(frozen=True)
class Result:
    """The result of a statistic."""

    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()


@dataclass
class Scene:
    """The input of statistics. ``whole``: matrices were stored; ``gold`` [pairs], by rank, NaN for none;
    ``sums_to``: what a pair's attributions sum to; ``lifts``: the pairs have lifts; ``word_pairs``: the run has them.
    """

    run: Run
    con: duckdb.DuckDBPyConnection
    texts: Texts
    pairs: Pairs
    resampling: Resampling
    quantum: float
    seed: int
    resamples: int
    whole: bool
    sums_to: str = "difference"
    lifts: bool = False
    gold_name: str | None = None
    gold: Array | None = None
    kept: tuple[str, ...] = ()
    word_pairs: bool = True

    @property
    def buckets(self) -> int:
        """How many buckets pairs are summed in."""
        return self.resampling.weights.shape[1]

    @property
    def sum_name(self) -> str:
        """What the sum over all attributions of a pair is called: score or total."""
        return whole_of(self.sums_to)

    @property
    def why_no_word_pairs(self) -> list[str]:
        """A note where the run has no word pairs; none where it has."""
        return [] if self.word_pairs else [NO_WORD_PAIRS]

    @property
    def why_no_lifts(self) -> str | None:
        """Why the run has no lifts, or None where it has."""
        if self.lifts:
            return None
        if self.run.late:
            return "late interaction has none"
        dot = str(self.run.setting("similarity") or "cosine") == "dot"
        return "a dot product has none" if dot else "an earlier version of tokenpair made this run"

    @property
    def lift_quantum(self) -> float:
        """The quantum for sums of lifts, which can be more than the attributions' own."""
        return quantum_for(LIFTS_A_PAIR * max(self.pairs.count, 1))

    @property
    def pairs_a_bucket(self) -> Array:
        """How many pairs each bucket holds."""
        every = np.arange(self.pairs.count)
        return np.bincount(bucket_of(self.pairs, every), minlength=self.buckets).astype(np.float64)

    def sums(self, columns: int) -> BucketSums:
        """Empty sums."""
        return BucketSums(self.buckets, columns, self.quantum)

    def array(self, *columns: int) -> Array:
        """An empty array for a value of every pair, by rank."""
        return np.zeros((self.pairs.count, *columns))


class Measure(ABC):
    """One statistic of a run."""

    name: ClassVar[str]
    title: ClassVar[str]
    # {whole} is replaced by the name of the sum over all attributions of a pair.
    meaning: ClassVar[str]
    # Whether single cells are looked at beside the stored sums.
    cells: ClassVar[bool] = False
    # Whether lifts are looked at, where the run has them.
    lifts: ClassVar[bool] = False

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    @staticmethod
    def missing(scene: Scene) -> str | None:
        """Why this run has no such statistic, or None."""
        return None

    @abstractmethod
    def add(self, batch: Batch) -> None:
        """Add some pairs."""

    @abstractmethod
    def result(self) -> Result:
        """The result over all pairs."""


def number(value: Any) -> float | None:
    """A float for JSON: None in place of NaN and infinities."""
    value = float(value)
    return value if np.isfinite(value) else None


def figure(
    name: str,
    meaning: str,
    values: Sequence[Any],
    unit: str = "share",
    *,
    exact: bool = True,
    ends: Sequence[Any] = (None, None),
) -> Figure:
    """A figure of (value, low, high); ``ends`` are the bounds of an estimate."""
    value, low, high = (number(np.ravel(one)[0]) for one in values)
    at_least, at_most = (None, None) if exact else (None if end is None else number(end) for end in ends)
    return Figure(
        name=name,
        value=value,
        low=low,
        high=high,
        exact=exact,
        at_least=at_least,
        at_most=at_most,
        unit=unit,
        meaning=meaning,
    )


def mean_interval(scene: Scene, values: Array, there: Array | None = None) -> tuple[float, float, float]:
    """The mean of ``values`` [pairs, by rank] over those that are ``there``, and its interval."""
    there = np.isfinite(values) if there is None else there
    bucket = bucket_of(scene.pairs, np.arange(scene.pairs.count))
    above = np.bincount(bucket, np.where(there, values, 0.0), scene.buckets)
    below = np.bincount(bucket, there.astype(np.float64), scene.buckets)
    value, low, high = scene.resampling.ratio(above, below)
    return float(value[0]), float(low[0]), float(high[0])


def withheld(scene: Scene, total: Any, mass: Any) -> list[str]:
    """A note where there are no shares, given the sums of totals and of absolute values."""
    total, mass = float(total), float(mass)
    if float(large_enough(np.array(total), np.array(mass))) > 0 or mass == 0:
        return []
    return [
        f"No shares: the {scene.sum_name}s of these pairs add up to {total:.3g}, which is less than a tenth of the sum "
        f"of absolute values ({mass:.3g}). Read the means instead."
    ]


SHARES = ("share", "low", "high", "frequency", "lift", "lift_low", "lift_high")


def share_columns(scene: Scene, above: Array, total: Array, mass: Array, count: Array) -> dict[str, Array]:
    """The columns SHARES: what ``above`` [buckets, columns] is of ``total``, what ``count`` is of all counts, and the
    former over the latter, with intervals; see :meth:`Resampling.share` for ``mass``."""
    draw, counts = scene.resampling, count.sum(1, keepdims=True)
    share, lift = draw.share(above, total, mass), draw.share_lift(above, total, mass, count, counts)
    return dict(zip(SHARES, (*share, draw.ratio(count, counts)[0], *lift), strict=True))


def columns_table(**columns: Any) -> pa.Table:
    """A table of columns; NaN in arrays of floats becomes null."""
    return pa.table({name: _column(values) for name, values in columns.items()})


def rows_table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> pa.Table:
    """A table of rows; NaN becomes null."""
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    return pa.table({name: _column(list(values)) for name, values in zip(names, columns, strict=True)})


def _column(values: Any) -> pa.Array:
    if isinstance(values, list) and any(isinstance(value, float) for value in values):
        values = np.array(values, np.float64)
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        return pa.array(values, mask=~np.isfinite(values))
    return values if isinstance(values, pa.Array) else pa.array(values)


def numbers(column: Any) -> Array:
    """A column as float64, NaN for null."""
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)
