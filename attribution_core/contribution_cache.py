"""A cache of contributions of texts that are needed again, such as a query that is in many shards of a log."""

from __future__ import annotations

from collections.abc import Iterable

from attribution_core.memory import ByteCache
from attribution_core.model.encoder import ReadText
from attribution_core.results import Contributions

# Of one text beside its arrays: its words, offsets and tokens as Python's objects.
BYTES_A_GROUP = 400

Key = tuple[str, str]  # role, text


class ContributionCache:
    """Contributions of the texts that were admitted; those used last stay, within ``budget`` bytes.

    Only what a text has by itself is cached, at the tolerance of its attributor. Whether something was cached decides
    neither the direction of a text nor its nodes, so results differ by no more than rounding.
    """

    def __init__(self, budget: int) -> None:
        self.admitted: set[Key] = set()
        self._held: ByteCache[Key, Contributions] = ByteCache(budget, _bytes)

    def admit(self, keys: Iterable[Key]) -> None:
        """Cache the texts ``keys`` and no others from now on; other cached texts are dropped when space is needed."""
        self.admitted = set(keys)

    def get(self, text: ReadText) -> Contributions | None:
        """Return the cached contributions of a text, None where there are none."""
        return self._held.get((text.role, text.text))

    def put(self, text: ReadText, one: Contributions) -> None:
        """Cache ``one`` if its text is admitted and it fits at all, in place of what was not used for longest."""
        key = (text.role, text.text)
        if key in self.admitted and key not in self._held and _bytes(one) <= self._held.budget:
            self._held[key] = one
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
    return arrays + BYTES_A_GROUP * (len(one.explained.groups) + len(one.explained.tokens))
