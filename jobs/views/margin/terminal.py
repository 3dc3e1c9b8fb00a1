"""A margin as terminal text: a sentence, tables with small bars, and the two documents."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from attribution_core.display.sheet import plain_text
from attribution_core.display.view import model_words, warns
from jobs.analysis.flips.result import Proof
from jobs.analysis.margin.result import Margin
from jobs.views.kit.sheet import TableSheet
from jobs.views.margin.flips import proof_lines
from jobs.views.margin.wording import facts, marks_legend, notes, tables, verdict
from jobs.views.query.terminal import INDENT, QuerySheet


def terminal_margin(margin: Margin, console: Console | None = None, *, proof: Proof | None = None) -> None:
    """Print why one document is above another: the answer in a sentence, then the words that make it up.

    Written to standard output, or to ``console``; texts are printed literally, and it reads well without colour.
    ``proof`` is what deletions showed of it.
    """
    MarginSheet(console or Console()).margin(margin, proof)


def margin_text(margin: Margin) -> str:
    """Return what :func:`terminal_margin` prints, as plain text of at most 100 columns."""
    return plain_text(lambda console: terminal_margin(margin, console))


class MarginSheet(TableSheet):
    """A sheet for a margin."""

    def margin(self, margin: Margin, proof: Proof | None) -> None:
        """Everything, the answer first."""
        query = QuerySheet(self.console)
        query.wrapped("query", margin.text)
        self.blank()
        first, *more = verdict(margin)
        self.line(first, "bold")
        if more:
            self.line(" ".join(more))
        for note in notes(margin):
            self.line(note, "bold" if warns(note) else "dim")
        unit_b = margin.documents[0].explained.groups.unit
        for said in proof_lines(proof, unit_b) if proof is not None else ():
            self.line(said)
        for table in tables(margin):
            self.blank()
            self.table(table)
        self.blank()
        above, below = marks_legend(margin)
        ground = f"{unit_b}s on a coloured background" if self.coloured else f"[such] {unit_b}s"
        negative = "" if self.coloured else f"; [-such-] ones {below}"
        self.line(f"In each document, {ground} {above}{negative}.", "dim")
        for name, document in zip("AB", margin.documents, strict=True):
            self.blank()
            id = f"  {self.safe(document.id)}" if document.id != name else ""
            named = Text(f"{name}{id}", "bold")
            named.append(f"  {', '.join(facts(margin, document))}", "not bold dim")
            for line in named.wrap(self.console, self.width):
                self.put(line)
            for line in query.marked(query.cut(document)).wrap(self.console, self.width - INDENT):
                self.put(Text.assemble(" " * INDENT, line))
        if margin.model:
            self.blank()
            model = f"Model {model_words(margin.model)}, layer {margin.layer}, {margin.similarity}."
            self.line(model, "dim")
