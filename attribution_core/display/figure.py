"""One pair's matrix as a matplotlib heatmap."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import cast

import numpy as np
from matplotlib import font_manager, rcParams
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.text import Text
from rich.cells import cell_len

from attribution_core.display.colours import HEATMAP, HEATMAP_MISSING
from attribution_core.display.view import (
    NO_WORD_PAIRS,
    View,
    decimals_for,
    model_words,
    names,
    number,
    printable,
    shortened,
    word_sums,
)

SCALE = LinearSegmentedColormap.from_list("tokenpair", HEATMAP)
LONGEST_LABEL, LONGEST_TEXT = 18, 100
# Rows and columns drawn at most: with them a figure of its own is at most about 20 inches wide.
MOST_SHOWN = 60
# Cells with numbers in them, up to this many rows and columns.
NUMBERED = 14
# Bars of words of each text, where there is no matrix.
MOST_BARS = 20
# Characters of the title's size per inch; a little low, so that no line is cut at the edge.
PER_INCH = 12.5
# Scripts that matplotlib's own font lacks; those of these fonts that this machine has are tried in turn.
MORE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Microsoft YaHei",
    "Hiragino Sans",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
    "Arial Unicode MS",
)
# Comes with matplotlib, and has the box that stands for a character no font has.
LAST_FONT, NO_GLYPH = "DejaVu Sans", "□"


def draw(view: View, ax: Axes | None) -> tuple[Figure, Axes]:
    """``view`` on ``ax``, or on a figure of its own that pyplot knows nothing of."""
    if not view.pair.has_word_pairs:
        return _draw_sums(view, ax)
    view = view.smaller(MOST_SHOWN, MOST_SHOWN)
    rows, cols = view.cells.shape
    words = [drawable(shortened(label, LONGEST_LABEL)) for label in view.row_labels]
    heads = [drawable(shortened(label, LONGEST_LABEL)) for label in view.col_labels]
    numbered = 0 < max(rows, cols) <= NUMBERED
    if ax is None:
        margin = 0.085 * max(map(cell_len, [*words, *heads, ""]))
        # The widest number of all cells decides; without numbers a cell is as wide as a slanted label takes.
        digits = max(len(number(value, decimals_for(view.limit))) for value in (view.limit, -view.limit))
        per_col = 0.12 + 0.085 * digits if numbered else 0.24
        width = max(2.2 + margin + per_col * cols, 6.4)
        height = max(2.5 + margin + (0.3 if numbered else 0.22) * rows, 3.8)
        ax = Figure(figsize=(width, height), layout="constrained").add_subplot()
        room = width - margin - 1.6
    else:
        parent = cast(Figure, ax.get_figure(root=True))
        room = float(ax.get_position().width * parent.get_figwidth())
    figure = cast(Figure, ax.get_figure(root=True))
    limit = view.limit or 1.0
    colours = SCALE.with_extremes(bad=HEATMAP_MISSING)
    # An empty matrix, of a text without words, is drawn as one cell that is not stored.
    cells = view.cells if view.cells.size else np.full((1, 1), np.nan, np.float32)
    image = ax.imshow(np.ma.masked_invalid(cells), cmap=colours, vmin=-limit, vmax=limit, aspect="auto")
    size = float(np.clip(11 - 0.04 * max(rows, cols), 7, 10))
    ax.set_xticks(range(cols), heads, rotation=45, ha="left", rotation_mode="anchor")
    ax.tick_params(top=True, bottom=False, labeltop=True, labelbottom=False, length=0)
    ax.set_yticks(range(rows), words)
    literal: list[Text] = [*ax.get_xticklabels(), *ax.get_yticklabels()]
    for label in literal:
        label.set_fontsize(size)
    a, b = names(view.pair)
    below = [f"{view.pair.b.groups.unit}s of {b}"]
    if np.isnan(cells).any():
        below.append("grey: not stored" if view.cells.size else "grey: no words to show")
    if view.left_out:
        below += wrapped(view.left_out, room)
    literal.append(ax.set_xlabel(drawable("\n".join(below)), loc="left"))
    literal.append(ax.set_ylabel(drawable(f"{view.pair.a.groups.unit}s of {a}")))
    if numbered:
        literal += _numbers(ax, view, limit, size)
    ax.spines[:].set_visible(False)
    literal.append(ax.set_title("\n".join(_title(view, room)), fontsize=10, loc="left"))
    bar = figure.colorbar(image, ax=ax, shrink=0.8, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label("contribution to the score")
    _literally(literal)
    return figure, ax


def _draw_sums(view: View, ax: Axes | None) -> tuple[Figure, Axes]:
    """The strongest words of both texts as bars, for a pair without word pairs."""
    words = [(name, word) for name, _, words in word_sums(view, MOST_BARS) for word in words]
    if ax is None:
        ax = Figure(figsize=(6.4, max(2.5 + 0.22 * len(words), 3.8)), layout="constrained").add_subplot()
    figure = cast(Figure, ax.get_figure(root=True))
    values = [word.value for _, word in words]
    ax.barh(range(len(words)), values, color=[HEATMAP[-1] if value >= 0 else HEATMAP[0] for value in values])
    labels = [drawable(f"{name}: {shortened(printable(word.label), LONGEST_LABEL)}") for name, word in words]
    ax.set_yticks(range(len(words)), labels)
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    room = float(ax.get_position().width * figure.get_figwidth())
    below = ax.set_xlabel("\n".join(["contribution to the score", *wrapped(NO_WORD_PAIRS, room)]), loc="left")
    title = ax.set_title("\n".join(_title(view, room)), fontsize=10, loc="left")
    _literally([*ax.get_yticklabels(), below, title])
    return figure, ax


def _literally(texts: Iterable[Text]) -> None:
    """Draw texts as they are, in fonts that have most characters."""
    fonts = _fonts()
    for text in texts:
        # A dollar sign in a word is a dollar sign; matplotlib would typeset what stands between two of them.
        text.set_parse_math(False)
        text.set_usetex(False)
        text.set_fontfamily(fonts)


def _title(view: View, room: float) -> list[str]:
    """The score, where it comes from and the two texts, in lines of at most ``room`` inches."""
    pair = view.pair
    lines = [f"{printable(pair.similarity)} score {pair.score:.3f}"]
    if pair.model:
        lines.append(f"{printable(model_words(pair.model))}, layer {pair.layer}")
    if not pair.converged:
        lines.append("Approximate: the integration missed its tolerance")
    for name, text in zip(names(pair), (pair.a, pair.b), strict=True):
        # What is cut off is not looked at: a text can be a whole book.
        lines.append(f"{name}: {shortened(printable(text.text[: 2 * LONGEST_TEXT]), LONGEST_TEXT)}")
    return [piece for line in lines for piece in wrapped(drawable(line), room)]


def wrapped(line: str, inches: float) -> list[str]:
    """``line`` in pieces of at most ``inches``, counting wide characters as two."""
    wide = cell_len(line) / max(len(line), 1)
    return textwrap.wrap(line, max(int(inches * PER_INCH / max(wide, 1.0)), 12)) or [""]


def drawable(text: str) -> str:
    """``text`` with a box for every character that none of the fonts has; what is only part of the character before
    it, such as the colour of an emoji, goes. matplotlib would draw boxes too, and warn of every one of them."""
    have = _characters(tuple(_fonts()))
    out: list[str] = []
    for character in text:
        if ord(character) in have or character == "\n":
            out.append(character)
        elif unicodedata.category(character) not in ("Mn", "Me", "Cf", "Sk"):
            out.append(NO_GLYPH)
    # An emoji made of several joined ones is one character to its reader.
    return re.sub(f"{NO_GLYPH}\ufe0f?(?:\u200d{NO_GLYPH}?\ufe0f?)+", NO_GLYPH, "".join(out))


def _numbers(ax: Axes, view: View, limit: float, size: float) -> list[Text]:
    """Each cell's number, dark on light cells and white on strong ones."""
    decimals = decimals_for(view.limit)
    drawn = []
    for (row, col), value in np.ndenumerate(view.cells):
        ink = "white" if abs(float(value)) > 0.55 * limit else "#1b1b1b"
        drawn.append(
            ax.text(col, row, number(float(value), decimals), ha="center", va="center", color=ink, fontsize=size - 1)
        )
    return drawn


def _fonts() -> list[str]:
    here = {font.name for font in font_manager.fontManager.ttflist}
    return [*rcParams["font.family"], *(name for name in MORE_FONTS if name in here), LAST_FONT]


@cache
def _characters(families: tuple[str, ...]) -> frozenset[int]:
    """The code points that one of ``families`` has a glyph for."""
    # As a list: a single name would be read as a fontconfig pattern.
    files = {font_manager.findfont(font_manager.FontProperties(family=[name])) for name in families}
    return frozenset(point for file in files for point in font_manager.get_font(file).get_charmap())
