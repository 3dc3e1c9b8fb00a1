"""Two texts' contributions become one pair: its cells, what they sum to, the error, and the lift of every group.

The lift is a second reading of the same contributions, for cosine: with ê a unit embedding and s the score,

    l_i = ĉ_i(a) · (ê(b) − s ê(a)) / ‖e(a)‖,

the part of a group's sum that its text's own length does not explain. It sums to zero over a text, and is negative for
groups that dilute the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attribution_core.completion import Completion
from attribution_core.results import Contributions, PairAttribution

# sentence-transformers takes embeddings that are no longer than this for zero.
SHORTEST = 1e-12
EMBEDS_TO_ZERO = "its embedding is zero, so it has no cosine with any text"
SCORE = Completion("score")

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Undefined:
    """A pair without a score: under cosine, the texts of ``sides`` ("a", "b") have an embedding of norm zero."""

    sides: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Reading:
    """What a text's lift needs beside its cells, [G] each.

    ``own_G`` is ĉ_i · e / ‖e‖² with its own embedding, which sums to 1; ``across_G`` are raw products c_i · e with its
    partner's embedding, where the cells' sums do not give these.
    """

    own_G: Doubles
    across_G: NDArray[Any] | None = None


def own_share(one: Contributions, products_G: NDArray[Any]) -> Doubles:
    """ĉ_i · e / ‖e‖² [G] from the raw products c_i · e; zero for an embedding of length zero, which has no lift."""
    own_D = one.embedding_D.astype(np.float64)
    square = float(own_D @ own_D)
    completed_G: Doubles = SCORE.along(one, products_G.astype(np.float64)[:, None], own_D[None])[:, 0]
    return completed_G / square if square else np.zeros_like(completed_G)


@dataclass(frozen=True, eq=False)
class PairMaker:
    """Makes pairs of one model and setting out of products of completed contributions."""

    completion: Completion
    similarity: str
    layer: int
    model: str

    @property
    def needs_across(self) -> bool:
        """Whether a lift needs products with the partner's embedding that are not among the cells' sums."""
        return self.similarity == "cosine" and self.completion.sums_to != "score"

    def reading(self, one: Contributions, other: Contributions) -> Reading:
        """What the lift of ``one`` needs, where its contributions are known in full."""
        across_G = one.values_GD @ other.embedding_D if self.needs_across else None
        return Reading(own_share(one, one.values_GD @ one.embedding_D), across_G)

    def pair(
        self, a: Contributions, b: Contributions, products_IJ: NDArray[Any], of_a: Reading, of_b: Reading
    ) -> PairAttribution | Undefined:
        """Â_ij = ĉ_i(a) · ĉ_j(b) / norm, the score and its reference terms, the error of the sum, and the lifts."""
        e_a, e_b, r_a, r_b = (
            v.astype(np.float64) for v in (a.embedding_D, b.embedding_D, a.reference_D, b.reference_D)
        )
        length_a, length_b = float(np.linalg.norm(e_a)), float(np.linalg.norm(e_b))
        norms = length_a * length_b
        if self.similarity == "cosine":
            zero = tuple(side for side, length in (("a", length_a), ("b", length_b)) if length <= SHORTEST)
            if zero:
                return Undefined(zero)
        norm = norms if self.similarity == "cosine" else 1.0
        matrix_IJ = products_IJ / norm
        exact_IJ = matrix_IJ.astype(np.float64)
        rows_I, cols_J = exact_IJ.sum(1), exact_IJ.sum(0)
        score, total = float(e_a @ e_b) / norm, float(exact_IJ.sum())
        expected = float(self.completion.target(a) @ self.completion.target(b)) / norm
        lifts: list[NDArray[np.float32] | None] = [None, None]
        if self.similarity == "cosine":
            lifts = [
                self._lift(a, e_b, of_a, rows_I, score, norm).astype(np.float32),
                self._lift(b, e_a, of_b, cols_J, score, norm).astype(np.float32),
            ]
        return PairAttribution(
            a=a.explained,
            b=b.explained,
            matrix=matrix_IJ.astype(np.float32),
            row_sums=rows_I.astype(np.float32),
            col_sums=cols_J.astype(np.float32),
            score=score,
            reference_a=float(e_a @ r_b) / norm,
            reference_b=float(r_a @ e_b) / norm,
            reference_ab=float(r_a @ r_b) / norm,
            total=total,
            # Two embeddings of length zero have a dot product, and no unit to tell its error in.
            error=(total - expected) * norm / norms if norms else 0.0,
            row_lift=lifts[0],
            col_lift=lifts[1],
            sums_to=self.completion.sums_to,
            similarity=self.similarity,
            layer=self.layer,
            model=self.model,
        )

    def _lift(
        self, one: Contributions, other_D: Doubles, read: Reading, sums_G: Doubles, score: float, norm: float
    ) -> Doubles:
        """l [G]; ``sums_G`` are the text's sums of cells, ``other_D`` its partner's embedding."""
        across_G = sums_G
        if read.across_G is not None:
            across_G = SCORE.along(one, read.across_G.astype(np.float64)[:, None], other_D[None])[:, 0] / norm
        lift_G: Doubles = across_G - score * read.own_G
        return lift_G


class PartnerProducts:
    """Pairs of numbered texts, some of which are pulled back along their partners' completed contributions.

    ``known`` has the contributions of the texts that are computed alone, and gets those of the others by
    :meth:`add`; ``edges`` are the pairs.
    """

    def __init__(
        self,
        maker: PairMaker,
        known: dict[int, Contributions],
        pulled: Sequence[int],
        edges: Sequence[tuple[int, int]],
    ) -> None:
        self.maker = maker
        self.known = known
        self.pulled = list(pulled)
        # A text's product with itself serves all of its pairs.
        self._own: dict[int, Doubles] = {}
        # Of each pulled text, the columns of its products that are a partner's groups.
        self._columns: dict[int, dict[int, slice]] = {at: {} for at in pulled}
        stacks: dict[int, list[NDArray[Any]]] = {at: [] for at in pulled}
        for i, j in edges:
            for own, other in ((i, j), (j, i)):
                if own in stacks and other not in self._columns[own]:
                    low = sum(len(rows) for rows in stacks[own])
                    stacks[own].append(maker.completion.completed(known[other]))
                    self._columns[own][other] = slice(low, low + len(stacks[own][-1]))
                    if maker.needs_across:
                        stacks[own].append(known[other].embedding_D[None])
        self.cotangents = [np.concatenate(stacks[at]) for at in self.pulled]

    def add(self, products: Sequence[Contributions]) -> None:
        """Take the products of each pulled text's contributions with its ``cotangents``."""
        self.known.update(zip(self.pulled, products, strict=True))

    def pair(self, i: int, j: int) -> PairAttribution | Undefined:
        """The pair of texts i and j, from their contributions or their products."""
        a, b = self.known[i], self.known[j]
        if j in self._columns:
            products_IJ = self._pulled(b, self._columns[j][i], a).T
        elif i in self._columns:
            products_IJ = self._pulled(a, self._columns[i][j], b)
        else:
            products_IJ = self.maker.completion.products(a, b)
        return self.maker.pair(a, b, products_IJ, self._reading(i, j), self._reading(j, i))

    def _pulled(self, one: Contributions, columns: slice, other: Contributions) -> NDArray[Any]:
        completion = self.maker.completion
        return completion.along(one, one.values_GD[:, columns], completion.completed(other))

    def _reading(self, own: int, other: int) -> Reading:
        one, columns = self.known[own], self._columns.get(own)
        if own not in self._own:
            # Of a pulled text the last product is that with itself.
            raw_G = one.values_GD @ one.embedding_D if columns is None else one.values_GD[:, -1]
            self._own[own] = own_share(one, raw_G)
        if not self.maker.needs_across:
            return Reading(self._own[own])
        # A partner's embedding follows its groups.
        partner_D = self.known[other].embedding_D
        across_G = one.values_GD @ partner_D if columns is None else one.values_GD[:, columns[other].stop]
        return Reading(self._own[own], across_G)


def why_undefined(one: Undefined, texts: Sequence[str]) -> str:
    """Why a pair of the two ``texts`` is undefined, naming the text that causes it."""
    side = "ab".index(one.sides[0])
    return f"the {('first', 'second')[side]} text cannot be attributed: {EMBEDS_TO_ZERO}: {texts[side][:60]!r}"
