"""Which part of a document is shown, and which of its words are marked."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jobs.analysis.query.result import QueryDocument, Span

# A word is marked where its |value| is this many times the average one of its document, or half of the strongest
# word's, and never below a fifth of that: a text in which most words are marked shows nothing. The strongest above zero
# is marked even beside one that pulls down much more, so there half is of the strongest above zero.
MARKED_TIMES, STRONG_SHARE, LEAST_SHARE = 2.0, 0.5, 0.2
# A lift below the usual numerical error of a pair says nothing: of two equal texts every lift is about zero.
LEAST_LIFT = 2e-3


@dataclass(frozen=True)
class Piece:
    """A stretch of the document's text, character for character; with its span where it is one of its words."""

    text: str
    span: Span | None = None


@dataclass(frozen=True)
class Snippet:
    """A window of a document: the pieces make ``text[start:end]``.

    ``limit`` is the |value| of the document's strongest word; words of ``threshold`` or more are marked, and those of
    minus ``below`` or less.
    """

    start: int
    end: int
    length: int
    limit: float
    threshold: float
    below: float
    pieces: tuple[Piece, ...]

    @property
    def cut_before(self) -> bool:
        return self.start > 0

    @property
    def cut_after(self) -> bool:
        return self.end < self.length

    def marks(self, span: Span) -> bool:
        """Whether the word is strong enough to be marked."""
        return self.limit > 0 and (span.value >= self.threshold or -span.value >= self.below)

    @property
    def marked(self) -> list[Span]:
        """The marked words that are in the window."""
        return [piece.span for piece in self.pieces if piece.span is not None and self.marks(piece.span)]


def snippet(document: QueryDocument, room: int, width: Callable[[str], int] = len) -> Snippet:
    """The window of ``document`` whose words have the largest sum of values, ``width`` of it at most ``room``.

    Values are signed: where they are lifts, it is the part that lifts the score most, and not one that pulls it down.
    Only windows to which no further word fits are looked at; the first of equals is taken. A document that fits is
    shown whole, and a word longer than ``room`` is cut.
    """
    text, spans = document.text, document.spans
    sizes = [abs(span.value) for span in spans]
    limit = max(sizes, default=0.0)
    usual = sum(sizes) / max(len(sizes), 1)
    least = max(LEAST_SHARE * limit, LEAST_LIFT if document.by == "lift" else 0.0)
    above = max((span.value for span in spans), default=0.0)
    threshold, below = (max(min(MARKED_TIMES * usual, STRONG_SHARE * one), least) for one in (above, limit))
    start, end = _window(text, spans, room, width)
    return Snippet(start, end, len(text), limit, threshold, below, tuple(_pieces(text, spans, start, end)))


def whole(document: QueryDocument) -> Snippet:
    """All of ``document``."""
    return snippet(document, len(document.text))


def _window(text: str, spans: Sequence[Span], room: int, width: Callable[[str], int]) -> tuple[int, int]:
    if len(text) <= room and width(text) <= room:
        return 0, len(text)
    if not spans:
        return 0, _reach(text, 0, room, width)
    words = [width(span.text) for span in spans]
    gaps = [0, *(width(text[a.end : b.start]) for a, b in itertools.pairwise(spans))]
    best, chosen = -math.inf, (0, 0)
    last = -1  # the window is first … last
    used, total = 0, 0.0
    for first, span in enumerate(spans):
        if last < first:
            last, used, total = first, words[first], span.value
        while last + 1 < len(spans) and used + gaps[last + 1] + words[last + 1] <= room:
            last += 1
            used += gaps[last] + words[last]
            total += spans[last].value
        full = first == 0 or used + gaps[first] + words[first - 1] > room
        # Sums of the same words taken in another order differ in the last digits.
        if full and total > best + 1e-9:
            best, chosen = total, (first, last)
        used -= words[first] + (gaps[first + 1] if first < last else 0)
        total -= span.value
    start, end = spans[chosen[0]].start, spans[chosen[1]].end
    if words[chosen[0]] > room:
        return start, _reach(text, start, room, width)
    # What stands before the first word and behind the last, such as a bracket, is no reason for an ellipsis.
    return (0 if not text[:start].strip() else start), (len(text) if not text[end:].strip() else end)


def _reach(text: str, start: int, room: int, width: Callable[[str], int]) -> int:
    """The end of what fits into ``room`` from ``start`` on; at least one character."""
    end = start + room
    while end > start + 1 and width(text[start:end]) > room:
        end -= 1
    return min(end, len(text))


def _pieces(text: str, spans: Sequence[Span], start: int, end: int) -> list[Piece]:
    pieces: list[Piece] = []
    at = start
    for span in spans:
        if span.end <= start or span.start >= end:
            continue
        if span.start > at:
            pieces.append(Piece(text[at : span.start]))
        pieces.append(Piece(text[max(span.start, start) : min(span.end, end)], span))
        at = min(span.end, end)
    if at < end:
        pieces.append(Piece(text[at:end]))
    return pieces
