"""What a whole run came to, read from its parts in one pass and bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.dataset import attribution_schema, reject_schema, text_schema

if TYPE_CHECKING:
    from jobs.stores import Store

# |error| is counted in bins a hundredth of a decade wide: the median is right to 2.4 %, whatever the number of pairs.
LOWEST, HIGHEST, BINS_A_DECADE = -12, 4, 100
BATCH_ROWS = 1 << 16


@dataclass(frozen=True)
class Totals:
    """Counts of a run. ``rejected`` is by reason; errors are in units of ‖e(a)‖‖e(b)‖."""

    pairs: int = 0
    texts: int = 0
    truncated: int = 0
    unconverged: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    largest_error: float = 0.0
    median_error: float = 0.0

    def lines(self) -> list[str]:
        """The counts as a user reads them."""
        texts = f"texts    {self.texts:,} distinct"
        if self.truncated:
            texts += f", {self.truncated:,} longer than the model reads (cut)"
        if self.unconverged:
            texts += f", {self.unconverged:,} missed the tolerance (converged = false)"
        lines = [f"pairs    {self.pairs:,} attributed", texts]
        for reason, count in self.rejected.items():
            lines.append(f"rejected {count:,} × {reason}")
        if self.pairs:
            lines.append(f"|error|  median {self.median_error:.1e}, largest {self.largest_error:.1e} of ‖e(a)‖‖e(b)‖")
        return lines


def read_totals(run: Store, format: str) -> Totals:
    """The totals of the parts that are there now; StoreError where they cannot be read."""
    bins = np.zeros((HIGHEST - LOWEST) * BINS_A_DECADE + 1, np.int64)
    largest, pairs = 0.0, 0
    for batch in _batches(run, "attributions", format, attribution_schema().field("error"), None):
        error = np.abs(batch.column(0).to_numpy(zero_copy_only=False).astype(np.float64))
        pairs += len(error)
        largest = max(largest, float(error.max(initial=0.0)))
        place = (np.log10(np.maximum(error, 10.0**LOWEST)) - LOWEST) * BINS_A_DECADE
        bins += np.bincount(np.clip(place, 0, len(bins) - 1).astype(np.int64), minlength=len(bins))
    texts, truncated, unconverged = 0, 0, 0
    for batch in _batches(run, "texts", format, text_schema().field("truncated"), "converged"):
        texts += len(batch)
        truncated += int(np.sum(batch.column(0).to_numpy(zero_copy_only=False)))
        unconverged += len(batch) - int(np.sum(batch.column(1).to_numpy(zero_copy_only=False)))
    rejected: dict[str, int] = {}
    for batch in _batches(run, "rejects", format, reject_schema().field("reason"), None):
        for found in batch.column(0).value_counts().to_pylist():
            rejected[found["values"]] = rejected.get(found["values"], 0) + found["counts"]
    by_count = dict(sorted(rejected.items(), key=lambda item: (-item[1], item[0])))
    return Totals(pairs, texts, truncated, unconverged, by_count, largest, _median(bins))


def _batches(run: Store, folder: str, format: str, first: Any, second: str | None) -> Any:
    """Batches of one or two columns of a folder's parts; none where it has no part."""
    if not run.list(folder):
        return
    with run.guard("read", folder):
        columns = [first.name] + ([second] if second else [])
        yield from run.dataset(folder, format).to_batches(columns=columns, batch_size=BATCH_ROWS)


def _median(bins: np.ndarray[Any, np.dtype[np.int64]]) -> float:
    count = int(bins.sum())
    if count == 0:
        return 0.0
    middle = int(np.searchsorted(np.cumsum(bins), (count + 1) // 2))
    return 0.0 if middle == 0 else float(10.0 ** (LOWEST + (middle + 0.5) / BINS_A_DECADE))
