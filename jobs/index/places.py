"""Where each live document is: by the hash of its id, in an ids file of which single blocks are read."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from jobs.index.blocks import Problem, damaged_file
from jobs.index.cache import BatchCache
from jobs.index.documents import VIEW_BYTES
from jobs.index.format import BATCH, id_hash
from jobs.index.snapshot import FIRST_HASHES, Snapshot, read_ids
from jobs.storage.store import Store

# A part and a row of it.
Place = tuple[int, int]


class IdBlock:
    """A block of the ids file: entries sorted by hash."""

    def __init__(self, batch: pa.RecordBatch, part_count: int, nbytes: int) -> None:
        """Read a checked batch; ValueError where it names a part that the snapshot does not have."""
        if len(batch) and batch["part"].to_numpy().max() >= part_count:
            raise ValueError("names a part that the snapshot does not have")
        # Of single numbers a memoryview is faster than numpy.
        self._hashes, self._parts, self._rows = (batch[name].to_numpy().data for name in ("hash", "part", "row"))
        self.nbytes = VIEW_BYTES + nbytes

    def places(self, key: int) -> list[Place]:
        """The entries of a hash; more than one where ids have the same."""
        low = bisect_left(self._hashes, key)
        places = []
        while low < len(self._hashes) and self._hashes[low] == key:
            places.append((self._parts[low], self._rows[low]))
            low += 1
        return places


class Places:
    """Looks up ids in the ids file of a snapshot."""

    def __init__(self, store: Store, snapshot: Snapshot, cache_bytes: int) -> None:
        """Open the file; raises RunError or StoreError where it is damaged or missing."""
        self._store, self._snapshot = store, snapshot
        parts = len(snapshot.parts)
        self._blocks = BatchCache(store, cache_bytes, lambda batch, nbytes: IdBlock(batch, parts, nbytes))
        file = self._blocks.file(snapshot.ids)
        if isinstance(file, Exception):
            raise file
        try:
            self._firsts: list[int] = json.loads((file.schema.metadata or {})[FIRST_HASHES])
            if len(self._firsts) != len(file):
                raise ValueError("does not have one hash for each block")
        except (KeyError, ValueError) as error:
            raise damaged_file(store, snapshot.ids, error) from None

    def of(self, encoded: Sequence[bytes]) -> list[list[Place] | Problem]:
        """Where the documents of some ids (in UTF-8) may be: every entry of an id's hash, none for an unknown id."""
        keys = [id_hash(one) for one in encoded]
        # Entries of one hash may begin in the block before the one that starts with it.
        spans = [(max(bisect_left(self._firsts, key) - 1, 0), bisect_right(self._firsts, key)) for key in keys]
        name = self._snapshot.ids
        blocks = self._blocks.many((name, block) for low, high in spans for block in range(low, high))
        return [
            self._candidates(key, [blocks[name, block] for block in range(*span)])
            for key, span in zip(keys, spans, strict=True)
        ]

    def _candidates(self, key: int, blocks: Sequence[IdBlock | Problem]) -> list[Place] | Problem:
        places: list[Place] = []
        for block in blocks:
            if not isinstance(block, IdBlock):
                return block
            places += block.places(key)
        return places

    def live(self) -> Iterator[tuple[int, int, list[int]]]:
        """Every record batch with live documents: part, batch, and the rows of the batch that are live.

        Raises:
            RunError: where the ids file is damaged.
        """
        table = read_ids(self._store, self._snapshot)
        parts, rows = (table[name].to_numpy().astype(np.int64) for name in ("part", "row"))
        order = np.lexsort((rows, parts))
        parts, rows = parts[order], rows[order]
        batches = rows // BATCH
        cuts = np.flatnonzero((np.diff(parts) != 0) | (np.diff(batches) != 0)) + 1
        for here in np.split(np.arange(len(rows)), cuts) if len(rows) else []:
            yield int(parts[here[0]]), int(batches[here[0]]), (rows[here] % BATCH).tolist()
