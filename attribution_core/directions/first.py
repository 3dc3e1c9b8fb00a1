"""The first layer above the cut, where each direction moves the rows of one group only.

The tangent x − r is the same at every node, so its query, key and value projections are computed once a text. With
dS = dq kᵀ/√h restricted to the group's own rows and q dkᵀ/√h to its columns, the heads' outputs move by

    d ctx_t = Σ_{j in group} [P_tj dv_j + M_tj (v_j − ctx_t)] + [t in group] · own_t,
    M_tj = P_tj (q_t · dk_j)/√h,   own_t = Σ_k P_tk (dq_t · k_k)/√h (v_k − ctx_t),

and pulled back the same four terms give every token's share without any array of size S × S a direction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from attribution_core.directions import kernels
from attribution_core.directions.layer import LinearLayer, blocks
from attribution_core.model.families import LayerParts


@dataclass(frozen=True, eq=False)
class FirstLayer:
    """The first layer at R points with the directions x − r; ``slot_RQ`` is the slot of each wanted row."""

    layer: LinearLayer
    delta_RQd: Tensor
    dv_RHSh: Tensor
    m_RHQS: Tensor
    own_RHQh: Tensor
    slot_RQ: Tensor
    rows_RQ: Tensor | None

    def points(self, index_R: Tensor | slice) -> FirstLayer:
        """The layer at some of its points."""
        names = ("delta_RQd", "dv_RHSh", "m_RHQS", "own_RHQh", "slot_RQ")
        rows = None if self.rows_RQ is None else self.rows_RQ[index_R]
        tensors = {name: getattr(self, name)[index_R] for name in names}
        return replace(self, layer=self.layer.points(index_R), rows_RQ=rows, **tensors)

    def cast(self, parts: LayerParts, dtype: torch.dtype) -> FirstLayer:
        """The layer and its directions in another type, with ``parts`` that are in it already."""
        names = ("delta_RQd", "dv_RHSh", "m_RHQS", "own_RHQh")
        return replace(self, layer=self.layer.cast(parts, dtype), **{n: getattr(self, n).to(dtype) for n in names})

    def push_attention(self, members_RGW: Tensor, low: int) -> tuple[Tensor, Tensor]:
        """Tangents of the heads' outputs and of the residual input, [R, Q, G, d] each.

        ``members_RGW`` are the token positions of each direction's group (S where there are fewer), of slots
        ``low`` onwards.
        """
        layer = self.layer
        r, g, w = members_RGW.shape
        heads, q, h = layer.q_RHQh.shape[1:]
        s = layer.p_RHQS.shape[-1]
        if kernels.serve(self.delta_RQd) and w <= kernels.MOST_MEMBERS:
            values = (layer.p_RHQS, self.m_RHQS, layer.v_RHSh, self.dv_RHSh, layer.ctx_RHQh, self.own_RHQh)
            moved = kernels.first_attention(*values, self.slot_RQ, members_RGW, low)
            return moved, self._push_residual(g, low)
        index = members_RGW.reshape(r, 1, g * w).expand(r, heads, g * w).reshape(r * heads, g * w)
        p, m = layer.p_RHQS.view(-1, q, s), self.m_RHQS.view(-1, q, s)
        dv, v = self.dv_RHSh.reshape(-1, s, h), layer.v_RHSh.view(-1, s, h)
        ctx = layer.ctx_RHQh.view(-1, 1, q, h)
        out = self.delta_RQd.new_empty(r * heads, g, q, h)
        for at in blocks(r * heads, 2 * g * w * q, out):
            n = at.stop - at.start
            # Each direction has the columns of its own few tokens: P dv + M v, as one product of that depth.
            left = out.new_empty(n, g, 2, w, q)
            left[:, :, 0] = _columns(p[at], index[at]).view(n, g, w, q)
            left[:, :, 1] = _columns(m[at], index[at]).view(n, g, w, q)
            right = out.new_empty(n, g, 2, w, h)
            right[:, :, 0] = _tokens(dv[at], index[at]).view(n, g, w, h)
            right[:, :, 1] = _tokens(v[at], index[at]).view(n, g, w, h)
            product = torch.bmm(left.view(-1, 2 * w, q).transpose(1, 2), right.view(-1, 2 * w, h))
            out[at] = product.view(n, g, q, h)
            out[at].addcmul_(left[:, :, 1].sum(2).unsqueeze(-1), ctx[at], value=-1.0)
        out = out.view(r, heads, g, q, h)
        mine, slot = self._chosen(g, low)
        own = self.own_RHQh * mine[:, None, :, None]
        out.scatter_add_(2, slot[:, None, None, :, None].expand(r, heads, 1, q, h), own.unsqueeze(2))
        return out.permute(0, 3, 2, 1, 4).reshape(r, q, g, heads * h), self._push_residual(g, low)

    def _push_residual(self, g: int, low: int) -> Tensor:
        """Tangents of the layer's input for slots ``low`` onwards, [R, Q, G, d]: a row moves in its own direction."""
        r, q, d = self.delta_RQd.shape
        mine, slot = self._chosen(g, low)
        residual = self.delta_RQd.new_zeros(r, q, g, d)
        moved = (self.delta_RQd * mine.unsqueeze(-1)).unsqueeze(2)
        return residual.scatter_add_(2, slot[:, :, None, None].expand_as(moved), moved)

    def _chosen(self, g: int, low: int) -> tuple[Tensor, Tensor]:
        """Whether a row moves in one of the ``g`` directions from ``low`` on, and in which of them (else 0), [R, Q]."""
        mine = (self.slot_RQ >= low) & (self.slot_RQ < low + g)
        return mine, torch.where(mine, self.slot_RQ - low, 0)

    def push_total(self) -> tuple[Tensor, Tensor]:
        """Like :meth:`push_attention` for the one direction x − r itself, in which every token moves; [R, Q, 1, d]."""
        layer = self.layer
        dctx = torch.matmul(layer.p_RHQS, self.dv_RHSh) + torch.matmul(self.m_RHQS, layer.v_RHSh)
        dctx.addcmul_(self.m_RHQS.sum(-1, keepdim=True), layer.ctx_RHQh, value=-1.0)
        dctx += self.own_RHQh
        r, heads, q, h = dctx.shape
        return dctx.transpose(1, 2).reshape(r, q, 1, heads * h), self.delta_RQd.unsqueeze(2).clone()

    def pull_attention(self, ctx_RQKd: Tensor, residual_RQKd: Tensor) -> Tensor:
        """u · J (x − r)|_token for every cotangent and token, [R, K, S]."""
        layer = self.layer
        r, q, n, d = ctx_RQKd.shape
        heads, h = layer.q_RHQh.shape[1], layer.q_RHQh.shape[3]
        s = layer.p_RHQS.shape[-1]
        g = ctx_RQKd.view(r, q, n, heads, h).permute(0, 3, 1, 2, 4).reshape(r, heads, q, n * h)
        pt, mt = layer.p_RHQS.transpose(2, 3), self.m_RHQS.transpose(2, 3)
        values = torch.matmul(pt, g).view(r, heads, s, n, h)
        out = torch.einsum("rhsne,rhse->rsn", values, self.dv_RHSh)
        torch.matmul(mt, g, out=values.view(r, heads, s, n * h))
        out += torch.einsum("rhsne,rhse->rsn", values, layer.v_RHSh)
        along = torch.einsum("rhqne,rhqe->rhqn", g.view(r, heads, q, n, h), layer.ctx_RHQh)
        out -= torch.matmul(mt, along).sum(1)
        own = self.own_RHQh.permute(0, 2, 1, 3).reshape(r * q, d, 1)
        rows = torch.bmm(ctx_RQKd.reshape(r * q, n, d), own).view(r, q, n)
        rows += torch.bmm(residual_RQKd.reshape(r * q, n, d), self.delta_RQd.reshape(r * q, d, 1)).view(r, q, n)
        if self.rows_RQ is None:
            return (out + rows).transpose(1, 2)
        return out.scatter_add_(1, self.rows_RQ.unsqueeze(2).expand(r, q, n), rows).transpose(1, 2)


