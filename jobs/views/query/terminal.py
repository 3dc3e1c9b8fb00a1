"""A query and its documents as coloured terminal text."""

from __future__ import annotations

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from attribution_core.display.sheet import STEPS, Sheet, plain_text, runs
from attribution_core.display.view import decimals_for, number, step, warns
from jobs.analysis.query.result import QueryDocument, QueryResult
from jobs.analysis.query.snippet import Snippet, snippet
from jobs.views.query.view import Bars, bars_of, document_notes, heading, query_notes, strongest
from jobs.views.query.wording import aim, facts, marks, more_on_marks, row_sums_to

BAR = 5
SNIPPET_LINES = 3
INDENT = 3
# Blocks of columns below each other, for the words of a long query: so many, and so many lines in all.
MOST_BLOCKS, MOST_BLOCK_LINES = 4, 48


DOCUMENTS = 10


def terminal_query(
    result: QueryResult, console: Console | None = None, *, top: int = DOCUMENTS, special: bool = False
) -> None:
    """Print how much each word of the query adds to the score of each of the ``top`` best documents, as small bars,
    and the part of each document that lifts the score most (or adds most to it, as ``result.by`` says), its words
    marked by strength. What each row sums to is said beside it.

    Written to standard output, or to ``console``; within 80 columns, wider where the terminal is, and readable
    without colour. ``special`` shows special and prompt tokens of the query too. Texts are printed literally.
    """
    QuerySheet(console or Console()).print_query(result, top, special)


def query_text(result: QueryResult, *, top: int = DOCUMENTS) -> str:
    """What ``terminal_query`` prints as plain text, without colour and without a line feed at the end, at most 100
    columns wide, the same everywhere."""
    return plain_text(lambda console: terminal_query(result, console, top=top))


