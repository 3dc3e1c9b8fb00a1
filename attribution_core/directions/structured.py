"""Jacobian products of BERT-like encoders by hand-linearised layers.

Against ``torch.func`` on the same layers it saves the query, key and value projections of the first layer (the tangent
is known before), the second feed-forward projection of the last (applied after pooling), and, for CLS and last-token
pooling, all rows of the last layer but one; and it makes fewer, larger matrix products.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.func import jvp, vjp, vmap

from attribution_core.directions import PathSegment
from attribution_core.directions.first import FirstLayer, first_layer
from attribution_core.directions.generic import sum_slots
from attribution_core.directions.layer import POINTS_BYTES, LinearLayer, blocks, linearise, token_rows
from attribution_core.model.batch import TextBatch, repeat_rows
from attribution_core.model.encoder import Encoder
from attribution_core.model.families import LayerParts

# Pulled back in float16, a cotangent's largest value is lifted to two to this power: pooling divides by the length.
LARGEST_COTANGENT = 4


class StructuredProducts:
    """Products of an encoder whose layers are of BERT's kind and whose pooling is of one mode."""

    whole = False

    def __init__(self, encoder: Encoder) -> None:
        parts = encoder.layer_parts()
        assert parts is not None, "structured products need layers of BERT's kind"
        self.encoder = encoder
        self.parts: list[LayerParts] = parts
        self._cast: dict[torch.dtype, list[LayerParts]] = {encoder.dtype: self.parts}

    def embed(self, hidden_BSd: Tensor, batch: TextBatch) -> Tensor:
        """g itself, [B, D]."""
        with torch.no_grad():
            return self.encoder.g(hidden_BSd, batch)

    @torch.no_grad()
    def linearise(self, segment: PathSegment) -> StructuredLinearisation:
        """g's Jacobian at the nodes of a segment."""
        batch, nodes = segment.batch, len(segment.alpha_N)
        pool_RQ, rows_RQ = _pooled_rows(batch.pool_BMS[:, 0], batch.pooled, nodes)
        layers, x_RSd = self.linear_layers(segment)
        weights_RS = batch.pool_BMS[:, 0].repeat_interleave(nodes, 0)
        pooled_Rd = torch.bmm(weights_RS.unsqueeze(1), x_RSd).squeeze(1)
        if batch.shift_BD is not None:
            pooled_Rd = pooled_Rd - batch.shift_BD.repeat_interleave(nodes, 0)
        only = len(layers) == 1
        first = first_layer(layers[0], segment.delta_BSd, nodes, segment.slot_BS, rows_RQ if only else None)
        return StructuredLinearisation(
            products=self,
            segment=segment,
            first=first,
            middle=layers[1:-1],
            last=None if only else layers[-1] if rows_RQ is None else layers[-1].restrict(rows_RQ),
            pooled_Rd=pooled_Rd,
            pool_RQ=pool_RQ,
            rows_RQ=rows_RQ,
        )

    def linear_layers(self, segment: PathSegment) -> tuple[list[LinearLayer], Tensor]:
        """The layers above the cut at the R points of a segment, and token embeddings there, [R, S, d]."""
        bias = attention_bias(segment.batch)
        bias = None if bias is None else repeat_rows(bias, len(segment.batch.x_BSd), len(segment.alpha_N))
        x_RSd = segment.points_BNSd().flatten(0, 1)
        layers: list[LinearLayer] = []
        for part in self.parts:
            layer, x_RSd = linearise(part, x_RSd, bias)
            layers.append(layer)
        return layers, x_RSd

    def cast_parts(self, dtype: torch.dtype) -> list[LayerParts]:
        """The layers' weights in another type, made once."""
        if dtype not in self._cast:
            self._cast[dtype] = [part.cast(dtype) for part in self.parts]
        return self._cast[dtype]