def first_layer(
    full: LinearLayer, delta_BSd: Tensor, nodes: int, slot_BS: Tensor, rows_RQ: Tensor | None
) -> FirstLayer:
    """The first layer with its directions, for points that hold ``nodes`` nodes of each text one after another."""
    b, s, d = delta_BSd.shape
    layer = full if rows_RQ is None else full.restrict(rows_RQ)
    heads = layer.parts.heads
    moved = F.linear(delta_BSd, layer.weight_qkv).view(b, s, 3, heads, -1).permute(2, 0, 3, 1, 4)
    dq, dk, dv = (part.repeat_interleave(nodes, 0) for part in moved)
    m_RHQS = torch.matmul(layer.q_RHQh, dk.transpose(2, 3)).mul_(layer.p_RHQS).mul_(layer.scale)
    if rows_RQ is not None:
        dq = dq.gather(2, rows_RQ[:, None, :, None].expand(-1, heads, -1, dq.shape[-1]))
    mq = torch.matmul(dq, layer.k_RHSh.transpose(2, 3)).mul_(layer.p_RHQS).mul_(layer.scale)
    own = torch.matmul(mq, layer.v_RHSh) - mq.sum(-1, keepdim=True) * layer.ctx_RHQh
    slot_RS = slot_BS.repeat_interleave(nodes, 0)
    delta_RSd = delta_BSd.repeat_interleave(nodes, 0)
    return FirstLayer(
        layer=layer,
        delta_RQd=delta_RSd if rows_RQ is None else delta_RSd.gather(1, rows_RQ.unsqueeze(-1).expand(-1, -1, d)),
        dv_RHSh=dv,
        m_RHQS=m_RHQS,
        own_RHQh=own,
        slot_RQ=slot_RS if rows_RQ is None else slot_RS.gather(1, rows_RQ),
        rows_RQ=rows_RQ,
    )


def _columns(values_nQS: Tensor, index_nW: Tensor) -> Tensor:
    """Columns of S at an index as rows, [n, W, Q]; index S gives zeros."""
    return _tokens(values_nQS.transpose(1, 2), index_nW)


def _tokens(values_nSh: Tensor, index_nW: Tensor) -> Tensor:
    """Rows at an index, [n, W, ·]; index S gives zeros."""
    padded = F.pad(values_nSh, (0, 0, 0, 1))
    return padded.gather(1, index_nW.unsqueeze(-1).expand(-1, -1, values_nSh.shape[-1]))
