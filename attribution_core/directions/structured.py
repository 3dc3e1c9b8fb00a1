"""Jacobian products of BERT-like encoders by hand-linearised layers.

Against ``torch.func`` on the same layers it saves the query, key and value projections of the first layer (the tangent
is known before), the second feed-forward projection of the last (applied after pooling), and, for CLS and last-token
pooling, all rows of the last layer but one; and it makes fewer, larger matrix products.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import jvp, vjp, vmap

from attribution_core.architectures import LayerParts
from attribution_core.directions import PathSegment
from attribution_core.directions.first import FirstLayer, first_layer, slot_members
from attribution_core.directions.generic import sum_slots
from attribution_core.directions.layer import LinearLayer, linearise
from attribution_core.encoder import Encoder, TextBatch, repeat_rows


class StructuredProducts:
    """Products of an encoder whose layers are of BERT's kind and whose pooling is of one mode."""

    def __init__(self, encoder: Encoder) -> None:
        assert supports(encoder), "structured products need layers of BERT's kind and one pooling mode"
        assert encoder.family.parts is not None
        self.encoder = encoder
        self.parts: list[LayerParts] = [encoder.family.parts(layer) for layer in encoder.above]
        self._cast: dict[torch.dtype, list[LayerParts]] = {encoder.dtype: self.parts}

    def embed(self, hidden_BSd: Tensor, batch: TextBatch) -> Tensor:
        """g itself, [B, D]."""
        with torch.no_grad():
            return self.encoder.g(hidden_BSd, batch)

    def linearise(self, segment: PathSegment) -> StructuredLinearisation:
        """g's Jacobian at the nodes of a segment."""
        with torch.no_grad():
            dtype = segment.tangents or self.encoder.dtype
            if dtype not in self._cast:
                self._cast[dtype] = [part.cast(dtype) for part in self.parts]
            return StructuredLinearisation(self.encoder, self.parts, self._cast[dtype], segment)


