"""Sentences of a scanned corpus: which texts are the same, and single ones with their text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attribution_core.display.view import shortened
from jobs.analysis.corpus.collect import NO_WORDS, Array, Corpus
from jobs.analysis.corpus.result import Sentence
from jobs.index.reader import Index

LONGEST = 300


@dataclass(frozen=True, eq=False)
class Alike:
    """Sentences (or documents) in T groups; members of a group are alike.

    ``order`` has all members group by group, in the order of the documents; ``first`` [T] is where each group begins in
    it, ``documents`` [T] how many different documents a group has.
    """

    order: Array
    first: Array
    documents: Array

    def of(self, group: int) -> Array:
        """The members of one group."""
        last = self.first[group + 1] if group + 1 < len(self.first) else len(self.order)
        return self.order[self.first[group] : last]


def alike(members: Array, keys: Array, documents: Array) -> Alike:
    """Return ``members`` [M] in groups by ``keys`` [M]; ``documents`` [M], ascending, are theirs."""
    place = np.argsort(keys, kind="stable")
    keys, documents = keys[place], documents[place]
    new_group = np.ones(len(place), bool)
    new_group[1:] = keys[1:] != keys[:-1]
    new_document = new_group.copy()
    new_document[1:] |= documents[1:] != documents[:-1]
    first = np.flatnonzero(new_group)
    counts = np.add.reduceat(new_document, first, dtype=np.int64) if len(first) else np.zeros(0, np.int64)
    return Alike(members[place], first, counts)


def by_text(corpus: Corpus) -> Alike:
    """Return the sentences with words of an index with texts, by their normalised text."""
    assert corpus.texts is not None, "the index has texts"
    worded = np.flatnonzero(corpus.texts != NO_WORDS)
    return alike(worded, corpus.texts[worded], corpus.documents[worded])


class Cited:
    """Looks up single sentences of a corpus in the index."""

    def __init__(self, index: Index, corpus: Corpus) -> None:
        self._index, self._corpus = index, corpus

    def sentence(self, at: int) -> Sentence:
        """Return sentence ``at`` of the corpus."""
        corpus, document = self._corpus, int(self._corpus.documents[at])
        name = corpus.ids[document]
        text = self._index.document(name).text
        shown = None if text is None else shortened(text[corpus.starts[at] : corpus.ends[at]], LONGEST)
        return Sentence(name, at - int(np.searchsorted(corpus.documents, document)) + 1, shown)

    def document(self, number: int) -> Sentence:
        """Return the first sentence of a document; its number is 0 where it has none."""
        at = int(np.searchsorted(self._corpus.documents, number))
        if at == len(self._corpus.documents) or self._corpus.documents[at] != number:
            return Sentence(self._corpus.ids[number], 0, None)
        return self.sentence(at)
