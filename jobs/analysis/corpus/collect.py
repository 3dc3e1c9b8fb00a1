"""Reads an index once: what statistics need of every document and sentence, in a bounded number of bytes.

Shapes: N documents, X sentences (groups of kind text) of all of them, H sentences whose rows stay in memory, Q queries,
D the embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attribution_core.results import Floats
from attribution_core.text.words import word_key
from jobs.errors import RunError
from jobs.index.documents import TEXT, LiveDocuments
from jobs.index.format import id_hash, rounded
from jobs.index.reader import Index
from jobs.progress import Progress

Array = NDArray[Any]

# Rows in memory take at most so many bytes, one byte a value; of a larger corpus those of a sample of its documents.
ROW_BYTES = 1 << 30
# Documents that are multiplied with all queries at once.
SCORED_AT_ONCE = 4096
# The text of a sentence without a letter, such as "3.": it is no repetition of anything.
NO_WORDS = 0


@dataclass(frozen=True, eq=False)
class Corpus:
    """What one scan of an index collected.

    Of documents: ``ids``, ``lengths`` [N] of embeddings, ``embeddings`` [N, D] in one byte a value (their direction
    alone), and ``mean`` [D] of embeddings, for cosine of their directions. Of sentences: ``documents``, ``starts``,
    ``ends`` and ``own`` [X], the share ĉ·e / ‖e‖² that it has in its own document, and ``texts`` [X], the hash of the
    normalised text; None in an index without texts. ``rows`` [H, D] are directions of ĉ in one byte a value, ``held``
    [H] their sentences and ``row_lengths`` [H] their lengths; ``sampled`` says that these are not all. ``nearest`` and
    ``scores`` [Q, K] are documents and scores of each query, best first. ``damaged`` has a line for each record batch
    that could not be read, with ``missing`` documents in all.
    """

    ids: list[str]
    lengths: Floats
    embeddings: Array
    mean: Floats
    documents: Array
    starts: Array
    ends: Array
    own: Floats
    texts: Array | None
    rows: Array
    held: Array
    row_lengths: Floats
    sampled: bool
    nearest: Array
    scores: Floats
    damaged: list[str]
    missing: int


def collect(index: Index, queries_QD: Floats, nearest: int, *, seed: int = 0, progress: Progress) -> Corpus:
    """Scan all documents of an index; ``nearest`` documents are returned for each query.

    Raises:
        RunError: where no document can be read.
    """
    scan = _Scan(index, queries_QD, nearest, seed)
    damaged: list[str] = []
    for batch in index.batches(damaged):
        scan.add(batch)
        progress.advance(len(batch.ids))
    if not scan.ids:
        raise RunError(damaged[0] if damaged else f"{index.url}: has no documents")
    return scan.corpus(damaged)


def normalised(text: str) -> str:
    """Return a text without what does not count when it is compared: letter case and how white space is written."""
    return word_key(" ".join(text.split()))


class _Scan:
    def __init__(self, index: Index, queries_QD: Floats, nearest: int, seed: int) -> None:
        facts = index.facts
        self._cosine = facts.similarity == "cosine"
        self._expected, self._random = len(index), np.random.default_rng([seed, 5])
        self.ids: list[str] = []
        self._embeddings: list[Array] = []
        self._lengths: list[Floats] = []
        self._columns: list[tuple[Array, Array, Array, Floats]] = []
        self._texts: list[Array] | None = [] if facts.texts else None
        self._sum_D = np.zeros(facts.width)
        # Memory that is not written to is not taken.
        self._rows = np.empty((max(ROW_BYTES // facts.width, 1), facts.width), np.int8)
        self._held: list[Array] = []
        self._row_lengths: list[Floats] = []
        self._held_count, self._sentences = 0, 0
        self._share: float | None = None
        self._queries = Nearest(queries_QD, nearest, cosine=self._cosine)

    def add(self, batch: LiveDocuments) -> None:
        text_X = batch.kinds == TEXT
        rows_XD, document_X = batch.rows[text_X], batch.documents[text_X]
        starts, ends = batch.starts[text_X].astype(np.int32), batch.ends[text_X].astype(np.int32)
        lengths_N = np.linalg.norm(batch.embeddings, axis=1)
        own_X = np.einsum("xd,xd->x", rows_XD, batch.embeddings[document_X])
        own_X = np.divide(own_X, lengths_N[document_X] ** 2, out=np.zeros_like(own_X), where=lengths_N[document_X] > 0)
        self._columns.append(((document_X + len(self.ids)).astype(np.int32), starts, ends, own_X))
        if self._texts is not None:
            assert batch.texts is not None, "the facts say that there are texts"
            spans = zip(document_X.tolist(), starts.tolist(), ends.tolist(), strict=True)
            hashes = [_text_hash(batch.texts[document][start:end]) for document, start, end in spans]
            self._texts.append(np.array(hashes, np.uint64))
        self._hold(rows_XD, document_X, len(batch.ids))
        units_ND = np.divide(
            batch.embeddings, lengths_N[:, None], out=np.zeros_like(batch.embeddings), where=lengths_N[:, None] > 0
        )
        self._sum_D += (units_ND if self._cosine else batch.embeddings).sum(0, dtype=np.float64)
        self._queries.add(units_ND if self._cosine else batch.embeddings)
        self._embeddings.append(rounded(units_ND, "int8")[0])
        self._lengths.append(lengths_N)
        self._sentences += len(rows_XD)
        self.ids += batch.ids

    def _hold(self, rows_XD: Floats, document_X: Array, documents: int) -> None:
        """Rows in memory: those of all documents, or of about as many as there is room for."""
        if self._share is None:
            expected = self._expected * max(len(rows_XD), 1) / documents
            # A little less than fits: later documents may have more sentences.
            self._share = min(0.9 * len(self._rows) / expected, 1.0)
        chosen_X = (self._random.random(documents) < self._share)[document_X]
        chosen = np.flatnonzero(chosen_X)[: len(self._rows) - self._held_count]
        end = self._held_count + len(chosen)
        self._rows[self._held_count : end] = rounded(rows_XD[chosen], "int8")[0]
        self._row_lengths.append(np.linalg.norm(rows_XD[chosen], axis=1))
        self._held.append(chosen + self._sentences)
        self._held_count = end

    def corpus(self, damaged: list[str]) -> Corpus:
        documents, starts, ends, own = (np.concatenate(one) for one in zip(*self._columns, strict=True))
        nearest, scores = self._queries.best()
        return Corpus(
            ids=self.ids,
            lengths=np.concatenate(self._lengths),
            embeddings=np.concatenate(self._embeddings),
            mean=(self._sum_D / len(self.ids)).astype(np.float32),
            documents=documents,
            starts=starts,
            ends=ends,
            own=own,
            texts=None if self._texts is None else np.concatenate(self._texts),
            rows=self._rows[: self._held_count],
            held=np.concatenate(self._held),
            row_lengths=np.concatenate(self._row_lengths),
            sampled=self._held_count < len(documents),
            nearest=nearest,
            scores=scores,
            damaged=damaged,
            missing=self._expected - len(self.ids),
        )


class Nearest:
    """The documents with the best scores of every query, from embeddings that come in blocks."""

    def __init__(self, queries_QD: Floats, count: int, *, cosine: bool) -> None:
        lengths = np.linalg.norm(queries_QD, axis=1, keepdims=True)
        self._queries_QD = queries_QD / lengths if cosine and len(queries_QD) else queries_QD
        self._count, self._seen = count, 0
        self._waiting: list[Floats] = []
        self._documents = np.zeros((len(queries_QD), 0), np.int64)
        self._scores = np.zeros((len(queries_QD), 0), np.float32)

    def add(self, documents_ND: Floats) -> None:
        """Add the next documents, of length 1 for cosine."""
        if len(self._queries_QD):
            self._waiting.append(documents_ND)
            if sum(map(len, self._waiting)) >= SCORED_AT_ONCE:
                self._multiply()

    def best(self) -> tuple[Array, Floats]:
        """Numbers and scores of documents [Q, K], best first."""
        self._multiply()
        order = np.argsort(-self._scores, axis=1, kind="stable")
        return tuple(np.take_along_axis(one, order, 1) for one in (self._documents, self._scores))  # type: ignore[return-value]

    def _multiply(self) -> None:
        if not self._waiting:
            return
        block_ND = np.concatenate(self._waiting)
        self._waiting.clear()
        numbers = np.arange(self._seen, self._seen + len(block_ND))
        self._seen += len(block_ND)
        # As many queries at once as give about the same number of scores.
        step = max((SCORED_AT_ONCE << 10) // len(block_ND), 1)
        best = []
        for at in range(0, len(self._queries_QD), step):
            here = slice(at, at + step)
            scores = np.hstack([self._scores[here], self._queries_QD[here] @ block_ND.T])
            known = self._documents[here]
            documents = np.hstack([known, np.broadcast_to(numbers, (len(known), len(numbers)))])
            kept = np.argpartition(-scores, min(self._count, scores.shape[1]) - 1, axis=1)[:, : self._count]
            best.append([np.take_along_axis(one, kept, 1) for one in (documents, scores)])
        self._documents, self._scores = (np.concatenate(one) for one in zip(*best, strict=True))


def _text_hash(text: str) -> int:
    return id_hash(normalised(text)) if any(map(str.isalpha, text)) else NO_WORDS