class StructuredLinearisation:
    """The linearised layers at every node of every text of a segment."""

    def __init__(self, encoder: Encoder, parts: list[LayerParts], cast: list[LayerParts], segment: PathSegment) -> None:
        self.encoder = encoder
        self.segment = segment
        self.dtype = cast[0].query.weight.dtype
        batch, nodes = segment.batch, len(segment.alpha_N)
        b = len(batch.x_BSd)
        bias = attention_bias(batch)
        bias = None if bias is None else repeat_rows(bias, b, nodes)
        self.pool_RQ, self.rows_RQ = _pooled_rows(batch.pool_BMS[:, 0], nodes)
        x_RSd = segment.points_BNSd().flatten(0, 1)
        layers: list[LinearLayer] = []
        for part, part_cast in zip(parts, cast, strict=True):
            layer, x_RSd = linearise(part, x_RSd, bias)
            layers.append(layer if part is part_cast else layer.cast(part_cast, self.dtype))
        weights_RS = batch.pool_BMS[:, 0].repeat_interleave(nodes, 0)
        self.pooled_Rd = torch.bmm(weights_RS.unsqueeze(1), x_RSd).squeeze(1)
        self.pool_RQ = self.pool_RQ.to(self.dtype)
        self.only = len(layers) == 1
        rows = self.rows_RQ if self.only else None
        delta_BSd = segment.delta_BSd.to(self.dtype)
        self.first: FirstLayer = first_layer(layers[0], delta_BSd, nodes, segment.slot_BS, rows)
        self.middle = layers[1:-1]
        self.last = layers[-1] if self.rows_RQ is None else layers[-1].restrict(self.rows_RQ)
        self.members_BGW = slot_members(segment.slot_BS, segment.slots)

    @torch.no_grad()
    def forward(self, low: int, high: int) -> Tensor:
        """Σ_k w_k J_g(γ_k) · (x − r)|_i for the slots low ≤ i < high, [B, high − low, D]."""
        segment = self.segment
        nodes = len(segment.alpha_N)
        members = self.members_BGW[:, low:high].repeat_interleave(nodes, 0)
        ctx, residual = self.first.push_attention(members, low)
        if self.only:
            return self._weigh(self.first.layer.push_pooled(ctx, residual, self.pool_RQ))
        t = self.first.layer.push_rest(ctx, residual)
        for layer in self.middle:
            t = layer.push_rest(layer.push_attention(t, None), t)
        ctx = self.last.push_attention(t, self.rows_RQ)
        residual = t if self.rows_RQ is None else _gather_rows(t, self.rows_RQ)
        return self._weigh(self.last.push_pooled(ctx, residual, self.pool_RQ))

    @torch.no_grad()
    def reverse(self, cotangent_BKD: Tensor) -> Tensor:
        """Σ_k w_k u · J_g(γ_k) · (x − r)|_i for every cotangent u and slot i, [B, K, slots]."""
        segment = self.segment
        nodes = len(segment.alpha_N)
        b, k, _ = cotangent_BKD.shape
        weighted = cotangent_BKD.unsqueeze(1) * segment.weight_N.view(1, -1, 1, 1)
        p_RKd = self._pull_head(weighted.flatten(0, 1)).to(self.dtype)
        ctx, residual = self.last.pull_pooled(p_RKd, self.pool_RQ)
        if not self.only:
            o = self.last.pull_attention(ctx, residual, self.rows_RQ)
            for layer in reversed(self.middle):
                ctx, residual = layer.pull_rest(o)
                o = layer.pull_attention(ctx, residual, None)
            ctx, residual = self.first.layer.pull_rest(o)
        tokens_RKS = self.first.pull_attention(ctx, residual)
        tokens_RKS = tokens_RKS.to(self.encoder.dtype)
        return sum_slots(tokens_RKS.view(b, nodes, k, -1).sum(1), segment)

    def _weigh(self, pooled_RGd: Tensor) -> Tensor:
        """Through the head and summed over the nodes with their weights, [B, G, D]."""
        segment = self.segment
        pooled_RGd = pooled_RGd.to(self.encoder.dtype)
        if not self._trivial_head():
            pooled_RGd = vmap(lambda t: jvp(self.encoder.embed_pooled, (self.pooled_Rd,), (t,))[1], 1, 1)(pooled_RGd)
        r, g, width = pooled_RGd.shape
        nodes = len(segment.weight_N)
        return torch.einsum("bngD,n->bgD", pooled_RGd.view(r // nodes, nodes, g, width), segment.weight_N)

    def _pull_head(self, cotangent_RKD: Tensor) -> Tensor:
        if self._trivial_head():
            return cotangent_RKD
        _, pull, *_ = vjp(self.encoder.embed_pooled, self.pooled_Rd)
        pulled: Tensor = vmap(lambda u: pull(u)[0], 1, 1)(cotangent_RKD)
        return pulled

    def _trivial_head(self) -> bool:
        return not self.encoder.head and self.encoder.model.truncate_dim is None


def supports(encoder: Encoder) -> bool:
    """Whether the structured products can serve an encoder."""
    return encoder.family.parts is not None and len(encoder.pooling_modes) == 1


def attention_bias(batch: TextBatch) -> Tensor | None:
    """The sum of all that is added to attention logits: padding masks and position biases, [B, 1 or H, ·, S]."""
    args, kwargs = batch.calls[0]
    total: Tensor | None = None
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.ndim == 4:
            assert value.is_floating_point(), "eager attention adds its masks"
            total = value if total is None else total + value
    return total


def _pooled_rows(pool_BS: Tensor, nodes: int) -> tuple[Tensor, Tensor | None]:
    """Pooling weights and positions of the rows that pooling looks at; None for positions where that is most rows."""
    used = int((pool_BS != 0).sum(1).max())
    if 2 * used > pool_BS.shape[1]:
        return pool_BS.repeat_interleave(nodes, 0), None
    _, rows_BQ = (pool_BS != 0).long().topk(used, dim=1)
    weights_BQ = pool_BS.gather(1, rows_BQ)
    return weights_BQ.repeat_interleave(nodes, 0), rows_BQ.repeat_interleave(nodes, 0)


def _gather_rows(t_RGSd: Tensor, rows_RQ: Tensor) -> Tensor:
    r, g, _, d = t_RGSd.shape
    return t_RGSd.gather(2, rows_RQ[:, None, :, None].expand(r, g, rows_RQ.shape[1], d))
