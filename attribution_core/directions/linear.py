"""Jacobian products of a g that is linear: pooled token vectors, through linear heads if any. Nothing is approximated.

With pooling weights ω_s the contribution of group i is W Σ_{s in i} ω_s (x − r)_s, the same at every node of the path.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attribution_core.directions import PathSegment
from attribution_core.directions.generic import sum_slots
from attribution_core.model.batch import TextBatch
from attribution_core.model.encoder import Encoder


class LinearProducts:
    """Products of an encoder without layers whose heads are linear."""

    whole = False

    def __init__(self, encoder: Encoder) -> None:
        assert encoder.linear, "heads are linear"
        self.encoder = encoder
        with torch.no_grad():
            eye_dd = torch.eye(encoder.width, dtype=encoder.dtype, device=encoder.device)
            bias_1D = encoder.embed_pooled(eye_dd.new_zeros(1, encoder.width))
            # The heads' weights, read off the rows of an identity matrix; None where there are no heads.
            self.weight_dD = encoder.embed_pooled(eye_dd) - bias_1D if encoder.head else None

    def embed(self, hidden_BSd: Tensor, batch: TextBatch) -> Tensor:
        """g itself, [B, D]."""
        with torch.no_grad():
            return self.encoder.g(hidden_BSd, batch)

    @torch.no_grad()
    def linearise(self, segment: PathSegment) -> LinearLinearisation:
        """g's Jacobian, applied to every token's x − r."""
        pooled_BSd = segment.delta_BSd * segment.batch.pool_BMS[:, 0].unsqueeze(2)
        return LinearLinearisation(self, segment, pooled_BSd)

    def through_heads(self, pooled: Tensor) -> Tensor:
        """Pooled vectors [..., d] through the heads without their biases, [..., D]."""
        out = pooled if self.weight_dD is None else pooled @ self.weight_dD
        return out[..., : self.encoder.embedding_width]


@dataclass(frozen=True, eq=False)
class LinearLinearisation:
    """``pooled_BSd`` are the tokens' shares of the pooled x − r."""

    products: LinearProducts
    segment: PathSegment
    pooled_BSd: Tensor

    @property
    def slots(self) -> int:
        """How many directions there are forward."""
        return self.segment.slots

    def totals(self) -> Tensor:
        """w_k J_g (x − r), [B, N, D]."""
        total_BD = self.products.through_heads(self.pooled_BSd.sum(1))
        return total_BD.unsqueeze(1) * self.segment.weight_BN.unsqueeze(2)

    def forward(self, low: int, high: int) -> Tensor:
        """Σ_k w_k J_g · (x − r)|_i for the slots low ≤ i < high, [B, high − low, D]."""
        b, _, d = self.pooled_BSd.shape
        slot_BS, g = self.segment.slot_BS, high - low + 1
        slot_BS = torch.where((slot_BS >= low) & (slot_BS < high), slot_BS - low, high - low)
        place_BS = slot_BS + g * torch.arange(b, device=slot_BS.device).unsqueeze(1)
        sums = self.pooled_BSd.new_zeros(b * g, d).index_add_(0, place_BS.flatten(), self.pooled_BSd.flatten(0, 1))
        return self.products.through_heads(sums.view(b, g, d)[:, :-1]) * self._weight_B11

    def reverse(self, cotangent_BKD: Tensor) -> Tensor:
        """Σ_k w_k u · J_g · (x − r)|_i for every cotangent u and slot i, [B, K, slots]."""
        moved_BSD = self.products.through_heads(self.pooled_BSd)
        return sum_slots(cotangent_BKD @ moved_BSD.transpose(1, 2), self.segment) * self._weight_B11

    def select(self, rows: list[int]) -> LinearLinearisation:
        """Some texts of the segment."""
        if len(rows) == len(self.pooled_BSd):
            return self
        return replace(self, segment=self.segment.select(rows), pooled_BSd=self.pooled_BSd[rows])

    def weighed(self, weight_BN: Tensor) -> LinearLinearisation:
        """The same nodes with other weights."""
        return replace(self, segment=replace(self.segment, weight_BN=weight_BN))

    def cast(self, dtype: torch.dtype) -> LinearLinearisation:
        """Itself: there is nothing to gain."""
        return self

    @property
    def _weight_B11(self) -> Tensor:
        return self.segment.weight_BN.sum(1)[:, None, None]
