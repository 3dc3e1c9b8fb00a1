"""Pairs of a late-interaction model: a score that is a sum over matches, split into words.

MaxSim of a text a (the query) with a text b (the document) is s = Σ_i e_i(a) · e_m(i)(b), where m(i) is the output
token of b that is most like output token i of a (Khattab and Zaharia 2020). With the matches fixed where the model put
them this is one product of two long vectors, E(a) = [e_1(a), e_2(a), …] and M(b) = [e_m(1)(b), e_m(2)(b), …]. So
contributions, their completion and what they sum to are as for one vector a text:

    c_{g,i} = ∫ J_{e_i} · δ_g,    ĉ_{g,i} = c_{g,i} + w_g e_i(reference),
    Â_gh = Σ_i ĉ_{g,i}(a) · ĉ_{h,m(i)}(b),    Σ_gh Â_gh = s.

Normalize is inside e_i. A row sums to Σ_i ĉ_{g,i}(a) · e_m(i)(b), one pullback in a along M(b); a column to
Σ_j ĉ_{h,j}(b) · v_j with v_j = Σ_{i: m(i)=j} e_i(a), one pullback in b. Cells pull b back along
V_j^g = Σ_{i: m(i)=j} c_{g,i}(a). Mean MaxSim divides all of it by the number of query outputs.

What is fixed is part of the meaning: words are credited for the outputs that were matched, not for the choice of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attribution_core.pairs.cells import CellSums
from attribution_core.pairs.columns import Doubles, Ints, PairColumns, Ragged, Setting, empty_columns
from attribution_core.pairs.groups import GroupTable
from attribution_core.results import Contributions

Array = NDArray[Any]
Edge = tuple[int, int]
SUMS_TO = ("score", "difference")


@dataclass(frozen=True, eq=False)
class Outputs:
    """The output tokens of a text that are scored and those of its reference, ``e_TD`` and ``reference_TD``.

    ``place_T`` are their places among the text's ``length`` tokens.
    """

    place_T: Ints
    e_TD: Array
    reference_TD: Array
    length: int

    @staticmethod
    def of(one: Contributions) -> Outputs:
        """Return the outputs of a text whose embeddings are known."""
        scored_S, length = one.text.scored_S, len(one.text)
        assert scored_S is not None, "a late-interaction model's own reader read the text"
        e_SD, reference_SD = one.embedding_D.reshape(length, -1), one.reference_D.reshape(length, -1)
        return Outputs(np.flatnonzero(scored_S), e_SD[scored_S], reference_SD[scored_S], length)

    def spread(self, values_TKD: Array) -> Array:
        """Return values of the scored outputs, [T, K, D], in the layout of an embedding, [K, S · D]."""
        _, k, d = values_TKD.shape
        out = np.zeros((k, self.length, d), values_TKD.dtype)
        out[:, self.place_T] = values_TKD.transpose(1, 0, 2)
        return out.reshape(k, self.length * d)


@dataclass(eq=False)
class LatePair:
    """One pair with its matches fixed, and what each text was asked for.

    ``match_T`` is m, places among the outputs of b, and ``value_T`` the similarities. ``ends`` are the products
    of a's and b's embeddings and references: s, f(a, r_b), f(r_a, b), f(r_a, r_b). ``unit`` is ‖E(a)‖ ‖M(b)‖.
    ``rows_G`` and ``cols_G`` are products of contributions with the other text (level words), ``cells_GG`` are
    c_g · c_h, and ``along_G`` (of a) and ``across_G`` (of b) products with the other's reference (level pairs).
    """

    a: Outputs
    b: Outputs
    match_T: Ints
    value_T: Array
    ties: int
    ends: tuple[float, float, float, float]
    unit: float
    rows_G: Array | None = None
    cols_G: Array | None = None
    cells_GG: Array | None = None
    along_G: Array | None = None
    across_G: Array | None = None

    @staticmethod
    def of(a: Outputs, b: Outputs) -> LatePair:
        """Match the outputs of a with those of b, as the model does."""
        match_T, value_T, ties = matched(a.e_TD, b.e_TD)
        own, other = np.stack([a.e_TD, a.reference_TD]), np.stack([b.e_TD[match_T], b.reference_TD[match_T]])
        ends = np.einsum("xtd,ytd->xy", own.astype(np.float64), other.astype(np.float64)).ravel().tolist()
        unit = float(np.linalg.norm(own[0].astype(np.float64)) * np.linalg.norm(other[0].astype(np.float64)))
        return LatePair(a, b, match_T, value_T, ties, tuple(ends), unit)

    def sum_over_matches(self, values_TKD: Array) -> Array:
        """Return Σ_{i: m(i)=j} of values of a's outputs, [T, K, D], for b as an embedding, [K, S · D]."""
        t, k, d = values_TKD.shape
        one_hot_JT = np.zeros((len(self.b.e_TD), t), values_TKD.dtype)
        one_hot_JT[self.match_T, np.arange(t)] = 1
        return self.b.spread((one_hot_JT @ values_TKD.reshape(t, k * d)).reshape(-1, k, d))

    def of_a(self, values_TD: Array) -> Array:
        """Return values of b's outputs at the places of a's that they match, as an embedding of a, [1, S · D]."""
        return self.a.spread(values_TD[self.match_T][:, None])


def matched(a_TD: Array, b_TD: Array) -> tuple[Ints, Array, int]:
    """Return for each output of a the place of the nearest output of b, their similarity, and the number of ties.

    Of outputs that are exactly as near the first is taken.
    """
    similarity = a_TD @ b_TD.T
    match_T = similarity.argmax(1)
    value_T = similarity[np.arange(len(a_TD)), match_T]
    ties = int(((similarity == value_T[:, None]).sum(1) > 1).sum())
    return match_T, value_T, ties


