"""Statistics over a corpus as terminal text."""

from __future__ import annotations

from rich.console import Console

from attribution_core.display.sheet import plain_text
from attribution_core.display.view import shortened
from jobs.analysis.corpus.result import CorpusStatistics
from jobs.views.corpus.wording import Case, head, sections
from jobs.views.kit.sheet import TableSheet

CASES, LONGEST = 5, 200


def corpus_text(found: CorpusStatistics, width: int = 110) -> str:
    """Return what :func:`terminal_corpus` prints, as plain text."""
    return plain_text(lambda console: terminal_corpus(found, console), width)


def terminal_corpus(found: CorpusStatistics, console: Console) -> None:
    """Print statistics over a corpus, with the first few cases of each part."""
    sheet = TableSheet(console)
    sheet.line(head(found), "bold")
    for note in found.notes:
        sheet.line(note, "yellow")
    for section in sections(found):
        sheet.blank()
        sheet.line(section.title, "bold underline")
        for said in section.says:
            sheet.line(said.replace("\u00a0", " "))
        if section.act:
            sheet.line(section.act, "bold")
        for case in section.cases[:CASES]:
            sheet.line(f"  {case_line(case)}", "dim")
        if len(section.cases) > CASES:
            sheet.line(f"  ({len(section.cases) - CASES:,} more with --json and --html)", "dim")
        for table in section.tables:
            sheet.blank()
            sheet.table(table)


def case_line(case: Case) -> str:
    """Return a case in one line."""
    lead = case.lead.replace("\u00a0", " ")
    return f"{lead}: {' / '.join(shortened(one, LONGEST) for one in case.texts)}" if case.texts else lead
