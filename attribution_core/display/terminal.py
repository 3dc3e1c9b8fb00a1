"""One pair as coloured terminal text: the sum that makes the score, the matrix, the strongest pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from attribution_core.display.matches import TITLE, MatchLine, match_lines, match_meaning, shown_share
from attribution_core.display.sheet import STEPS, Sheet, runs, set_right
from attribution_core.display.view import (
    BY_INTERACTION,
    Term,
    View,
    WordSum,
    beside,
    decimals_for,
    model_words,
    names,
    notes,
    number,
    numerical_error,
    step,
    strength,
    surroundings,
    terms,
    top_cells,
    unit_words,
    warns,
    word_sums,
)
from attribution_core.results import Cell, ExplainedText

MOST_ROWS, MATRIX_LINES = 24, 40


def print_pair(view: View, console: Console, top: int, compact: bool) -> None:
    """Prints ``view`` on ``console``; ``compact`` keeps to a few lines for a listing of several pairs."""
    PairSheet(console, compact).print_pair(view, top)


class PairSheet(Sheet):
    """A sheet for one pair; ``compact`` leaves out what a listing of several pairs can do without."""

    def __init__(self, console: Console, compact: bool) -> None:
        super().__init__(console)
        self.compact = compact

    def print_pair(self, view: View, top: int) -> None:
        pair = view.pair
        for name, text in zip(names(pair), (pair.a, pair.b), strict=True):
            self.text_line(name, text)
        self.blank()
        self.score_lines(view)
        for note in notes(view):
            if warns(note):
                self.line(note, "bold")
            elif not self.compact:
                self.line(note, "dim")
        if view.cells.size:
            self.blank()
            self.matrix(view)
        strongest = top_cells(view, top)
        if strongest:
            self.blank()
            self.strongest(view, strongest)
        for name, text, words in word_sums(view, top):
            self.blank()
            self.words(name, text, words)
        lines = match_lines(pair, top, special=view.special)
        if lines:
            self.blank()
            self.matches(view, lines)

    # --- header

    def text_line(self, name: str, text: ExplainedText) -> None:
        """The text itself, wrapped, at most four lines of it (two when compact)."""
        indent = max(cell_len(name), 1) + 2
        words = self.safe(text.text)
        room = (self.width - indent) * (2 if self.compact else 4)
        body = Text(self.shorten(words, room - self.width // 4 if cell_len(words) > room else room))
        for number_of, line in enumerate(body.wrap(self.console, max(self.width - indent, 10))):
            label = self.safe(name) if number_of == 0 else ""
            self.put(Text.assemble((set_cell_size(label, indent), "bold"), line))

    def score_lines(self, view: View) -> None:
        pair = view.pair
        parts = terms(pair)
        if self.compact:
            line = Text.assemble((f"score {pair.score:.3f}", "bold"))
            for term in parts:
                line.append(f" {joined(term)}")
            line.append(f"; numerical error {numerical_error(pair):.0e}")
            for piece in line.wrap(self.console, self.width):
                self.put(piece)
            return
        head, last = f"score ({pair.similarity})", "numerical error"
        width = max(cell_len(words) for words in (head, last, *(f"= {term.words}" for term in parts)))
        model = f"   {self.safe(model_words(pair.model))}, layer {pair.layer}" if pair.model else ""
        first = Text.assemble((f"{head:<{width}}  {pair.score:>7.3f}", "bold"), (model, "dim"))
        first.truncate(self.width, overflow="crop" if self.ascii else "ellipsis")
        self.put(first)
        for at, term in enumerate(parts):
            words = f"{term.sign} {term.words}"
            self.put(
                Text.assemble(
                    f"{words:<{width}}  {term.value:>7.3f}", (f"   {near}" if (near := beside(view, at)) else "", "dim")
                )
            )
        self.put(Text(f"{last:<{width}}  {numerical_error(pair):>7.0e}"))

    # --- matrix

    def matrix(self, view: View) -> None:
        """Rows are the groups of a, columns those of b, in as many blocks of columns as it takes to fit the width."""
        view = view.smaller(10 if self.compact else MOST_ROWS, len(view.cols))
        row_width = min(max(cell_len(self.safe(label)) for label in view.row_labels), max(14, self.width // 4))
        decimals = decimals_for(view.limit)
        cell = max(len(number(value, decimals)) for value in (view.limit, -view.limit))
        blocks = 1 if self.compact else max(1, min(3, MATRIX_LINES // (len(view.rows) + 2)))
        lengths = [cell_len(self.safe(label)) for label in view.col_labels]
        sizes = np.abs(np.nan_to_num(view.cells)).sum(0)
        kept, widths = self.fit(lengths, sizes, self.width - row_width - 1, cell, blocks)
        view = view.smaller(len(view.rows), len(kept))
        known = np.isfinite(view.cells)
        self.legend(view)
        for first, last in runs(widths, self.width - row_width - 1):
            if first:
                self.blank()
            head = Text(" " * (row_width + 1))
            for width, label in zip(widths[first:last], view.col_labels[first:last], strict=True):
                head.append(self.centred(self.safe(label), width), "bold")
            self.put(head)
            for row, label in enumerate(map(self.safe, view.row_labels)):
                if not known[row, first:last].any():
                    continue
                line = Text.assemble((set_right(self.shorten(label, row_width), row_width), "bold"), " ")
                for col in range(first, last):
                    value = float(view.cells[row, col])
                    style = self.background(step(value, view.limit, STEPS)) if np.isfinite(value) else "dim"
                    line.append(self.centred(self.safe(number(value, decimals)).rjust(cell), widths[col]), style)
                self.put(line)
        if view.left_out:
            self.line(view.left_out, "dim")

    def legend(self, view: View) -> None:
        a, b = names(view.pair)
        axes = f"Rows: {a}, columns: {b}. "
        if not self.coloured:
            self.line(axes + "Positive numbers raise the score, negative ones lower it.", "dim")
            return
        line = Text.assemble((axes, "dim"))
        for sign, words in ((1, " raises the score  "), (-1, " lowers it")):
            styles = [self.background(sign * strength) for strength in range(2, STEPS + 1)]
            for style in dict.fromkeys(styles):
                line.append(" ", style)
            line.append(words, "dim")
        for piece in line.wrap(self.console, self.width):
            self.put(piece)

    # --- strongest pairs

    def strongest(self, view: View, cells: Sequence[Cell]) -> None:
        a, b = names(view.pair)
        room = max((self.width - 24) // 2, 8)
        left = [self.in_place(cell.a, cell.i, view.pair.a, room) for cell in cells]
        right = [self.in_place(cell.b, cell.j, view.pair.b, room) for cell in cells]
        width_a = min(max(*(cell_len(text.plain) for text in left), cell_len(a)), room)
        width_b = min(max(*(cell_len(text.plain) for text in right), cell_len(b)), room)
        both = view.pair.interactions is not None
        bar = min(self.width - width_a - width_b - (24 if both else 12), 40)
        largest = max(abs(strength(cell)) for cell in cells) or 1.0
        decimals = max(decimals_for(view.limit), 2) + 1
        head = f"{set_cell_size(self.safe(a), width_a)}  {set_cell_size(self.safe(b), width_b)}"
        head += f"{'value':>9} {'interaction':>11}" if both else ""
        self.put(Text(f"Strongest {unit_words(view.pair)} pairs", "bold"))
        if both and not self.compact:
            self.line(BY_INTERACTION, "dim")
        self.put(Text(head.rstrip(), "dim"))
        for cell, text_a, text_b in zip(cells, left, right, strict=True):
            for text, width in ((text_a, width_a), (text_b, width_b)):
                text.truncate(width, overflow="ellipsis" if not self.ascii else "crop", pad=True)
            drawn = self.bar(abs(strength(cell)) / largest, bar)
            value = f" {cell.value:>+8.{decimals}f} " + (f"{strength(cell):>+11.{decimals}f} " if both else "")
            self.put(Text.assemble(text_a, "  ", text_b, value, (drawn, self.ink(strength(cell)))))

    def words(self, name: str, text: ExplainedText, words: Sequence[WordSum]) -> None:
        """The strongest words of one text of a pair without word pairs."""
        room = max(self.width - 24, 8)
        labels = [self.in_place(word.label, word.index, text, room) for word in words]
        width = min(max(cell_len(label.plain) for label in labels), room)
        largest = max(abs(word.value) for word in words) or 1.0
        decimals = max(decimals_for(largest), 2) + 1
        self.put(Text(f"Strongest {text.groups.unit}s of {self.safe(name)}", "bold"))
        for word, label in zip(words, labels, strict=True):
            label.truncate(width, overflow="ellipsis" if not self.ascii else "crop", pad=True)
            drawn = self.bar(abs(word.value) / largest, min(self.width - width - 12, 40))
            self.put(Text.assemble(label, f" {word.value:>+8.{decimals}f} ", (drawn, self.ink(word.value))))

    def matches(self, view: View, lines: Sequence[MatchLine]) -> None:
        """Where a late-interaction model matched."""
        pair = view.pair
        room = max((self.width - 28) // 2, 8)
        left = [self.matched(line.a, line.i, pair.a, room) for line in lines]
        right = [self.matched(line.b, line.j, pair.b, room) for line in lines]
        width_a, width_b = (min(max(cell_len(text.plain) for text in side), room) for side in (left, right))
        largest = max(abs(line.value) for line in lines) or 1.0
        decimals = max(decimals_for(largest), 2) + 1
        self.put(Text(TITLE, "bold"))
        if not self.compact:
            self.line(match_meaning(pair), "dim")
        for line, text_a, text_b in zip(lines, left, right, strict=True):
            for text, width in ((text_a, width_a), (text_b, width_b)):
                text.truncate(width, overflow="ellipsis" if not self.ascii else "crop", pad=True)
            drawn = self.bar(abs(line.value) / largest, min(self.width - width_a - width_b - 18, 40))
            value = f" {line.value:>+8.{decimals}f} {shown_share(line):>4} "
            self.put(Text.assemble(text_a, "  ", text_b, value, (drawn, self.ink(line.value))))

    def matched(self, label: str, index: int | None, text: ExplainedText, room: int) -> Text:
        """A word in its place, or the label of a line of several."""
        return Text(self.safe(label), "dim") if index is None else self.in_place(label, index, text, room)

    def in_place(self, label: str, index: int, text: ExplainedText, room: int) -> Text:
        """A label; one that its text has several times comes with its neighbours, as many whole words as fit ``room``,
        so that a reader knows which."""
        shown = Text(self.safe(label))
        for near in map(self.safe, surroundings(text, index)):
            if cell_len(shown.plain) + cell_len(near) + 3 <= room:
                return shown.append(f" ({near})", "dim")
        return shown


def joined(term: Term) -> str:
    """A term inside a sentence: a negative number turns the sign, so "- special tokens 0.053", not "+ … -0.053"."""
    if term.sign == "=" or not term.value < 0:
        return f"{term.sign} {term.words} {term.value:.3f}"
    return f"{'-' if term.sign == '+' else '+'} {term.words} {-term.value:.3f}"
