"""Statistics over a corpus from its index alone: duplicates, boilerplate, positions, and hubs of a log's queries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attribution_core.results import Floats
from jobs.analysis.corpus.boilerplate import boilerplate, least_documents
from jobs.analysis.corpus.collect import Corpus, collect
from jobs.analysis.corpus.duplicates import near_documents, near_sentences, same_text
from jobs.analysis.corpus.hubs import NEAREST, hubs
from jobs.analysis.corpus.position import position
from jobs.analysis.corpus.result import CorpusStatistics
from jobs.analysis.corpus.sentences import Cited, by_text
from jobs.config.sections import TextColumns
from jobs.errors import SourceError
from jobs.index.reader import Index
from jobs.progress import Progress, counted
from jobs.sources.files import resolve_inputs
from jobs.sources.tables import read_texts

# Of a longer log so many queries are drawn.
MOST_QUERIES = 10_000
QUERIES_AT_ONCE = 256


def corpus_statistics(
    index: Index,
    queries: Sequence[str] = (),
    *,
    resamples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> CorpusStatistics:
    """Compute statistics over the documents of an index; nothing is written.

    ``queries`` are texts; without them hubs are left out. The index's model encodes them, and is loaded for that.

    Raises:
        RunError, StoreError: where no document of the index can be read.
        RunError, ModelError, SettingError: where queries are given and the index's model cannot be loaded, or is not
            the one that built it.
    """
    progress = progress or Progress()
    notes: list[str] = []
    queries_QD = _encoded(index, queries, seed, progress, notes)
    progress.phase("documents", len(index))
    nearest = NEAREST if len(queries_QD) and len(index) > NEAREST else 0
    corpus = collect(index, queries_QD, nearest, seed=seed, progress=progress)
    cited = Cited(index, corpus)
    unit = index.facts.groups
    by_sentence = unit == "sentence"
    texts = by_text(corpus) if corpus.texts is not None and by_sentence else None
    progress.phase("comparing sentences and documents")
    most = least_documents(len(corpus.ids))
    found = {
        "same_text": same_text(texts, most, corpus, cited) if texts is not None else None,
        "near_sentences": near_sentences(corpus, texts, cited, seed) if by_sentence else None,
        "boilerplate": boilerplate(corpus, texts, cited) if texts is not None else None,
    }
    documents = near_documents(corpus, cited, seed)
    of_places = position(corpus, resamples, seed)
    of_queries = None
    if len(queries_QD) and nearest:
        progress.phase("queries", len(queries_QD))
        of_queries = hubs(index, corpus, queries_QD, texts, cited, progress)
    elif len(queries_QD):
        notes.append(f"Hubs are left out: there are no more than {NEAREST} documents.")
    return CorpusStatistics(
        index=index.url,
        model=index.facts.model,
        layer=index.facts.layer,
        similarity=index.facts.similarity,
        unit=unit,
        documents=len(corpus.ids),
        sentences=len(corpus.documents),
        near_documents=documents,
        position=of_places,
        hubs=of_queries,
        notes=(*_notes(corpus, unit), *notes),
        **found,  # type: ignore[arg-type]
    )


def read_queries(path: str) -> list[str]:
    """Return the texts of a table of ids and texts, in its order; blank ones are left out.

    Raises:
        SourceError: where there is no such file, or it cannot be read or has no texts.
    """
    texts: list[str] = []
    for file in resolve_inputs(path):
        for batch in read_texts(file, TextColumns(), titles=False, notices=[]):
            texts += [text for text in batch.table["text"].to_pylist() if text.strip()]
    if not texts:
        raise SourceError(f"{path}: has no queries")
    return texts


def _encoded(index: Index, queries: Sequence[str], seed: int, progress: Progress, notes: list[str]) -> Floats:
    """Embeddings of queries [Q, D], without those that have no token."""
    chosen = queries
    if len(queries) > MOST_QUERIES:
        drawn = np.random.default_rng([seed, 6]).choice(len(queries), MOST_QUERIES, replace=False)
        chosen = [queries[at] for at in np.sort(drawn)]
        notes.append(f"Hubs are of {MOST_QUERIES:,} of {len(queries):,} queries, drawn at random.")
    if chosen:
        progress.phase("queries to encode", len(chosen))
    embeddings: list[Floats] = []
    for at in range(0, len(chosen), QUERIES_AT_ONCE):
        encoded = index.encoded_many(chosen[at : at + QUERIES_AT_ONCE])
        embeddings += [one for one in encoded if one is not None]
        progress.advance(len(encoded))
    empty = len(chosen) - len(embeddings)
    if empty:
        notes.append(
            f"{counted(empty, 'query')} left out: the model reads no token of {'it' if empty == 1 else 'them'}."
        )
    return np.stack(embeddings) if embeddings else np.zeros((0, index.facts.width), np.float32)


def _notes(corpus: Corpus, unit: str) -> list[str]:
    notes = []
    if corpus.damaged:
        more = f" and {len(corpus.damaged) - 1:,} more" if len(corpus.damaged) > 1 else ""
        notes.append(f"{counted(corpus.missing, 'document')} left out, damaged: {corpus.damaged[0]}{more}.")
    if unit != "sentence":
        notes.append(f"The index is by {unit}: repeated sentences and boilerplate are left out; they need sentences.")
    elif corpus.texts is None:
        notes.append("The index has no texts: the same text and boilerplate are left out, and no text is shown.")
    if corpus.sampled:
        share = len(corpus.held) / len(corpus.documents)
        notes.append(
            f"Rows of {len(corpus.held):,} of {len(corpus.documents):,} sentences were compared, from documents drawn "
            f"at random, as many as fit into memory: {share * share:.0%} of the pairs."
        )
    return notes
