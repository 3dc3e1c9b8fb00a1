"""What an index answers: the spans of each document that lift a query's score most, computed from its rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, repeat
from typing import NamedTuple, overload

import numpy as np

from attribution_core.results import Floats
from jobs.index.documents import FACTOR, OWN, RANKED, START, StoredBatch


class Span(NamedTuple):
    """A sentence (or word, token) of a document: characters ``start`` to ``end`` of its text.

    ``share`` is the amount of score that it adds; a document's shares sum to its score, within ``error``. ``lift`` is
    what it adds beyond an average part of its document; None for dot. ``text`` is None in an index without texts.
    """

    start: int
    end: int
    share: float
    lift: float | None
    text: str | None


class Highlight(NamedTuple):
    """One document for one query: its score, and the ``spans`` that lift it most, strongest first.

    For dot, which has no lift, those that add most. ``error`` is the sum of all groups' shares less ``score``: the
    numerical error of the integral and of the rounding. ``truncated`` is whether the model read only the beginning
    of the text.
    """

    id: str
    score: float
    error: float
    truncated: bool
    spans: tuple[Span, ...]
    text: str | None


class Unanswered(NamedTuple):
    """An id that has no highlight, and why, in one line."""

    id: str
    reason: str


class Highlights(Sequence[Highlight]):
    """The highlights of one query, in the order of the ids asked for, without those of ``missing`` and ``damaged``."""

    def __init__(self, hits: list[Highlight], missing: list[Unanswered], damaged: list[Unanswered]) -> None:
        self._hits, self.missing, self.damaged = hits, missing, damaged

    @overload
    def __getitem__(self, place: int) -> Highlight: ...
    @overload
    def __getitem__(self, place: slice) -> list[Highlight]: ...
    def __getitem__(self, place: int | slice) -> Highlight | list[Highlight]:
        return self._hits[place]

    def __len__(self) -> int:
        return len(self._hits)

    def __iter__(self) -> Iterator[Highlight]:
        return iter(self._hits)

    def add(self, more: Highlights) -> None:
        """Append what was computed of further ids."""
        self._hits += more
        self.missing += more.missing
        self.damaged += more.damaged

    def __repr__(self) -> str:
        return f"Highlights({self._hits!r}, missing={self.missing!r}, damaged={self.damaged!r})"


def highlighted(
    ids: Sequence[str], places: Sequence[tuple[StoredBatch, int]], query_D: Floats, similarity: str, k: int | None
) -> list[Highlight]:
    """Return the highlights of documents, ``(batch, row)`` each, for a query embedding [D] that is not zero.

    All documents are computed at once; X are their rows, remainders included.
    """
    if not places:
        return []
    ranges = [(batch, batch.bounds[row], batch.bounds[row + 1]) for batch, row in places]
    counts = [high - low for _, low, high in ranges]
    ends = np.cumsum(counts)
    first = ends - np.asarray(counts)
    document_X = np.repeat(np.arange(len(counts)), counts)
    rows_XD = np.concatenate([batch.rows[low:high] for batch, low, high in ranges])
    facts_X5 = np.concatenate([batch.facts[low:high] for batch, low, high in ranges])
    direction_D = query_D / np.linalg.norm(query_D) if similarity == "cosine" else query_D
    shares_X = (rows_XD.astype(np.float32) @ direction_D) * facts_X5[:, FACTOR]
    scores = np.add.reduceat(shares_X, first)
    lifts_X = shares_X - scores[document_X] * facts_X5[:, OWN] if similarity == "cosine" else None
    strength_X = (shares_X if lifts_X is None else lifts_X) + facts_X5[:, RANKED]
    # Each document's groups of text first, strongest first; specials, prompts and the remainder behind them.
    order = np.lexsort((-strength_X, document_X))
    shown = np.array([batch.text_groups[row] for batch, row in places])
    shown = shown if k is None else np.minimum(shown, k)
    behind = np.cumsum(shown)
    chosen = order[np.repeat(first - behind + shown, shown) + np.arange(behind[-1])]

    starts, stops = facts_X5[:, START:][chosen].astype(np.int64).T.tolist()
    lifts = repeat(None) if lifts_X is None else lifts_X[chosen].tolist()
    texts = [batch.text(row) for batch, row in places]
    cut = _cut(texts, starts, stops, document_X[chosen].tolist())
    spans = list(map(Span, starts, stops, shares_X[chosen].tolist(), lifts, cut))
    errors = (-shares_X[ends - 1]).tolist()
    truncated = [batch.truncated[row] for batch, row in places]
    spans_of = [tuple(spans[a:b]) for a, b in pairwise([0, *behind.tolist()])]
    return list(map(Highlight, ids, scores.tolist(), errors, truncated, spans_of, texts))


def _cut(texts: list[str | None], starts: list[int], stops: list[int], documents: list[int]) -> Iterator[str | None]:
    """The texts of spans of documents."""
    for start, stop, document in zip(starts, stops, documents, strict=True):
        text = texts[document]
        yield None if text is None else text[start:stop]
