"""Jacobian products along the path: the interface that all directions of computing contributions share.

The contribution of group i is c_i = Σ_k w_k J_g(γ(α_k)) · (x − r)|_i. *Forward* products push (x − r)|_i through g,
one direction a group; *reverse* products pull cotangents u back, one direction a cotangent, and give u · c_i for all
groups at once. Both are linear in the weights w, so nodes and directions can be cut into chunks at will.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from attribution_core.model.batch import TextBatch, picked


@dataclass(frozen=True, eq=False)
class PathSegment:
    """Some nodes of the straight paths of one batch of texts.

    ``alpha_N`` serve every text, weights ``weight_BN`` are each text's own; ``slot_BS`` says which direction a token's
    row belongs to (−1: none), ``members_BGW`` the token positions of each direction (S where there are fewer).
    """

    batch: TextBatch
    alpha_N: Tensor
    weight_BN: Tensor
    slot_BS: Tensor
    members_BGW: Tensor

    def select(self, rows: list[int]) -> PathSegment:
        """The same nodes of some of the texts."""
        if len(rows) == len(self.slot_BS):
            return self
        at = picked(rows)
        return replace(
            self,
            batch=self.batch.select(rows),
            weight_BN=self.weight_BN[at],
            slot_BS=self.slot_BS[at],
            members_BGW=self.members_BGW[at],
        )

    @property
    def slots(self) -> int:
        """How many directions there are forward."""
        return self.members_BGW.shape[1]

    @property
    def delta_BSd(self) -> Tensor:
        """x − r."""
        return self.batch.delta_BSd

    def points_BNSd(self) -> Tensor:
        """γ(α_k) = r + α_k (x − r), [B, N, S, d]."""
        alpha = self.alpha_N.view(1, -1, 1, 1)
        return self.batch.r_BSd.unsqueeze(1) + alpha * self.delta_BSd.unsqueeze(1)


class Linearisation(Protocol):
    """The Jacobian of g at the nodes of one segment. Products come back in the type of the features."""

    @property
    def slots(self) -> int:
        """How many directions there are forward."""
        ...

    def totals(self) -> Tensor:
        """w_k J_g(γ_k) (x − r), [B, N, D]: each node's part of the sum of contributions, for the price of one."""
        ...

    def weighed(self, weight_BN: Tensor) -> Linearisation:
        """The same nodes with other weights."""
        ...

    def select(self, rows: list[int]) -> Linearisation:
        """The same for some texts of the segment."""
        ...

    def cast(self, dtype: torch.dtype) -> Linearisation:
        """The same with directions pushed and pulled in another type, where that is supported."""
        ...

    def forward(self, low: int, high: int) -> Tensor:
        """Σ_k w_k J_g(γ_k) · (x − r)|_i for the slots low ≤ i < high, [B, high − low, D]."""
        ...

    def reverse(self, cotangent_BKD: Tensor) -> Tensor:
        """Σ_k w_k u · J_g(γ_k) · (x − r)|_i for every cotangent u and slot i, [B, K, slots]."""
        ...


class Products(Protocol):
    """One implementation of products with the Jacobian of g along a path.

    ``whole`` says that layers are multiplied out as the model wrote them, with attention of all heads at once.
    """

    whole: bool

    def embed(self, hidden_BSd: Tensor, batch: TextBatch) -> Tensor:
        """g itself, [B, D]."""
        ...

    def linearise(self, segment: PathSegment) -> Linearisation:
        """What the nodes of a segment share over all directions, computed once."""
        ...
