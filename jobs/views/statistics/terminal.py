"""Statistics as terminal text: tables with small bars, within the width that there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.text import Text

from attribution_core.display.sheet import plain_text
from jobs.analysis.statistics.schema import FOLDER, NAMES, RunFacts, Statistic, Summary
from jobs.views.kit.sheet import TableSheet
from jobs.views.statistics.advice import Advice, advice_of
from jobs.views.statistics.view import head_lines, shown_figures, shown_tables

WIDEST_LABEL = 28


def statistics_text(summary: Summary, tables: Mapping[str, pa.Table], only: Sequence[str] = ()) -> str:
    """What :func:`print_summary` prints, as plain text."""
    return plain_text(lambda console: print_summary(summary, tables, only, console))


def print_summary(
    summary: Summary, tables: Mapping[str, pa.Table], only: Sequence[str] = (), console: Console | None = None
) -> None:
    """Print the statistics named in ``only`` (all by default) to standard output, or to ``console``.

    ``tables`` are the statistics' tables by name. Texts are printed literally; it reads well without colour.
    """
    sheet = StatisticsSheet(console or Console())
    sheet.head(summary)
    for name in NAMES:
        if name in summary.statistics and (not only or name in only):
            sheet.statistic(summary.statistics[name], tables, summary.run)


def print_advice(
    summary: Summary, tables: Mapping[str, pa.Table], commands: Sequence[str], console: Console | None = None
) -> None:
    """Print what a person acts on, one result a line with what to do, and below it ``commands``, each with what it
    shows; ``tables`` has those that :func:`jobs.views.statistics.advice.advice_of` reads."""
    sheet = StatisticsSheet(console or Console())
    sheet.line(head_lines(summary)[0], "bold")
    for note in summary.notes:
        sheet.line(note, "bold")
    sheet.blank()
    sheet.advice(advice_of(summary, tables))
    sheet.blank()
    for command in commands:
        # Not cut, however long: it is there to be copied.
        sheet.console.print(Text(sheet.safe(command), "dim"), soft_wrap=True, highlight=False)


class StatisticsSheet(TableSheet):
    """A sheet for statistics."""

    def head(self, summary: Summary) -> None:
        """What was looked at, and how to read what follows."""
        for place, line in enumerate(head_lines(summary)):
            self.line(line, "dim" if place else "bold")
        for note in summary.notes:
            self.line(note, "bold")

    def advice(self, lines: Sequence[Advice]) -> None:
        """Results beside what they are about, each followed by what to do."""
        indent = max((len(one.about) for one in lines), default=0) + 2
        for one in lines:
            # Terminals without colour get the same words; a space that must not break is one that ASCII lacks.
            text = Text(self.safe(one.finding.replace("\u00a0", " ")))
            text.append(f" {self.safe(one.act)}" if one.act else "", "bold")
            for place, piece in enumerate(text.wrap(self.console, self.width - indent)):
                self.put(Text.assemble((f"{'' if place else one.about:<{indent}}", "bold"), piece))

    def statistic(self, statistic: Statistic, tables: Mapping[str, Any], facts: RunFacts) -> None:
        """One statistic under its title."""
        self.blank()
        self.put(Text(statistic.title, "bold underline"))
        self.line(statistic.meaning, "dim")
        for table in shown_tables(statistic, tables, facts):
            self.blank()
            self.table(table, WIDEST_LABEL)
        figures = shown_figures(statistic)
        if figures:
            self.blank()
        for meaning, value in figures:
            self.number_line(meaning[:1].upper() + meaning[1:], value)
        for note in statistic.notes:
            self.line(note, "dim")
        if statistic.tables:
            self.line(f"Tables in {FOLDER}/: {', '.join(info.name for info in statistic.tables)}", "dim")
