"""Jacobian products of late-interaction models whose layers are of BERT's kind: every row of the last layer counts.

The layers are those of :mod:`attribution_core.directions.structured`, without what pooling saves. What stands behind
them, Dense modules and Normalize, is linearised for each token at each point.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jvp, vjp, vmap

from attribution_core.directions import PathSegment
from attribution_core.directions.first import first_layer
from attribution_core.directions.generic import sum_slots
from attribution_core.directions.structured import StructuredLinearisation, StructuredProducts, scale_of
from attribution_core.model.multi_vector import LateEncoder


class LateStructuredProducts(StructuredProducts):
    """Products of a late-interaction encoder whose layers are of BERT's kind."""

    def __init__(self, encoder: LateEncoder) -> None:
        super().__init__(encoder)
        self.late = encoder

    @torch.no_grad()
    def linearise(self, segment: PathSegment) -> LateLinearisation:
        """g's Jacobian at the nodes of a segment."""
        nodes = len(segment.alpha_N)
        layers, x_RSd = self.linear_layers(segment)
        return LateLinearisation(
            products=self,
            segment=segment,
            first=first_layer(layers[0], segment.delta_BSd, nodes, segment.slot_BS, None),
            middle=layers[1:],
            last=None,
            pooled_Rd=x_RSd,
            pool_RQ=segment.batch.pool_BMS[:, 0].repeat_interleave(nodes, 0),
            rows_RQ=None,
        )


@dataclass(frozen=True, eq=False)
class LateLinearisation(StructuredLinearisation):
    """The linearised layers at every node of every text of a segment, all of them first or ``middle``.

    ``pooled_Rd`` holds the token embeddings [R, S, d] at which what stands behind the layers is linearised, and
    ``pool_RQ`` which of them are scored.
    """

    @torch.no_grad()
    def totals(self) -> Tensor:
        """w_k J_g(γ_k) (x − r), [B, N, S · D]."""
        out_RSGD = torch.cat([self._pushed(part, *part.first.push_total()) for _, part in self._blocks(1)])
        weight_BN = self.segment.weight_BN
        return out_RSGD.view(*weight_BN.shape, -1) * weight_BN.unsqueeze(2)

    @torch.no_grad()
    def forward(self, low: int, high: int) -> Tensor:
        """Σ_k w_k J_g(γ_k) · (x − r)|_i for the slots low ≤ i < high, [B, high − low, S · D]."""
        weight_BN = self.segment.weight_BN
        members_RGW = self.segment.members_BGW[:, low:high].repeat_interleave(len(self.segment.alpha_N), 0)
        pushed = [
            self._pushed(part, *part.first.push_attention(members_RGW[at], low))
            for at, part in self._blocks(high - low)
        ]
        out_BNSGD = torch.cat(pushed).unflatten(0, weight_BN.shape)
        return torch.einsum("bnsgD,bn->bgsD", out_BNSGD, weight_BN).flatten(2)

    @torch.no_grad()
    def reverse(self, cotangent_BKD: Tensor) -> Tensor:
        """Σ_k w_k u · J_g(γ_k) · (x − r)|_i for every cotangent u and slot i, [B, K, slots]."""
        segment = self.segment
        b, k, _ = cotangent_BKD.shape
        u_BSKD = cotangent_BKD.view(b, k, self.pooled_Rd.shape[1], -1).transpose(1, 2)
        tokens = []
        for at, part in self._blocks(k):
            points = torch.arange(at.start, at.stop, device=u_BSKD.device)
            text_R = points // len(segment.alpha_N)
            weight_R = segment.weight_BN.flatten()[points].view(-1, 1, 1, 1)
            tokens.append(self._pulled(part, u_BSKD[text_R] * weight_R))
        tokens_RKS = torch.cat(tokens).to(segment.weight_BN.dtype)
        return sum_slots(tokens_RKS.view(b, len(segment.alpha_N), k, -1).sum(1), segment)

    def _pushed(self, at: StructuredLinearisation, ctx: Tensor, residual: Tensor) -> Tensor:
        """From tangents of the first layer's heads and of its input to those of the scored outputs, [R, S, G, D].

        ``at`` is this linearisation at the points at hand.
        """
        t = at.first.layer.push_rest(ctx, residual)
        for layer in at.middle:
            t = layer.push_rest(layer.push_attention(t, None), t)
        encoder = self._late_encoder
        t = t.to(self.segment.weight_BN.dtype)
        out: Tensor = vmap(lambda one: jvp(encoder.embed_tokens, (at.pooled_Rd,), (one,))[1], 2, 2)(t)
        return out * at.pool_RQ[:, :, None, None].to(out.dtype)

    def _pulled(self, at: StructuredLinearisation, cotangent_RSKD: Tensor) -> Tensor:
        """From cotangents of the outputs to every token's share of x − r, [R, K, S]; ``at`` as above."""
        scored = cotangent_RSKD * at.pool_RQ[:, :, None, None].to(cotangent_RSKD.dtype)
        _, pull, *_ = vjp(self._late_encoder.embed_tokens, at.pooled_Rd)
        o: Tensor = vmap(lambda one: pull(one)[0], 2, 2)(scored)
        r, s, k, d = o.shape
        scale_RK1 = scale_of(o.transpose(1, 2).reshape(r, k, s * d), self.pool_RQ.dtype)
        o = (o * scale_RK1.unsqueeze(1)).to(self.pool_RQ.dtype).contiguous()
        for layer in reversed(at.middle):
            ctx, residual = layer.pull_rest(o)
            o = layer.pull_attention(ctx, residual, None)
        tokens_RKS = at.first.pull_attention(*at.first.layer.pull_rest(o))
        return tokens_RKS.to(self.segment.weight_BN.dtype) / scale_RK1

    @property
    def _late_encoder(self) -> LateEncoder:
        assert isinstance(self.products, LateStructuredProducts)
        return self.products.late
