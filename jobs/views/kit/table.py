"""A table for terminals and pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

Row = TypeVar("Row")


@dataclass(frozen=True)
class Column:
    """A column of texts under its head; labels are aligned left, numbers right.

    ``meaning`` explains the head, and ``links`` has the address of each text, "" for none.
    """

    head: str
    texts: Sequence[str]
    label: bool = False
    meaning: str = ""
    links: Sequence[str] = ()


@dataclass(frozen=True)
class Table:
    """Columns of one length under a title, a ``note`` below them.

    ``drawn`` holds the values that bars stand for, a row each; none where it is empty.
    """

    title: str
    columns: Sequence[Column]
    drawn: Sequence[float | None] = field(default_factory=tuple)
    note: str = ""

    def __len__(self) -> int:
        return len(self.columns[0].texts) if self.columns else 0

    @property
    def largest(self) -> float:
        """The largest absolute value that a bar stands for, 0 where there is none."""
        return max((abs(value) for value in self.drawn if value is not None), default=0.0)


def column(head: str, rows: Sequence[Row], write: Callable[[Row], str], *, label: bool = False) -> Column:
    """A column whose texts ``write`` makes from the rows."""
    return Column(head, [write(row) for row in rows], label)


def table_of(heads: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "", *, labels: int = 1) -> Table:
    """A table of rows of texts; the first ``labels`` columns are labels."""
    columns = [Column(head, [str(row[at]) for row in rows], at < labels) for at, head in enumerate(heads)]
    return Table(title, columns)
