"""Summarizes a run: counts, errors and rejects, read from its parts in one pass and bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from attribution_core.results import unit_of_errors
from jobs.progress import counted
from jobs.run.agreement import COLUMN as LOG_SCORE
from jobs.run.agreement import Agreement, AgreementCounter, is_number
from jobs.run.exactness import COLUMNS as EXACTNESS_COLUMNS
from jobs.run.exactness import Exactness, ExactnessCounter
from jobs.run.histogram import Bins
from jobs.run.record import checkpoint_of
from jobs.run.tables import has_matches, reject_schema, text_schema

if TYPE_CHECKING:
    from jobs.storage.store import Store

BATCH_ROWS = 1 << 16


@dataclass(frozen=True)
class Totals:
    """Counts of a run. ``rejected`` is by reason; errors are absolute, as parts of ``unit``.

    ``sums_to`` is what the attributions of a pair sum to. Runs of plan version 4 and older have no such entry: a
    difference. ``checkpoint`` has the ``dtype`` of a half-precision checkpoint and the ``largest`` difference
    between its scores and those of its float32 copy; None for a float32 checkpoint. ``documents`` are those of an
    index, whose ``pairs`` are 0; None for a run of pairs. ``tied`` counts the pairs of a late-interaction model with a
    query token whose best match is tied; None for other models.
    """

    pairs: int = 0
    texts: int = 0
    truncated: int = 0
    unconverged: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    largest_error: float = 0.0
    median_error: float = 0.0
    agreement: Agreement | None = None
    exactness: Exactness | None = None
    sums_to: str = "difference"
    checkpoint: dict[str, Any] | None = None
    documents: int | None = None
    tied: int | None = None

    @property
    def unit(self) -> str:
        """What errors are parts of."""
        return unit_of_errors(late=self.tied is not None)

    def lines(self) -> list[str]:
        """Return the counts as the lines of the summary."""
        texts = f"texts    {self.texts:,} distinct"
        if self.documents is not None:
            texts = f"texts    {counted(self.documents, 'document')}"
        if self.truncated:
            texts += f", {self.truncated:,} longer than the model reads (cut)"
        if self.unconverged:
            texts += f", {self.unconverged:,} missed the tolerance (converged = false)"
        lines = [texts] if self.documents is not None else [f"pairs    {self.pairs:,} attributed", texts]
        for reason, count in self.rejected.items():
            lines.append(f"rejected {count:,} × {reason}")
        if self.pairs:
            lines.append(f"|error|  median {self.median_error:.1e}, largest {self.largest_error:.1e} of {self.unit}")
        if self.exactness is not None:
            lines.append(self.exactness.line(self.sums_to))
        if self.tied:
            lines.append(
                f"ties     {counted(self.tied, 'pair')} with a query token that several tokens of the document match "
                "equally well; the first of them counts"
            )
        if self.agreement is not None:
            lines.append(self.agreement.line())
        if self.checkpoint is not None:
            own, largest = self.checkpoint["dtype"], self.checkpoint["largest"]
            lines.append(f"model    {own}; scores are of its float32 copy, its own differ by up to {largest:.1e}")
        return lines

    @staticmethod
    def of(plain: dict[str, Any]) -> Totals:
        """Return the totals of the values of ``dataclasses.asdict``; raises TypeError if they are not totals."""
        if not isinstance(plain, dict):
            raise TypeError("totals are named")
        agreement, exactness = plain.get("agreement"), plain.get("exactness")
        typed = {
            "agreement": None if agreement is None else Agreement(**agreement),
            "exactness": None if exactness is None else Exactness(**exactness),
        }
        totals = Totals(**plain | typed)
        try:
            totals.lines()
        except (ValueError, AttributeError, OverflowError, LookupError) as error:
            raise TypeError(str(error)) from None  # such as a string in place of a number
        return totals


def read_totals(run: Store, format: str, sums_to: str) -> Totals:
    """Return the totals of the parts written so far. Each folder is read once; raises StoreError if that fails."""
    # After a transient failure of the store a folder is read again from its beginning, because these totals are the
    # last step of hours of work.
    errors, exactness, agreement, tied = run.attempt("read", "attributions", lambda: _attributions(run, format))
    texts, truncated, unconverged = run.attempt("read", "texts", lambda: _texts(run, format))
    rejected = run.attempt("read", "rejects", lambda: _rejected(run, format))
    return Totals(
        pairs=errors.count,
        texts=texts,
        truncated=truncated,
        unconverged=unconverged,
        rejected=rejected,
        largest_error=errors.largest,
        median_error=errors.median(),
        agreement=agreement,
        exactness=exactness,
        sums_to=sums_to,
        checkpoint=checkpoint_of(run),
        tied=tied,
    )


def read_index_totals(run: Store, format: str, tolerance: float) -> Totals:
    """Return the totals of the documents of an index; ``tolerance`` is the largest residual that was asked for."""
    documents = truncated = unconverged = 0
    for batch in run.attempt("read", "documents", lambda: list(_document_batches(run))):
        documents += len(batch)
        truncated += int(np.sum(batch.column("truncated").to_numpy(zero_copy_only=False)))
        unconverged += int(np.sum(batch.column("residual").to_numpy() > tolerance))
    return Totals(
        texts=documents,
        documents=documents,
        truncated=truncated,
        unconverged=unconverged,
        rejected=run.attempt("read", "rejects", lambda: _rejected(run, format)),
        sums_to="score",
        checkpoint=checkpoint_of(run),
    )


def _document_batches(run: Store) -> Any:
    if run.list("documents"):
        dataset = run.dataset("documents", "arrow")
        yield from dataset.to_batches(columns=["truncated", "residual"], batch_size=BATCH_ROWS)


def _attributions(run: Store, format: str) -> tuple[Bins, Exactness | None, Agreement | None, int | None]:
    errors, exactness = Bins(), ExactnessCounter()
    if not run.list("attributions"):
        return errors, None, None, None
    dataset = run.dataset("attributions", format)
    columns = ["error", *EXACTNESS_COLUMNS]
    logged = LOG_SCORE in dataset.schema.names and is_number(dataset.schema.field(LOG_SCORE).type)
    agreement = AgreementCounter(dataset.count_rows()) if logged else None
    columns += ["text_a_id", LOG_SCORE] if logged else []
    tied = 0 if has_matches(dataset.schema) else None
    columns += [] if tied is None else ["ties"]
    for batch in dataset.to_batches(columns=columns, batch_size=BATCH_ROWS):
        values = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in columns if name != "text_a_id"}
        errors.add(np.abs(values["error"].astype(np.float64)))
        exactness.add(values)
        tied = None if tied is None else tied + int(np.count_nonzero(values["ties"]))
        if agreement is not None:
            agreement.add(batch.column("text_a_id").to_pylist(), values["score"], values[LOG_SCORE])
    sums = exactness.result()
    return errors, sums if sums.pairs else None, agreement.result() if agreement is not None else None, tied


def _texts(run: Store, format: str) -> tuple[int, int, int]:
    """Return the number of texts, of truncated texts, and of texts that missed the tolerance."""
    texts, truncated, unconverged = 0, 0, 0
    for batch in _batches(run, "texts", format, text_schema().field("truncated"), "converged"):
        texts += len(batch)
        truncated += int(np.sum(batch.column(0).to_numpy(zero_copy_only=False)))
        unconverged += len(batch) - int(np.sum(batch.column(1).to_numpy(zero_copy_only=False)))
    return texts, truncated, unconverged


def _rejected(run: Store, format: str) -> dict[str, int]:
    """Return the number of rejects by reason, the most frequent first."""
    rejected: dict[str, int] = {}
    for batch in _batches(run, "rejects", format, reject_schema().field("reason"), None):
        for reason in batch.column(0).value_counts().to_pylist():
            rejected[reason["values"]] = rejected.get(reason["values"], 0) + reason["counts"]
    return dict(sorted(rejected.items(), key=lambda item: (-item[1], item[0])))


def _batches(run: Store, folder: str, format: str, first: Any, second: str | None) -> Any:
    """Yield record batches of one or two columns of a folder's parts; none if it has no part."""
    if run.list(folder):
        columns = [first.name] + ([second] if second else [])
        yield from run.dataset(folder, format).to_batches(columns=columns, batch_size=BATCH_ROWS)
