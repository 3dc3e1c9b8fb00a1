"""The cells of many pairs at once: tables of texts, and tiles of pairs of like size, padded with zeros.

I and J are the most groups of the first and the second texts of a tile's p pairs. Sums are of float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attribution_core.pairs.cells import CellSums
from attribution_core.pairs.columns import Doubles, Ints, PairColumns
from attribution_core.pairs.completion import Completion
from attribution_core.pairs.groups import GroupTable
from attribution_core.results import Contributions, Floats

# An embedding whose norm is at most this counts as zero: sentence-transformers divides by no smaller norm.
SHORTEST = 1e-12
# Cells of one tile: what its arrays take stays in a processor's caches.
TILE_CELLS = 1 << 16
# One side of a tile: the places of its groups, their sums, and their products with the other side's embedding.
Side = tuple[Ints, Doubles, Doubles]


@dataclass(frozen=True, eq=False)
class Pulled:
    """Texts that were pulled back along their partners' completed contributions, by number.

    ``columns[i][j]`` is where the products of text i with the groups of its partner j are; those with the partner's
    embedding follow them where lifts need them. The last product is that with i's own embedding.
    """

    columns: dict[int, dict[int, slice]]


@dataclass(frozen=True, eq=False)
class TextTable(GroupTable):
    """The groups of N texts, and their contributions.

    ``completed_XD`` are completed contributions, with a row of zeros behind them and zero for pulled texts, whose
    products are in ``products``. ``own_X`` is ĉ_i · e / ‖e‖² with the text's own embedding e, of contributions ĉ that
    sum to e; it sums to 1, and is zero for an embedding of length zero, which has no lift.
    """

    completed_XD: Floats
    own_X: Doubles
    ends_N2D: Doubles
    target_ND: Doubles | None
    inherited_ND: Floats | None
    length_N: Doubles
    products: dict[int, Floats]
    pulled: Pulled

    @staticmethod
    def with_contributions(texts: Sequence[Contributions], completion: Completion, pulled: Pulled) -> TextTable:
        """The table of ``texts``, whose contributions or, of those in ``pulled``, products are known."""
        groups = GroupTable.of([one.text for one in texts])
        share_X = groups.share_X[:-1]
        of_X = np.repeat(np.arange(len(texts)), groups.count_N)
        width = len(texts[0].embedding_D) if texts else 0
        dtype = texts[0].embedding_D.dtype if texts else np.float32
        # Behind them a row of zeros, for what is padded.
        values = [
            np.zeros((one.text.group_count, width), dtype) if at in pulled.columns else one.values_GD
            for at, one in enumerate(texts)
        ]
        completed_XD = np.concatenate([*values, np.zeros((1, width), dtype)])
        own = [
            one.values_GD[:, -1] if at in pulled.columns else one.values_GD @ one.embedding_D
            for at, one in enumerate(texts)
        ]
        raw_X = np.concatenate([*own, np.zeros(0, dtype)]).astype(np.float64)
        ends_N2D = np.array([(one.embedding_D, one.reference_D) for one in texts], np.float64)
        ends_N2D = ends_N2D.reshape(len(texts), 2, width)
        inherited_ND: Floats | None = None
        if texts and completion.inherited(texts[0]) is not None:
            inherited_ND = np.array([completion.inherited(one) for one in texts], dtype)
        if inherited_ND is not None and inherited_ND.any():
            alone = np.array([at not in pulled.columns for at in range(len(texts))])
            weight_X1 = (share_X * alone[of_X]).astype(dtype)[:, None]
            for low in range(0, len(of_X), TILE_CELLS):
                some = slice(low, min(low + TILE_CELLS, len(of_X)))
                completed_XD[some] += weight_X1[some] * inherited_ND[of_X[some]]
        square_N = np.einsum("nd,nd->n", ends_N2D[:, 0], ends_N2D[:, 0])
        along_N = np.einsum("nd,nd->n", ends_N2D[:, 0], ends_N2D[:, 1])
        own_X = raw_X + share_X * along_N[of_X]
        own_X = np.divide(own_X, square_N[of_X], out=np.zeros_like(own_X), where=square_N[of_X] > 0)
        return TextTable(
            **vars(groups),
            completed_XD=completed_XD,
            own_X=np.append(own_X, 0.0),
            ends_N2D=ends_N2D,
            target_ND=np.array([completion.target(one) for one in texts]) if completion.sums_to == "centred" else None,
            inherited_ND=inherited_ND,
            length_N=np.sqrt(square_N),
            products={at: texts[at].values_GD for at in pulled.columns},
            pulled=pulled,
        )

    def across(self, values_pID: NDArray[np.floating], own: Ints, other: Ints, groups_own: Ints) -> Doubles:
        """Score-exact ĉ_i(own) · e(other), [p, I], from contributions that are completed with something else."""
        embedding_pD = self.ends_N2D[other, 0]
        across_pI = (values_pID @ embedding_pD.astype(values_pID.dtype)[:, :, None])[:, :, 0].astype(np.float64)
        missing_pD = self.ends_N2D[own, 1]
        if self.inherited_ND is not None:
            missing_pD = missing_pD - self.inherited_ND[own]
        along_p = np.einsum("pd,pd->p", missing_pD, embedding_pD)
        across_pI += self.share_X[groups_own] * along_p[:, None]
        return across_pI

    def norms(self, out: PairColumns, pairs: Ints) -> Doubles:
        """What products of pairs of ``out`` are divided by: ‖e(a)‖‖e(b)‖ for cosine and 1 for dot."""
        lengths_p = self.length_N[out.a[pairs]] * self.length_N[out.b[pairs]]
        return lengths_p if out.row_lift is not None else np.ones_like(lengths_p)

    def put_sums(self, out: PairColumns, pairs: Ints, rows: Side, cols: Side, sums_to: str) -> None:
        """Write the scores, sums and lifts of pairs of ``out``.

        ``rows`` are the places of their rows' groups [p, I], the rows' sums, and those of score-exact contributions
        with the other's embedding; ``cols`` likewise [p, J]. Sums are divided by :meth:`norms`. Of the sums over rows
        and over columns, the total is the one that is farther from what it must be, so that the error holds for both.
        """
        a, b, norm_p = out.a[pairs], out.b[pairs], self.norms(out, pairs)
        ends_p22 = self.ends_N2D[a] @ self.ends_N2D[b].transpose(0, 2, 1) / norm_p[:, None, None]
        score_p = ends_p22[:, 0, 0]
        out.score[pairs], out.reference_a[pairs] = score_p, ends_p22[:, 0, 1]
        out.reference_b[pairs], out.reference_ab[pairs] = ends_p22[:, 1, 0], ends_p22[:, 1, 1]
        expected_p = self._expected(a, b, ends_p22, norm_p, sums_to)
        by_rows_p, by_cols_p = rows[1].sum(1), cols[1].sum(1)
        farther_p = np.abs(by_rows_p - expected_p) >= np.abs(by_cols_p - expected_p)
        out.total[pairs] = total_p = np.where(farther_p, by_rows_p, by_cols_p)
        # Two embeddings of length zero have a dot product, but no unit for its error.
        missing_p, lengths_p = (total_p - expected_p) * norm_p, self.length_N[a] * self.length_N[b]
        out.error[pairs] = np.divide(missing_p, lengths_p, out=np.zeros_like(missing_p), where=lengths_p > 0)
        for sums, lift, (groups_pX, sums_pX, across_pX) in (
            (out.row_sums, out.row_lift, rows),
            (out.col_sums, out.col_lift, cols),
        ):
            sums.put(pairs, sums_pX)
            if lift is not None:
                lift.put(pairs, across_pX - score_p[:, None] * self.own_X[groups_pX])

    def _expected(self, a: Ints, b: Ints, ends_p22: Doubles, norm_p: Doubles, sums_to: str) -> Doubles:
        """What the cells of pairs must sum to; ``ends_p22`` are the products of embeddings and references."""
        if sums_to == "score":
            return ends_p22[:, 0, 0]
        if self.target_ND is None:
            return ends_p22[:, 0, 0] - ends_p22[:, 0, 1] - ends_p22[:, 1, 0] + ends_p22[:, 1, 1]
        return np.einsum("pd,pd->p", self.target_ND[a], self.target_ND[b]) / norm_p

    def targets(self, texts: Ints) -> Doubles:
        """What the completed contributions of texts sum to, [texts, D]."""
        if self.target_ND is not None:
            return self.target_ND[texts]
        ends_p2D = self.ends_N2D[texts]
        return ends_p2D[:, 0] if self.inherited_ND is not None else ends_p2D[:, 0] - ends_p2D[:, 1]


@dataclass(eq=False)
class Tiles:
    """Writes the pairs of ``out``, a tile at a time; ``across`` says that lifts need products with embeddings."""

    completion: Completion
    table: TextTable
    out: PairColumns
    top_k: int | None
    across: bool

    def __post_init__(self) -> None:
        self._sums = None if self.top_k is None else CellSums(self.table, self.out, self.top_k)

    def compute(self, pairs: Ints) -> None:
        """The columns of ``pairs``, all of one kind: computed alone, or the first or the second text pulled."""
        table, out = self.table, self.out
        a, b = out.a[pairs], out.b[pairs]
        groups_a, groups_b = table.groups(a), table.groups(b)
        products_pIJ, across_pI, across_pJ = self._products(a, b, groups_a, groups_b)
        norm_p = table.norms(out, pairs)
        products_pIJ /= norm_p[:, None, None].astype(products_pIJ.dtype)
        matrix_pIJ = products_pIJ.astype(np.float32)
        exact_pIJ = products_pIJ.astype(np.float64)
        rows_pI, cols_pJ = exact_pIJ.sum(2), exact_pIJ.sum(1)
        table.put_sums(
            out,
            pairs,
            (groups_a, rows_pI, rows_pI if across_pI is None else across_pI / norm_p[:, None]),
            (groups_b, cols_pJ, cols_pJ if across_pJ is None else across_pJ / norm_p[:, None]),
            self.completion.sums_to,
        )
        if out.cells is not None:
            self._store_cells(pairs, matrix_pIJ)
        if self._sums is not None:
            self._sums.add(pairs, matrix_pIJ, rows_pI, cols_pJ, groups_a, groups_b)

    def finish(self) -> None:
        """Join the strongest cells of all tiles, in the order of the pairs."""
        if self._sums is not None:
            self._sums.finish()

    def _products(
        self, a: Ints, b: Ints, groups_a: Ints, groups_b: Ints
    ) -> tuple[NDArray[np.floating], Doubles | None, Doubles | None]:
        """ĉ_i(a) · ĉ_j(b), [p, I, J], and where lifts need them the products of score-exact ĉ with the other's e."""
        table, columns = self.table, self.table.pulled.columns
        if int(b[0]) in columns:
            products_pJI, across_pJ, across_pI = self._pulled(b, a, groups_b, groups_a)
            return products_pJI.transpose(0, 2, 1), across_pI, across_pJ
        if int(a[0]) in columns:
            return self._pulled(a, b, groups_a, groups_b)
        values_pID, values_pJD = table.completed_XD[groups_a], table.completed_XD[groups_b]
        products_pIJ = values_pID @ values_pJD.transpose(0, 2, 1)
        if not self.across:
            return products_pIJ, None, None
        return (
            products_pIJ,
            table.across(values_pID, a, b, groups_a),
            table.across(values_pJD, b, a, groups_b),
        )

    def _pulled(
        self, own: Ints, other: Ints, groups_own: Ints, groups_other: Ints
    ) -> tuple[NDArray[np.floating], Doubles | None, Doubles | None]:
        """The same for texts ``own`` whose products with their partners are known."""
        table = self.table
        values_pJD = table.completed_XD[groups_other]
        products_pIJ = np.zeros((len(own), groups_own.shape[1], groups_other.shape[1]), values_pJD.dtype)
        raw_pI = np.zeros(groups_own.shape)
        for at, (i, j) in enumerate(zip(own.tolist(), other.tolist(), strict=True)):
            values_GK, columns = table.products[i], table.pulled.columns[i][j]
            products_pIJ[at, : len(values_GK), : columns.stop - columns.start] = values_GK[:, columns]
            if self.across:
                raw_pI[at, : len(values_GK)] = values_GK[:, columns.stop]
        share_pI = table.share_X[groups_own]
        if table.inherited_ND is not None:
            along_pJ = (values_pJD @ table.inherited_ND[own][:, :, None])[:, :, 0]
            products_pIJ += share_pI.astype(values_pJD.dtype)[:, :, None] * along_pJ[:, None, :]
        if not self.across:
            return products_pIJ, None, None
        reference_p = np.einsum("pd,pd->p", table.ends_N2D[own, 1], table.ends_N2D[other, 0])
        across_pI = raw_pI + share_pI * reference_p[:, None]
        return products_pIJ, across_pI, table.across(values_pJD, other, own, groups_other)

    def _store_cells(self, pairs: Ints, matrix_pIJ: Floats) -> None:
        cells, table = self.out.cells, self.table
        assert cells is not None, "cells are stored where they were asked for"
        rows_p, cols_p = table.count_N[self.out.a[pairs]], table.count_N[self.out.b[pairs]]
        for at, pair, rows, cols in zip(
            range(len(pairs)), pairs.tolist(), rows_p.tolist(), cols_p.tolist(), strict=True
        ):
            cells[pair][...] = matrix_pIJ[at, :rows, :cols].ravel()
