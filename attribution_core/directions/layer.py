"""One BERT-like encoder layer, linearised by hand at some points of the path.

R counts points (texts × nodes), H heads, h the width of a head, f the feed-forward width, Q the rows whose output is
wanted (all S, or those that pooling looks at), G directions pushed forward, K cotangents pulled back. Directions stand
behind tokens ([R, S, G, d]), so that every product with a weight matrix runs over all points and directions at once,
and every product inside attention over all directions of a head. With P = softmax(S):

    dS = (dq kᵀ + q dkᵀ)/√h,    d ctx = (P ⊙ dS) v − rowsum(P ⊙ dS) ctx + P dv,

and back, for a cotangent g of ctx: dS = P ⊙ (g vᵀ − g · ctx)/√h, dq = dS k, dk = dSᵀ q, dv = Pᵀ g. dS is the only array
that grows with the square of the length for each direction; it lives a few heads at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import jvp

from attribution_core.directions import kernels
from attribution_core.model.families import LayerParts

# Bytes of attention tangents alive at once: what stays in a processor's caches, or fills a GPU. Those of texts of a
# sentence at the points that go through a layer together fit in one run.
ATTENTION_BLOCK_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20}
# Likewise of feed-forward tangents, and of a layer's tangents [S, G, d] at the points that go through it together.
TILE_BYTES = {"cpu": 8 << 20, "cuda": 1 << 62}
POINTS_BYTES = {"cpu": 2 << 20, "cuda": 1 << 62}


@dataclass(frozen=True, eq=False)
class LinearLayer:
    """A layer's values at R points: all that its Jacobian depends on.

    Rows of queries (``q_RHQh``, ``p_RHQS``, ``ctx_RHQh`` and everything behind attention) may be restricted to the Q
    rows whose output is wanted. ``norm1_RQd`` and ``norm2_RQd`` are normalised inputs x̂ of the two LayerNorms,
    ``gain1_RQd`` and ``gain2_RQd`` their 1/σ
    times weight, ``inverse2_RQ1`` the second's 1/σ, ``gate_RQf`` the derivative of the activation.
    """

    parts: LayerParts
    weight_qkv: Tensor
    q_RHQh: Tensor
    k_RHSh: Tensor
    v_RHSh: Tensor
    p_RHQS: Tensor
    ctx_RHQh: Tensor
    norm1_RQd: Tensor
    gain1_RQd: Tensor
    gate_RQf: Tensor
    norm2_RQd: Tensor
    inverse2_RQ1: Tensor
    gain2_RQd: Tensor

    @property
    def scale(self) -> float:
        """1/√h."""
        return float(self.q_RHQh.shape[-1] ** -0.5)

    def restrict(self, rows_RQ: Tensor) -> LinearLayer:
        """The layer with only some rows of output."""

        def tokens(value: Tensor) -> Tensor:
            return value.gather(1, rows_RQ.unsqueeze(-1).expand(-1, -1, value.shape[-1]))

        def heads(value: Tensor) -> Tensor:
            index = rows_RQ[:, None, :, None].expand(-1, value.shape[1], -1, value.shape[-1])
            return value.gather(2, index)

        return replace(
            self,
            q_RHQh=heads(self.q_RHQh),
            p_RHQS=heads(self.p_RHQS),
            ctx_RHQh=heads(self.ctx_RHQh),
            norm1_RQd=tokens(self.norm1_RQd),
            gain1_RQd=tokens(self.gain1_RQd),
            gate_RQf=tokens(self.gate_RQf),
            norm2_RQd=tokens(self.norm2_RQd),
            inverse2_RQ1=tokens(self.inverse2_RQ1),
            gain2_RQd=tokens(self.gain2_RQd),
        )

    def points(self, index_R: Tensor | slice) -> LinearLayer:
        """The layer at some of its points."""
        tensors = {
            f.name: getattr(self, f.name)[index_R] for f in fields(self) if f.name not in ("parts", "weight_qkv")
        }
        return replace(self, **tensors)

    def cast(self, parts: LayerParts, dtype: torch.dtype) -> LinearLayer:
        """The layer in another type, with ``parts`` that are in it already."""
        tensors = {f.name: getattr(self, f.name).to(dtype) for f in fields(self) if f.name != "parts"}
        return LinearLayer(parts=parts, **tensors)

    # Forward: tangents [R, S, G, ·] --------------------------------------------------------------------------------

    def push_attention(self, t_RSGd: Tensor, rows_RQ: Tensor | None) -> Tensor:
        """Tangent of the heads' outputs, [R, Q, G, d], from a tangent of the layer's input."""
        r, s, g, d = t_RSGd.shape
        heads, q, h = self.q_RHQh.shape[1:]
        if rows_RQ is None:
            moved = F.linear(t_RSGd, self.weight_qkv)
            dq, dk, dv = moved[..., :d], moved[..., d : 2 * d], moved[..., 2 * d :]
        else:
            dq = F.linear(token_rows(t_RSGd, rows_RQ), self.weight_qkv[:d])
            moved = F.linear(t_RSGd, self.weight_qkv[d:])
            dk, dv = moved[..., :d], moved[..., d:]
        if kernels.serve(t_RSGd, kernels.HALF):
            values = (self.q_RHQh, self.k_RHSh, self.v_RHSh, self.p_RHQS, self.ctx_RHQh)
            return kernels.attention(dq, dk, dv, *values, self.scale)
        # One head's products run over all directions at once: the direction stands beside the tokens it is joined with.
        dq = dq.view(r, q, g, heads, h).permute(0, 3, 1, 2, 4).reshape(r * heads, q * g, h)
        dk = dk.view(r, s, g, heads, h).permute(0, 3, 2, 1, 4).reshape(r * heads, g * s, h)
        dv = dv.view(r, s, g, heads, h).permute(0, 3, 1, 2, 4).reshape(r * heads, s, g * h)
        del moved
        queries, keys, p, ctx = (_by_head(x) for x in (self.q_RHQh, self.k_RHSh, self.p_RHQS, self.ctx_RHQh))
        v1 = _with_ones(_by_head(self.v_RHSh))
        out = torch.bmm(p, dv).view(r * heads, q, g, h)
        runs = list(blocks(r * heads, g * q * s, t_RSGd))
        space = t_RSGd.new_empty(runs[0].stop, q * g, s)
        for at in runs:
            n = at.stop - at.start
            # dS = (dq kᵀ + q dkᵀ)/√h, then P ⊙ dS; its row sums come as one more column of the product with v.
            ds = torch.bmm(dq[at], keys[at].transpose(1, 2), out=space[:n])
            ds.view(n, q, g * s).baddbmm_(queries[at], dk[at].transpose(1, 2))
            ds.view(n, q, g, s).mul_((p[at] * self.scale).unsqueeze(2))
            mixed = torch.bmm(ds, v1[at]).view(n, q, g, h + 1)
            out[at] += mixed[..., :h]
            out[at].addcmul_(mixed[..., h:], ctx[at].unsqueeze(2), value=-1.0)
        return out.view(r, heads, q, g, h).permute(0, 2, 3, 1, 4).reshape(r, q, g, d)

    def push_rest(self, ctx_RQGd: Tensor, residual_RQGd: Tensor) -> Tensor:
        """From tangents of the heads' outputs and of the layer's input to a tangent of its output."""

        def push(at: slice) -> tuple[Tensor]:
            y = _add_linear(residual_RQGd[:, at], ctx_RQGd[:, at], self.parts.output.weight)
            y = _push_norm(y, self.norm1_RQd[:, at], self.gain1_RQd[:, at])
            u = _gate(F.linear(y, self.parts.up.weight), self.gate_RQf[:, at])
            t = _add_linear(y, u, self.parts.down.weight)
            return (_push_norm(t, self.norm2_RQd[:, at], self.gain2_RQd[:, at]),)

        return self._in_tiles(push, ctx_RQGd)[0]

    def push_pooled(self, ctx_RQGd: Tensor, residual_RQGd: Tensor, pool_RQ: Tensor) -> Tensor:
        """Like :meth:`push_rest`, summed over rows with the pooling weights, [R, G, d].

        The second projection of the feed-forward block is applied once a direction, after pooling.
        """
        r, _, g, d = ctx_RQGd.shape
        if g == 1:  # the probe costs two directions
            return torch.bmm(pool_RQ.unsqueeze(1), self.push_rest(ctx_RQGd, residual_RQGd).squeeze(2))
        share_RQ1 = pool_RQ.unsqueeze(-1) * self.inverse2_RQ1
        gate_RQf = self.gate_RQf * share_RQ1
        probe_RQd = self._probe()
        u_RGf = ctx_RQGd.new_zeros(r, g, gate_RQf.shape[-1])
        pooled = ctx_RQGd.new_zeros(r, g, d)
        for at in self._tiles(ctx_RQGd):
            t = _add_linear(residual_RQGd[:, at], ctx_RQGd[:, at], self.parts.output.weight)
            norm, gain = self.norm1_RQd[:, at], self.gain1_RQd[:, at]
            y, beta_RQG = _push_norm_and_probe(t, norm, gain, probe_RQd[:, at])
            u_RGf += _gate_and_sum(F.linear(y, self.parts.up.weight), gate_RQf[:, at])
            pooled += torch.bmm(share_RQ1[:, at].transpose(1, 2), y.view(r, -1, g * d)).view(r, g, d)
            pooled.baddbmm_(beta_RQG.transpose(1, 2), self.norm2_RQd[:, at] * share_RQ1[:, at], alpha=-1.0)
        pooled += F.linear(u_RGf, self.parts.down.weight)
        # x̂ has mean zero, so what goes along it may be taken off before.
        pooled -= pooled.mean(-1, keepdim=True)
        return pooled * self.parts.output_norm.weight

    # Reverse: cotangents [R, Q, K, ·] ------------------------------------------------------------------------------

    def pull_rest(self, o_RQKd: Tensor) -> tuple[Tensor, Tensor]:
        """From a cotangent of the layer's output to those of the heads' outputs and of the residual input."""

        def pull(at: slice) -> tuple[Tensor, Tensor]:
            b = _pull_norm(o_RQKd[:, at], self.norm2_RQd[:, at], self.gain2_RQd[:, at])
            u = _gate(F.linear(b, self.parts.down.weight.t()), self.gate_RQf[:, at])
            return self._pull_first_half(b, u, at)

        ctx, residual = self._in_tiles(pull, o_RQKd)
        return ctx, residual

    def pull_pooled(self, p_RKd: Tensor, pool_RQ: Tensor) -> tuple[Tensor, Tensor]:
        """Like :meth:`pull_rest` from a cotangent of the pooled output."""
        d = p_RKd.shape[-1]
        c_RKd = p_RKd * self.parts.output_norm.weight
        c_RKd = c_RKd - c_RKd.mean(-1, keepdim=True)
        share_RQ1 = pool_RQ.unsqueeze(-1) * self.inverse2_RQ1
        gate_RQf = self.gate_RQf * share_RQ1
        gamma_RQK1 = torch.bmm(self.norm2_RQd, c_RKd.transpose(1, 2)).div_(d).unsqueeze(-1)
        down_RKf = F.linear(c_RKd, self.parts.down.weight.t())
        down_norm_RQf = F.linear(self.norm2_RQd, self.parts.down.weight.t())

        def pull(at: slice) -> tuple[Tensor, Tensor]:
            gamma = gamma_RQK1[:, at]
            b = torch.addcmul(c_RKd.unsqueeze(1), self.norm2_RQd[:, at].unsqueeze(2), gamma, value=-1.0)
            b.mul_(share_RQ1[:, at].unsqueeze(2))
            u = torch.addcmul(down_RKf.unsqueeze(1), down_norm_RQf[:, at].unsqueeze(2), gamma, value=-1.0)
            return self._pull_first_half(b, u.mul_(gate_RQf[:, at].unsqueeze(2)), at)

        ctx, residual = self._in_tiles(pull, gamma_RQK1)
        return ctx, residual

    def pull_attention(self, ctx_RQKd: Tensor, residual_RQKd: Tensor, rows_RQ: Tensor | None) -> Tensor:
        """A cotangent of the layer's input, [R, S, K, d]."""
        r, q, n, d = ctx_RQKd.shape
        heads, s, h = self.k_RHSh.shape[1:]
        split = ctx_RQKd.view(r, q, n, heads, h)
        by_token = split.permute(0, 3, 1, 2, 4).reshape(r * heads, q, n * h)
        # With g · ctx as one more coordinate, against −1 beside v, the product is g · (v_k − ctx_t) at once.
        by_direction = ctx_RQKd.new_empty(r, heads, n, q, h + 1)
        by_direction[..., :h] = split.permute(0, 3, 2, 1, 4)
        by_direction[..., h] = -torch.einsum("rhnqe,rhqe->rhnq", by_direction[..., :h], self.ctx_RHQh)
        by_direction = by_direction.view(r * heads, n * q, h + 1)
        queries, keys, p = (_by_head(x) for x in (self.q_RHQh, self.k_RHSh, self.p_RHQS))
        v1 = _with_ones(_by_head(self.v_RHSh))
        dq = ctx_RQKd.new_empty(r * heads, n * q, h)
        dk = ctx_RQKd.new_empty(r * heads, s * n, h)
        runs = list(blocks(r * heads, n * q * s, ctx_RQKd))
        space = ctx_RQKd.new_empty(runs[0].stop, s, n * q)
        for at in runs:
            size = at.stop - at.start
            ds = torch.bmm(v1[at], by_direction[at].transpose(1, 2), out=space[:size])
            ds.view(size, s, n, q).mul_((p[at] * self.scale).transpose(1, 2).contiguous().unsqueeze(2))
            torch.bmm(ds.transpose(1, 2), keys[at], out=dq[at])
            torch.bmm(ds.view(size, s * n, q), queries[at], out=dk[at])
        dv = torch.bmm(p.transpose(1, 2), by_token).view(r, heads, s, n, h).permute(0, 2, 3, 1, 4)
        dk = dk.view(r, heads, s, n, h).permute(0, 2, 3, 1, 4)
        dq = dq.view(r, heads, n, q, h).permute(0, 3, 2, 1, 4)
        if rows_RQ is None:

            def join(at: slice) -> tuple[Tensor]:
                joined = torch.stack([dq[:, at], dk[:, at], dv[:, at]], 3).view(r, -1, n, 3 * d)
                return (_add_linear(residual_RQKd[:, at], joined, self.weight_qkv.t()),)

            return self._in_tiles(join, residual_RQKd)[0]
        joined = torch.stack([dk, dv], 3).view(r, s, n, 2 * d)
        out = F.linear(joined, self.weight_qkv[d:].t())
        back = _add_linear(residual_RQKd, dq.reshape(r, q, n, d), self.weight_qkv[:d].t())
        return out.scatter_add_(1, rows_RQ[:, :, None, None].expand(r, q, n, d), back)

    def _pull_first_half(self, b: Tensor, u: Tensor, at: slice) -> tuple[Tensor, Tensor]:
        y = _add_linear(b, u, self.parts.up.weight.t())
        a = _pull_norm(y, self.norm1_RQd[:, at], self.gain1_RQd[:, at])
        return F.linear(a, self.parts.output.weight.t()), a

    def _tiles(self, like_RQG: Tensor) -> Iterator[slice]:
        """Tokens in runs whose feed-forward tangents, for all directions at once, stay in the processor's cache."""
        r, q, g, *_ = like_RQG.shape
        return blocks(q, r * g * self.gate_RQf.shape[-1], like_RQG, TILE_BYTES)

    def _in_tiles(self, run: Callable[[slice], tuple[Tensor, ...]], like_RQG: Tensor) -> tuple[Tensor, ...]:
        """What ``run`` gives for the tokens of each tile, joined."""
        out: list[Tensor] = []
        for at in self._tiles(like_RQG):
            tile = run(at)
            if at.stop - at.start == like_RQG.shape[1]:
                return tile
            out = out or [part.new_empty(len(part), like_RQG.shape[1], *part.shape[2:]) for part in tile]
            for whole, part in zip(out, tile, strict=True):
                whole[:, at] = part
        return tuple(out)

    def _probe(self) -> Tensor:
        """ξ with x̂ · (y + W₂ u(y)) = ξ · y, so that the correction of the last LayerNorm costs one dot product."""
        back = F.linear(self.norm2_RQd, self.parts.down.weight.t()) * self.gate_RQf
        return self.norm2_RQd + F.linear(back, self.parts.up.weight.t())


