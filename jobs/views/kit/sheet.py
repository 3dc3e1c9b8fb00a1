"""Terminal output: tables with small bars that fit the width, curves of one line, sentences ending in a number."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from attribution_core.display.sheet import Sheet, set_right
from jobs.views.kit.table import Column, Table

BAR, NARROWEST_BAR = 20, 6
WIDEST_LABEL = 40
BLOCKS, DIGITS = "▁▂▃▄▅▆▇█", "0123456789"


class TableSheet(Sheet):
    """A sheet with tables."""

    def table(self, table: Table, widest: int = WIDEST_LABEL) -> None:
        """Print a table: labels of at most ``widest`` cells on the left, numbers on the right, then the bars. Columns
        that do not fit the width are left out, the last ones first."""
        if table.title:
            self.line(table.title, "bold")
        columns = [column for column in table.columns if any(column.texts)]
        cells = [[self.shorten(self.safe(text), widest) for text in column.texts] for column in columns]
        heads = [self.safe(column.head) for column in columns]
        widths = [max(map(cell_len, [head, *texts])) for head, texts in zip(heads, cells, strict=True)]
        while sum(widths) + 2 * len(widths) > self.width + 2 and len(widths) > 2:
            columns.pop(), cells.pop(), widths.pop()
        room = self.width - sum(widths) - 2 * len(widths)
        bar = min(BAR, room) if room >= NARROWEST_BAR and table.largest > 0 else 0
        self.put(Text(self._row(columns, heads, widths), "dim"))
        for at in range(len(table)):
            line = Text(self._row(columns, [texts[at] for texts in cells], widths) + "  ")
            value = table.drawn[at] if table.drawn else None
            if bar and value is not None and abs(value) / table.largest * bar * 8 >= 0.5:
                drawn = ("-" if value < 0 else "") + self.bar(abs(value) / table.largest, bar - 1)
                line.append(drawn, self.ink(value) if self.coloured else "")
            line.rstrip()
            self.put(line)

    def _row(self, columns: Sequence[Column], texts: Sequence[str], widths: Sequence[int]) -> str:
        return "  ".join(
            set_cell_size(text, width) if column.label else set_right(text, width)
            for column, text, width in zip(columns, texts, widths, strict=False)
        )

    def spark(self, values: Sequence[float], low: float, high: float) -> str:
        """A curve between ``low`` and ``high``, one character a value; digits where the terminal has no blocks."""
        signs = DIGITS if self.ascii else BLOCKS
        span = (high - low) or 1.0
        return "".join(signs[min(int((value - low) / span * len(signs)), len(signs) - 1)] for value in values)

    def number_line(self, words: str, value: str) -> None:
        """A sentence and a number behind it, further lines of it set in."""
        text = Text.assemble(self.safe(words), ": ", (self.safe(value), "bold"))
        for place, piece in enumerate(text.wrap(self.console, self.width - 2)):
            self.put(Text.assemble("  " if place else "", piece))
