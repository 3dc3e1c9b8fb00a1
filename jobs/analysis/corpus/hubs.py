"""Hubs: documents that are near many queries of a log, and the sentences that pull them there.

N_k counts for each document in how many queries' k nearest it is; in spaces of many dimensions a few documents are in
many and most in none (Radovanović, Nanopoulos, Ivanović: Hubs in space, JMLR 2010).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from scipy.stats import binom, skew

from attribution_core.results import Floats
from jobs.analysis.corpus.collect import Array, Corpus
from jobs.analysis.corpus.result import CASES, Hub, Hubs
from jobs.analysis.corpus.sentences import Alike, Cited
from jobs.index.reader import Index
from jobs.progress import Progress

NEAREST = 10
# A hub is near at least so many queries, more than two standard deviations above the mean as in the paper, and more
# than chance would make one of all documents with this probability if all were equally near.
LEAST_QUERIES, DEVIATIONS, CHANCE = 5, 2.0, 0.05
AT_ONCE = 256
T = TypeVar("T")


def hubs(
    index: Index, corpus: Corpus, queries_QD: Floats, texts: Alike | None, cited: Cited, progress: Progress
) -> Hubs:
    """Return the documents and sentences that are near many queries (:func:`jobs.analysis.corpus.collect.collect`
    looked up the nearest documents)."""
    queries, nearest = corpus.nearest.shape
    count = len(corpus.ids)
    occurrences = np.bincount(corpus.nearest.ravel(), minlength=count)
    hub_documents = _hubs(occurrences, np.full(count, nearest / count), queries)
    tops = _top_sentences(index, corpus, queries_QD, progress)

    # A sentence is its text, where there are texts.
    key = np.arange(len(corpus.documents))
    copies = np.ones(len(key), np.int64)
    if texts is not None:
        sizes = np.diff(np.append(texts.first, len(texts.order)))
        key[texts.order] = np.repeat(texts.order[texts.first], sizes)
        copies[texts.order[texts.first]] = texts.documents
    met: dict[int, set[int]] = defaultdict(set)
    for (query, _), sentence in tops.items():
        met[int(key[sentence])].add(query)
    distinct = np.unique(key)
    in_queries = np.array([len(met.get(one, ())) for one in distinct.tolist()])
    probabilities = np.minimum(nearest * copies[distinct] / len(key), 1)
    hub_sentences = _hubs(in_queries, probabilities, queries)

    def of_document(number: int) -> Hub:
        lifted = Counter(at for (_, document), at in tops.items() if document == number)
        sentence = cited.sentence(lifted.most_common(1)[0][0]) if lifted else cited.document(number)
        return Hub(sentence, int(occurrences[number]), queries * nearest / count)

    def of_sentence(place: int) -> Hub:
        sentence = cited.sentence(int(distinct[place]))
        expected = float(queries * probabilities[place])
        return Hub(sentence, int(in_queries[place]), expected, int(copies[distinct[place]]))

    by_chance = binom(queries, nearest / count)
    return Hubs(
        queries=queries,
        nearest=nearest,
        skewness=float(skew(occurrences)) if np.ptp(occurrences) else None,
        chance_skewness=float(by_chance.stats("s")),
        never=int((occurrences == 0).sum()),
        chance_never=float(count * by_chance.pmf(0)),
        hub_documents=len(hub_documents),
        hub_sentences=len(hub_sentences),
        documents=_first(hub_documents, of_document),
        sentences=_first(hub_sentences, of_sentence),
    )


def _top_sentences(index: Index, corpus: Corpus, queries_QD: Floats, progress: Progress) -> dict[tuple[int, int], int]:
    """The sentence of each query's nearest documents that lifts the score most, by query and document."""
    begins = np.searchsorted(corpus.documents, np.arange(len(corpus.ids)))
    tops: dict[tuple[int, int], int] = {}
    for first in range(0, len(corpus.nearest), AT_ONCE):
        here = corpus.nearest[first : first + AT_ONCE]
        ids = [[corpus.ids[number] for number in row] for row in here.tolist()]
        hits = index.highlight_vectors(queries_QD[first : first + AT_ONCE], ids, k=1)
        for query, (row, found) in enumerate(zip(here.tolist(), hits, strict=True), first):
            of_id = {hit.id: hit for hit in found}
            for number in row:
                hit = of_id.get(corpus.ids[number])
                if hit is not None and hit.spans:
                    at = begins[number]
                    starts = corpus.starts[at : np.searchsorted(corpus.documents, number, "right")]
                    tops[query, number] = int(at + np.flatnonzero(starts == hit.spans[0].start)[0])
        progress.advance(len(here))
    return tops


def _hubs(counts: Array, probabilities: Array, queries: int) -> Array:
    """The places of hubs, the largest first; ``probabilities`` are those of one query, if all were equally near."""
    high = counts > counts.mean() + DEVIATIONS * counts.std()
    by_chance = binom.sf(counts - 1, queries, probabilities) * len(counts)
    chosen = np.flatnonzero(high & (counts >= LEAST_QUERIES) & (by_chance < CHANCE))
    return chosen[np.argsort(-counts[chosen], kind="stable")]


def _first(places: Array, make: Callable[[int], T]) -> tuple[T, ...]:
    return tuple(make(int(place)) for place in places[:CASES])
