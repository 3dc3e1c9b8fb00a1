"""A cache bounded by the bytes of its values; it needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from operator import attrgetter
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ByteCache(Generic[K, V]):
    """Values by key; :meth:`shrink` drops those used least recently until the rest take at most ``budget`` bytes.

    ``size`` returns the bytes of a value. Between calls of :meth:`shrink` the cache may exceed the budget, because a
    batch needs all of its values at once.
    """

    def __init__(self, budget: int, size: Callable[[V], int] = attrgetter("nbytes")) -> None:
        self.budget = budget
        self.held_bytes = 0
        self._size = size
        self._values: dict[K, V] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, key: K) -> V:
        value = self._values.pop(key)
        self._values[key] = value
        return value

    def __setitem__(self, key: K, value: V) -> None:
        before = self._values.pop(key, None)
        self.held_bytes += self._size(value) - (self._size(before) if before is not None else 0)
        self._values[key] = value

    def get(self, key: K) -> V | None:
        """Return the value of a key, None where there is none."""
        return self[key] if key in self._values else None

    def clear(self) -> None:
        """Drop everything."""
        self._values.clear()
        self.held_bytes = 0

    def shrink(self) -> None:
        """Drop what was not used for longest, until the rest is within the budget."""
        while self.held_bytes > self.budget:
            self.held_bytes -= self._size(self._values.pop(next(iter(self._values))))
