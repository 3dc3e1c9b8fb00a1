"""A cache of contributions of texts that are needed again, such as a query that is in many shards of a log."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from attribution_core.byte_cache import ByteCache
from attribution_core.model.encoder import ReadText
from attribution_core.results import Contributions

# Of one text beside its arrays: its tokens, groups and their words, as arrays and as Python's objects.
BYTES_A_TEXT = 2000
BYTES_A_GROUP = 150

Key = tuple[str, str]  # role, text


class ContributionCache:
    """Contributions of the texts that were admitted; those used last stay, within ``budget`` bytes.

    Only what a text has by itself is cached, at the tolerance of its attributor. Whether something was cached decides
    neither the direction of a text nor its nodes, so results differ by no more than rounding.
    """

    def __init__(self, budget: int) -> None:
        self.admitted: set[Key] = set()
        self._held: ByteCache[Key, Contributions] = ByteCache(budget, _bytes)
        # One thread may look up what another computes.
        self._lock = threading.Lock()

    def admit(self, keys: Iterable[Key]) -> None:
        """Cache the texts ``keys`` and no others from now on; other cached texts are dropped when space is needed."""
        self.admitted = set(keys)

    def get(self, text: ReadText) -> Contributions | None:
        """Return the cached contributions of a text, None where there are none."""
        with self._lock:
            return self._held.get((text.role, text.text))

    def read(self, role: str, text: str) -> ReadText | None:
        """Return a cached text as it was tokenised, None where it is not cached."""
        with self._lock:
            found = self._held.get((role, text))
        return None if found is None else found.text

    def put(self, text: ReadText, one: Contributions) -> None:
        """Cache ``one`` if its text is admitted and it fits at all, in place of what was not used for longest."""
        key = (text.role, text.text)
        if key not in self.admitted or _bytes(one) > self._held.budget:
            return
        with self._lock:
            if key not in self._held:
                self._held[key] = one.by_itself()
                self._held.shrink()

    @property
    def budget(self) -> int:
        """The most bytes that are held."""
        return self._held.budget

    @property
    def held_bytes(self) -> int:
        """About how many bytes are held."""
        return self._held.held_bytes


def _bytes(one: Contributions) -> int:
    arrays = one.values_GD.nbytes + one.embedding_D.nbytes + one.reference_D.nbytes
    return arrays + BYTES_A_TEXT + BYTES_A_GROUP * (one.text.group_count + len(one.text))
