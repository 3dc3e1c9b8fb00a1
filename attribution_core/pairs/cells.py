"""What is stored of pairs' cells beside their matrices: sums over some of them, and the strongest ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attribution_core.pairs.columns import SHARES, Doubles, Ints, PairColumns, Ragged
from attribution_core.pairs.groups import GroupTable
from attribution_core.results import Floats

# Behind every real cell when cells are sorted.
LAST = np.uint64(np.iinfo(np.uint64).max)
PLACE_BITS = np.uint64(32)
PLACE = np.uint64((1 << 32) - 1)


@dataclass(eq=False)
class CellSums:
    """Writes the sums and the ``top_k`` strongest cells of the pairs of ``out``, a tile of pairs at a time."""

    table: GroupTable
    out: PairColumns
    top_k: int

    def __post_init__(self) -> None:
        self._top: list[tuple[Ints, Ints, Ints, Ints, Floats, Floats | None]] = []

    def add(
        self,
        pairs: Ints,
        matrix_pIJ: Floats,
        rows_pI: Doubles,
        cols_pJ: Doubles,
        groups_a: Ints,
        groups_b: Ints,
        interactions_pIJ: Floats | None = None,
    ) -> None:
        """Write the sums of some pairs, and keep their strongest cells.

        ``rows_pI`` and ``cols_pJ`` are the sums of the matrices' rows and columns, ``groups_a`` and ``groups_b`` the
        places of their groups in the table. Where there are ``interactions_pIJ`` these say which cells are strongest.
        """
        table, out = self.table, self.out
        assert out.positive is not None
        assert out.negative is not None
        assert out.special is not None
        assert out.exact is not None
        assert out.largest is not None
        p, width_i, width_j = matrix_pIJ.shape
        exact_pIJ = matrix_pIJ.astype(np.float64)
        out.positive[pairs] = np.maximum(exact_pIJ, 0.0).sum((1, 2))
        out.negative[pairs] = np.minimum(exact_pIJ, 0.0).sum((1, 2))
        text_pI, text_pJ = table.text_X[groups_a], table.text_X[groups_b]
        other_pI, other_pJ = (~text_pI).astype(np.float64), (~text_pJ).astype(np.float64)
        # Rows and columns of special tokens, less the cells that are in both.
        both_pI = (exact_pIJ @ other_pJ[:, :, None])[:, :, 0]
        out.special[pairs] = (rows_pI * other_pI).sum(1) + (cols_pJ * other_pJ).sum(1) - (both_pI * other_pI).sum(1)
        words_pI, words_pJ = table.word_X[groups_a], table.word_X[groups_b]
        same_pIJ = (words_pI[:, :, None] == words_pJ[:, None, :]) & text_pI[:, :, None]
        out.exact[pairs] = (exact_pIJ * same_pIJ).sum((1, 2))

        there_pIJ = (groups_a >= 0)[:, :, None] & (groups_b >= 0)[:, None, :]
        count_p = there_pIJ.sum((1, 2))
        counts_pk = np.maximum(1, np.ceil(np.array(SHARES) * count_p[:, None] - 1e-9)).astype(np.int64)
        half = int(counts_pk.max())
        # Strongest cells of text may stand behind as many others.
        other = (groups_a >= 0).sum(1) * (groups_b >= 0).sum(1) - text_pI.sum(1) * text_pJ.sum(1)
        deep = min(width_i * width_j, self.top_k + int(other.max()))
        order_pC, real_pC = _by_strength(matrix_pIJ, there_pIJ, max(half, deep if interactions_pIJ is None else 0))
        values_pC = matrix_pIJ.reshape(p, -1)
        sorted_pC = np.take_along_axis(values_pC, order_pC[:, :half], 1)
        cumulated_pC = np.cumsum(sorted_pC, axis=1, dtype=np.float64)
        out.largest[pairs] = np.take_along_axis(cumulated_pC, counts_pk - 1, 1)
        if interactions_pIJ is not None:
            order_pC, real_pC = _by_strength(interactions_pIJ, there_pIJ, deep)
        text_pC = (text_pI[:, :, None] & text_pJ[:, None, :]).reshape(p, -1)
        kept_pC = np.take_along_axis(text_pC, order_pC, 1) & real_pC
        rank_pC = np.cumsum(kept_pC, axis=1) - 1
        kept_pC &= rank_pC < self.top_k
        row, column = np.nonzero(kept_pC)
        place = order_pC[row, column]
        interaction = None if interactions_pIJ is None else interactions_pIJ.reshape(p, -1)[row, place]
        found = (place // width_j, place % width_j, values_pC[row, place], interaction)
        self._top.append((pairs[row], rank_pC[row, column], *found))

    def finish(self) -> None:
        """Join the strongest cells of all tiles, in the order of the pairs."""
        sizes = np.zeros(len(self.out), np.int64)
        for pairs, *_ in self._top:
            np.add.at(sizes, pairs, 1)
        self.out.top_i = Ragged.of_sizes(sizes, np.int64)
        first = self.out.top_i.first
        self.out.top_j = Ragged(first, np.zeros(int(first[-1]), np.int64))
        self.out.top_value = Ragged(first, np.zeros(int(first[-1]), np.float32))
        if any(interaction is not None for *_, interaction in self._top):
            self.out.top_interaction = Ragged(first, np.zeros(int(first[-1]), np.float32))
        for pairs, rank, i, j, value, interaction in self._top:
            at = first[pairs] + rank
            self.out.top_i.values[at], self.out.top_j.values[at], self.out.top_value.values[at] = i, j, value
            if self.out.top_interaction is not None:
                assert interaction is not None, "all pairs have interactions, or none has"
                self.out.top_interaction.values[at] = interaction
        self._top.clear()


def _by_strength(values_pIJ: Floats, there_pIJ: NDArray[np.bool_], most: int) -> tuple[Ints, NDArray[np.bool_]]:
    """Return the places of the ``most`` strongest cells of each pair, and which of them are no padding.

    They are ordered by absolute value, then as they are read.
    """
    p, cells = len(values_pIJ), there_pIJ[0].size
    # A float's bits ascend with its absolute value.
    strength_pC = np.abs(values_pIJ).view(np.uint32).reshape(p, cells)
    key_pC = ((~strength_pC).astype(np.uint64) << PLACE_BITS) | np.arange(cells, dtype=np.uint64)
    key_pC[~there_pIJ.reshape(p, cells)] = LAST
    key_pC.sort(1)
    key_pC = key_pC[:, :most]
    real_pC = key_pC != LAST
    # Padding has no place of its own.
    return np.where(real_pC, (key_pC & PLACE).astype(np.int64), 0), real_pC
