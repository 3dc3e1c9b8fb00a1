"""Passages (Elasticsearch's fragments) around highlights, and results in its and OpenSearch's shape."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, get_args

from jobs.index.highlights import Highlight, Span

# As Elasticsearch's ``encoder``: html escapes the text around and inside the tags.
Encoder = Literal["html", "default"]
ENCODERS: tuple[str, ...] = get_args(Encoder)
PRE_TAG, POST_TAG = "<em>", "</em>"
# Characters of a passage around a highlight of less than half of that, such as a word.
FRAGMENT_SIZE = 100


class Fragment(NamedTuple):
    """Characters ``start`` to ``end`` of a document's text, with the highlights inside, in the order of the text.

    ``before`` and ``after`` are whether the text has more on that side.
    """

    start: int
    end: int
    spans: tuple[Span, ...]
    before: bool
    after: bool

    def pieces(self, text: str) -> Iterable[tuple[str, Span | None]]:
        """The passage in pieces, each with its span where it is highlighted."""
        at = self.start
        for span in self.spans:
            if span.start > at:
                yield text[at : span.start], None
            yield text[max(at, span.start) : span.end], span
            at = max(at, span.end)
        if at < self.end:
            yield text[at : self.end], None


def fragments(hit: Highlight, size: int = FRAGMENT_SIZE) -> list[Fragment]:
    """Return the passages of a document that hold its highlights, that of the strongest first.

    A highlight of half of ``size`` characters or more is a passage; a shorter one has words around it, up to ``size``
    characters. Passages that touch are one. The document has a text.
    """
    text = hit.text
    assert text is not None, "an index with texts"
    windows: list[tuple[int, int, list[Span]]] = []
    for span in sorted(hit.spans):
        start, end = _window(text, span, size)
        if windows and not text[windows[-1][1] : start].strip():
            first, last, inside = windows[-1]
            windows[-1] = first, max(end, last), [*inside, span]
        else:
            windows.append((start, end, [span]))
    rank = {span: place for place, span in enumerate(hit.spans)}
    windows.sort(key=lambda window: min(rank[span] for span in window[2]))
    return [
        Fragment(start, end, tuple(spans), bool(text[:start].strip()), bool(text[end:].strip()))
        for start, end, spans in windows
    ]


def _window(text: str, span: Span, size: int) -> tuple[int, int]:
    length = span.end - span.start
    room = (size - length) // 2 if 2 * length < size else 0
    first, last = max(span.start - room, 0), min(span.end + room, len(text))
    start, end = first, last
    while 0 < start < span.start and not text[start - 1].isspace():
        start += 1
    while span.end < end < len(text) and not text[end].isspace():
        end -= 1
    # A text without spaces is cut where it may be.
    return (start if start < span.start else first), (end if end > span.end else last)


def tagged(
    fragment: Fragment, text: str, pre_tag: str = PRE_TAG, post_tag: str = POST_TAG, encoder: Encoder = "html"
) -> str:
    """Return a passage with tags around its highlights."""
    encode = html.escape if encoder == "html" else str
    words = [
        f"{pre_tag}{encode(piece)}{post_tag}" if span is not None else encode(piece)
        for piece, span in fragment.pieces(text)
    ]
    return "".join(words).strip()


def search_response(
    hits: Iterable[Highlight],
    *,
    pre_tag: str = PRE_TAG,
    post_tag: str = POST_TAG,
    encoder: Encoder = "html",
    size: int = FRAGMENT_SIZE,
) -> dict[str, Any]:
    """Return highlights as Elasticsearch and OpenSearch answer a search with ``highlight`` on a field ``text``.

    The best document comes first, and of a document the strongest passage. Spans that lower the score are left out,
    unless a document has no other. An index without texts has ``offsets`` in place of ``highlight``.
    """
    found = [
        {"_id": hit.id, "_score": hit.score, **_field(raising(hit), pre_tag, post_tag, encoder, size)}
        for hit in sorted(hits, key=lambda hit: -hit.score)
    ]
    best = max((hit["_score"] for hit in found), default=None)
    return {"hits": {"total": {"value": len(found), "relation": "eq"}, "max_score": best, "hits": found}}


def _field(hit: Highlight, pre_tag: str, post_tag: str, encoder: Encoder, size: int) -> dict[str, Any]:
    if hit.text is None:
        return {"offsets": {"text": [{"start": span.start, "end": span.end} for span in hit.spans]}}
    passages = [tagged(one, hit.text, pre_tag, post_tag, encoder) for one in fragments(hit, size)]
    return {"highlight": {"text": passages}}


def raising(hit: Highlight) -> Highlight:
    """Return a document without the spans that lower its score; with the strongest, where it has no other."""
    spans = tuple(span for span in hit.spans if strength(span) > 0)
    return hit._replace(spans=spans or hit.spans[:1])


def strength(span: Span) -> float:
    """What a span is ranked by: its lift, and for dot its share."""
    return span.share if span.lift is None else span.lift
