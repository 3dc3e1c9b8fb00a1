"""What each word of many pairs adds to their scores, without word pairs.

A row of a pair's matrix sums to ĉ_i(a) · Σ_j ĉ_j(b), and the second factor is known without any contribution of b: it
is what b's contributions must sum to, its embedding e(b) where sums are to be the score. So one product with the
partner stands for as many as the partner has groups, and each side can be pulled back along it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attribution_core.pairs.columns import Doubles, Ints, PairColumns
from attribution_core.pairs.completion import Completion
from attribution_core.pairs.tiles import Side, TextTable


@dataclass(eq=False)
class WordTiles:
    """Writes the pairs of ``out``, a tile at a time; ``across`` as in :class:`~attribution_core.pairs.tiles.Tiles`."""

    completion: Completion
    table: TextTable
    out: PairColumns
    across: bool

    def compute(self, pairs: Ints) -> None:
        """The columns of ``pairs``, whose first texts are all pulled or none, and their second texts likewise."""
        out = self.out
        a, b, norm_p1 = out.a[pairs], out.b[pairs], self.table.norms(out, pairs)[:, None]
        rows, cols = self._side(a, b, norm_p1), self._side(b, a, norm_p1)
        self.table.put_sums(out, pairs, rows, cols, self.completion.sums_to)

    def finish(self) -> None:
        """Nothing is left to join."""

    def _side(self, own: Ints, other: Ints, norm_p1: Doubles) -> Side:
        """The groups of texts, ĉ_i(own) · Σ_j ĉ_j(other), [p, I], and the score-exact ĉ_i(own) · e(other)."""
        groups_pI = self.table.groups(own)
        sums_pI, across_pI = self._products(own, other, groups_pI)
        return groups_pI, sums_pI / norm_p1, across_pI / norm_p1

    def _products(self, own: Ints, other: Ints, groups_own: Ints) -> tuple[Doubles, Doubles]:
        table = self.table
        if int(own[0]) not in table.pulled.columns:
            values_pID = table.completed_XD[groups_own]
            target_pD = table.targets(other).astype(values_pID.dtype)
            sums_pI = (values_pID @ target_pD[:, :, None])[:, :, 0].astype(np.float64)
            return sums_pI, table.across(values_pID, own, other, groups_own) if self.across else sums_pI
        raw_p2I = np.zeros((len(own), 1 + self.across, groups_own.shape[1]))
        for at, (i, j) in enumerate(zip(own.tolist(), other.tolist(), strict=True)):
            values_GK, column = table.products[i], table.pulled.columns[i][j].start
            raw_p2I[at, :, : len(values_GK)] = values_GK[:, column : column + 1 + self.across].T
        share_pI = table.share_X[groups_own]
        sums_pI = raw_p2I[:, 0]
        if table.inherited_ND is not None:
            along_p = np.einsum("pd,pd->p", table.inherited_ND[own].astype(np.float64), table.targets(other))
            sums_pI = sums_pI + share_pI * along_p[:, None]
        if not self.across:
            return sums_pI, sums_pI
        reference_p = np.einsum("pd,pd->p", table.ends_N2D[own, 1], table.ends_N2D[other, 0])
        return sums_pI, raw_p2I[:, 1] + share_pI * reference_p[:, None]
