"""What each word of a query added to the scores of its documents, and which words had no effect.

A word without effect is in none of the documents that the run has for its query, in no form, and its mean lift over
these documents is clearly below zero: the model gained nothing from it. A synonym in a document does not
prevent that, so it does not say that the documents lack an answer to the word.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from jobs.analysis.resampling import divided, large_enough
from jobs.analysis.statistics.batches import Batch
from jobs.analysis.statistics.matches import Same
from jobs.analysis.statistics.measure import Result, Scene, Table, columns_table, figure
from jobs.analysis.statistics.schema import Figure
from jobs.analysis.statistics.sums import Array, first_of_each, quantised
from jobs.analysis.statistics.tagging import UNIVERSAL
from jobs.analysis.statistics.texts import PUNCTUATION, TEXT

CONTENT = ("NOUN", "PROPN", "VERB", "ADJ", "ADV", "NUM", "X")
# A word that is in none of its query's documents has no effect where its mean lift is below this.
NO_EFFECT = -0.02


def without_effect(content: Array, documents: Array, lift: Array) -> Array:
    """Which words have no effect, [words] bool: content words that no document has, with a mean lift below NO_EFFECT.

    ``content`` [words] says whether it is a content word, ``documents`` how many of the query's documents have it in
    any form, and ``lift`` is the mean over these documents.
    """
    lost: Array = content & (documents == 0) & (lift < NO_EFFECT)
    return lost


class QueryWords:
    """Sums for every word of every query; arrays are of the flat table of words, from ``begin`` on."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        texts = scene.texts
        first, last = texts.role_start if scene.run.roles[0] == "query" else (0, len(texts))
        self.first = first
        self.begin, end = int(texts.offsets[first]), int(texts.offsets[last])
        query = slice(self.begin, end)
        content = (texts.kind[query] == TEXT) & ((texts.flags[query] & PUNCTUATION) == 0)
        if texts.pipeline is not None:
            content &= np.isin(texts.pos[query], [UNIVERSAL.index(tag) for tag in CONTENT])
        self.content = content
        n = end - self.begin
        self.documents, self.sum, self.below, self.mass = (np.zeros(n) for _ in range(4))
        self.lift, self.found = np.zeros(n), np.zeros(n)
        self.best = np.full(n, -np.inf)
        self.best_rank = np.full(n, np.iinfo(np.int32).max, np.int32)
        # Pairs of a query share a bucket; where the run has no queries, the first bucket of its pairs is taken.
        self.bucket = np.full(last - first, np.iinfo(np.int32).max)
        self.why_not = _why_not(scene)
        own = texts.kind == TEXT
        labels = [texts.stem] if texts.stemmed else [np.where(own, texts.word, -1)]
        labels += [texts.lemma] if texts.pipeline is not None else []
        self.forms = [Same(texts, label) for label in labels] if self.why_not is None else []

    def add(self, batch: Batch) -> None:
        """Add the words of some pairs' queries."""
        pair, word = batch.rows
        texts, quantum = batch.texts, self.scene.quantum
        own = texts.kind[word] == TEXT
        pair, place, value = pair[own], word[own] - self.begin, batch.row_values[own]
        size = len(self.sum)
        whole = np.bincount(pair, value, len(batch))
        self.documents += np.bincount(place, minlength=size)
        self.sum += np.bincount(place, quantised(value, quantum), size)
        self.below += np.bincount(place, quantised(whole, quantum)[pair], size)
        self.mass += np.bincount(place, quantised(batch.mass, quantum)[pair], size)
        np.minimum.at(self.bucket, batch.a - self.first, batch.bucket)
        if self.why_not is None and batch.row_lifts is not None:
            self.lift += np.bincount(place, quantised(batch.row_lifts[own], self.scene.lift_quantum), size)
            stands = np.any([forms.stand(batch.a, batch.b) for forms in self.forms], axis=0)
            self.found += np.bincount(place, stands[own], size)
        top = np.full(size, -np.inf)
        np.maximum.at(top, place, value)
        there = value == top[place]
        place, value, rank = place[there], value[there], batch.rank[pair[there]]
        # Of several documents to which a word adds as much, the first in order.
        order = np.lexsort((rank, place))
        place, value, rank = place[order], value[order], rank[order]
        once = first_of_each(place)
        place, value, rank = place[once], value[once], rank[once]
        better = (value > self.best[place]) | ((value == self.best[place]) & (rank < self.best_rank[place]))
        at = place[better]
        self.best[at], self.best_rank[at] = value[better], rank[better]

    def result(self) -> Result:
        """A table of every query word; counts and a table of the words without effect, or why there is none."""
        texts = self.scene.texts
        own = texts.kind[self.begin : self.begin + len(self.sum)] == TEXT
        at = np.flatnonzero((self.documents > 0) & own)
        terms = self._terms(at)
        if self.why_not is not None:
            return Result([], [terms], [self.why_not])
        lost = at[self._without_effect(at)]
        return Result(self._figures(at, lost), [terms, self._lost(lost)], [self._note()])

    def _without_effect(self, at: Array) -> Array:
        lift = divided(self.lift[at], self.documents[at])
        return without_effect(self.content[at], self.found[at], lift)

    def _figures(self, at: Array, lost: Array) -> list[Figure]:
        scene = self.scene
        of_text = scene.texts.of_word[self.begin :] - self.first
        asked = at[self.content[at]]
        queries = np.unique(of_text[asked])
        with_some = np.unique(of_text[lost])

        def by_bucket(texts: Array) -> Array:
            return np.bincount(self.bucket[texts], minlength=scene.buckets).astype(np.float64)

        words = scene.resampling.ratio(by_bucket(of_text[lost]), by_bucket(of_text[asked]))
        some = scene.resampling.ratio(by_bucket(with_some), by_bucket(queries))
        content = "content words" if scene.texts.pipeline is not None else "words"
        return [
            figure("without_effect", f"share of the queries' {content} that had no effect", words),
            figure("queries_without_effect", "share of the queries that have a word without effect", some),
            Figure(
                name="words_without_effect",
                value=len(lost),
                unit="count",
                meaning=f"words without effect, of {len(asked):,} {content} in {len(queries):,} queries",
            ),
        ]

    def _note(self) -> str:
        texts, pairs = self.scene.texts, self.scene.pairs
        form = "stem or lemma" if texts.stemmed else "lemma"
        stands = f"no word with the same {form} stands" if texts.pipeline is not None else "it does not stand"
        of = "in this run" if pairs.count == len(pairs.rank) else "among the pairs that were looked at"
        return (
            f"A word without effect: {stands} in what the model read of the query's documents {of}, and the word's "
            f"mean lift over them is below {NO_EFFECT:g}. The model gained nothing from this word. A synonym in the "
            "documents does not prevent that: it does not mean that they lack an answer to the word."
        )

    def _terms(self, at: Array) -> Table:
        texts = self.scene.texts
        word = at + self.begin
        known = self.why_not is None
        nothing = pa.nulls(len(at))
        lift = divided(self.lift[at], self.documents[at])
        data = columns_table(
            query_id=texts.text_ids.take(pa.array(texts.of_word[word])),
            place=texts.place[word],
            word=pa.array(texts.names).take(pa.array(texts.word[word])),
            pos=pa.array(UNIVERSAL).take(pa.array(texts.pos[word].astype(np.int64))),
            content=self.content[at],
            documents=self.documents[at].astype(np.int64),
            mean=self.sum[at] / self.documents[at],
            mean_lift=lift if known else nothing.cast(pa.float64()),
            share=divided(self.sum[at], large_enough(self.below[at], self.mass[at])),
            found_in=self.found[at].astype(np.int64) if known else nothing.cast(pa.int64()),
            without_effect=self._without_effect(at) if known else nothing.cast(pa.bool_()),
            best=self.best[at],
            pair_id=self.scene.pairs.ids(self.best_rank[at].tolist()),
        )
        meaning = "What each word of each query added to the scores of its documents. Exact."
        return Table("query_terms", meaning, data, DESCRIBED)

    def _lost(self, at: Array) -> Table:
        texts = self.scene.texts
        lift = divided(self.lift[at], self.documents[at])
        # Words lie in the order of their queries: of equal lifts the first query's is first.
        order = np.argsort(lift, kind="stable")
        at, lift = at[order], lift[order]
        word = at + self.begin
        columns: dict[str, Any] = {
            "query_id": texts.text_ids.take(pa.array(texts.of_word[word])),
            "place": texts.place[word],
            "word": pa.array(texts.names).take(pa.array(texts.word[word])),
            "mean_lift": lift,
            "mean": divided(self.sum[at], self.documents[at]),
            "documents": self.documents[at].astype(np.int64),
        }
        meaning = "Query words from which the model gained nothing: in none of the documents, and with a negative lift."
        return Table("words_without_effect", meaning, columns_table(**columns), DESCRIBED)


