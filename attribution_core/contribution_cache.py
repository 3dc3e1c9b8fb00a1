"""Contributions kept for texts that will be asked for again, such as a query that stands in many shards of a log."""

from __future__ import annotations

from collections.abc import Iterable

from attribution_core.model.encoder import ReadText
from attribution_core.results import Contributions

# Of one text beside its arrays: its words, offsets and tokens as Python's objects.
BYTES_A_GROUP = 400

Key = tuple[str, str]  # role, text


class KeptContributions:
    """Contributions of the texts that are ``wanted``; those used last are kept, within ``budget`` bytes.

    Only what a text has by itself is kept, at the tolerance of its attributor. Whether something was kept decides
    neither the way of a text nor its nodes, so results differ by no more than rounding.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.wanted: set[Key] = set()
        self.hits = 0
        self._held: dict[Key, Contributions] = {}
        self._bytes = 0

    def want(self, keys: Iterable[Key]) -> None:
        """From now on keep these; what is held of others stays until its room is needed."""
        self.wanted = set(keys)

    def find(self, text: ReadText) -> Contributions | None:
        """What is held of a text, if anything."""
        key = (text.role, text.text)
        found = self._held.pop(key, None)
        if found is not None:
            self._held[key] = found
            self.hits += 1
        return found

    def put(self, text: ReadText, found: Contributions) -> None:
        """Keep ``found`` if the text is wanted, in place of what was not used for longest."""
        key = (text.role, text.text)
        if key not in self.wanted or key in self._held or _bytes(found) > self.budget:
            return
        self._held[key] = found
        self._bytes += _bytes(found)
        while self._bytes > self.budget:
            self._bytes -= _bytes(self._held.pop(next(iter(self._held))))

    @property
    def held_bytes(self) -> int:
        """About what is taken of the budget."""
        return self._bytes


def _bytes(one: Contributions) -> int:
    arrays = one.values_GD.nbytes + one.embedding_D.nbytes + one.reference_D.nbytes
    return arrays + BYTES_A_GROUP * (len(one.explained.groups) + len(one.explained.tokens))
