"""The ids that are most like one that does not exist, for messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

COUNT = 3
LEAST_LIKENESS = 0.6
# More ids take seconds to compare.
MOST_IDS = 100_000


def nearest_ids(wanted: str, ids: Iterable[str]) -> list[str]:
    """Up to three of ``ids`` that look like ``wanted``, the most alike first; letter case is no difference."""
    by_folded: dict[str, str] = {}
    for id in list(ids)[:MOST_IDS]:
        by_folded.setdefault(id.casefold(), id)
    close = difflib.get_close_matches(wanted.casefold(), by_folded, COUNT, LEAST_LIKENESS)
    return [by_folded[one] for one in close]


def quoted(ids: Iterable[str]) -> str:
    """Ids as they stand in a message."""
    return ", ".join(map(repr, ids))
