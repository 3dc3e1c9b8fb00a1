"""The parts of every table in a terminal: colours, bars, columns that fit the width, text that is safe to print."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from attribution_core.display import colours
from attribution_core.display.view import MISSING, largest, printable, whole_words

STEPS = colours.TERMINAL_STEPS
WIDEST = 160
SHORTEST_LABEL, USUAL_LABEL = 7, 12
EIGHTHS = " ▏▎▍▌▋▊▉"


def plain_text(draw: Callable[[Console], object], width: int = 100) -> str:
    """What ``draw`` prints on a console, as plain text without a line feed at the end: the same in a terminal, a pipe
    and a notebook, because everything that rich would find out about its surroundings is said here."""
    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        legacy_windows=False,
        _environ={},
    )
    draw(console)
    return file.getvalue().rstrip("\n")


class Sheet:
    """Where to print: a console, the width used of it, and what its encoding can show."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.width = max(min(console.width, WIDEST), 30)
        self.ascii = console.options.ascii_only
        self.coloured = console.color_system is not None and not console.no_color
        self.basic = console.color_system in ("standard", "windows")

    # --- columns

    def fit(
        self, lengths: Sequence[int], sizes: NDArray[np.floating], available: int, cell: int, blocks: int
    ) -> tuple[NDArray[np.intp], list[int]]:
        """Which columns are shown, and how wide: ``lengths`` are those of the labels, ``cell`` is that of a cell.

        All of them with labels shortened as little as possible, in one block if that leaves labels readable, else in
        up to ``blocks``; else those with the largest ``sizes``, in their own order.
        """
        every = np.arange(len(lengths))
        for cap in range(max([*lengths, SHORTEST_LABEL]), SHORTEST_LABEL - 1, -1):
            widths = column_widths(lengths, cap, cell)
            spare = available - sum(widths)
            if spare >= 0:
                return every, [width + (spare >= len(widths)) for width in widths]
        usual = max(min(USUAL_LABEL, available - 1), cell)
        for count in range(len(lengths), 0, -1):
            kept = largest(sizes, count)
            widths = column_widths([lengths[column] for column in kept], usual, cell)
            if len(runs(widths, available)) <= blocks:
                return kept, widths
        raise AssertionError("one column always fits")

    # --- pieces

    def bar(self, share: float, width: int) -> str:
        """A bar of ``share`` of ``width`` characters, to an eighth of one; never empty."""
        if self.ascii:
            return "#" * max(round(share * width), 1)
        whole, rest = divmod(max(round(share * width * 8), 1), 8)
        return "█" * whole + EIGHTHS[rest].strip()

    def ink(self, value: float) -> str:
        """The colour of a bar for ``value``."""
        return (colours.BARS_16 if self.basic else colours.BARS)[value < 0]

    def background(self, strength: int) -> str:
        """The colours of a cell or word ``strength`` steps (-STEPS to STEPS) away from zero; "" for weak ones."""
        place = abs(strength) - 2
        if place < 0 or not self.coloured:
            return ""
        if self.basic:
            return (colours.POSITIVE_16 if strength > 0 else colours.NEGATIVE_16)[place]
        if self.console.color_system == "256":
            number = (colours.POSITIVE_256 if strength > 0 else colours.NEGATIVE_256)[place]
            return f"color({colours.INK_256}) on color({number})"
        ground = (colours.TERMINAL_POSITIVE if strength > 0 else colours.TERMINAL_NEGATIVE)[place]
        return f"{colours.TERMINAL_INK} on {ground}"

    def safe(self, text: str) -> str:
        """``text`` without anything that the terminal would obey or that its encoding cannot show."""
        text = printable(text)
        if self.ascii:
            text = text.replace(MISSING, ".")
        encoding = self.console.encoding
        return text.encode(encoding, "backslashreplace").decode(encoding, "replace")

    def shorten(self, text: str, width: int) -> str:
        """``text`` in at most ``width`` terminal cells, with an ellipsis where something was cut: between words, if it
        has some."""
        if cell_len(text) <= width:
            return text
        mark = "~" if self.ascii else "…"
        start = set_cell_size(text, max(width - 1, 0))
        return whole_words(start, text[len(start) :]) + mark

    def centred(self, text: str, width: int) -> str:
        text = self.shorten(text, width - 1)
        left = (width - cell_len(text) + 1) // 2
        return " " * left + text + " " * (width - left - cell_len(text))

    def line(self, text: str, style: str = "") -> None:
        """A sentence, wrapped to the width."""
        for piece in Text(self.safe(text), style).wrap(self.console, self.width):
            self.put(piece)

    def put(self, text: Text) -> None:
        # Text objects are never read as markup, and what is cut to size above needs no wrapping.
        if not self.coloured:
            text.rstrip()
        self.console.print(text, no_wrap=True, overflow="crop", highlight=False)

    def blank(self) -> None:
        self.console.print()


def column_widths(lengths: Sequence[int], cap: int, cell: int) -> list[int]:
    """The width of each column: its label, at most ``cap``, at least a number, and one space."""
    return [max(min(length, cap), cell) + 1 for length in lengths]


def runs(widths: Sequence[int], available: int) -> list[tuple[int, int]]:
    """Consecutive columns that fit beside each other: (first, last) with last exclusive."""
    blocks: list[tuple[int, int]] = []
    first = used = 0
    for column, width in enumerate(widths):
        if used + width > available and column > first:
            blocks.append((first, column))
            first, used = column, 0
        used += width
    return [*blocks, (first, len(widths))]


def set_right(text: str, width: int) -> str:
    return " " * max(width - cell_len(text), 0) + text