class QuerySheet(Sheet):
    """A sheet for one query."""

    def print_query(self, result: QueryResult, top: int, special: bool) -> None:
        documents = result.documents[: max(top, 0)]
        self.wrapped("query", result.text or " ".join(self.words(result)))
        for note in query_notes(result):
            self.line(note, "bold")
        self.blank()
        self.line(f"{heading(result, len(documents))}.", "bold")
        if not documents:
            return
        bars = bars_of(result.query, documents, special)
        if bars.words.size:
            self.table(result, documents, bars, special)
        self.marks_legend(result, documents)
        for document in documents:
            self.blank()
            self.document(result, document)

    def words(self, result: QueryResult) -> list[str]:
        groups = result.query.groups
        return [label for label, kind in zip(groups.labels, groups.kinds, strict=True) if kind == "text"]

    def wrapped(self, name: str, text: str) -> None:
        """A text behind its name, in at most four lines."""
        indent = cell_len(name) + 2
        body = Text(self.shorten(self.safe(text), (self.width - indent) * 4 - self.width // 4))
        for place, line in enumerate(body.wrap(self.console, self.width - indent)):
            self.put(Text.assemble((set_cell_size(name if place == 0 else "", indent), "bold"), line))

    # --- bars

    def table(self, result: QueryResult, documents: tuple[QueryDocument, ...], bars: Bars, special: bool) -> None:
        """One row a document, one column a word of the query, in as many blocks of columns as fit below each other."""
        left = self.left(documents)
        width = max(map(cell_len, left))
        labels = [self.safe(result.words[i]) for i in bars.words]
        negative = bool((bars.values < 0).any())
        cell = BAR + negative
        blocks = max(1, min(MOST_BLOCKS, MOST_BLOCK_LINES // (len(documents) + 2)))
        available = self.width - width - 1
        kept, widths = self.fit(
            [cell_len(label) for label in labels], np.abs(bars.values).sum(0), available, cell, blocks
        )
        largest = number(bars.limit, max(decimals_for(bars.limit), 2))
        unit = result.query.groups.unit
        scale = f"How much each {unit} of the query adds to {aim(result)}: {self.bar(1, BAR)} is {largest}"
        scale += ", a minus lowers it." if negative else "."
        self.line(f"{scale} {row_sums_to(result, special)}", "dim")
        for first, last in runs(widths, available):
            self.blank()
            head = Text.assemble((set_cell_size(left[0], width), "dim"), " ")
            for column in range(first, last):
                head.append(self.left_in(labels[kept[column]], widths[column]), "bold")
            self.put(head)
            for row, line in enumerate(left[1:]):
                drawn = Text.assemble(set_cell_size(line, width), " ")
                for column in range(first, last):
                    value = float(bars.values[row, kept[column]])
                    text = self.signed_bar(value, bars.limit, negative)
                    drawn.append(self.left_in(text, widths[column]), self.ink(value) if self.coloured else "")
                self.put(drawn)
        if len(kept) < len(labels):
            left_out = len(labels) - len(kept)
            self.line(f"Not shown: {left_out} {unit}{'s' if left_out > 1 else ''} with smaller numbers.", "dim")

    def left(self, documents: tuple[QueryDocument, ...]) -> list[str]:
        """The head and a line for each document: rank, score, and relevance where there are judgments."""
        columns = [["rank", *(str(one.rank) for one in documents)]]
        columns.append(["score", *(f"{one.score:.3f}" for one in documents)])
        if any(one.relevance is not None for one in documents):
            columns.append(["rel", *("-" if one.relevance is None else f"{one.relevance:g}" for one in documents)])
        widths = [max(map(len, column)) for column in columns]
        return [
            " ".join(text.rjust(width) for text, width in zip(row, widths, strict=True))
            for row in zip(*columns, strict=True)
        ]

    def signed_bar(self, value: float, limit: float, negative: bool) -> str:
        """A bar of ``BAR`` characters at ``limit``, behind a minus where it is below zero; "" for next to nothing."""
        share = abs(value) / limit if limit else 0.0
        sign = ("-" if value < 0 else " ") if negative else ""
        return sign + self.bar(share, BAR) if round(share * BAR * (1 if self.ascii else 8)) else ""

    def left_in(self, text: str, width: int) -> str:
        """``text`` at the left of ``width`` characters, the last of them a space."""
        return set_cell_size(self.shorten(text, width - 1), width)

    # --- documents

    def marks_legend(self, result: QueryResult, documents: tuple[QueryDocument, ...]) -> None:
        """A sentence that explains the marked words and the arrows below."""
        marked = [span for one in documents for span in self.cut(one).marked]
        unit = documents[0].explained.groups.unit
        above, below = marks(result)
        more = more_on_marks(result)
        negative = any(span.value < 0 for span in marked)
        self.blank()
        if not self.coloured:
            said = f"In the documents, [such] {unit}s {above}{f'; [-such-] ones {below}' if negative else ''}. "
            self.line((said if marked else "") + more, "dim")
            return
        line = Text()
        if marked:
            line.append(f"In the documents, {unit}s on ", "dim")
            self.shades(line, 1)
            line.append(f" {above}", "dim")
            if negative:
                line.append("; those on ", "dim")
                self.shades(line, -1)
                line.append(f" {below}", "dim")
            line.append(". ", "dim")
        for piece in line.append(more, "dim").wrap(self.console, self.width):
            self.put(piece)

    def shades(self, line: Text, sign: int) -> None:
        """The grounds of marked words, from weak to strong."""
        for style in dict.fromkeys(self.background(sign * strength) for strength in range(4, STEPS + 1)):
            line.append(" ", style)

    def document(self, result: QueryResult, document: QueryDocument) -> None:
        head = Text.assemble((f"{document.rank:>2}  ", "bold"), (self.safe(document.id), "bold"))
        head.append(f"  {', '.join(facts(result, document))}", "dim")
        for line in head.wrap(self.console, self.width):
            self.put(line)
        indent = " " * INDENT
        for note in document_notes(document):
            for line in Text(note, "bold" if warns(note) else "dim").wrap(self.console, self.width - INDENT):
                self.put(Text.assemble(indent, line))
        for line in self.marked(self.cut(document)).wrap(self.console, self.width - INDENT):
            self.put(Text.assemble(indent, line))
        self.pairs(document)

    def cut(self, document: QueryDocument) -> Snippet:
        # Lines that are broken at spaces are shorter than they may be, and marks take room.
        room = SNIPPET_LINES * (self.width - INDENT - 12)
        return snippet(document, room, lambda text: cell_len(self.safe(text)))

    def marked(self, shown: Snippet) -> Text:
        """The snippet with its strong words on a coloured ground, or in brackets where there is no colour."""
        dots = "..." if self.ascii else "…"
        text = Text(f"{dots} " if shown.cut_before else "")
        for piece in shown.pieces:
            words = self.safe(piece.text)
            if piece.span is None or not shown.marks(piece.span):
                text.append(words)
            elif self.coloured:
                text.append(words, self.background(step(piece.span.value, shown.limit, STEPS)))
            else:
                text.append(f"[{words}]" if piece.span.value > 0 else f"[-{words}-]")
        return text.append(f" {dots}") if shown.cut_after else text

    def pairs(self, document: QueryDocument) -> None:
        """The strongest word pairs in one line, as many as fit."""
        arrow = "->" if self.ascii else "→"
        line = Text(" " * INDENT, "dim")
        for place, cell in enumerate(strongest(document)):
            a, b = (self.shorten(self.safe(word), 20) for word in (cell.a, cell.b))
            words = f"{', ' if place else ''}{a} {arrow} {b} {cell.value:+.3f}"
            if place and cell_len(line.plain) + cell_len(words) > self.width:
                break
            line.append(words)
        if line.plain.strip():
            self.put(line)