DESCRIBED = {
    "query_id": "the query",
    "place": "which word of the query, from 0",
    "word": "that word, letter case aside",
    "pos": "its part of speech (X without a pipeline)",
    "content": "whether it is a noun, verb, adjective, adverb or number (any word without a pipeline)",
    "documents": "the query's documents in this run",
    "mean": "what the word adds to a document's score: mean of its row sum over the documents",
    "mean_lift": "its lift, mean over the documents: what it adds beyond what the query's length lets every word add; "
    "negative where it dilutes the score. Empty where the run has no lifts",
    "share": "its row sums over those of all the query's words, each over all the documents; empty where the "
    "latter are near zero or negative",
    "found_in": "in how many of the documents it or another form of it stands",
    "without_effect": f"whether it is a content word, stands in no document, and has a mean lift below {NO_EFFECT:g}",
    "best": "its row sum in the document to which it adds most",
    "pair_id": "the pair with that document",
}


def _why_not(scene: Scene) -> str | None:
    """Why words without effect cannot be recognised in this run, or None."""
    if any(scene.run.unit(role) != "word" for role in scene.run.roles):
        return "Words without effect are left out: they need words as groups."
    if scene.why_no_lifts is not None:
        return f"Words without effect are left out: they need lifts, and {scene.why_no_lifts}."
    return None
