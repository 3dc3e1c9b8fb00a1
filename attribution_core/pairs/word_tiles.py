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
from attribution_core.pairs.tiles import TextTable


@dataclass(eq=False)
class WordTiles:
    """Writes the pairs of ``out``, a tile at a time; ``across`` as in :class:`~attribution_core.pairs.tiles.Tiles`.

    ``total`` is the sum of the rows or of the columns, whichever is farther from what it must be, so that ``error``
    holds for both.
    """

    completion: Completion
    table: TextTable
    out: PairColumns
    across: bool

    def compute(self, pairs: Ints) -> None:
        """The columns of ``pairs``, whose first texts are all pulled or none, and their second texts likewise."""
        table, out = self.table, self.out
        a, b = out.a[pairs], out.b[pairs]
        groups_a, groups_b = table.groups(a), table.groups(b)
        cosine = out.row_lift is not None
        norms_p = table.length_N[a] * table.length_N[b]
        norm_p = norms_p if cosine else np.ones_like(norms_p)
        rows_pI, across_pI = (one / norm_p[:, None] for one in self._side(a, b, groups_a))
        cols_pJ, across_pJ = (one / norm_p[:, None] for one in self._side(b, a, groups_b))
        ends_p22 = table.ends_N2D[a] @ table.ends_N2D[b].transpose(0, 2, 1) / norm_p[:, None, None]
        score_p = ends_p22[:, 0, 0]
        out.score[pairs], out.reference_a[pairs] = score_p, ends_p22[:, 0, 1]
        out.reference_b[pairs], out.reference_ab[pairs] = ends_p22[:, 1, 0], ends_p22[:, 1, 1]
        expected_p = table.expected(a, b, ends_p22, norm_p, self.completion.sums_to)
        by_rows_p, by_cols_p = rows_pI.sum(1), cols_pJ.sum(1)
        farther_p = np.abs(by_rows_p - expected_p) >= np.abs(by_cols_p - expected_p)
        out.total[pairs] = total_p = np.where(farther_p, by_rows_p, by_cols_p)
        missing_p = (total_p - expected_p) * norm_p
        out.error[pairs] = np.divide(missing_p, norms_p, out=np.zeros_like(missing_p), where=norms_p > 0)
        out.row_sums.put(pairs, rows_pI)
        out.col_sums.put(pairs, cols_pJ)
        if out.row_lift is not None and out.col_lift is not None:
            out.row_lift.put(pairs, across_pI - score_p[:, None] * table.own_X[groups_a])
            out.col_lift.put(pairs, across_pJ - score_p[:, None] * table.own_X[groups_b])

    def finish(self) -> None:
        """Nothing is left to join."""

    def _side(self, own: Ints, other: Ints, groups_own: Ints) -> tuple[Doubles, Doubles]:
        """ĉ_i(own) · Σ_j ĉ_j(other), [p, I], and the score-exact ĉ_i(own) · e(other)."""
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
