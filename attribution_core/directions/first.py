"""The first layer above the cut, where each direction moves the rows of one group only.

The tangent x − r is the same at every node, so its query, key and value projections are computed once a text. With
dS = dq kᵀ/√h restricted to the group's own rows and q dkᵀ/√h to its columns, the heads' outputs move by

    d ctx_t = Σ_{j in group} [P_tj dv_j + M_tj (v_j − ctx_t)] + [t in group] · own_t,
    M_tj = P_tj (q_t · dk_j)/√h,   own_t = Σ_k P_tk (dq_t · k_k)/√h (v_k − ctx_t),

and pulled back the same four terms give every token's share without any array of size S × S a direction.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from attribution_core.directions.layer import LinearLayer


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

    def push_attention(self, members_RGW: Tensor, low: int) -> tuple[Tensor, Tensor]:
        """Tangents of the heads' outputs and of the residual input, [R, G, Q, d] each.

        ``members_RGW`` are the token positions of each direction's group (S where there are fewer), of slots
        ``low`` onwards.
        """
        layer = self.layer
        r, g, w = members_RGW.shape
        heads, q, h = layer.q_RHQh.shape[1:]
        flat = members_RGW.view(r, 1, g * w).expand(r, heads, g * w)
        p_cols = _columns(layer.p_RHQS, flat).view(r, heads, g, w, q)
        m_cols = _columns(self.m_RHQS, flat).view(r, heads, g, w, q)
        left = torch.cat([p_cols, m_cols], 3).view(-1, 2 * w, q).transpose(1, 2)
        dv, v = _tokens(self.dv_RHSh, flat), _tokens(layer.v_RHSh, flat)
        right = torch.cat([dv.view(r, heads, g, w, h), v.view(r, heads, g, w, h)], 3).view(-1, 2 * w, h)
        out = torch.bmm(left, right).view(r, heads, g, q, h)
        out.addcmul_(m_cols.sum(3).unsqueeze(-1), layer.ctx_RHQh.unsqueeze(2), value=-1.0)
        mine = (self.slot_RQ >= low) & (self.slot_RQ < low + g)
        slot = torch.where(mine, self.slot_RQ - low, 0)
        own = self.own_RHQh * mine[:, None, :, None]
        out.scatter_add_(2, slot[:, None, None, :, None].expand(r, heads, 1, q, h), own.unsqueeze(2))
        residual = self.delta_RQd.new_zeros(r, g, q, heads * h)
        moved = (self.delta_RQd * mine.unsqueeze(-1)).unsqueeze(1)
        residual.scatter_add_(1, slot[:, None, :, None].expand_as(moved), moved)
        return out.permute(0, 2, 3, 1, 4).reshape(r, g, q, heads * h), residual

    def pull_attention(self, ctx_RKQd: Tensor, residual_RKQd: Tensor) -> Tensor:
        """u · J (x − r)|_token for every cotangent and token, [R, K, S]."""
        layer = self.layer
        r, n, q, d = ctx_RKQd.shape
        heads, h = layer.q_RHQh.shape[1], layer.q_RHQh.shape[3]
        s = layer.p_RHQS.shape[-1]
        g = ctx_RKQd.view(r, n, q, heads, h).permute(0, 3, 2, 1, 4).reshape(r, heads, q, n * h)
        along = (g.view(r, heads, q, n, h) * layer.ctx_RHQh.unsqueeze(3)).sum(-1)
        both = torch.cat([layer.p_RHQS, self.m_RHQS], 3).transpose(2, 3)
        mixed = torch.matmul(both, g).view(r, heads, 2, s, n, h)
        out = torch.einsum("rhsnw,rhsw->rns", mixed[:, :, 0], self.dv_RHSh)
        out += torch.einsum("rhsnw,rhsw->rns", mixed[:, :, 1], layer.v_RHSh)
        out -= torch.matmul(self.m_RHQS.transpose(2, 3), along).sum(1).transpose(1, 2)
        own = self.own_RHQh.permute(0, 2, 1, 3).reshape(r, 1, q, d)
        rows = (ctx_RKQd * own).sum(-1) + (residual_RKQd * self.delta_RQd.unsqueeze(1)).sum(-1)
        if self.rows_RQ is None:
            return out + rows
        return out.scatter_add_(2, self.rows_RQ.unsqueeze(1).expand(r, n, q), rows)


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


def slot_members(slot_BS: Tensor, slots: int) -> Tensor:
    """Token positions of every slot, [B, slots, W], with S in the places of missing ones."""
    s = slot_BS.shape[1]
    member_BGS = slot_BS.unsqueeze(1) == torch.arange(slots, device=slot_BS.device).view(1, -1, 1)
    width = max(1, int(member_BGS.sum(-1).max())) if slots else 1
    position = torch.where(member_BGS, torch.arange(s, device=slot_BS.device), s)
    return position.sort(-1).values[..., :width]


def _columns(values_RHQS: Tensor, index_RHW: Tensor) -> Tensor:
    """Columns of S at an index as rows, [R, H, W, Q]; index S gives zeros."""
    q = values_RHQS.shape[2]
    padded = F.pad(values_RHQS.transpose(2, 3), (0, 0, 0, 1))
    return padded.gather(2, index_RHW.unsqueeze(-1).expand(-1, -1, -1, q))


def _tokens(values_RHSh: Tensor, index_RHW: Tensor) -> Tensor:
    padded = F.pad(values_RHSh, (0, 0, 0, 1))
    return padded.gather(2, index_RHW.unsqueeze(-1).expand(-1, -1, -1, values_RHSh.shape[-1]))
