"""Max pooling along a path, integrated by interpolation between the nodes.

Each coordinate of the maximum is taken from one row after another. Wherever it changes the derivative jumps, hundreds
of times on a path, so that the error of any rule falls no faster than 1 / N. The token embeddings themselves are
smooth: a polynomial through few nodes gives them at every α, and so the row that each coordinate is taken from. With
ℓ_k the polynomial that is one at node k and zero at the others,

    ∫ J_s(α) · 1[s is the largest at α] dα  ≈  Σ_k W_ks J_s(α_k),    W_ks = ∫ ℓ_k(α) · 1[s is the largest at α] dα

with J_s the Jacobian of row s. For each coordinate, max pooling is then a sum of rows with weights of their own at each
node, and needs about twice the nodes of other modes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from attribution_core.directions import PathSegment
from attribution_core.model.batch import repeat_rows
from attribution_core.model.encoder import Encoder
from attribution_core.quadrature.rules import Doubles

# The path is cut into so many cells; in one of them a coordinate changes its row once at most, on straight lines.
CELLS = 256
# A polynomial goes through so many nodes, the nearest ones.
NEAREST = 6
# So many values (cells × rows × coordinates) are interpolated at once.
AT_ONCE = 1 << 22


@torch.no_grad()
def with_row_weights(encoder: Encoder, segments: list[PathSegment]) -> list[PathSegment]:
    """The segments of whole paths, with the weight of every row and coordinate at each node."""
    tokens_BNSd = torch.cat([_token_embeddings(encoder, one) for one in segments], 1)
    alpha_N = torch.cat([one.alpha_N for one in segments]).double().cpu().numpy()
    # The batch has ones for the rows that max looks at.
    looked_BS = segments[0].batch.pool_BMS[:, encoder.pooling_modes.index("max")] > 0
    out_BNSd = torch.zeros_like(tokens_BNSd)
    for text_NSd, out_NSd, looked_S in zip(tokens_BNSd, out_BNSd, looked_BS, strict=True):
        out_NSd[:, looked_S] = row_weights(text_NSd[:, looked_S], alpha_N)
    weight_BN11 = torch.cat([one.weight_BN for one in segments], 1)[..., None, None]
    parts = (out_BNSd / weight_BN11).split([len(one.alpha_N) for one in segments], 1)
    return [replace(one, rows_BNSd=part) for one, part in zip(segments, parts, strict=True)]


def row_weights(rows_NRd: Tensor, alpha_N: Doubles) -> Tensor:
    """W_ks of every coordinate, [N, R, d], from the rows' values at the nodes."""
    edges = np.linspace(0.0, 1.0, CELLS + 1)
    middles = (edges[1:] + edges[:-1]) / 2.0
    at_edges_EN, at_middles_CN = (torch.from_numpy(basis(alpha_N, at)).to(rows_NRd) for at in (edges, middles))
    cells_NC = at_middles_CN.T / CELLS
    parts = rows_NRd.split(max(1, AT_ONCE // (CELLS * rows_NRd.shape[1])), 2)
    return torch.cat([torch.tensordot(cells_NC, largest(torch.tensordot(at_edges_EN, one, 1)), 1) for one in parts], 2)


def g_by_rows(encoder: Encoder, segment: PathSegment) -> Callable[[Tensor], Tensor]:
    """g at the nodes of a segment [B·N, S, d], whose Jacobian sums rows with the segment's weights where g has max."""
    batch, copies = segment.batch, len(segment.alpha_N)
    assert segment.rows_BNSd is not None
    rows_RSd = segment.rows_BNSd.flatten(0, 1)
    pool_RMS = repeat_rows(batch.pool_BMS, len(batch.x_BSd), copies)

    def g(points_RSd: Tensor) -> Tensor:
        tokens_RSd = encoder.token_embeddings(points_RSd, batch, copies)
        at_node_RSd = tokens_RSd.detach()
        moved_RSd = tokens_RSd - at_node_RSd  # zero, with the Jacobian of the rows
        moved = [
            (rows_RSd * moved_RSd).sum(1) if mode == "max" else (pool_RMS[:, at : at + 1] @ moved_RSd).squeeze(1)
            for at, mode in enumerate(encoder.pooling_modes)
        ]
        return encoder.embed_pooled(encoder.pool(at_node_RSd, batch, copies) + torch.cat(moved, 1))

    return g


def basis(alpha_N: Doubles, at_F: Doubles) -> Doubles:
    """ℓ_k at some points, [F, N]: Lagrange's polynomials through the nodes nearest to each point."""
    nearest = min(len(alpha_N), NEAREST)
    start_F = np.clip(np.searchsorted(alpha_N, at_F) - nearest // 2, 0, len(alpha_N) - nearest)
    place_FP = start_F[:, None] + np.arange(nearest)
    node_FP = alpha_N[place_FP]
    own = np.eye(nearest, dtype=bool)
    between_FPP = np.where(own, 1.0, node_FP[:, :, None] - node_FP[:, None, :])
    gap_FPP = np.where(own, 1.0, (at_F[:, None] - node_FP)[:, None, :])
    out_FN = np.zeros((len(at_F), len(alpha_N)))
    np.put_along_axis(out_FN, place_FP, (gap_FPP / between_FPP).prod(2), 1)
    return out_FN


def largest(edge_ERd: Tensor) -> Tensor:
    """The part of each cell in which each row is the largest, [C, R, d], from the values at the edges of the cells."""
    row_E1d = edge_ERd.argmax(1, keepdim=True)
    left, right = row_E1d[:-1], row_E1d[1:]
    before = edge_ERd[:-1].gather(1, left) - edge_ERd[:-1].gather(1, right)
    after = edge_ERd[1:].gather(1, right) - edge_ERd[1:].gather(1, left)
    until = before / (before + after).clamp_min(torch.finfo(edge_ERd.dtype).tiny)
    share_CRd = torch.zeros_like(edge_ERd[1:])
    return share_CRd.scatter_add_(1, left, until).scatter_add_(1, right, 1.0 - until)


def _token_embeddings(encoder: Encoder, segment: PathSegment) -> Tensor:
    """The rows that are pooled, at the nodes of a segment, [B, N, S, d]."""
    points_BNSd = segment.points_BNSd()
    b, n, s, _ = points_BNSd.shape
    return encoder.token_embeddings(points_BNSd.flatten(0, 1), segment.batch, n).view(b, n, s, -1)
