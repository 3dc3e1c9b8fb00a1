"""Kinds of failure as terminal text: how often each occurs, what to do, the measured rates of its rule, first cases."""

from __future__ import annotations

from rich.console import Console

from attribution_core.display.sheet import plain_text
from attribution_core.display.view import shortened
from jobs.analysis.failures.result import Case, Failures, Kind
from jobs.views.kit.sheet import TableSheet

CASES, LONGEST = 3, 160
BY_CHANCE = "no more often than the rule's false alarms"


def failures_text(failures: Failures, width: int = 110) -> str:
    """Return what :func:`terminal_failures` prints, as plain text."""
    return plain_text(lambda console: terminal_failures(failures, console), width)


def terminal_failures(failures: Failures, console: Console) -> None:
    """Print kinds of failure, the commonest first."""
    sheet = TableSheet(console)
    sheet.line(head(failures), "bold")
    for kind in sorted(failures.kinds, key=lambda kind: -(kind.share or 0.0)):
        sheet.blank()
        sheet.line(f"{kind.title}: {counted_share(kind)}")
        if kind.above_chance:
            sheet.line(f"  {kind.advice}")
        elif kind.count:
            sheet.line(f"  {BY_CHANCE[:1].upper()}{BY_CHANCE[1:]}.")
        for case in kind.cases[:CASES]:
            sheet.line(f"  {case_line(case)}", "dim")
        if kind.rates:
            sheet.line(f"  This rule on planted failures: {'; '.join(map(str, kind.rates))}.", "dim")
    if failures.notes:
        sheet.blank()
    for note in failures.notes:
        sheet.line(note, "yellow")


def head(failures: Failures) -> str:
    """Return what was looked at, in one or two sentences."""
    said = (
        f"In {failures.failing:,} of {failures.judged:,} judged queries a document that is not relevant, or not "
        "judged, ranks above a relevant one."
        if failures.judged
        else f"{failures.looked_at:,} of {failures.queries:,} queries looked at."
    )
    if failures.cut:
        said += f" {failures.cut / failures.documents:.0%} of {failures.documents:,} documents are cut."
    return said


def counted_share(kind: Kind) -> str:
    """Return how many of how many, with the interval of the share."""
    if not kind.of:
        return f"0 {kind.of_what}"
    interval = "" if kind.low is None else f", 95 % interval {kind.low:.0%} to {kind.high:.0%}"
    return f"{kind.count:,} of {kind.of:,} {kind.of_what} ({kind.share:.0%}{interval})"


def case_line(case: Case) -> str:
    """Return a case in one line."""
    named = f"query {case.query_id}"
    if case.document_id is not None:
        named += f", document {case.document_id}"
    if case.other_id is not None:
        named += f" below {case.other_id}"
    return shortened(f"{named}: {case.text}", LONGEST)