@dataclass(frozen=True, eq=False)
class LatePairs:
    """The distinct pairs of some numbered texts, with all that their attributions need."""

    pairs: Mapping[Edge, LatePair] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class LateProducts:
    """Attributions of pairs whose products are known.

    ``top_k`` strongest cells are selected and sums computed, None: neither; ``cells`` says whether matrices are stored.
    With ``words`` there are no cells, and neither of the two.
    """

    setting: Setting
    top_k: int | None
    cells: bool
    words: bool

    @property
    def sums_to(self) -> str:
        """What the cells sum to."""
        return self.setting.sums_to

    def columns(
        self, texts: Sequence[Contributions], edges: NDArray[np.int64], late: LatePairs
    ) -> tuple[PairColumns, Ints]:
        """Return the pairs ``edges`` [P, 2] of numbered texts, and their places: all of them."""
        pairs = [late.pairs[i, j] for i, j in edges.tolist()]
        table = GroupTable.of([one.text for one in texts])
        out = self._empty(texts, edges, table, pairs)
        sums = None if self.top_k is None else CellSums(table, out, self.top_k)
        for at, pair in enumerate(pairs):
            share_a, share_b = (texts[text].text.shares_G for text in edges[at].tolist())
            norm = len(pair.value_T) if self.setting.similarity == "meanmaxsim" else 1
            self._put_matches(out, at, pair, norm)
            if self.words:
                self._put_words(out, at, pair, share_a, share_b, norm)
                continue
            matrix, interactions = self._cells(pair, share_a, share_b, norm)
            rows, cols = (matrix.sum(axis, dtype=np.float64) for axis in (1, 0))
            self._put_sums(out, at, pair, rows, cols, norm)
            single, raw = (values.astype(np.float32) for values in (matrix, interactions))
            if out.cells is not None and out.interactions is not None:
                out.cells[at][...], out.interactions[at][...] = single.ravel(), raw.ravel()
            if sums is not None:
                of_a, of_b = (table.groups(edges[at, side : side + 1]) for side in (0, 1))
                sums.add(np.array([at]), single[None], rows[None], cols[None], of_a, of_b, raw[None])
        if sums is not None:
            sums.finish()
        return out, np.arange(len(edges))

    def _cells(self, pair: LatePair, share_a: Doubles, share_b: Doubles, norm: int) -> tuple[Array, Array]:
        """Return Â and the interactions c_g · c_h, [I, J] each."""
        assert pair.cells_GG is not None
        assert pair.along_G is not None
        assert pair.across_G is not None
        raw = pair.cells_GG / norm
        if self.sums_to == "difference":
            return raw, raw
        both = pair.ends[3] * share_a[:, None]
        shared = share_a[:, None] * pair.across_G + share_b * (pair.along_G[:, None] + both)
        return raw + (shared / norm).astype(raw.dtype), raw

    def _put_words(
        self, out: PairColumns, at: int, pair: LatePair, share_a: Doubles, share_b: Doubles, norm: int
    ) -> None:
        assert pair.rows_G is not None
        assert pair.cols_G is not None
        rows, cols = pair.rows_G.astype(np.float64), pair.cols_G.astype(np.float64)
        if self.sums_to == "score":
            rows, cols = rows + share_a * pair.ends[2], cols + share_b * pair.ends[1]
        self._put_sums(out, at, pair, rows / norm, cols / norm, norm)

    def _put_sums(self, out: PairColumns, at: int, pair: LatePair, rows: Doubles, cols: Doubles, norm: int) -> None:
        score, reference_a, reference_b, reference_ab = (end / norm for end in pair.ends)
        out.score[at], out.reference_a[at] = score, reference_a
        out.reference_b[at], out.reference_ab[at] = reference_b, reference_ab
        expected = score if self.sums_to == "score" else score - reference_a - reference_b + reference_ab
        # The error holds for rows and for columns.
        total = max((float(rows.sum()), float(cols.sum())), key=lambda one: abs(one - expected))
        out.total[at] = total
        out.error[at] = (total - expected) * norm / pair.unit if pair.unit > 0 else 0.0
        out.row_sums[at][...], out.col_sums[at][...] = rows, cols

    def _put_matches(self, out: PairColumns, at: int, pair: LatePair, norm: int) -> None:
        assert out.match_i is not None
        assert out.match_j is not None
        assert out.match_value is not None
        assert out.ties is not None
        out.match_i[at][...] = pair.a.place_T
        out.match_j[at][...] = pair.b.place_T[pair.match_T]
        out.match_value[at][...] = pair.value_T / norm
        out.ties[at] = pair.ties

    def _empty(
        self, texts: Sequence[Contributions], edges: NDArray[np.int64], table: GroupTable, pairs: Sequence[LatePair]
    ) -> PairColumns:
        a, b = edges[:, 0], edges[:, 1]
        sums = self.top_k is not None
        out = empty_columns(self.setting, texts, a, b, table.count_N, sums=sums, cells=self.cells, lifts=False)
        matches = np.fromiter((len(pair.match_T) for pair in pairs), np.int64, len(pairs))
        out.match_i, out.match_j = Ragged.of_sizes(matches, np.int64), Ragged.of_sizes(matches, np.int64)
        out.match_value = Ragged.of_sizes(matches)
        out.ties = np.zeros(len(pairs), np.int64)
        if self.cells:
            out.interactions = Ragged.of_sizes(table.count_N[a] * table.count_N[b])
        return out
