"""Compares the scores of a retrieval log with the model's, to detect another model, prompt or similarity."""

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
# The orders of documents are compared on about this many rows, a sample of whole queries.
MOST_ROWS = 200_000
# A median difference above this share of the median score is no rounding: half precision and other batch sizes stay
# below it.
FITTING = 0.01
# Resolution of the sampling by hash.
HASH_BUCKETS = 1 << 20
# Documents of a query that are compared, each with each other one.
MOST_DOCUMENTS = 1000


@dataclass(frozen=True)
class Agreement:
    """The log's scores compared with the model's, in the unit of the score (cosine or dot product).

    ``pairs`` is the number of rows with a score in the log. ``median`` and ``largest`` are absolute differences,
    ``size`` is the model's median absolute score. ``ordered`` counts pairs of documents of one query with different
    log scores, over all queries or a sample of them; ``alike`` counts those that the model orders the same.
    """

    pairs: int = 0
    median: float = 0.0
    largest: float = 0.0
    size: float = 0.0
    ordered: int = 0
    alike: int = 0

    @property
    def fits(self) -> bool:
        """Whether this model can have produced the log's scores: they differ by no more than rounding."""
        return self.median <= FITTING * max(self.size, 1e-12)

    def line(self) -> str:
        """Return the comparison as a line of the summary."""
        line = f"log      scores differ from the model's by {self.median:.1e} at the median, {self.largest:.1e} at most"
        if self.ordered:
            line += f"; {self.alike / self.ordered:.0%} of a query's document pairs in the same order"
        return line if self.fits else line + " — another model, prompt or similarity?"


@dataclass
class AgreementCounter:
    """Computes an :class:`Agreement` from the rows of a run, batch by batch.

    ``rows`` is the number of rows of the run; it decides the share of queries in the sample.
    """

    rows: int
    _differences: Bins = field(default_factory=Bins)
    _sizes: Bins = field(default_factory=Bins)
    _sampled: list[np.ndarray[Any, Any]] = field(default_factory=list)

    def add(self, queries: Iterable[object], scores: NDArray[Any], logged: NDArray[Any]) -> None:
        """Add n rows: their query ids, the model's scores [n] and the log's scores [n] (NaN where it has none)."""
        scores, logged = scores.astype(np.float64), logged.astype(np.float64)
        finite = np.isfinite(logged)
        self._differences.add(np.abs(scores - logged)[finite])
        self._sizes.add(np.abs(scores)[finite])
        # A sample of whole queries by the hash of their ids, so that every run samples the same ones.
        share = min(1.0, MOST_ROWS / max(self.rows, 1))
        keys = np.array([zlib.crc32(str(query).encode()) for query in queries], np.int64)
        chosen = finite & (keys % HASH_BUCKETS < share * HASH_BUCKETS)
        self._sampled.append(np.stack([keys[chosen].astype(np.float64), logged[chosen], scores[chosen]]))

    def result(self) -> Agreement | None:
        """Return the comparison of all rows added so far; None if none of them has a score in the log."""
        if not self._differences.count:
            return None
        ordered, alike = _order(np.concatenate(self._sampled, axis=1))
        differences = self._differences
        return Agreement(
            differences.count, differences.median(), differences.largest, self._sizes.median(), ordered, alike
        )


def _order(rows: np.ndarray[Any, Any]) -> tuple[int, int]:
    """Return the number of document pairs that the log orders, and of those that the model orders the same.

    ``rows`` [3, n] has the hash of the query, the log's score and the model's score of each row.
    """
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
    """Return whether a column of this type can hold the scores of a log."""
    import pyarrow.types as t  # `tokenpair status` imports this file and does not need it

    return bool(t.is_floating(kind) or t.is_integer(kind))
