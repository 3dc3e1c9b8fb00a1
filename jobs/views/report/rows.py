"""Tables whose rows can be sorted, and opened where a row has more to show; the page's script does both.

Without the script every row is open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """A row: its ``cells`` in the order of the heads, ``more`` what it opens to (Markup; "" for nothing), and ``id``,
    the fragment that leads to it. ``tags`` are a few words each, shown below the first cell, which may lead to
    ``link``."""

    id: str
    cells: Sequence[str]
    more: str = ""
    tags: Sequence[str] = ()
    link: str = ""


@dataclass(frozen=True)
class Head:
    """The head of a column; ``meaning`` explains it. Labels are aligned left and sorted as text."""

    text: str
    meaning: str = ""
    label: bool = False


@dataclass(frozen=True)
class Rows:
    """A table of rows under ``title``; ``sorted_by`` is the number of the column that orders the rows, None for none.

    ``note`` stands below.
    """

    id: str
    title: str
    heads: Sequence[Head]
    rows: Sequence[Row] = field(default_factory=tuple)
    sorted_by: int | None = None
    note: str = ""


def number(value: float | None, decimals: int = 2) -> str:
    """Format a number of a cell; "–" where there is none."""
    return "–" if value is None or value != value else f"{value:.{decimals}f}"
