"""What an index answers: the parts of each document that add most to a query's score, and those shares as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from attribution_core.results import Floats
from jobs.index.documents import StoredBatch


class Span(NamedTuple):
    """A sentence (or word, token) of a document: characters ``start`` to ``end`` of its text.

    ``share`` is the amount of score that it adds; a document's shares sum to its score, within ``error``. ``lift`` is
    what it adds above what the text's length lets every part have (cosine alone, else None). ``text`` is None in an
    index without texts.
    """

    start: int
    end: int
    share: float
    lift: float | None
    text: str | None


@dataclass(frozen=True, slots=True)
class Highlight:
    """One document for one query: its score, and the ``spans`` that lift it most, strongest first.

    For dot, which has no lift, those that add most. ``error`` is the sum of all groups' shares less ``score``: the
    numerical error of the integral and of the rounding. ``truncated`` is whether the model read the text's beginning
    alone.
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
    first = np.cumsum([0, *counts])

    def of_rows(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(batch, name)[low:high] for batch, low, high in ranges])

    shares_X = (of_rows("rows").astype(np.float32) @ query_D) * of_rows("scales")
    if similarity == "cosine":
        lengths = np.array([batch.lengths[row] for batch, row in places], np.float32)
        shares_X /= np.repeat(lengths * np.float32(np.linalg.norm(query_D)), counts)
    scores = np.add.reduceat(shares_X, first[:-1])
    lifts_X = shares_X - np.repeat(scores, counts) * of_rows("own") if similarity == "cosine" else None
    # Each document's groups of text first, strongest first; specials, prompts and the remainder behind them.
    text_X = of_rows("is_text")
    strength_X = np.where(text_X, shares_X if lifts_X is None else lifts_X, -np.inf)
    order = np.lexsort((-strength_X, np.repeat(np.arange(len(counts)), counts)))
    shown = np.add.reduceat(text_X, first[:-1], dtype=np.int64)
    shown = shown if k is None else np.minimum(shown, k)
    chosen = order[np.repeat(first[:-1] - np.cumsum([0, *shown[:-1]]), shown) + np.arange(shown.sum())]
    lifts: list[float | None] = [None] * len(chosen) if lifts_X is None else lifts_X[chosen].tolist()
    starts, ends, shares = (values[chosen].tolist() for values in (of_rows("starts"), of_rows("ends"), shares_X))
    errors = (-shares_X[first[1:] - 1]).tolist()

    hits, at = [], 0
    for (batch, row), name, score, error, count in zip(
        places, ids, scores.tolist(), errors, shown.tolist(), strict=True
    ):
        text = batch.text(row)
        spans = tuple(
            Span(starts[j], ends[j], shares[j], lifts[j], None if text is None else text[starts[j] : ends[j]])
            for j in range(at, at + count)
        )
        at += count
        hits.append(Highlight(name, score, error, batch.truncated[row], spans, text))
    return hits
