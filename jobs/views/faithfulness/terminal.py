"""An evaluation as terminal text: the verdict, agreement with deletion, a table of advantages, small curves."""

from __future__ import annotations

import io

from rich import box
from rich.box import Box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from attribution_core.display.view import model_words, printable
from jobs.analysis.faithfulness.agreement import AGREEMENTS, PEARSON, SPEARMAN
from jobs.analysis.faithfulness.curves import BOTH_SHARE, PAIRS, measures_of
from jobs.analysis.faithfulness.orders import ATTRIBUTIONS, EMBEDDINGS, LEXICAL, RANDOM, RULES, SHUFFLED
from jobs.analysis.faithfulness.result import Faithfulness
from jobs.analysis.resampling import Mean, few_draws

HEADINGS = {ATTRIBUTIONS: "attributions", EMBEDDINGS: "embeddings", LEXICAL: "same words", SHUFFLED: "shuffled"}
KINDS = {SPEARMAN: "ranks", PEARSON: "values"}
SUMS = {
    "score": "word pairs that sum to the score",
    "difference": "word pairs that sum to the score's difference from reference texts (sums_to: difference)",
    "centred": "word pairs that sum to what sets a pair apart from an average one (sums_to: centred)",
}
OF_PAIRS = "One of pairs is what their words contribute together."
OF_BOTH = (
    f"That of both texts ends at {BOTH_SHARE:.0%} of the words: two texts without the words that mean something are "
    "alike."
)
BLOCKS = " ▁▂▃▄▅▆▇█"


def terminal_faithfulness(found: Faithfulness, console: Console) -> None:
    """Print an evaluation."""

    def line(text: str, style: str = "") -> None:
        console.print(Text(_clean(text), style=style), soft_wrap=False)

    measures = measures_of(found.sums_to)
    line(
        f"{found.pairs:,} of {found.of:,} pairs, {model_words(found.model)}, layer {found.layer}, {found.groups} groups"
    )
    line(f"What is judged: {SUMS[found.sums_to]}{'' if found.own_judge else f', by {model_words(found.judge)}'}.")
    line("")
    line(found.verdict.text, "bold")
    if caveat := few_draws(found.draws):
        line(caveat, "yellow")
    line("")
    line(
        "Agreement with deletion: correlation, within a pair, with what the embedding loses when words are deleted "
        f"(Shapley values, {found.shapley_orders} orders). 1 is perfect, 0 is chance."
    )
    table = _table(Table, box.SIMPLE_HEAD)
    for level, kind in AGREEMENTS:
        agreed = [found.agreed(level, kind, rule) for rule in RULES]
        if all(agreed):
            table.add_row(f"{level}, {KINDS[kind]}", *(_with_half(one.value) for one in agreed if one is not None))
    table.add_section()
    for level, kind in AGREEMENTS:
        leads = [found.lead(level, kind, rule) for rule in RULES if rule != ATTRIBUTIONS]
        if kind == SPEARMAN and all(leads):
            cells = [_with_half(one.difference) for one in leads if one is not None]
            table.add_row(f"ahead by, {level}", "", *cells)
    console.print(table)
    if found.whole < found.pairs:
        line(
            f"Word pairs are judged where all of them were stored: {found.whole:,} of {found.pairs:,} pairs "
            "(store: full stores all)."
        )
    line("")
    line("Advantage over random order: area between the curves, in units of the score.")
    table = _table(Table, box.SIMPLE_HEAD)
    for level, operation in measures:
        gained = [found.curve(level, operation, method).advantage for method in RULES]
        table.add_row(f"{operation}, {level}", *map(_with_half, gained))
    table.add_section()
    table.add_row("together", *(_with_half(found.against(method, RANDOM).advantage) for method in RULES))
    ahead = [found.against(ATTRIBUTIONS, rule).advantage for rule in RULES if rule != ATTRIBUTIONS]
    table.add_row("ahead by", "", *map(_with_half, ahead))
    console.print(table)
    wins = found.against(ATTRIBUTIONS, RANDOM).wins
    line(f"The attributions do better than random order in {wins:.0%} of the pairs.")
    line("")
    line("Curves, from no word to all; a fast fall (deletion) or rise (insertion) is good.")
    table = Table(box=None, pad_edge=False, padding=(0, 1), show_header=False)
    for level, operation in measures:
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
    joint = OF_PAIRS if measures[-1][0] == PAIRS else OF_BOTH
    line(f"A curve of words is the score. {joint}", "dim")


def _table(table: type[Table], box: Box) -> Table:
    """A table with a column for each rule."""
    made = table(box=box, pad_edge=False, padding=(0, 1))
    made.add_column("", no_wrap=True)
    for method in RULES:
        made.add_column(HEADINGS[method], justify="right")
    return made


def faithfulness_text(found: Faithfulness, width: int = 110) -> str:
    """The same as plain text."""
    sink = io.StringIO()
    terminal_faithfulness(found, Console(file=sink, width=width, force_terminal=False, color_system=None))
    return sink.getvalue()


def _spark(values: tuple[float, ...], low: float, high: float, plain: bool) -> str:
    """One character a step; digits where the terminal has no blocks."""
    signs = "0123456789" if plain else BLOCKS[1:]
    span = (high - low) or 1.0
    return "".join(signs[min(int((value - low) / span * len(signs)), len(signs) - 1)] for value in values)


def _with_half(found: Mean) -> str:
    """A mean and half its interval, without the zeros before the points: four of them fit into 80 columns."""
    return f"{found.mean:+.3f} ±{(found.high - found.low) / 2:.3f}".replace("0.", ".")


def _clean(text: str) -> str:
    return printable(text) if text else ""