def linearise(parts: LayerParts, x_RSd: Tensor, bias: Tensor | None) -> tuple[LinearLayer, Tensor]:
    """The layer at R points, and its output there; ``bias`` is added to the attention logits (masks, positions)."""
    r, s, d = x_RSd.shape
    weight = torch.cat([parts.query.weight, parts.key.weight, parts.value.weight])
    offset = torch.cat([parts.query.bias, parts.key.bias, parts.value.bias])
    qkv = F.linear(x_RSd, weight, offset).view(r, s, 3, parts.heads, -1).permute(2, 0, 3, 1, 4).contiguous()
    q, k, v = qkv[0], qkv[1], qkv[2]
    logits = torch.matmul(q, k.transpose(2, 3)) * q.shape[-1] ** -0.5
    if bias is not None:
        logits = logits + bias
    p = logits.softmax(-1)
    ctx = torch.matmul(p, v)
    mixed = ctx.transpose(1, 2).reshape(r, s, d)
    norm1, inverse1, y = _normalise(
        F.linear(mixed, parts.output.weight, parts.output.bias) + x_RSd, parts.attention_norm
    )
    z = F.linear(y, parts.up.weight, parts.up.bias)
    u, gate, *_ = jvp(parts.activation, (z,), (torch.ones_like(z),))
    norm2, inverse2, out = _normalise(F.linear(u, parts.down.weight, parts.down.bias) + y, parts.output_norm)
    gain1, gain2 = inverse1 * parts.attention_norm.weight, inverse2 * parts.output_norm.weight
    return LinearLayer(parts, weight, q, k, v, p, ctx, norm1, gain1, gate, norm2, inverse2, gain2), out


