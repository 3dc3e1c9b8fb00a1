"""How far a log's own scores are from the model's: another model, prompt or similarity shows up here."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jobs.run.histogram import Bins

if TYPE_CHECKING:
    import pyarrow as pa

COLUMN = "log_score"
# Rows of sampled queries that orders are compared on.
MOST_ROWS = 200_000
# A difference of this much of the scores' own size is no rounding: half precision and other batches stay below it.
FITTING = 0.01
GRAIN = 1 << 20
# Pairs of documents are compared all with all.
MOST_DOCUMENTS = 1000


@dataclass(frozen=True)
class Agreement:
    """``pairs`` rows had a score in the log; ``median`` and ``largest`` are absolute differences to the model's.

    ``size`` is the median absolute score of the model. ``ordered`` document pairs of one query that the log tells
    apart were looked at, of all queries or of a sample, and ``alike`` of them stand in the model's order as well.
    """

    pairs: int = 0
    median: float = 0.0
    largest: float = 0.0
    size: float = 0.0
    ordered: int = 0
    alike: int = 0

    @property
    def fits(self) -> bool:
        """Whether the log's scores can be this model's."""
        return self.median <= FITTING * max(self.size, 1e-12)

    def line(self) -> str:
        """The finding as a user reads it."""
        told = f"log      scores differ from the model's by {self.median:.1e} at the median, {self.largest:.1e} at most"
        if self.ordered:
            told += f"; {self.alike / self.ordered:.0%} of a query's document pairs in the same order"
        return told if self.fits else told + " — another model, prompt or similarity?"


@dataclass
class AgreementCounter:
    """Takes the rows of a run batch by batch; ``rows`` is how many it has, to choose the sample of whole queries."""

    rows: int
    _differences: Bins = field(default_factory=Bins)
    _sizes: Bins = field(default_factory=Bins)
    _sampled: list[np.ndarray[Any, Any]] = field(default_factory=list)

    def add(self, queries: Iterable[object], scores: NDArray[Any], logged: NDArray[Any]) -> None:
        """Count some rows: the id of each one's query, the model's score and the log's [n]."""
        scores, logged = scores.astype(np.float64), logged.astype(np.float64)
        there = np.isfinite(logged)
        self._differences.add(np.abs(scores - logged)[there])
        self._sizes.add(np.abs(scores)[there])
        # Whole queries by chance, the same ones in every run.
        share = min(1.0, MOST_ROWS / max(self.rows, 1))
        keys = np.array([zlib.crc32(str(query).encode()) for query in queries], np.int64)
        chosen = there & (keys % GRAIN < share * GRAIN)
        self._sampled.append(np.stack([keys[chosen].astype(np.float64), logged[chosen], scores[chosen]]))

    def result(self) -> Agreement | None:
        """What was counted so far; None where no row has a log's score."""
        if not self._differences.count:
            return None
        ordered, alike = _order(np.concatenate(self._sampled, axis=1))
        differences = self._differences
        return Agreement(
            differences.count, differences.median(), differences.largest, self._sizes.median(), ordered, alike
        )


def _order(rows: np.ndarray[Any, Any]) -> tuple[int, int]:
    """Document pairs of one query that the log orders, and how many of them the model orders alike; [3, n]."""
    rows = rows[:, np.argsort(rows[0], kind="stable")]
    starts = np.flatnonzero(np.diff(rows[0], prepend=np.nan) != 0)
    ordered = alike = 0
    for logged, ours in (part[1:, :MOST_DOCUMENTS] for part in np.split(rows, starts[1:], axis=1)):
        signs = np.triu(np.sign(logged[:, None] - logged[None, :]), 1)
        same = signs * np.sign(ours[:, None] - ours[None, :])
        ordered += int(np.count_nonzero(signs))
        alike += int(np.count_nonzero(same > 0))
    return ordered, alike


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of this type can be a log's scores."""
    import pyarrow.types as t

    return bool(t.is_floating(kind) or t.is_integer(kind))
