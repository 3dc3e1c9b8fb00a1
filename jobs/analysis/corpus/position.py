"""How much of the embedding the text at each place of a document adds, against the share of its length."""

from __future__ import annotations

import numpy as np

from jobs.analysis.corpus.collect import Array, Corpus
from jobs.analysis.corpus.result import Place, Position
from jobs.analysis.resampling import BUCKETS, Resampling

# Each of the first sentences, then all others.
FIRST, TENTHS = 10, 10
# A ratio within this of 1 is no preference, however narrow its interval.
SMALL = 0.1
# Sentences at once.
BLOCK = 1 << 17


def position(corpus: Corpus, resamples: int, seed: int) -> Position:
    """Return what the places of documents add; intervals are by resampling documents.

    What a place adds is its own share ĉ·e / ‖e‖², and the length's that of all text times the place's share of the
    characters, both summed over documents. Left out are documents of one sentence and those whose text adds nothing.
    """
    count = len(corpus.ids)
    lengths = (corpus.ends - corpus.starts).astype(np.float64)
    total = np.bincount(corpus.documents, corpus.own, count)
    characters = np.bincount(corpus.documents, lengths, count)
    begins = np.searchsorted(corpus.documents, np.arange(count))
    sizes = np.diff(np.append(begins, len(corpus.documents)))
    used = (sizes > 1) & (total > 0) & (characters > 0)
    if not used.any():
        return Position(0, (), (), None)
    clusters = min(count, BUCKETS)
    bucket = np.random.default_rng([seed, 2]).permutation(count) % clusters
    start, end = (np.zeros(count) for _ in range(2))
    start[used], end[used] = corpus.starts[begins[used]], corpus.ends[begins[used] + sizes[used] - 1]
    sums = np.zeros((4, clusters, FIRST + 1 + TENTHS))  # own shares, length's shares, all text's shares, documents
    for first in range(0, len(corpus.documents), BLOCK):
        here = np.arange(first, min(first + BLOCK, len(corpus.documents)))
        here = here[used[corpus.documents[here]]]
        document = corpus.documents[here]
        own, by_length = corpus.own[here], total[document] * lengths[here] / characters[document]
        place = np.minimum(here - begins[document], FIRST)
        np.add.at(sums[0], (bucket[document], place), own)
        np.add.at(sums[1], (bucket[document], place), by_length)
        overlap = _tenths(corpus.starts[here], corpus.ends[here], start[document], end[document])
        np.add.at(sums[0, :, FIRST + 1 :], bucket[document], overlap * own[:, None])
        np.add.at(sums[1, :, FIRST + 1 :], bucket[document], overlap * by_length[:, None])
    numbers = np.flatnonzero(used)
    # A document has the places up to its number of sentences, and all tenths.
    there = np.hstack(
        [np.arange(FIRST + 1) < np.minimum(sizes[numbers], FIRST + 1)[:, None], np.ones((len(numbers), TENTHS), bool)]
    )
    np.add.at(sums[2], bucket[numbers], there * total[numbers, None])
    np.add.at(sums[3], bucket[numbers], there)
    ratio, low, high = Resampling.drawn(clusters, resamples, [seed, 3]).ratio(sums[0], sums[1])
    names = [str(at + 1) for at in range(FIRST)] + [f"{FIRST + 1} and later"]
    names += [f"{10 * at}-{10 * at + 10} %" for at in range(TENTHS)]
    own, by_length, whole, documents = sums.sum(1)
    places = [
        Place(
            name,
            int(documents[at]),
            float(own[at] / whole[at]),
            float(by_length[at] / whole[at]),
            float(ratio[at]),
            _bound(low[at]),
            _bound(high[at]),
        )
        for at, name in enumerate(names)
        if documents[at] and by_length[at] > 0
    ]
    tenths = tuple(places[-TENTHS:])
    return Position(len(numbers), tuple(places[:-TENTHS]), tenths, favours(tenths[0], tenths[-1]))


def favours(first: Place, last: Place) -> str | None:
    """Return which end of documents adds more than its length, by its interval; None where that is open."""
    if first.low is None or first.high is None or last.low is None or last.high is None:
        return None
    if first.low > 1 + SMALL and first.ratio > last.ratio:
        return "beginnings"
    if last.low > 1 + SMALL:
        return "ends"
    # Neither can be large: the intervals leave no room for it.
    return "neither" if max(first.high, last.high) < 1 + 2 * SMALL else None


def _tenths(starts: Array, ends: Array, first: Array, last: Array) -> Array:
    """The share [X, TENTHS] of each sentence's characters that is in each tenth of its document's text."""
    edges = first[:, None] + (last - first)[:, None] * np.arange(TENTHS + 1) / TENTHS
    inside = np.minimum(ends[:, None], edges[:, 1:]) - np.maximum(starts[:, None], edges[:, :-1])
    return np.maximum(inside, 0) / np.maximum(ends - starts, 1)[:, None]


def _bound(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
