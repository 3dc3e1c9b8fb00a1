"""One explained pair as terminal text, as HTML and as a figure: the public functions of the display.

rich, jinja2 and matplotlib are imported inside the functions that need them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attribution_core.display.view import view_of
from attribution_core.results import PairAttribution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import Console


def terminal_pair(
    pair: PairAttribution,
    console: Console | None = None,
    *,
    top: int = 10,
    special: bool = False,
    compact: bool = False,
) -> None:
    """Prints the score and what it is the sum of, the matrix in colour, and the ``top`` strongest pairs.

    Written to standard output, or to ``console``; within 80 columns, wider where the terminal is, and readable
    without colour. ``special`` shows special and prompt tokens too; ``compact`` keeps to the essential lines.
    Texts are printed literally: neither markup nor escape sequences in them take effect.
    """
    from rich.console import Console as RichConsole

    from attribution_core.display.terminal import print_pair

    print_pair(view_of(pair, special), console or RichConsole(), top, compact)


def pair_text(pair: PairAttribution, *, top: int = 5) -> str:
    """What ``terminal_pair(compact=True)`` prints, as plain text: without colour, at most 100 columns wide, without a
    line feed at the end, the same in a terminal, a pipe and a notebook."""
    from attribution_core.display.sheet import plain_text

    return plain_text(lambda console: terminal_pair(pair, console, top=top, compact=True))


def pair_html(pair: PairAttribution, *, special: bool = False) -> str:
    """The same as a self-contained HTML fragment: no scripts, its own style, light and dark, all text escaped."""
    from attribution_core.display.html import html_of

    return html_of(view_of(pair, special))


def plot_pair(pair: PairAttribution, *, special: bool = False, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """The matrix as a heatmap on a scale symmetric about zero, blue above and orange below, under a title with the
    score and the two texts, shortened; cells that a run did not store are grey, and the figure says so.

    Draws on ``ax``, or on a figure of its own that is not tied to pyplot, sized for the number of groups. Of a side
    with more than 60 groups the strongest 60 are drawn, and the figure says how many are not. Texts are drawn
    literally, dollar signs included; a character that no font of this machine has is drawn as "□". Returns (figure,
    axes).
    """
    from attribution_core.display.figure import draw

    return draw(view_of(pair, special), ax)
