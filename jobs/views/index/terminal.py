"""Highlights of an index as terminal text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from attribution_core.display.sheet import STEPS, Sheet
from attribution_core.display.view import model_words
from jobs.index.fragments import raising
from jobs.index.highlights import Highlight
from jobs.index.snapshot import Facts
from jobs.views.index.wording import Passage, colour_step, document_facts, document_note, footer, legend, passages

INDENT = 3


def terminal_highlights(query: str, hits: Sequence[Highlight], facts: Facts, console: Console | None = None) -> None:
    """Print the highlights of documents for a query, in the order of ``hits``.

    Written to standard output, or to ``console``; texts are printed literally, and it reads well without colour.
    """
    _HighlightSheet(console or Console()).highlights(query, hits, facts)


class _HighlightSheet(Sheet):
    def highlights(self, query: str, hits: Sequence[Highlight], facts: Facts) -> None:
        for line in Text.assemble(("query  ", "bold"), self.safe(query)).wrap(self.console, self.width):
            self.put(line)
        self.blank()
        self.line(legend(facts), "dim")
        for hit in map(raising, hits):
            self.blank()
            head = Text.assemble((self.safe(hit.id), "bold"), (f"  {', '.join(document_facts(hit))}", "dim"))
            for line in head.wrap(self.console, self.width):
                self.put(line)
            if note := document_note(hit):
                self.line(note, "bold")
            for passage in passages(hit):
                self.passage(hit, passage)
        self.blank()
        self.line(footer(facts, model_words(facts.model)), "dim")

    def passage(self, hit: Highlight, passage: Passage) -> None:
        """A number, and the passage beside it with its highlights on a coloured ground, or in brackets."""
        number = f"{passage.value:+.3f}"
        dots = "..." if self.ascii else "…"
        text = Text(f"{dots} " if passage.before else "")
        for words, span in passage.pieces:
            shown = self.safe(words)
            if span is None:
                text.append(shown)
            elif self.coloured:
                text.append(shown, self.background(colour_step(hit, span, STEPS)))
            else:
                text.append(f"[{shown}]")
        text.append(f" {dots}" if passage.after else "")
        left = INDENT + cell_len(number) + 2
        for place, line in enumerate(text.wrap(self.console, self.width - left)):
            before = f"{'':{INDENT}}{number}  " if place == 0 else " " * left
            self.put(Text.assemble((before, "bold" if place == 0 else ""), line))