@dataclass(frozen=True, eq=False)
class StructuredLinearisation:
    """The linearised layers at every node of every text of a segment.

    ``last`` is None where one layer is first and last. ``pool_RQ`` and
    ``rows_RQ`` say what pooling takes of the rows (None: of all). ``pooled_Rd`` is where the head is linearised.
    """

    products: StructuredProducts
    segment: PathSegment
    first: FirstLayer
    middle: list[LinearLayer]
    last: LinearLayer | None
    pooled_Rd: Tensor
    pool_RQ: Tensor
    rows_RQ: Tensor | None

    @property
    def slots(self) -> int:
        """How many directions there are forward."""
        return self.segment.slots

    @torch.no_grad()
    def totals(self) -> Tensor:
        """w_k J_g(γ_k) (x − r), [B, N, D]."""
        pooled = [part._push(*part.first.push_total()) for _, part in self._blocks(1)]
        return self._embedded(torch.cat(pooled)).squeeze(2) * self.segment.weight_BN.unsqueeze(2)

    @torch.no_grad()
    def forward(self, low: int, high: int) -> Tensor:
        """Σ_k w_k J_g(γ_k) · (x − r)|_i for the slots low ≤ i < high, [B, high − low, D]."""
        members_RGW = self.segment.members_BGW[:, low:high].repeat_interleave(len(self.segment.alpha_N), 0)
        pooled = [part._push(*part.first.push_attention(members_RGW[at], low)) for at, part in self._blocks(high - low)]
        return torch.einsum("bngD,bn->bgD", self._embedded(torch.cat(pooled)), self.segment.weight_BN)

    @torch.no_grad()
    def reverse(self, cotangent_BKD: Tensor) -> Tensor:
        """Σ_k w_k u · J_g(γ_k) · (x − r)|_i for every cotangent u and slot i, [B, K, slots]."""
        segment = self.segment
        b, k, _ = cotangent_BKD.shape
        weighted = cotangent_BKD.unsqueeze(1) * segment.weight_BN.view(b, -1, 1, 1)
        p_RKd = self._pull_head(weighted.flatten(0, 1))
        scale_RK1 = scale_of(p_RKd, self.pool_RQ.dtype)
        p_RKd = (p_RKd * scale_RK1).to(self.pool_RQ.dtype)
        tokens_RKS = torch.cat([part._pull(p_RKd[at]) for at, part in self._blocks(k)])
        tokens_RKS = tokens_RKS.to(segment.weight_BN.dtype) / scale_RK1
        return sum_slots(tokens_RKS.view(b, len(segment.alpha_N), k, -1).sum(1), segment)

    def select(self, rows: list[int]) -> StructuredLinearisation:
        """Some texts of the segment."""
        if len(rows) == len(self.segment.slot_BS):
            return self
        nodes = len(self.segment.alpha_N)
        index_B = torch.tensor(rows, device=self.pool_RQ.device)
        index_R = (index_B.unsqueeze(1) * nodes + torch.arange(nodes, device=index_B.device)).flatten()
        return replace(self._points(index_R), segment=self.segment.select(rows))

    def weighed(self, weight_BN: Tensor) -> StructuredLinearisation:
        """The same nodes with other weights."""
        return replace(self, segment=replace(self.segment, weight_BN=weight_BN))

    def cast(self, dtype: torch.dtype) -> StructuredLinearisation:
        """The same layers with tangents in another type; what they are multiplied into stays as it is."""
        if dtype == self.pool_RQ.dtype:
            return self
        parts = self.products.cast_parts(dtype)
        return replace(
            self,
            first=self.first.cast(parts[0], dtype),
            middle=[layer.cast(part, dtype) for layer, part in zip(self.middle, parts[1:-1], strict=True)],
            last=None if self.last is None else self.last.cast(parts[-1], dtype),
            pool_RQ=self.pool_RQ.to(dtype),
        )

    def _points(self, index_R: Tensor | slice) -> StructuredLinearisation:
        """The layers at some of the points; the segment stays the whole one."""
        return replace(
            self,
            first=self.first.points(index_R),
            middle=[layer.points(index_R) for layer in self.middle],
            last=None if self.last is None else self.last.points(index_R),
            pooled_Rd=self.pooled_Rd[index_R],
            pool_RQ=self.pool_RQ[index_R],
            rows_RQ=None if self.rows_RQ is None else self.rows_RQ[index_R],
        )

    def _blocks(self, directions: int) -> Iterator[tuple[slice, StructuredLinearisation]]:
        """The points, so many at a time that what a layer hands to the next is still in the processor's caches."""
        points, tokens, width = self.first.delta_RQd.shape
        for at in blocks(points, tokens * directions * width, self.pool_RQ, POINTS_BYTES):
            yield at, self if at.stop - at.start == points else self._points(at)

    def _push(self, ctx: Tensor, residual: Tensor) -> Tensor:
        """From tangents of the first layer's heads and of its input to those of the pooled output, [R, G, d]."""
        if self.last is None:
            return self.first.layer.push_pooled(ctx, residual, self.pool_RQ)
        t = self.first.layer.push_rest(ctx, residual)
        for layer in self.middle:
            t = layer.push_rest(layer.push_attention(t, None), t)
        ctx = self.last.push_attention(t, self.rows_RQ)
        residual = t if self.rows_RQ is None else token_rows(t, self.rows_RQ)
        return self.last.push_pooled(ctx, residual, self.pool_RQ)

    def _pull(self, p_RKd: Tensor) -> Tensor:
        """From cotangents of the pooled output to every token's share of x − r, [R, K, S]."""
        ctx, residual = (self.last or self.first.layer).pull_pooled(p_RKd, self.pool_RQ)
        if self.last is not None:
            o = self.last.pull_attention(ctx, residual, self.rows_RQ)
            for layer in reversed(self.middle):
                ctx, residual = layer.pull_rest(o)
                o = layer.pull_attention(ctx, residual, None)
            ctx, residual = self.first.layer.pull_rest(o)
        return self.first.pull_attention(ctx, residual)

    def _embedded(self, pooled_RGd: Tensor) -> Tensor:
        """Through the head, [B, N, G, D]."""
        segment = self.segment
        pooled_RGd = pooled_RGd.to(segment.weight_BN.dtype)
        encoder = self.products.encoder
        if not _trivial_head(encoder):
            pooled_RGd = vmap(lambda t: jvp(encoder.embed_pooled, (self.pooled_Rd,), (t,))[1], 1, 1)(pooled_RGd)
        return pooled_RGd.view(*segment.weight_BN.shape, *pooled_RGd.shape[1:])

    def _pull_head(self, cotangent_RKD: Tensor) -> Tensor:
        encoder = self.products.encoder
        if _trivial_head(encoder):
            return cotangent_RKD
        _, pull, *_ = vjp(encoder.embed_pooled, self.pooled_Rd)
        pulled: Tensor = vmap(lambda u: pull(u)[0], 1, 1)(cotangent_RKD)
        return pulled