def _normalise(x: Tensor, norm: torch.nn.LayerNorm) -> tuple[Tensor, Tensor, Tensor]:
    """x̂, 1/σ, and the output of a LayerNorm."""
    centred = x - x.mean(-1, keepdim=True)
    inverse = (centred.square().mean(-1, keepdim=True) + norm.eps).rsqrt()
    hat = centred * inverse
    return hat, inverse, torch.addcmul(norm.bias, hat, norm.weight)


def _gate(u_RQGf: Tensor, gate_RQf: Tensor) -> Tensor:
    """u ⊙ gate, in place."""
    if kernels.serve(u_RQGf):
        return kernels.gate(u_RQGf, gate_RQf)
    return u_RQGf.mul_(gate_RQf.unsqueeze(2))


def _gate_and_sum(u_RQGf: Tensor, gate_RQf: Tensor) -> Tensor:
    """Σ_q u ⊙ gate, [R, G, f]."""
    if kernels.serve(u_RQGf):
        return kernels.gate_and_sum(u_RQGf, gate_RQf)
    return u_RQGf.mul_(gate_RQf.unsqueeze(2)).sum(1)


def _push_norm_and_probe(t_RQGd: Tensor, hat_RQd: Tensor, gain_RQd: Tensor, probe_RQd: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`_push_norm`, and the mean of its product with ``probe``, [R, Q, G]."""
    if kernels.serve(t_RQGd):
        return kernels.project_and_probe(t_RQGd, hat_RQd, gain_RQd, probe_RQd)
    y = _push_norm(t_RQGd, hat_RQd, gain_RQd)
    return y, (y * probe_RQd.unsqueeze(2)).mean(-1)


def _push_norm(t_RQGd: Tensor, hat_RQd: Tensor, gain_RQd: Tensor) -> Tensor:
    """dy = (dx − mean dx − x̂ · mean(x̂ ⊙ dx)) · gain, in place; x̂ has mean zero, so centring first changes nothing."""
    if kernels.serve(t_RQGd):
        return kernels.project(t_RQGd, hat_RQd, gain_RQd, gain_first=False)
    return _project(t_RQGd, hat_RQd).mul_(gain_RQd.unsqueeze(2))


def _pull_norm(o_RQKd: Tensor, hat_RQd: Tensor, gain_RQd: Tensor) -> Tensor:
    """The transpose: gain first, then the projection (which is symmetric)."""
    if kernels.serve(o_RQKd):
        return kernels.project(o_RQKd, hat_RQd, gain_RQd, gain_first=True)
    return _project(o_RQKd * gain_RQd.unsqueeze(2), hat_RQd)


def _project(t_RQGd: Tensor, hat_RQd: Tensor) -> Tensor:
    """t without its mean and without its share along x̂, in place."""
    r, q, g, d = t_RQGd.shape
    # 1 and x̂ are orthogonal and of length √d each.
    both = torch.stack([torch.ones_like(hat_RQd), hat_RQd], 2).view(r * q, 2, d)
    t = t_RQGd.view(r * q, g, d)
    return t.baddbmm_(torch.bmm(t, both.transpose(1, 2)), both, alpha=-1.0 / d).view(r, q, g, d)


def _add_linear(base: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """base + x Wᵀ in one product, in place: out of place the base is copied first."""
    base = base.contiguous()
    base.view(-1, base.shape[-1]).addmm_(x.reshape(-1, x.shape[-1]), weight.t())
    return base


def token_rows(t_RSGd: Tensor, rows_RQ: Tensor) -> Tensor:
    """The rows of some tokens, [R, Q, G, d]."""
    r, _, g, d = t_RSGd.shape
    return t_RSGd.gather(1, rows_RQ[:, :, None, None].expand(r, rows_RQ.shape[1], g, d))


def _by_head(x_RHSh: Tensor) -> Tensor:
    return x_RHSh.reshape(-1, *x_RHSh.shape[2:])


def _with_ones(v: Tensor) -> Tensor:
    return torch.cat([v, v.new_ones(*v.shape[:-1], 1)], -1)


def blocks(count: int, values: int, like: Tensor, most: Mapping[str, int] = ATTENTION_BLOCK_BYTES) -> Iterator[slice]:
    """Heads, tokens or points in runs whose tangents, ``values`` each, stay in the processor's cache; longest first."""
    size = max(1, most["cuda" if like.is_cuda else "cpu"] // (like.element_size() * max(1, values)))
    for low in range(0, count, size):
        yield slice(low, min(count, low + size))
