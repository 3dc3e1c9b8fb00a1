"""Decoded record batches of an index in memory, least recently used ones dropped first; for several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

import pyarrow as pa

from attribution_core.byte_cache import ByteCache
from jobs.errors import RunError, StoreError
from jobs.index.blocks import DAMAGE, BlockFile, Problem, damaged_file, open_blocks, read_batches
from jobs.storage.store import LocalStore, Store


class Sized(Protocol):
    """What a cache holds."""

    nbytes: int


V = TypeVar("V", bound=Sized)
# A file's name and a record batch of it.
Key = tuple[str, int]


class BatchCache(Generic[V]):
    """Decoded record batches by file and place; those that are missing are read together.

    ``decode`` makes a value of a checked batch and of the bytes that it takes (0 where the file is mapped into
    memory); it raises ValueError where the batch is damaged.
    """

    def __init__(self, store: Store, budget: int, decode: Callable[[pa.RecordBatch, int], V]) -> None:
        self._store, self._decode = store, decode
        self._files: dict[str, BlockFile] = {}
        self._values: ByteCache[Key, V] = ByteCache(budget)
        self._lock = threading.Lock()

    def many(self, keys: Iterable[Key]) -> dict[Key, V | Problem]:
        """The values of some keys; an error stands in the place of one that is damaged or cannot be read."""
        wanted = dict.fromkeys(keys)
        found: dict[Key, V | Problem] = {}
        with self._lock:
            for key in wanted:
                value = self._values.get(key)
                if value is not None:
                    found[key] = value
        if len(found) < len(wanted):
            read = self._read([key for key in wanted if key not in found])
            with self._lock:
                for key, one in read.items():
                    found[key] = one
                    if not isinstance(one, Exception):
                        self._values[key] = one
                self._values.shrink()
        return found

    def file(self, name: str) -> BlockFile | Problem:
        """An open file; an error where it is damaged or missing."""
        return self._opened([name])[name]

    def _opened(self, names: Iterable[str]) -> dict[str, BlockFile | Problem]:
        distinct = dict.fromkeys(names)
        closed = [name for name in distinct if name not in self._files]
        opened = dict(zip(closed, open_blocks(self._store, closed), strict=True)) if closed else {}
        # A file that failed is opened again by the next call: the store may have been unreachable.
        self._files.update({name: file for name, file in opened.items() if not isinstance(file, Exception)})
        return {name: self._files.get(name) or opened[name] for name in distinct}

    def _read(self, keys: list[Key]) -> dict[Key, V | Problem]:
        files = self._opened(name for name, _ in keys)
        found: dict[Key, V | Problem] = {}
        wanted: list[tuple[Key, BlockFile]] = []
        for name, place in keys:
            file = files[name]
            if isinstance(file, Exception):
                found[name, place] = file
            elif place >= len(file):
                found[name, place] = damaged_file(self._store, name, f"has no record batch {place}")
            else:
                wanted.append(((name, place), file))
        batches = read_batches(self._store, [(file, place) for (_, place), file in wanted])
        for (key, _), batch in zip(wanted, batches, strict=True):
            found[key] = batch if isinstance(batch, (RunError, StoreError)) else self._decoded(key, batch)
        return found

    def _decoded(self, key: Key, batch: pa.RecordBatch) -> V | Problem:
        try:
            return self._decode(batch, 0 if isinstance(self._store, LocalStore) else batch.nbytes)
        except DAMAGE as error:
            return damaged_file(self._store, f"{key[0]}, batch {key[1]}", error)
