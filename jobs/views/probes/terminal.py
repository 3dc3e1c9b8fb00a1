"""Probes as terminal text: one row an edit, with its control beside it."""

from __future__ import annotations

from rich.console import Console

from attribution_core.display.sheet import plain_text
from attribution_core.display.view import model_words
from jobs.analysis.probes.result import SMALL, Estimate, Probe, Probes
from jobs.views.kit.sheet import TableSheet
from jobs.views.kit.table import Table, table_of

HEADS = ("edit", "pairs", "change", "control", "above", "below")
# What the numbers take beside the edits' names.
NUMBERS, LEAST_NAME = 62, 14
LEGEND = (
    "change: of the score by the edit, mean and half its 95 % interval. control: the same of a benign edit of "
    "similar size. above: share of the edited copies that score above the original; below: of documents that fall "
    "below the next one of their query; those of the control in brackets."
)


def probes_text(probes: Probes, width: int = 110) -> str:
    """Return what :func:`terminal_probes` prints, as plain text."""
    return plain_text(lambda console: terminal_probes(probes, console), width)


def terminal_probes(probes: Probes, console: Console) -> None:
    """Print probes."""
    sheet = TableSheet(console)
    sheet.line(
        f"{model_words(probes.model)}: {probes.pairs:,} documents edited, one a query, of {probes.of:,} queries."
    )
    sheet.blank()
    sheet.table(probes_table(probes), max(sheet.width - NUMBERS, LEAST_NAME))
    sheet.blank()
    sheet.line(LEGEND, "dim")
    for one in probes.probes:
        if one.contradicts:
            sheet.line(sentence(one))
    for note in probes.notes:
        sheet.line(note, "yellow")


def probes_table(probes: Probes) -> Table:
    """Return a row an edit, with its control beside it."""
    return table_of(HEADS, [_row(one) for one in probes.probes])


def sentence(one: Probe) -> str:
    """Return what a probe says, in one sentence."""
    said = (
        f"An edit that {one.title} changes the score by {one.change.value:+.3f}{_interval(one.change)}, its control by "
        f"{one.control_change.value:+.3f}; by less than {SMALL:g} in {one.small.value:.0%} of {one.pairs:,} documents"
    )
    if one.above is not None:
        said += f", and the edited copy scores above the true one in {one.above.value:.0%}"
    return f"{said}."


def _interval(estimate: Estimate) -> str:
    return "" if estimate.low is None else f" (95 % interval {estimate.low:+.3f} to {estimate.high:+.3f})"


def _row(one: Probe) -> tuple[str, ...]:
    return (
        one.title,
        f"{one.pairs:,}",
        _with_half(one.change),
        _with_half(one.control_change),
        _shares(one.above, one.control_above),
        _shares(one.turned, one.control_turned),
    )


def _with_half(value: Estimate) -> str:
    half = "" if value.low is None or value.high is None else f" ±{(value.high - value.low) / 2:.3f}"
    return f"{value.value:+.3f}{half}"


def _shares(value: Estimate | None, control: Estimate | None) -> str:
    return "-" if value is None or control is None else f"{value.value:.0%} ({control.value:.0%})"