def _trivial_head(encoder: Encoder) -> bool:
    return not encoder.head and encoder.truncated_to is None


def scale_of(p_RKd: Tensor, dtype: torch.dtype) -> Tensor:
    """Powers of two that lift small cotangents into the range of float16, [R, K, 1]; 1 for every other type."""
    if dtype != torch.float16:
        return p_RKd.new_ones(1)
    largest_RK1 = p_RKd.abs().amax(-1, keepdim=True)
    exponent = torch.where(largest_RK1 > 0, LARGEST_COTANGENT - torch.frexp(largest_RK1).exponent, 0)
    return torch.ldexp(torch.ones_like(largest_RK1), exponent)


def supports(encoder: Encoder) -> bool:
    """Whether the structured products can serve an encoder: one pooling mode that sums rows by fixed weights."""
    return len(encoder.pooling_modes) == 1 and not encoder.takes_maxima and encoder.layer_parts() is not None


def attention_bias(batch: TextBatch) -> Tensor | None:
    """The sum of all that is added to attention logits: padding masks and position biases, [B, 1 or H, ·, S]."""
    args, kwargs = batch.calls[0]
    total: Tensor | None = None
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.ndim == 4:
            assert value.is_floating_point(), "eager attention adds its masks"
            total = value if total is None else total + value
    return total


def _pooled_rows(pool_BS: Tensor, used: int, nodes: int) -> tuple[Tensor, Tensor | None]:
    """Pooling weights and positions of the ``used`` rows that pooling looks at; no positions where those are most."""
    if 2 * used > pool_BS.shape[1]:
        return pool_BS.repeat_interleave(nodes, 0), None
    _, rows_BQ = (pool_BS != 0).long().topk(used, dim=1)
    weights_BQ = pool_BS.gather(1, rows_BQ)
    return weights_BQ.repeat_interleave(nodes, 0), rows_BQ.repeat_interleave(nodes, 0)
