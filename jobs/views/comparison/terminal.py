"""A comparison as terminal text."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from attribution_core.display.view import model_words, printable
from jobs.analysis.comparison.examples import SCORE, Example
from jobs.analysis.comparison.result import Comparison
from jobs.analysis.comparison.scores import ROUNDING, Scores

BLOCKS = " ▁▂▃▄▅▆▇█"
LONGEST = 160
TEXT_WIDTH = 110
MEANINGS = {
    "distance": "distance of the words' shares, 0 to 1",
    "cosine_a": "cosine of the words' sums, a",
    "cosine_b": "cosine of the words' sums, b",
    "spearman_a": "rank correlation of the words' sums, a",
    "spearman_b": "rank correlation of the words' sums, b",
    "overlap": "ten strongest word pairs in common",
    "cosine_cells": "cosine of all word pairs",
    "spearman_cells": "rank correlation of all word pairs",
}
SUMS = {
    "score": "the score",
    "difference": "what the score gains over references, texts with one token in place of every word",
    "centred": "what sets a pair apart from an average one",
}
# Beside the table, for whoever reads it first.
SHARES = (
    "A word's sum is that of its pairs with all words and special tokens of the other text. Its share is its sum "
    "divided by the sum of the absolute values of all words' sums, so it keeps its sign and is finite for any score. "
    "Distance is half the sum of the differences between the two runs' shares: 0 where they are the same, 1 where "
    "nothing is."
)
PARTS = (
    "(a: and b: words of the two texts, with their sums in either run. Sums are parts of the score: over all words and "
    "special tokens of a text their changes add up to the change of the score.)"
)
SHARED = "(a: and b: words of the two texts, with their shares in either run.)"


def comparison_text(comparison: Comparison) -> str:
    """The comparison as plain text, 110 characters wide."""
    sink = io.StringIO()
    terminal_comparison(comparison, Console(file=sink, width=TEXT_WIDTH, force_terminal=False, color_system=None))
    return sink.getvalue()


def terminal_comparison(found: Comparison, console: Console) -> None:
    """Print a comparison."""

    def line(text: str = "", style: str = "") -> None:
        console.print(Text(_clean(text), style=style))

    for name, facts in (("first", found.first), ("second", found.second)):
        line(f"{name:<7}{facts['run']}")
        model = model_words(str(facts["model"] or "?"))
        line(f"       {model}, layer {facts['layer']}, {facts['groups']} groups, {facts['similarity']}, "
             f"sums to {facts['sums_to']}{_reference(found, facts)}")  # fmt: skip
    matched = found.matched
    by = "id and texts" if matched.by == "pair_id" else "texts alone (no id is shared)"
    told = f"{matched.pairs:,} pairs in both by {by}, of {matched.first:,} and {matched.second:,}"
    for count, why in ((matched.other_texts, "with other texts"), (matched.unwritten, "not written yet")):
        told += f"; {count:,} {why}" if count else ""
    line(told)
    if found.first["similarity"] != found.second["similarity"]:
        line("The runs have different similarities: their scores are no numbers of one kind.", "yellow")
    if not found.one_sum:
        first, second = (
            SUMS.get(str(facts["sums_to"]), str(facts["sums_to"])) for facts in (found.first, found.second)
        )
        line(f"Word pairs sum to different things: in the first run to {first}; in the second to {second}. "
             "Attributions differ by that too, and not by model and layer alone.", "yellow")  # fmt: skip
    line()
    scores = found.scores
    line("Scores", "bold")
    if scores.absolute.most <= ROUNDING:
        line(f"The same in both: no two differ by more than {scores.absolute.most:.0e}.")
    else:
        _scores(scores, console, line)
    line()
    line(f"Attributions of {found.compared:,} pairs", "bold")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for column in ("", "mean", "5 %", "median", "95 %"):
        table.add_column(column, justify="right" if column else "left")
    for name, agreed in found.agreement.items():
        if agreed is not None:
            told_of = (agreed.mean, *(agreed.quantiles[at] for at in (0, 2, 4)))
            table.add_row(MEANINGS[name], *(f"{number:.3f}" for number in told_of))
    console.print(table)
    line(SHARES)
    if found.words_of_one_run:
        line(f"{found.words_of_one_run:,} words were read by one run alone and take no part "
             f"({found.words_of_both_runs:,} by both).")  # fmt: skip
    for one in found.columns:
        told = f"{_number(one.first)} first, {_number(one.second)} second"
        line(f"Rank correlation of {one.name} with the score: {told}")
    _groups(found, console)
    for by in ("score", "attribution"):
        chosen = [example for example in found.examples if example.by == by]
        if chosen:
            line()
            line(f"Pairs whose {by}s differ most", "bold")
            line(PARTS if chosen[0].unit == SCORE else SHARED)
        for example in chosen:
            _example(example, line)


def _scores(scores: Scores, console: Console, line: Callable[..., None]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for column in ("", "mean", "5 %", "median", "95 %", "least", "most"):
        table.add_column(column, justify="right" if column else "left")
    for name, spread in (("first", scores.first), ("second", scores.second), ("second − first", scores.difference)):
        numbers = (spread.mean, *(spread.quantiles[at] for at in (0, 2, 4)), spread.least, spread.most)
        table.add_row(name, *(f"{number:+.3f}" if "−" in name else f"{number:.3f}" for number in numbers))
    console.print(table)
    correlated = f"correlation {_number(scores.pearson)}, of ranks {_number(scores.spearman)}"
    line(f"|second − first| is {scores.absolute.mean:.4f} on the mean; {correlated}")
    line(f"{scores.edges[0]:+.2f} {_bars(scores.histogram, console.options.ascii_only)} {scores.edges[-1]:+.2f}")


def _groups(found: Comparison, console: Console) -> None:
    for by in dict.fromkeys(group.by for group in found.groups):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
        for column in (_clean(by), "pairs", "second − first", "|second − first|", "distance"):
            table.add_column(Text(column), justify="right" if table.columns else "left")
        for one in [group for group in found.groups if group.by == by][:10]:
            table.add_row(
                Text(_clean(_short(one.value, 40))),
                f"{one.pairs:,}",
                f"{one.difference:+.3f}",
                f"{one.absolute:.3f}",
                _number(one.distance),
            )
        console.print(table)


def _example(one: Example, line: Callable[..., None]) -> None:
    distance = "" if one.distance is None else f", distance {one.distance:.2f}"
    other = "" if one.pair_2 == one.pair_1 else f" (second: {one.pair_2})"
    line(f"{one.pair_1}{other}  score {one.score_1:.3f} → {one.score_2:.3f}{distance}", "cyan")
    line(f"  a  {_short(one.a)}")
    line(f"  b  {_short(one.b)}")
    form = "+.2f" if one.unit == SCORE else "+.0%"
    for name, words in (("up", one.up), ("down", one.down)):
        if words:
            line(
                f"  {name:<5}"
                + ", ".join(f"{word.side}:{word.word} {word.first:{form}} → {word.second:{form}}" for word in words)
            )


def _reference(found: Comparison, facts: dict[str, Any]) -> str:
    """What stands in place of every word in a run's references, where the two runs have different ones."""
    if found.first["reference"] == found.second["reference"]:
        return ""
    by_role = facts["reference"] or {}
    tokens = list(dict.fromkeys(by_role.values()))
    if len(tokens) == 1:
        return f", reference {tokens[0]}"
    return ", reference " + (
        ", ".join(f"{by_role[role]} for a {role}" for role in sorted(by_role, reverse=True)) or "not recorded"
    )


def _bars(counts: tuple[int, ...], plain: bool) -> str:
    signs = " 123456789" if plain else BLOCKS
    most = max(counts) or 1
    # What is there shows, however little it is.
    return "".join(signs[-(-count * (len(signs) - 1) // most)] for count in counts)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _short(text: str, longest: int = LONGEST) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _clean(text: str) -> str:
    return printable(text) if text else ""
