"""What every table in a terminal is made of: colours, bars, columns that fit the width, text that is safe to print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from attribution_core.display.view import MISSING, largest, printable

# Background per step away from zero; the first step, hardly more than nothing, has none. All of about the same
# lightness, so that a cell stands out from a white and from a black terminal alike, and strength is told by saturation
# and hue; white text has a contrast of 4.5 or more on each. Blue against orange and red is told apart with every
# common colour blindness.
POSITIVE = ("#5f767e", "#4b758d", "#39729d", "#2a6dac", "#1d67bb", "#185ecd", "#2351de")
NEGATIVE = ("#7a705e", "#826b49", "#8d6334", "#995721", "#a44914", "#ae3815", "#b71a18")
STEPS = len(POSITIVE) + 1
INK = "#ffffff"
# The same for 256 colours, as numbers in that palette, where rounding would make neighbours equal; 231 is white.
POSITIVE_256 = (60, 24, 25, 26, 26, 27, 21)
NEGATIVE_256 = (95, 94, 130, 124, 124, 160, 160)
INK_256 = 231
# The same for the basic 16: names, because each terminal has its own idea of what they look like.
POSITIVE_16 = (*["black on cyan"] * 3, *["bright_white on blue"] * 4)
NEGATIVE_16 = (*["black on yellow"] * 3, *["bright_white on red"] * 4)
# Text and bars in these are readable on white and on black.
BAR_POSITIVE, BAR_NEGATIVE = "#2f7fd0", "#d0661a"
BAR_POSITIVE_16, BAR_NEGATIVE_16 = "bright_blue", "red"
WIDEST = 160
SHORTEST_LABEL, USUAL_LABEL = 7, 12
EIGHTHS = " ▏▎▍▌▋▊▉"


def plain_console(file: TextIO, width: int = 100) -> Console:
    """A console that prints the same in a terminal, a pipe and a notebook: everything that rich would otherwise find
    out about its surroundings is said here."""
    return Console(
        file=file,
        width=width,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        legacy_windows=False,
        _environ={},
    )


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
        styles = (BAR_POSITIVE_16, BAR_NEGATIVE_16) if self.basic else (BAR_POSITIVE, BAR_NEGATIVE)
        return styles[value < 0]

    def background(self, strength: int) -> str:
        """The colours of a cell or word ``strength`` steps (-STEPS to STEPS) away from zero; "" for weak ones."""
        place = abs(strength) - 2
        if place < 0 or not self.coloured:
            return ""
        if self.basic:
            return (POSITIVE_16 if strength > 0 else NEGATIVE_16)[place]
        if self.console.color_system == "256":
            return f"color({INK_256}) on color({(POSITIVE_256 if strength > 0 else NEGATIVE_256)[place]})"
        return f"{INK} on {(POSITIVE if strength > 0 else NEGATIVE)[place]}"

    def safe(self, text: str) -> str:
        """``text`` without anything that the terminal would obey or that its encoding cannot show."""
        text = printable(text)
        if self.ascii:
            text = text.replace(MISSING, ".")
        encoding = self.console.encoding
        return text.encode(encoding, "backslashreplace").decode(encoding, "replace")

    def shorten(self, text: str, width: int) -> str:
        """``text`` in at most ``width`` terminal cells, with an ellipsis where something was cut."""
        if cell_len(text) <= width:
            return text
        mark = "~" if self.ascii else "…"
        return set_cell_size(text, max(width - 1, 0)).rstrip() + mark

    def centred(self, text: str, width: int) -> str:
        text = self.shorten(text, width - 1)
        left = (width - cell_len(text) + 1) // 2
        return " " * left + text + " " * (width - left - cell_len(text))

    def line(self, text: str, style: str) -> None:
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
