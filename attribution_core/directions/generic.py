"""Jacobian products of any g by torch.func: slower than hand-linearised layers, and their test."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.func import jvp, vjp, vmap

from attribution_core.directions import PathSegment
from attribution_core.directions.maxima import g_by_rows
from attribution_core.model.batch import TextBatch
from attribution_core.model.encoder import Encoder


class GenericProducts:
    """Products of an encoder's g with ``torch.func.vmap`` over ``jvp`` and ``vjp``."""

    whole = True

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def embed(self, hidden_BSd: Tensor, batch: TextBatch) -> Tensor:
        """g itself, [B, D]."""
        with torch.no_grad():
            return self.encoder.g(hidden_BSd, batch)

    def linearise(self, segment: PathSegment) -> GenericLinearisation:
        """g's Jacobian at the nodes of a segment."""
        return GenericLinearisation(self.encoder, segment)


class GenericLinearisation:
    """g along one segment as a function that torch.func differentiates."""

    def __init__(self, encoder: Encoder, segment: PathSegment) -> None:
        self.encoder = encoder
        self.segment = segment
        self.points_RSd = segment.points_BNSd().flatten(0, 1)
        by_rows = segment.rows_BNSd is not None
        g = partial(encoder.g, batch=segment.batch, copies=len(segment.alpha_N))
        self.g = g_by_rows(encoder, segment) if by_rows else g

    @property
    def slots(self) -> int:
        """How many directions there are forward."""
        return self.segment.slots

    def totals(self) -> Tensor:
        """w_k J_g(γ_k) (x − r), [B, N, D]."""
        return self._push((self.segment.slot_BS >= 0).unsqueeze(0))[0] * self.segment.weight_BN.unsqueeze(2)

    def forward(self, low: int, high: int) -> Tensor:
        """Σ_k w_k J_g(γ_k) · (x − r)|_i for the slots low ≤ i < high, [B, high − low, D]."""
        wanted = torch.arange(low, high, device=self.segment.slot_BS.device)
        out_GBND = self._push(self.segment.slot_BS.unsqueeze(0) == wanted.view(-1, 1, 1))
        return torch.einsum("gbnD,bn->bgD", out_GBND, self.segment.weight_BN)

    def _push(self, member_GBS: Tensor) -> Tensor:
        """Directions given by the tokens that move in each, at every node, [G, B, N, D]."""
        segment = self.segment
        n = len(segment.alpha_N)
        tangents = member_GBS.unsqueeze(-1) * segment.delta_BSd

        def push(tangent_BSd: Tensor) -> Tensor:
            out: Tensor = jvp(self.g, (self.points_RSd,), (tangent_BSd.repeat_interleave(n, 0),))[1]
            return out

        with torch.no_grad():
            out_GRD = vmap(push)(tangents)
        g, _, width = out_GRD.shape
        return out_GRD.view(g, -1, n, width)

    def reverse(self, cotangent_BKD: Tensor) -> Tensor:
        """Σ_k w_k u · J_g(γ_k) · (x − r)|_i for every cotangent u and slot i, [B, K, slots]."""
        segment = self.segment
        b, s, _ = segment.batch.x_BSd.shape
        n = len(segment.alpha_N)
        _, pull, *_ = vjp(self.g, self.points_RSd)
        weighted = cotangent_BKD.unsqueeze(2) * segment.weight_BN.view(b, 1, n, 1)
        cotangents = weighted.transpose(0, 1).reshape(cotangent_BKD.shape[1], b * n, -1)
        delta_BSd = segment.delta_BSd

        def products(cotangent: Tensor) -> Tensor:
            pulled = pull(cotangent)[0].view(b, n, s, -1).sum(1)
            return (pulled * delta_BSd).sum(-1)

        with torch.no_grad():
            return sum_slots(vmap(products)(cotangents).transpose(0, 1), segment)

    def select(self, rows: list[int]) -> GenericLinearisation:
        """Some texts of the segment."""
        return GenericLinearisation(self.encoder, self.segment.select(rows))

    def weighed(self, weight_BN: Tensor) -> GenericLinearisation:
        """The same nodes with other weights."""
        return GenericLinearisation(self.encoder, replace(self.segment, weight_BN=weight_BN))

    def cast(self, dtype: torch.dtype) -> GenericLinearisation:
        """Itself: torch.func differentiates in the type of the model."""
        return self


def sum_slots(values_BKS: Tensor, segment: PathSegment) -> Tensor:
    """Sum token values into the slots their tokens belong to, [B, K, slots]."""
    b, k, _ = values_BKS.shape
    slot_BS = torch.where(segment.slot_BS < 0, segment.slots, segment.slot_BS)
    out = values_BKS.new_zeros(b, k, segment.slots + 1)
    out.scatter_add_(2, slot_BS.unsqueeze(1).expand_as(values_BKS), values_BKS)
    return out[..., : segment.slots]
