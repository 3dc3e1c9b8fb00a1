"""Parsed rows of text files, collected until they fill a batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from jobs.sources.rows import PairBatch, Reject, shortened

BATCH_ROWS = 8192
BATCH_CHARACTERS = 16 << 20


@dataclass
class Gathered:
    """Parsed rows that wait for their batch: ``cells`` are lists of fields, or JSON objects."""

    numbers: list[int] = field(default_factory=list)
    cells: list[Any] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    characters: int = 0

    def add(self, number: int, cells: Any, size: int) -> None:
        """Add a row."""
        self.numbers.append(number)
        self.cells.append(cells)
        self.characters += size

    def reject(self, file: str, number: int, reason: str, text: str) -> None:
        """Add a line that cannot be read as a row."""
        self.rejects.append(Reject(file, number, None, reason, shortened(text)))

    @property
    def full(self) -> bool:
        """Whether the batch is full."""
        return len(self.cells) + len(self.rejects) >= BATCH_ROWS or self.characters >= BATCH_CHARACTERS


def with_rejects(batch: PairBatch, earlier: list[Reject]) -> PairBatch:
    """The batch with the rejects that came before it, in the file's order."""
    rejects = sorted([*earlier, *batch.rejects], key=lambda reject: reject.row)
    return PairBatch(batch.file, batch.table, batch.kept, batch.untyped, rejects, batch.names)


def nothing(gathered: Gathered) -> pa.Array:
    """A column of nulls for the rows there are; [n] string."""
    return pa.nulls(len(gathered.cells), pa.string())
