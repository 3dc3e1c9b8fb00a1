"""The words of one text as two runs read it, put side by side by their character offsets.

Two tokenizers, or two group units, cut a text differently. Groups that share characters are joined until both cuts
agree on the borders: such a *unit* is one word of both runs in most cases, and a sum over a unit is exact for both.
Special and prompt tokens are in no unit, and so are words that the other run did not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Cut:
    """How one run cut a text: character offsets and kinds of its groups."""

    starts: Sequence[int]
    ends: Sequence[int]
    kinds: Sequence[str]


@dataclass(frozen=True)
class Aligned:
    """``first[g]`` and ``second[g]`` are the units of the runs' groups, −1 for none; ``spans`` [units, 2] characters.

    ``alone`` is how many text groups of either run have no unit.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    spans: NDArray[np.int64]
    alone: int

    @property
    def units(self) -> int:
        """How many units there are."""
        return len(self.spans)


def align(first: Cut, second: Cut) -> Aligned:
    """The units of two cuts, in reading order."""
    words = sorted(
        (start, end, run, g)
        for run, cut in enumerate((first, second))
        for g, (start, end, kind) in enumerate(zip(cut.starts, cut.ends, cut.kinds, strict=True))
        if kind == "text" and end > start
    )
    of: list[NDArray[np.int64]] = [np.full(len(cut.kinds), -1, np.int64) for cut in (first, second)]
    spans: list[tuple[int, int]] = []
    alone = 0

    def close(members: list[tuple[int, int, int, int]]) -> None:
        nonlocal alone
        if len({run for _, _, run, _ in members}) < 2:
            alone += len(members)
            return
        for _, _, run, g in members:
            of[run][g] = len(spans)
        spans.append((members[0][0], max(end for _, end, _, _ in members)))

    members: list[tuple[int, int, int, int]] = []
    reached = 0
    for word in words:
        if members and word[0] >= reached:
            close(members)
            members = []
        members.append(word)
        reached = max(reached, word[1]) if len(members) > 1 else word[1]
    if members:
        close(members)
    return Aligned(of[0], of[1], np.array(spans, np.int64).reshape(-1, 2), alone)


def summed(values: Any, units: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """The sum of the groups' values over each unit, [count]."""
    known = units >= 0
    sums = np.bincount(units[known], np.asarray(values, np.float64)[known], minlength=count)
    return sums.astype(np.float64)


def summed_cells(matrix: Any, rows: NDArray[np.int64], cols: NDArray[np.int64], shape: tuple[int, int]) -> Any:
    """The sum of a matrix over each pair of units, ``shape``."""
    sums = np.zeros(shape)
    i, j = np.flatnonzero(rows >= 0), np.flatnonzero(cols >= 0)
    np.add.at(sums, (rows[i][:, None], cols[j][None, :]), np.asarray(matrix, np.float64)[np.ix_(i, j)])
    return sums
