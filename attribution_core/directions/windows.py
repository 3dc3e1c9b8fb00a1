"""Which texts are computed together: windows of like length and like number of directions, at the least cost.

A window is padded to its longest text and its most directions, and every window costs a fixed amount on top. Texts are
sorted, and the cuts between windows are a shortest path over them: exact, and the same for the same texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

MOST_PLACES = 1024


def windows(
    kinds: Sequence[tuple[str, int, bool]],
    tokens: Sequence[int],
    directions: Sequence[int],
    most: Callable[[int], int],
    fixed: float,
    order: Callable[[int], tuple[int, ...]],
) -> list[list[int]]:
    """Places of texts in windows, each of one kind.

    Args:
        kinds: what the texts of a window must have in common.
        tokens: tokens of each text, its padding included in no window's count.
        directions: directions of each text; the pass without any counts as one more.
        most: how many texts of so many tokens fit into a window, at least 1.
        fixed: what a window costs beside its texts, in tokens × directions.
        order: the key that texts of one kind are sorted by before they are cut into windows.
    """
    places = sorted(range(len(kinds)), key=lambda at: (kinds[at], order(at)))
    found: list[list[int]] = []
    for _, same in groupby(places, key=lambda at: kinds[at]):
        group = list(same)
        cuts = _cuts(
            np.array([tokens[at] for at in group], np.int64),
            np.array([directions[at] for at in group], np.int64) + 1,
            most,
            fixed,
        )
        found += [group[low:high] for low, high in pairwise(cuts)]
    return found


def _cuts(tokens: Ints, work: Ints, most: Callable[[int], int], fixed: float) -> list[int]:
    """Where a sorted run of texts is cut, with both ends: the shortest path by padded cost.

    Many texts are cut between blocks of some that follow each other, so that it takes as long as for ``MOST_PLACES``.
    """
    count = len(tokens)
    places = np.unique(np.linspace(0, count, min(count, MOST_PLACES) + 1).astype(np.int64))
    block = np.diff(places)
    longest, hardest = np.maximum.reduceat(tokens, places[:-1]), np.maximum.reduceat(work, places[:-1])
    limit = int(longest.max(initial=1))
    fits = np.array([max(most(max(length, 1)), 1) for length in range(limit + 1)], np.int64)
    cost = np.full(len(places), np.inf)
    cost[0] = 0.0
    begin = np.zeros(len(places), np.int64)
    for end in range(1, len(places)):
        # A window that ends here is at least as long as its last block.
        low = int(np.searchsorted(places, places[end] - fits[longest[end - 1]]))
        low = min(low, end - 1)
        padded = np.maximum.accumulate(longest[low:end][::-1])[::-1]
        most_work = np.maximum.accumulate(hardest[low:end][::-1])[::-1]
        texts = places[end] - places[low:end]
        total = cost[low:end] + texts * padded * most_work + fixed
        # A block alone is cut further where it is read.
        total[:-1][texts[:-1] > fits[padded[:-1]]] = np.inf
        best = int(np.argmin(total))
        cost[end], begin[end] = total[best], low + best
    cuts = [len(places) - 1]
    while cuts[-1]:
        cuts.append(int(begin[cuts[-1]]))
    return _split([int(places[at]) for at in cuts[::-1]], block, places, longest, fits)


def _split(cuts: list[int], block: Ints, places: Ints, longest: Ints, fits: Ints) -> list[int]:
    """The cuts, and further ones inside of blocks that hold more texts than a window."""
    out = [0]
    for low, high in pairwise(cuts):
        at = int(np.searchsorted(places, low))
        size = int(fits[longest[at]]) if high - low == block[at] else high - low
        out += [*range(low + size, high, size), high]
    return out
