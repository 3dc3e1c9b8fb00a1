"""Jacobian products along the path: the interface that all directions of computing contributions share.

The contribution of group i is c_i = Σ_k w_k J_g(γ(α_k)) · (x − r)|_i. *Forward* products push (x − r)|_i through g,
one direction a group; *reverse* products pull cotangents u back, one direction a cotangent, and give u · c_i for all
groups at once. Both are linear in the weights w, so nodes and directions can be cut into chunks at will.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from attribution_core.model.batch import TextBatch, picked


@dataclass(frozen=True, eq=False)
class Slots:
    """The directions of B texts, ``count`` at most, one for each group whose rows may differ from the reference.

    ``slot_BS`` says which direction a token's row belongs to (−1: none), ``members_BGW`` the token positions of each
    direction (S where there are fewer), ``slot_of_BG`` the direction of each group (``count``: none; such a group
    contributes exactly nothing). ``same`` says that the direction of every group that has one is the group's number.
    """

    count: int
    same: bool
    slot_BS: Tensor
    members_BGW: Tensor
    slot_of_BG: Tensor

    @staticmethod
    def of(batch: TextBatch) -> Slots:
        """The directions of a batch, without waiting for what its device computes."""
        group_BS = batch.moving_BS
        b, s = group_BS.shape
        row, position = np.nonzero(group_BS >= 0)
        moves_BG = np.zeros((b, batch.groups), bool)
        moves_BG[row, group_BS[row, position]] = True
        count = int(moves_BG.sum(1).max(initial=0))
        slot_of_BG = np.where(moves_BG, moves_BG.cumsum(1) - 1, count)
        slot_BS = np.full((b, s), -1, np.int64)
        slot_BS[row, position] = slot_of_BG[row, group_BS[row, position]]
        # Tokens by direction, those of each in the order of the text.
        number = row * count + slot_BS[row, position]
        order = np.argsort(number, kind="stable")
        sizes = np.bincount(number, minlength=b * count)
        members = np.full((b * count, int(sizes.max(initial=1))), s, np.int64)
        rank = np.arange(len(order)) - np.repeat(sizes.cumsum() - sizes, sizes)
        members[number[order], rank] = position[order]
        to = batch.x_BSd.device
        slots, groups = (torch.from_numpy(one).to(to) for one in (slot_BS, slot_of_BG))
        same = count == batch.groups and bool(((slot_of_BG == np.arange(count)) | ~moves_BG).all())
        return Slots(count, same, slots, torch.from_numpy(members.reshape(b, count, members.shape[1])).to(to), groups)


@dataclass(frozen=True, eq=False)
class PathSegment:
    """Some nodes of the straight paths of one batch of texts.

    ``alpha_N`` serve every text, weights ``weight_BN`` are each text's own; ``slot_BS`` and ``members_BGW`` as
    in :class:`Slots`. ``rows_BNSd``, where there, are the weights with which max pooling sums rows at each node
    (:mod:`attribution_core.directions.maxima`).
    """

    batch: TextBatch
    alpha_N: Tensor
    weight_BN: Tensor
    slot_BS: Tensor
    members_BGW: Tensor
    rows_BNSd: Tensor | None = None

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
            rows_BNSd=None if self.rows_BNSd is None else self.rows_BNSd[at],
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
