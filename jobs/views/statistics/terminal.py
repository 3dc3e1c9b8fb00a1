"""Statistics as terminal text: a table and small bars each, within the width that there is."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from attribution_core.display.sheet import Sheet, plain_console
from jobs.analysis.statistics.schema import FOLDER, NAMES, RunFacts, Statistic, Summary
from jobs.views.statistics.view import Column, Shown, head_lines, shown_figures, shown_tables

BAR = 20
NARROWEST_BAR = 6
WIDEST_LABEL = 28


def statistics_text(summary: Summary, tables: Mapping[str, pa.Table], only: Sequence[str] = ()) -> str:
    """What :func:`print_summary` prints, as plain text."""
    file = io.StringIO()
    print_summary(summary, tables, only, plain_console(file))
    return file.getvalue().rstrip("\n")


def print_summary(
    summary: Summary, tables: Mapping[str, pa.Table], only: Sequence[str] = (), console: Console | None = None
) -> None:
    """Print the statistics named in ``only`` (all by default) to standard output, or to ``console``.

    ``tables`` are the statistics' tables by name. Texts are printed literally; it reads well without colour.
    """
    sheet = StatisticsSheet(console or Console())
    sheet.head(summary)
    for name in NAMES:
        if name in summary.statistics and (not only or name in only):
            sheet.statistic(summary.statistics[name], tables, summary.run)


class StatisticsSheet(Sheet):
    """A sheet for statistics."""

    def head(self, summary: Summary) -> None:
        first, *others = head_lines(summary)
        self.line(first, "bold")
        for line in others:
            self.line(line, "dim")
        for note in summary.notes:
            self.line(note, "bold")

    def statistic(self, statistic: Statistic, tables: Mapping[str, Any], facts: RunFacts) -> None:
        """One statistic under its title."""
        self.blank()
        self.put(Text(statistic.title, "bold underline"))
        self.line(statistic.meaning, "dim")
        for shown in shown_tables(statistic, tables, facts):
            self.blank()
            self.shown(shown)
        figures = shown_figures(statistic)
        if figures:
            self.blank()
        for meaning, value in figures:
            self.wrapped_line(meaning[:1].upper() + meaning[1:], value)
        for note in statistic.notes:
            self.line(note, "dim")
        if statistic.tables:
            names = ", ".join(info.name for info in statistic.tables)
            self.line(f"Tables in {FOLDER}/: {names}", "dim")

    def shown(self, shown: Shown) -> None:
        """A table: labels on the left, numbers on the right, and a bar for the column that is drawn."""
        self.line(shown.title, "bold")
        columns = [column for column in shown.columns if any(column.texts)]
        cells = [self._fitted(column) for column in columns]
        widths = [
            max([cell_len(column.head), *map(cell_len, texts)]) for column, texts in zip(columns, cells, strict=True)
        ]
        while sum(widths) + 2 * len(widths) > self.width and len(widths) > 2:
            # The last columns say least.
            columns.pop(), cells.pop(), widths.pop()
        room = self.width - sum(widths) - 2 * len(widths)
        drawn = [abs(value) for value in shown.drawn if value is not None]
        limit = max(drawn, default=0.0)
        bar = min(BAR, room) if room >= NARROWEST_BAR and limit > 0 else 0
        self.put(Text("  ".join(self._aligned(c, c.head, w) for c, w in zip(columns, widths, strict=True)), "dim"))
        for row in range(len(shown)):
            texts = [self._aligned(c, t[row], w) for c, t, w in zip(columns, cells, widths, strict=True)]
            line = Text("  ".join(texts) + "  ")
            value = shown.drawn[row] if shown.drawn else None
            if bar and value is not None and abs(value) / limit * bar * 8 >= 0.5:
                line.append(("-" if value < 0 else "") + self.bar(abs(value) / limit, bar - 1), self._style(value))
            self.put(line)

    def wrapped_line(self, words: str, value: str) -> None:
        """A sentence and a number behind it, further lines of it set in."""
        text = Text.assemble(self.safe(words), ": ", (self.safe(value), "bold"))
        for place, piece in enumerate(text.wrap(self.console, self.width - 2)):
            self.put(Text.assemble("  " if place else "", piece))

    def _style(self, value: float) -> str:
        return self.ink(value) if self.coloured else ""

    def _fitted(self, column: Column) -> list[str]:
        return [self.shorten(self.safe(text), WIDEST_LABEL) for text in column.texts]

    def _aligned(self, column: Column, text: str, width: int) -> str:
        if column.label:
            return set_cell_size(text, width)
        return " " * max(width - cell_len(text), 0) + text
