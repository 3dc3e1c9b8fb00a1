"""Sentences that many documents have, and how much of the documents' embeddings they are."""

from __future__ import annotations

import numpy as np

from jobs.analysis.corpus.collect import Array, Corpus
from jobs.analysis.corpus.result import CASES, Boilerplate, BoilerplateSentence
from jobs.analysis.corpus.sentences import Alike, Cited

# A sentence is boilerplate where at least this share of the documents, and at least so many, have it.
SHARE, DOCUMENTS = 0.01, 5


def least_documents(documents: int) -> int:
    """Return how many of ``documents`` documents must have a sentence."""
    return max(int(np.ceil(SHARE * documents)), DOCUMENTS)


def boilerplate(corpus: Corpus, texts: Alike, cited: Cited) -> Boilerplate:
    """Return the sentences that at least :func:`least_documents` have, and what they do to the embeddings."""
    least = least_documents(len(corpus.ids))
    chosen = np.flatnonzero(texts.documents >= least)
    chosen = chosen[np.argsort(-texts.documents[chosen], kind="stable")]
    pulls = _Pulls(corpus)
    most = []
    for text in chosen[:CASES].tolist():
        members = texts.of(text)
        own = float(corpus.own[members].sum() / texts.documents[text])
        most.append(
            BoilerplateSentence(cited.sentence(int(members[0])), int(texts.documents[text]), own, pulls.of(members))
        )
    every = np.concatenate([texts.of(text) for text in chosen.tolist()]) if len(chosen) else np.zeros(0, np.int64)
    documents = len(np.unique(corpus.documents[every]))
    all_own = float(corpus.own[every].sum() / documents) if documents else None
    return Boilerplate(least, len(chosen), documents, all_own, pulls.of(every) if documents else None, tuple(most))


class _Pulls:
    """What sentences are of the part of their documents' embeddings that points to the corpus's mean m: Σ ĉ·m / Σ e·m,
    both over ‖e‖."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._place = np.full(len(corpus.documents), -1)
        self._place[corpus.held] = np.arange(len(corpus.held))

    def of(self, sentences: Array) -> float | None:
        corpus, place = self._corpus, self._place[sentences]
        place = place[place >= 0]
        if not len(place):
            return None
        documents = corpus.documents[corpus.held[place]]
        toward = self._products(corpus.rows, place, corpus.row_lengths[place] / corpus.lengths[documents])
        whole = np.unique(documents)
        total = self._products(corpus.embeddings, whole, np.ones(len(whole)))
        return float(toward.sum() / total.sum()) if total.sum() > 0 else None

    def _products(self, values_XD: Array, chosen: Array, lengths: Array) -> Array:
        """Products of the chosen rows with the mean, each row as long as given; NaN-free where a row is zero."""
        products = np.empty(len(chosen))
        for at in range(0, len(chosen), 4096):
            rows = values_XD[chosen[at : at + 4096]].astype(np.float32)
            norms = np.linalg.norm(rows, axis=1)
            products[at : at + 4096] = (rows @ self._corpus.mean) / np.where(norms > 0, norms, 1)
        return products * lengths
