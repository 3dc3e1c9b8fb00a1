"""One BERT-like encoder layer, linearised by hand at some points of the path.

R counts points (texts × nodes), H heads, h the width of a head, f the feed-forward width, Q the rows whose output is
wanted (all S, or those that pooling looks at), G directions pushed forward, K cotangents pulled back. The formulas are
those of section "layer" in the README; every product with a weight matrix runs over all points and directions at once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import jvp

from attribution_core.architectures import LayerParts


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

    def cast(self, parts: LayerParts, dtype: torch.dtype) -> LinearLayer:
        """The layer in another type, with ``parts`` that are in it already."""
        tensors = {f.name: getattr(self, f.name).to(dtype) for f in fields(self) if f.name != "parts"}
        return LinearLayer(parts=parts, **tensors)

    # Forward: tangents [R, G, Q, ·] --------------------------------------------------------------------------------

    def push_attention(self, t_RGSd: Tensor, rows_RQ: Tensor | None) -> Tensor:
        """Tangent of the heads' outputs, [R, G, Q, d], from a tangent of the layer's input."""
        r, g, s, d = t_RGSd.shape
        q, heads, h = self.q_RHQh.shape[2], self.q_RHQh.shape[1], self.q_RHQh.shape[3]
        if rows_RQ is None:
            t_qkv = F.linear(t_RGSd, self.weight_qkv)
            dq = t_qkv[..., :d]
            dkv = t_qkv[..., d:]
        else:
            dq = F.linear(_rows(t_RGSd, rows_RQ), self.weight_qkv[:d])
            dkv = F.linear(t_RGSd, self.weight_qkv[d:])
        # dS = (dq kᵀ + q dkᵀ)/√h in one product of twice the depth.
        left = dq.new_empty(r, heads, g, q, 2 * h)
        left[..., :h] = dq.view(r, g, q, heads, h).permute(0, 3, 1, 2, 4)
        left[..., h:] = self.q_RHQh.unsqueeze(2)
        right = dq.new_empty(r, heads, g, s, 2 * h)
        right[..., :h] = self.k_RHSh.unsqueeze(2)
        right[..., h:] = dkv[..., :d].view(r, g, s, heads, h).permute(0, 3, 1, 2, 4)
        dv = dkv[..., d:].view(r, g, s, heads, h).permute(0, 3, 1, 2, 4).reshape(-1, s, h)
        ds = torch.bmm(left.view(-1, q, 2 * h), right.view(-1, s, 2 * h).transpose(1, 2)).view(r, heads, g, q, s)
        p = self.p_RHQS.unsqueeze(2)
        ds.mul_(p).mul_(self.scale)
        ds.addcmul_(p, ds.sum(-1, keepdim=True), value=-1.0)
        v = self.v_RHSh.unsqueeze(2).expand(r, heads, g, s, h).reshape(-1, s, h)
        out = torch.bmm(ds.view(-1, q, s), v)
        p_flat = p.expand(r, heads, g, q, s).reshape(-1, q, s)
        out.baddbmm_(p_flat, dv)
        return out.view(r, heads, g, q, h).permute(0, 2, 3, 1, 4).reshape(r, g, q, d)

    def push_norm1(self, t_RGQd: Tensor) -> Tensor:
        """Through the first LayerNorm, in place."""
        return _push_norm(t_RGQd, self.norm1_RQd, self.gain1_RQd)

    def push_rest(self, ctx_RGQd: Tensor, residual_RGQd: Tensor) -> Tensor:
        """From tangents of the heads' outputs and of the layer's input to a tangent of its output."""
        y = self.push_norm1(_add_linear(residual_RGQd, ctx_RGQd, self.parts.output.weight))
        u = F.linear(y, self.parts.up.weight).mul_(self.gate_RQf.unsqueeze(1))
        return _push_norm(_add_linear(y, u, self.parts.down.weight), self.norm2_RQd, self.gain2_RQd)

    def push_pooled(self, ctx_RGQd: Tensor, residual_RGQd: Tensor, pool_RQ: Tensor) -> Tensor:
        """Like :meth:`push_rest`, summed over rows with the pooling weights, [R, G, d].

        The second projection of the feed-forward block is applied once a direction, after pooling.
        """
        d = ctx_RGQd.shape[-1]
        y = self.push_norm1(_add_linear(residual_RGQd, ctx_RGQd, self.parts.output.weight))
        weight2 = self.parts.output_norm.weight
        share_RQ1 = pool_RQ.unsqueeze(-1) * self.inverse2_RQ1
        u = F.linear(y, self.parts.up.weight).mul_((self.gate_RQf * share_RQ1).unsqueeze(1)).sum(2)
        pooled = F.linear(u, self.parts.down.weight)
        pooled += torch.matmul(share_RQ1.transpose(1, 2).unsqueeze(1), y).squeeze(2)
        beta_RGQ = (y * self._probe().unsqueeze(1)).sum(-1).div_(d)
        pooled -= pooled.mean(-1, keepdim=True)
        pooled -= torch.bmm(beta_RGQ, self.norm2_RQd * share_RQ1)
        return pooled * weight2

    # Reverse: cotangents [R, K, Q, ·] ------------------------------------------------------------------------------

    def pull_rest(self, o_RKQd: Tensor) -> tuple[Tensor, Tensor]:
        """From a cotangent of the layer's output to those of the heads' outputs and of the residual input."""
        b = _pull_norm(o_RKQd, self.norm2_RQd, self.gain2_RQd)
        u = F.linear(b, self.parts.down.weight.t()).mul_(self.gate_RQf.unsqueeze(1))
        return self._pull_first_half(b, u)

    def pull_pooled(self, p_RKd: Tensor, pool_RQ: Tensor) -> tuple[Tensor, Tensor]:
        """Like :meth:`pull_rest` from a cotangent of the pooled output."""
        d = p_RKd.shape[-1]
        c_RKd = p_RKd * self.parts.output_norm.weight
        c_RKd = c_RKd - c_RKd.mean(-1, keepdim=True)
        share_RQ1 = pool_RQ.unsqueeze(-1) * self.inverse2_RQ1
        gamma_RKQ1 = torch.bmm(c_RKd, self.norm2_RQd.transpose(1, 2)).div_(d).unsqueeze(-1)
        b = (c_RKd.unsqueeze(2) - self.norm2_RQd.unsqueeze(1) * gamma_RKQ1).mul_(share_RQ1.unsqueeze(1))
        down_RKf = F.linear(c_RKd, self.parts.down.weight.t())
        down_norm_RQf = F.linear(self.norm2_RQd, self.parts.down.weight.t())
        gate_RQf = self.gate_RQf * share_RQ1
        u = torch.addcmul(down_RKf.unsqueeze(2), down_norm_RQf.unsqueeze(1), gamma_RKQ1, value=-1.0)
        return self._pull_first_half(b, u.mul_(gate_RQf.unsqueeze(1)))

    def pull_attention(self, ctx_RKQd: Tensor, residual_RKQd: Tensor, rows_RQ: Tensor | None) -> Tensor:
        """A cotangent of the layer's input, [R, K, S, d]."""
        r, n, q, d = ctx_RKQd.shape
        heads, s, h = self.k_RHSh.shape[1:]
        g = ctx_RKQd.view(r, n, q, heads, h).permute(0, 3, 1, 2, 4).contiguous()
        v = self.v_RHSh.unsqueeze(2).expand(r, heads, n, s, h).reshape(-1, s, h)
        p = self.p_RHQS.unsqueeze(2)
        dv = torch.matmul(self.p_RHQS.transpose(2, 3).unsqueeze(2), g)
        ds = torch.bmm(g.view(-1, q, h), v.transpose(1, 2)).view(r, heads, n, q, s)
        ds.sub_((g * self.ctx_RHQh.unsqueeze(2)).sum(-1, keepdim=True)).mul_(p).mul_(self.scale)
        dq = torch.matmul(ds, self.k_RHSh.unsqueeze(2))
        dk = torch.matmul(ds.transpose(3, 4), self.q_RHQh.unsqueeze(2))
        if rows_RQ is None:
            joined = dq.new_empty(r, n, s, 3, heads, h)
            for at, part in enumerate((dq, dk, dv)):
                joined[:, :, :, at] = part.permute(0, 2, 3, 1, 4)
            return _add_linear(residual_RKQd, joined.view(r, n, s, 3 * d), self.weight_qkv.t())
        joined = dq.new_empty(r, n, s, 2, heads, h)
        for at, part in enumerate((dk, dv)):
            joined[:, :, :, at] = part.permute(0, 2, 3, 1, 4)
        out = F.linear(joined.view(r, n, s, 2 * d), self.weight_qkv[d:].t())
        queries = dq.permute(0, 2, 3, 1, 4).reshape(r, n, q, d)
        back = _add_linear(residual_RKQd, queries, self.weight_qkv[:d].t())
        return out.scatter_add_(2, rows_RQ[:, None, :, None].expand(r, n, q, d), back)

    def _pull_first_half(self, b: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        y = _add_linear(b, u, self.parts.up.weight.t())
        a = _pull_norm(y, self.norm1_RQd, self.gain1_RQd)
        return F.linear(a, self.parts.output.weight.t()), a

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


def _push_norm(t_RGQd: Tensor, hat_RQd: Tensor, gain_RQd: Tensor) -> Tensor:
    """dy = (dx − mean dx − x̂ · mean(x̂ ⊙ dx)) · gain, in place; x̂ has mean zero, so centring first changes nothing."""
    hat = hat_RQd.unsqueeze(1)
    t_RGQd -= t_RGQd.mean(-1, keepdim=True)
    along = torch.linalg.vecdot(t_RGQd, hat).div_(hat.shape[-1]).unsqueeze(-1)
    return t_RGQd.addcmul_(hat, along, value=-1.0).mul_(gain_RQd.unsqueeze(1))


def _pull_norm(o_RKQd: Tensor, hat_RQd: Tensor, gain_RQd: Tensor) -> Tensor:
    """The transpose: gain first, then the projection (which is symmetric)."""
    hat = hat_RQd.unsqueeze(1)
    out = o_RKQd * gain_RQd.unsqueeze(1)
    out -= out.mean(-1, keepdim=True)
    along = torch.linalg.vecdot(out, hat).div_(hat.shape[-1]).unsqueeze(-1)
    return out.addcmul_(hat, along, value=-1.0)


def _add_linear(base: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """base + x Wᵀ in one product."""
    flat = torch.addmm(base.reshape(-1, base.shape[-1]), x.reshape(-1, x.shape[-1]), weight.t())
    return flat.view(*x.shape[:-1], weight.shape[0])


def _rows(t_RGSd: Tensor, rows_RQ: Tensor) -> Tensor:
    r, g, _, d = t_RGSd.shape
    return t_RGSd.gather(2, rows_RQ[:, None, :, None].expand(r, g, rows_RQ.shape[1], d))
