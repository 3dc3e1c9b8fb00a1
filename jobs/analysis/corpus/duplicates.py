"""Repetitions: sentences with the same text in several documents, and sentences and documents of nearly the same row.

*The same text is no near row.* What a sentence adds depends on the text around it: copied into another document, its
row has a cosine of 0.06 to 0.85 with the original's (9 sentences, MiniLM, Cranfield). So texts are compared by hash.

*The thresholds.* With one word replaced in a document, or in each of its sentences, the row of an edited sentence has
0.98 or more with the original's in 36 of 44 cases (median 0.99); of 496,292 pairs of sentences from 150 different
Cranfield documents none does (at most 0.957, 99.99 % below 0.854). Embeddings of whole documents have 0.99 or more in
all 9 cases of one replaced word, 8 of 9 of an added sentence, and 5 of 9 where each sentence was edited; of 11,175
pairs of different documents the closest has 0.885.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jobs.analysis.corpus.collect import Array, Corpus
from jobs.analysis.corpus.near import near_groups, unit_rows
from jobs.analysis.corpus.result import CASES, Group, Repeated, Sentence
from jobs.analysis.corpus.sentences import Alike, Cited, alike

# The least cosine of two sentences' rows, and of two documents' embeddings.
SENTENCES, DOCUMENTS = 0.98, 0.99
EXAMPLES = 3
# So many groups are looked through for cases of different documents.
LOOKED_AT = 10_000


def same_text(texts: Alike, boilerplate: int, corpus: Corpus, cited: Cited) -> Repeated:
    """Return sentences whose normalised text several documents have, but fewer than ``boilerplate``."""
    chosen = np.flatnonzero((texts.documents > 1) & (texts.documents < boilerplate))
    return _repeated(texts, chosen, corpus.documents, cited.sentence)


def near_sentences(corpus: Corpus, texts: Alike | None, cited: Cited, seed: int) -> Repeated:
    """Return sentences of different documents, and of different texts where there are texts, with nearly the same row.

    Of sentences with the same text the first one alone is compared.
    """
    compared = np.arange(len(corpus.held))
    if texts is not None:
        chosen = np.zeros(len(corpus.documents), bool)
        held = np.zeros(len(corpus.documents), bool)
        held[corpus.held] = True
        in_order = held[texts.order]
        # The first sentence of each text that is held.
        text = np.repeat(np.arange(len(texts.first)), np.diff(np.append(texts.first, len(texts.order))))[in_order]
        new = np.ones(len(text), bool)
        new[1:] = text[1:] != text[:-1]
        chosen[texts.order[in_order][new]] = True
        compared = np.flatnonzero(chosen[corpus.held])
    return _near(corpus.rows, compared, corpus.held[compared], corpus.documents, SENTENCES, cited.sentence, seed)


def near_documents(corpus: Corpus, cited: Cited, seed: int) -> Repeated:
    """Return documents with nearly the same embedding."""
    numbers = np.arange(len(corpus.ids))
    return _near(corpus.embeddings, numbers, numbers, numbers, DOCUMENTS, cited.document, seed)


def _near(
    rows_HD: Array,
    compared: Array,
    members: Array,
    documents: Array,
    least: float,
    cite: Callable[[int], Sentence],
    seed: int,
) -> Repeated:
    """Groups among ``members`` [M], whose rows are those ``compared`` [M] of ``rows_HD``; ``documents`` has the
    document of every member."""
    near = near_groups(rows_HD, compared, documents[members], least, seed)
    places = alike(np.arange(len(members)), near.labels, documents[members])
    groups = Alike(members[places.order], places.first, places.documents)

    def cosines(group: int) -> tuple[float, ...]:
        units = unit_rows(rows_HD[compared[_examples(places.of(group), documents[members])]])
        return tuple(round(float(one), 4) for one in units[1:] @ units[0])

    return _repeated(groups, np.flatnonzero(groups.documents > 1), documents, cite, least, near.recall, cosines)


def _repeated(
    groups: Alike,
    chosen: Array,
    documents: Array,
    cite: Callable[[int], Sentence],
    least: float | None = None,
    recall: float = 1.0,
    cosines: Callable[[int], tuple[float, ...]] = lambda group: (),
) -> Repeated:
    sizes = np.diff(np.append(groups.first, len(groups.order)))
    repeated = np.zeros(len(sizes), bool)
    repeated[chosen] = True
    touched = documents[groups.order[np.repeat(repeated, sizes)]]
    largest = chosen[np.argsort(-groups.documents[chosen], kind="stable")]
    # Two documents with many sentences in common are one case.
    examples: dict[tuple[int, ...], tuple[int, Array]] = {}
    for group in largest[:LOOKED_AT].tolist():
        members = _examples(groups.of(group), documents)
        examples.setdefault(tuple(documents[members].tolist()), (group, members))
        if len(examples) == CASES:
            break
    cases = [
        Group(int(groups.documents[group]), tuple(cite(at) for at in members.tolist()), cosines(group))
        for group, members in examples.values()
    ]
    return Repeated(len(chosen), len(np.unique(touched)), len(groups.order), least, recall, tuple(cases))


def _examples(members: Array, documents: Array) -> Array:
    """The first few members of different documents."""
    return members[np.sort(np.unique(documents[members], return_index=True)[1])[:EXAMPLES]]
