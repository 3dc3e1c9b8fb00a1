"""An evaluation as terminal text: the verdict, a table of advantages, small curves."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from jobs.evaluation.curves import MEASURES
from jobs.evaluation.intervals import few_draws
from jobs.evaluation.orders import ATTRIBUTIONS, EMBEDDINGS, LEXICAL, METHODS, RANDOM, SHUFFLED
from jobs.evaluation.result import short_name

if TYPE_CHECKING:
    from rich.console import Console

    from jobs.evaluation.intervals import Mean
    from jobs.evaluation.result import Faithfulness

HEADINGS = {ATTRIBUTIONS: "attributions", EMBEDDINGS: "embeddings", LEXICAL: "same words", SHUFFLED: "shuffled"}
BLOCKS = " ▁▂▃▄▅▆▇█"


def terminal_faithfulness(found: Faithfulness, console: Console) -> None:
    """Print an evaluation."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    def line(text: str, style: str = "") -> None:
        console.print(Text(_clean(text), style=style), soft_wrap=False)

    line(
        f"{found.pairs:,} of {found.of:,} pairs, {short_name(found.model)}, layer {found.layer}, {found.groups} groups"
    )
    if not found.own_judge:
        line(f"judged by {short_name(found.judge)}")
    line("")
    line(found.verdict.text, "bold")
    line("")
    line("Advantage over random order: area between the curves, in units of the score.")
    others = [method for method in METHODS if method != RANDOM]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("", no_wrap=True)
    for method in others:
        table.add_column(HEADINGS[method], justify="right")
    for level, operation in MEASURES:
        cells = [found.curve(level, operation, method).advantage for method in others]
        table.add_row(f"{operation}, {level}", *map(_advantage, cells))
    table.add_section()
    table.add_row("together", *(_advantage(found.against(method, RANDOM).advantage) for method in others))
    console.print(table)
    if caveat := few_draws(found.draws):
        line(caveat, "yellow")
    wins = found.against(ATTRIBUTIONS, RANDOM).wins
    line(f"The attributions do better than random order in {wins:.0%} of the pairs.")
    for rule in (EMBEDDINGS, LEXICAL):
        line(f"Their advantage over {rule}, together: {_advantage(found.against(ATTRIBUTIONS, rule).advantage)}")
    line("")
    line("Curves, from no word to all; a fast fall (deletion) or rise (insertion) is good.")
    table = Table(box=None, pad_edge=False, padding=(0, 1), show_header=False)
    for level, operation in MEASURES:
        shown = {method: found.curve(level, operation, method).values for method in (ATTRIBUTIONS, RANDOM)}
        low, high = min(map(min, shown.values())), max(map(max, shown.values()))
        ends = shown[ATTRIBUTIONS]
        for method, values in shown.items():
            first = method == ATTRIBUTIONS
            table.add_row(
                f"{operation}, {level}" if first else "",
                method,
                Text(_spark(values, low, high, console.options.ascii_only), style="cyan" if first else "dim"),
                f"{ends[0]:.2f} → {ends[-1]:.2f}" if first else "",
            )
    console.print(table)
    line("A curve of words is the score; one of pairs is what their words bring together.", "dim")


def faithfulness_text(found: Faithfulness, width: int = 110) -> str:
    """The same as plain text."""
    from rich.console import Console

    sink = io.StringIO()
    terminal_faithfulness(found, Console(file=sink, width=width, force_terminal=False, color_system=None))
    return sink.getvalue()


def _spark(values: tuple[float, ...], low: float, high: float, plain: bool) -> str:
    """One character a step; digits where the terminal has no blocks."""
    signs = "0123456789" if plain else BLOCKS[1:]
    span = (high - low) or 1.0
    return "".join(signs[min(int((value - low) / span * len(signs)), len(signs) - 1)] for value in values)


def _advantage(found: Mean) -> str:
    """A mean and half its interval, without the zeros before the points: four of them fit into 80 columns."""
    return f"{found.mean:+.3f} ±{(found.high - found.low) / 2:.3f}".replace("0.", ".")


def _clean(text: str) -> str:
    from attribution_core.display_view import printable

    return printable(text) if text else ""
