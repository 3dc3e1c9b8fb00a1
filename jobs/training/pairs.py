"""Labelled pairs read from the sources of attribution jobs: a row is a pair with a score, or rejected with a reason."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attribution_core.training.recipe import LabelledPairs
from jobs.config.sections import Columns
from jobs.errors import SourceError
from jobs.progress import counted
from jobs.sources import PairBatch, PairReader, resolve_inputs
from jobs.sources.columns import ColumnChooser
from jobs.sources.rows import shown_name

if TYPE_CHECKING:
    from jobs.sources import InputFile
    from jobs.training.config import TrainConfig

SHOWN = 3


@dataclass
class Labelled(LabelledPairs):
    """Pairs read from files, their similarity scaled to [0, 1]. ``files`` are the names of the files."""

    files: list[str] = field(default_factory=list)
    rejects: list[str] = field(default_factory=list)

    def digest(self) -> str:
        """20 hex digits of texts and similarities in their order."""
        found = hashlib.sha256(self.similarity.tobytes())
        for text in (*self.a, *self.b):
            found.update(str(len(text)).encode() + b":" + text.encode("utf-8", "surrogatepass"))
        return found.hexdigest()[:20]


def read_labelled(job: TrainConfig, places: list[str], what: str, say: Callable[[str], None]) -> Labelled:
    """The pairs of some places; ``say`` gets notices and the number of rejected rows.

    Raises:
        SourceError: where there is none, no such column, or more bad rows than the job tolerates.
        StoreError: where a place cannot be reached.
    """
    files: list[InputFile] = resolve_inputs(places, job.storage)
    notices: list[str] = []
    columns = Columns(a=job.columns.a, b=job.columns.b, id=None, a_id=None, b_id=None)
    chooser = ColumnChooser(columns, [job.columns.score], notices)
    a: list[str] = []
    b: list[str] = []
    rejects: list[str] = []
    scores: list[NDArray[np.float64]] = []
    for batch in PairReader(files, job.header, chooser, notices):
        values, reasons = _scores(batch, job.scale)
        good = [row for row, reason in enumerate(reasons) if reason is None]
        a += batch.table["a"].take(good).to_pylist()
        b += batch.table["b"].take(good).to_pylist()
        scores.append(values[good])
        rows = batch.table["row"].to_pylist()
        rejects += [f"{one.file}:{one.row}: {one.reason}" for one in batch.rejects]
        rejects += [f"{batch.file}:{rows[at]}: {why}" for at, why in enumerate(reasons) if why is not None]
    low, high = job.scale
    similarity = (np.concatenate(scores) - low) / (high - low) if scores else np.zeros(0)
    pairs = Labelled(a, b, similarity, [file.name for file in files], rejects)
    for notice in notices:
        say(f"note: {notice}")
    _tell_rejects(pairs, job.max_rejects, what, say)
    return pairs


def _tell_rejects(pairs: Labelled, most: float, what: str, say: Callable[[str], None]) -> None:
    count = len(pairs.rejects)
    if not count:
        return
    shown = "; ".join(pairs.rejects[:SHOWN]) + ("; …" if count > SHOWN else "")
    if not len(pairs) or count > most * (count + len(pairs)):
        raise SourceError(
            f"{what}: {counted(count, 'row')} of {count + len(pairs):,} cannot be used ({shown}); "
            "correct them, or raise max_rejects"
        )
    say(f"note: {what}: left out {counted(count, 'row')}: {shown}")


def _scores(batch: PairBatch, scale: tuple[float, float]) -> tuple[NDArray[np.float64], list[str | None]]:
    """The score of each row of a batch, or the reason why a row has none."""
    column = batch.kept.column(0) if len(batch) else None
    name = shown_name(batch.kept.column_names[0]) if len(batch) else ""
    values = np.zeros(len(batch))
    reasons: list[str | None] = []
    for row, cell in enumerate(column.to_pylist() if column is not None else []):
        number = _number(cell)
        if number is None:
            reasons.append(f"column '{name}' holds no number")
        elif not scale[0] <= number <= scale[1]:
            reasons.append(f"column '{name}' is {number:.10g}, outside the scale {scale[0]:g} to {scale[1]:g}")
        else:
            reasons.append(None)
            values[row] = number
    return values, reasons


def _number(cell: Any) -> float | None:
    if cell is None or isinstance(cell, bool):
        return None
    try:
        number = float(cell)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
