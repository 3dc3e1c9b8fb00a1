"""Opens an index and highlights documents for any query; needs only numpy and pyarrow, unless a query is a text."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from attribution_core.errors import SettingError
from attribution_core.results import Floats
from jobs.errors import RunError
from jobs.index.blocks import Problem, damaged_file
from jobs.index.cache import BatchCache
from jobs.index.documents import Document, LiveDocuments, StoredBatch, stored_batch
from jobs.index.format import BATCH
from jobs.index.highlights import Highlights, Unanswered, highlighted
from jobs.index.places import Places
from jobs.index.queries import Encode, ModelEncoder, check_probe, checked_encoder, checked_vector, model_encoder
from jobs.index.snapshot import Facts, Snapshot, load_snapshot
from jobs.storage.s3 import StorageSettings
from jobs.storage.store import Store

CACHE_BYTES = 64 << 20
# A search service waits this long for a store that does not answer, then says so.
PATIENCE_SECONDS = 10.0
# Documents that are looked up at once: so many record batches may be in memory beyond the cache's size.
LOOKED_UP_AT_ONCE = 512
# Record batches that a scan reads at once.
SCANNED_AT_ONCE = 16

# A record batch in memory, and a document's row in it.
Stored = tuple[StoredBatch, int]
# Where an id's document may be: a part's file and a record batch of it, and a row.
Candidate = tuple[tuple[str, int], int]


def open_index(
    path: str | os.PathLike[str],
    storage: StorageSettings | None = None,
    *,
    encode: Encode | None = None,
    cache_bytes: int = CACHE_BYTES,
    model: str | None = None,
    trust_remote_code: bool = False,
    pickled_weights: bool = False,
) -> Index:
    """Open the last snapshot of an index, a local folder or ``s3://``; later updates do not change what is open.

    ``encode`` maps a query's text to its embedding [D], in place of the index's model; it is checked once, with the
    stored probe. ``cache_bytes`` bounds what is read from S3 and stays in memory. ``model`` is where
    the index's model is now, if not under the name that it was built with; ``trust_remote_code`` and
    ``pickled_weights`` are those of ``Attributor``.

    Raises:
        RunError: where there is no index, or its snapshot or ids file is damaged.
        StoreError: where the location cannot be read.
        SettingError: where ``encode`` is not of the index's model.
    """
    store = Store.open(path, storage)
    store.patience = PATIENCE_SECONDS
    loading = {"model": model, "trust_remote_code": trust_remote_code, "pickled_weights": pickled_weights}
    return Index(store, load_snapshot(store), encode=encode, cache_bytes=cache_bytes, loading=loading)


class Index:
    """One snapshot of an index: its documents, what each of their groups adds to their embedding, and highlights.

    Several threads may use it. Highlights need no model, unless a query is given as a text.
    """

    def __init__(
        self,
        store: Store,
        snapshot: Snapshot,
        *,
        encode: Encode | None = None,
        cache_bytes: int = CACHE_BYTES,
        loading: Mapping[str, Any] | None = None,
    ) -> None:
        self._store = store
        self._model_settings = dict(loading or {})
        self.snapshot = snapshot
        self._places = Places(store, snapshot, cache_bytes)
        self._batches = BatchCache(store, cache_bytes, self._decoded)
        self._encode = None if encode is None else checked_encoder(encode, snapshot.facts)
        self._parts = [part.file for part in snapshot.parts]
        self._loading = threading.Lock()

    @property
    def url(self) -> str:
        """Where the index is."""
        return self._store.url

    @property
    def facts(self) -> Facts:
        """What all documents have in common: model, layer, similarity, groups and more."""
        return self.snapshot.facts

    @property
    def documents(self) -> int:
        """How many documents the index has."""
        return self.snapshot.documents

    @property
    def probe_text(self) -> str:
        """The text whose embedding as a query is stored: :meth:`highlight_vector` compares another one with it."""
        return self.facts.probe.text

    def __len__(self) -> int:
        return self.snapshot.documents

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        place = self._stored([name])[0]
        if isinstance(place, Exception):
            raise place
        return place is not None

    def __repr__(self) -> str:
        facts = self.facts
        return f"Index({self.url!r}, {len(self):,} documents by {facts.groups}, {facts.model}, layer {facts.layer})"

    def ids(self) -> Iterator[str]:
        """The ids of all documents, in the order of the files; RunError at a damaged record batch."""
        for batch in self.batches():
            yield from batch.ids

    def highlight(self, query: str, ids: Sequence[str], k: int | None = 3) -> Highlights:
        """Return the ``k`` spans of each document that lift a query's score most, strongest first; None: all.

        The query is encoded by ``encode``, or by the index's model, which is loaded by the first call.

        Raises:
            SettingError: where the query has no token.
            RunError, ModelError: where the index's model cannot be loaded or is not the one that built the index.
        """
        return self.highlight_vector(self.encoded(query), ids, k)

    def highlight_vector(
        self, vector: Any, ids: Sequence[str], k: int | None = 3, *, probe: Any | None = None
    ) -> Highlights:
        """:meth:`highlight` for a query's embedding [D], that of the index's model with its query prompt.

        ``probe`` is the embedding of :attr:`probe_text` by the program that computed ``vector``; it is compared with
        the stored one.

        Raises:
            SettingError: where an embedding has another width, is zero or not finite, or ``probe`` is of another model.
        """
        if probe is not None:
            check_probe(probe, self.facts, "the model of the vector")
        return self.highlight_vectors([vector], [ids], k)[0]

    def highlight_vectors(
        self, vectors: Sequence[Any] | Floats, ids: Sequence[Sequence[str]], k: int | None = 3
    ) -> list[Highlights]:
        """:meth:`highlight_vector` for many queries: embeddings [Q, D], and the ids of each."""
        if len(vectors) != len(ids):
            raise SettingError(f"{len(vectors)} vectors have {len(ids)} lists of ids; give one list a vector")
        if k is not None and k < 1:
            raise SettingError(f"k is {k}; give how many spans of a document to highlight, or None for all")
        checked = [checked_vector(vector, self.facts) for vector in vectors]
        wanted = [(query, one) for query, of_query in enumerate(ids) for one in _checked_ids(of_query)]
        found: list[Highlights] = [Highlights([], [], []) for _ in checked]
        for first in range(0, len(wanted), LOOKED_UP_AT_ONCE):
            here = wanted[first : first + LOOKED_UP_AT_ONCE]
            stored = self._stored([one for _, one in here])
            at = 0
            while at < len(here):
                query, end = here[at][0], at
                while end < len(here) and here[end][0] == query:
                    end += 1
                names = [one for _, one in here[at:end]]
                found[query].add(self._answers(checked[query], names, stored[at:end], k))
                at = end
        return found

    def _answers(
        self, query_D: Floats, ids: list[str], stored: Sequence[Stored | Problem | None], k: int | None
    ) -> Highlights:
        places = [(name, one) for name, one in zip(ids, stored, strict=True) if isinstance(one, tuple)]
        hits = highlighted([name for name, _ in places], [one for _, one in places], query_D, self.facts.similarity, k)
        if len(places) == len(ids):
            return Highlights(hits, [], [])
        problems = [(name, one) for name, one in zip(ids, stored, strict=True) if not isinstance(one, tuple)]
        missing = [Unanswered(name, f"the index has no document {name!r}") for name, one in problems if one is None]
        damaged = [Unanswered(name, f"document {name!r}: {one}") for name, one in problems if one is not None]
        return Highlights(hits, missing, damaged)

    def encoded(self, query: str) -> Floats:
        """Return the embedding [D] of a query's text."""
        return checked_vector(self._encoder()(query), self.facts)

    def encoded_many(self, queries: Sequence[str]) -> list[Floats | None]:
        """Return the embeddings [D] of queries, computed together; None where the model reads no token of one."""
        encode = self._encoder()
        found = encode.many(queries) if isinstance(encode, ModelEncoder) else [encode(query) for query in queries]
        return [None if isinstance(one, str) else checked_vector(one, self.facts) for one in found]

    def _encoder(self) -> Encode:
        """What encodes queries; the first call loads the index's model, where no function was given."""
        if self._encode is None:
            with self._loading:
                self._encode = self._encode or model_encoder(self.facts, self.url, **self._model_settings)
        return self._encode

    def document(self, name: str) -> Document:
        """Return one document: its text, groups, rows and embedding.

        Raises:
            RunError: where the index has no document of that id, or it is damaged.
            StoreError: where it cannot be read.
        """
        place = self._stored(_checked_ids([name]))[0]
        if isinstance(place, Exception):
            raise place
        if place is None:
            raise RunError(f"{self.url}: has no document {name!r}")
        batch, row = place
        return batch.document(row)

    def batches(self, damaged: list[str] | None = None) -> Iterator[LiveDocuments]:
        """Yield all documents, up to 64 at a time, in the order of the files.

        With a list ``damaged``, a line is appended to it for each record batch that cannot be read.

        Raises:
            RunError, StoreError: at one that cannot be read, without ``damaged``.
        """
        live = self._places.live()
        while window := list(itertools.islice(live, SCANNED_AT_ONCE)):
            keys = [(self._parts[part], batch) for part, batch, _ in window]
            read = self._batches.many(keys)
            for key, (_, _, rows) in zip(keys, window, strict=True):
                stored = read[key]
                if isinstance(stored, StoredBatch) and rows[-1] < len(stored):
                    yield stored.live(rows)
                    continue
                problem = stored if isinstance(stored, Exception) else self._no_row(key, rows[-1])
                if damaged is None:
                    raise problem
                damaged.append(str(problem))

    def _decoded(self, batch: pa.RecordBatch, nbytes: int) -> StoredBatch:
        return stored_batch(batch, self.facts, nbytes)

    def _no_row(self, key: tuple[str, int], row: int) -> RunError:
        return damaged_file(self._store, f"{key[0]}, batch {key[1]}", f"has no row {row}")

    def _stored(self, ids: Sequence[str]) -> list[Stored | Problem | None]:
        """Where documents are in memory, after reading what is not; None for an id that the index lacks."""
        # An id with half of a surrogate pair is in no file.
        encoded = [one.encode("utf-8", "surrogatepass") for one in ids]
        candidates: list[list[Candidate] | Problem] = [
            [((self._parts[part], row // BATCH), row % BATCH) for part, row in places]
            if isinstance(places, list)
            else places
            for places in self._places.of(encoded)
        ]
        read = self._batches.many(key for of_id in candidates if isinstance(of_id, list) for key, _ in of_id)
        return [
            self._of_id(name, of_id, read) if isinstance(of_id, list) else of_id
            for name, of_id in zip(encoded, candidates, strict=True)
        ]

    def _of_id(
        self, name: bytes, candidates: list[Candidate], read: dict[tuple[str, int], StoredBatch | Problem]
    ) -> Stored | Problem | None:
        problem: Problem | None = None
        for key, row in candidates:
            stored = read[key]
            if not isinstance(stored, StoredBatch):
                problem = stored
            elif row >= len(stored):
                problem = self._no_row(key, row)
            elif stored.is_id(row, name):
                return stored, row
        return problem


def _checked_ids(ids: Sequence[str]) -> Sequence[str]:
    """Return ``ids``; SettingError where they are one text, or one of them is none."""
    if isinstance(ids, str):
        raise SettingError(f"ids is the text {ids[:60]!r}; give a list of ids")
    for one in ids:
        if not isinstance(one, str):
            raise SettingError(f"an id of an index is a text; found {one!r} ({type(one).__name__})")
    return ids
