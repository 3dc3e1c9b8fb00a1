"""Scores of single sentences, each encoded by itself, against a query."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attribution_core.model.modules import Role
from attribution_core.text.words import sentence_spans
from jobs.analysis.faithfulness.judge import Judge
from jobs.analysis.faithfulness.scores import Scores, Texts
from jobs.progress import Progress

# Texts encoded at once: what bounds the memory.
TEXTS_AT_ONCE = 2048


@dataclass(frozen=True)
class ScoredSentences:
    """A text's sentences, their character ``spans`` and ``scores`` [n]."""

    text: str
    spans: tuple[tuple[int, int], ...]
    scores: NDArray[np.float64]

    def __getitem__(self, at: int) -> str:
        start, end = self.spans[at]
        return self.text[start:end]


def score_sentences(
    model: Judge, roles: tuple[Role, Role], pairs: Sequence[tuple[str, str]], progress: Progress | None = None
) -> Iterator[ScoredSentences]:
    """Yield the sentences of the second text of each pair, scored against the first, in order; each text has a
    sentence."""
    waiting: list[tuple[str, str, tuple[tuple[int, int], ...]]] = []
    count = 0
    for query, text in pairs:
        waiting.append((query, text, tuple(sentence_spans(text))))
        count += len(waiting[-1][2])
        if count >= TEXTS_AT_ONCE:
            yield from _scored(model, roles, waiting, progress)
            waiting, count = [], 0
    if waiting:
        yield from _scored(model, roles, waiting, progress)


def score(model: Judge, roles: tuple[Role, Role], texts: Texts, a: str, b: str) -> float:
    """Return the model's score of two texts whose embeddings are in ``texts``."""
    return float(Scores(texts, model.similarity).paired([(roles[0], a)], [(roles[1], b)])[0])


def _scored(
    model: Judge,
    roles: tuple[Role, Role],
    waiting: Sequence[tuple[str, str, tuple[tuple[int, int], ...]]],
    progress: Progress | None,
) -> Iterator[ScoredSentences]:
    wanted = [(roles[0], query) for query, _, _ in waiting]
    wanted += [(roles[1], text[start:end]) for _, text, spans in waiting for start, end in spans]
    texts = model.embed(wanted)
    for query, text, spans in waiting:
        scores = [score(model, roles, texts, query, text[start:end]) for start, end in spans]
        yield ScoredSentences(text, spans, np.array(scores))
    if progress is not None:
        progress.advance(len(waiting))
