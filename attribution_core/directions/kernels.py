"""The operations between the matrix products of tangents on a GPU, each in one pass over memory.

Tensor cores multiply a tangent faster than eager elementwise operations read it a few times: a LayerNorm's derivative
reads and writes it four times, the copies to and from the layout of heads and the attention logits' tangents a dozen.
Here each is read once and written once, with sums in float32 (attention for half precision alone: its own products
run on the tensor cores). The functions compute what their namesakes in
``directions.layer`` and ``directions.first`` do; the kernels are Triton's and need a tensor on a GPU.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # a CPU build of torch comes without
    triton = None

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HALF = (torch.float16, torch.bfloat16)
FLOATS = (*HALF, torch.float32)
# Groups of more tokens than this are multiplied out as matrices.
MOST_MEMBERS = 8
ENABLED = True


def serve(like: Tensor, types: tuple[torch.dtype, ...] = FLOATS) -> bool:
    """Whether the kernels can take a tangent."""
    on_device = like.is_cuda or INTERPRETED
    return ENABLED and triton is not None and on_device and like.dtype in types


def project(t_RQGd: Tensor, hat_RQd: Tensor, gain_RQd: Tensor, *, gain_first: bool) -> Tensor:
    """(t − mean t − x̂ · mean(x̂ ⊙ t)) ⊙ gain in place, or the same of t ⊙ gain without the gain behind it."""
    _norm(t_RQGd, hat_RQd, gain_RQd, None, gain_first)
    return t_RQGd


def project_and_probe(t_RQGd: Tensor, hat_RQd: Tensor, gain_RQd: Tensor, probe_RQd: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`project` with the gain behind, and the mean of its product with ``probe``, [R, Q, G]."""
    return t_RQGd, _norm(t_RQGd, hat_RQd, gain_RQd, probe_RQd, False)


def gate(u_RQGf: Tensor, gate_RQf: Tensor) -> Tensor:
    """u ⊙ gate in place."""
    g, f = u_RQGf.shape[2:]
    rows = u_RQGf.numel() // f
    width = min(triton.next_power_of_2(f), 2048)
    _gate_kernel[(rows, triton.cdiv(f, width))](u_RQGf, gate_RQf.contiguous(), g, f, WIDTH=width, num_warps=4)
    return u_RQGf


def gate_and_sum(u_RQGf: Tensor, gate_RQf: Tensor) -> Tensor:
    """Σ_q u ⊙ gate, [R, G, f]."""
    r, q, g, f = u_RQGf.shape
    out = u_RQGf.new_empty(r, g, f)
    width = min(triton.next_power_of_2(f), 512)
    grid = (r * g, triton.cdiv(f, width))
    _gate_sum_kernel[grid](u_RQGf, gate_RQf.contiguous(), out, q, g, f, WIDTH=width, num_warps=2)
    return out


def attention(
    dq: Tensor, dk: Tensor, dv: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor, ctx: Tensor, scale: float
) -> Tensor:
    """Tangent of the heads' outputs, [R, Q, G, d]: P dv + (P ⊙ dS) v − rowsum(P ⊙ dS) ctx.

    ``dq`` [R, Q, G, d], ``dk`` and ``dv`` [R, S, G, d] may be slices of a wider product; the values are by head.
    """
    r, rows, g, d = dq.shape
    heads, s, h = k.shape[1:]
    out = dq.new_empty(r, rows, g, d)
    block_q = max(16, min(128, triton.next_power_of_2(rows)))
    block_s = max(16, min(64, triton.next_power_of_2(s)))
    values = [one.contiguous() for one in (q, k, v, p, ctx)]
    _attention_kernel[(r * heads * g, triton.cdiv(rows, block_q))](
        dq, dk, dv, *values, out, scale, heads, rows, s, g, h,
        *dq.stride()[:3], *dk.stride()[:3], *dv.stride()[:3],
        BLOCK_Q=block_q, BLOCK_S=block_s, BLOCK_H=max(16, triton.next_power_of_2(h)),
        num_warps=8 if block_q == 128 else 4 if block_q == 64 else 2, num_stages=2,
    )  # fmt: skip
    return out


def first_attention(
    p: Tensor,
    m: Tensor,
    v: Tensor,
    dv: Tensor,
    ctx: Tensor,
    own: Tensor,
    slot_RQ: Tensor,
    members_RGW: Tensor,
    low: int,
) -> Tensor:
    """The first layer's tangent of the heads' outputs, [R, Q, G, d]: each direction moves the tokens of its group."""
    r, heads, rows, s = p.shape
    h = v.shape[-1]
    g, w = members_RGW.shape[1:]
    out = v.new_empty(r, rows, g, heads * h)
    block = max(16, min(64, triton.next_power_of_2(rows)))
    columns = [one.transpose(2, 3).contiguous() for one in (p, m)]
    values = [one.contiguous() for one in (v, dv, ctx, own)]
    _first_kernel[(r * heads * g, triton.cdiv(rows, block))](
        *columns, *values, slot_RQ.contiguous(), members_RGW.contiguous(), out, low, heads, rows, s, g, h,
        MEMBERS=w, BLOCK_Q=block, BLOCK_H=max(16, triton.next_power_of_2(h)), num_warps=4,
    )  # fmt: skip
    return out


def _norm(t_RQGd: Tensor, hat_RQd: Tensor, gain_RQd: Tensor, probe_RQd: Tensor | None, gain_first: bool) -> Tensor:
    g, d = t_RQGd.shape[2:]
    assert t_RQGd.is_contiguous(), "the kernel writes in place"
    rows = t_RQGd.numel() // d
    mean = t_RQGd.new_empty(t_RQGd.shape[:3]) if probe_RQd is not None else t_RQGd
    probe = hat_RQd if probe_RQd is None else probe_RQd.contiguous()
    _norm_kernel[(rows,)](
        t_RQGd, hat_RQd.contiguous(), gain_RQd.contiguous(), probe, mean, g, d,
        WIDTH=triton.next_power_of_2(d), PROBED=probe_RQd is not None, GAIN_FIRST=gain_first,
        num_warps=4 if d <= 1024 else 8,
    )  # fmt: skip
    return mean


if triton is not None:

    @triton.jit
    def _norm_kernel(
        t, hat, gain, probe, mean, g, d, WIDTH: tl.constexpr, PROBED: tl.constexpr, GAIN_FIRST: tl.constexpr
    ) -> Any:
        row = tl.program_id(0).to(tl.int64)
        at = tl.arange(0, WIDTH)
        inside = at < d
        point = row // g * d + at
        x = tl.load(t + row * d + at, mask=inside, other=0.0).to(tl.float32)
        unit = tl.load(hat + point, mask=inside, other=0.0).to(tl.float32)
        by = tl.load(gain + point, mask=inside, other=0.0).to(tl.float32)
        if GAIN_FIRST:
            x = x * by
        x = tl.where(inside, x - tl.sum(x, 0) / d, 0.0)
        x = x - unit * (tl.sum(x * unit, 0) / d)
        if not GAIN_FIRST:
            x = x * by
        tl.store(t + row * d + at, x.to(t.dtype.element_ty), mask=inside)
        if PROBED:
            along = tl.load(probe + point, mask=inside, other=0.0).to(tl.float32)
            tl.store(mean + row, (tl.sum(x * along, 0) / d).to(mean.dtype.element_ty))

    @triton.jit
    def _gate_kernel(u, gate, g, f, WIDTH: tl.constexpr) -> Any:
        row = tl.program_id(0).to(tl.int64)
        at = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
        inside = at < f
        value = tl.load(u + row * f + at, mask=inside)
        by = tl.load(gate + row // g * f + at, mask=inside)
        tl.store(u + row * f + at, value * by, mask=inside)

    @triton.jit
    def _gate_sum_kernel(u, gate, out, rows, g, f, WIDTH: tl.constexpr) -> Any:
        direction = tl.program_id(0).to(tl.int64)
        r = direction // g
        at = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
        inside = at < f
        total = tl.zeros([WIDTH], dtype=tl.float32)
        values = u + (r * rows * g + direction % g) * f + at
        gates = gate + r * rows * f + at
        for q in range(rows):
            value = tl.load(values + q * g * f, mask=inside, other=0.0).to(tl.float32)
            total += value * tl.load(gates + q * f, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + direction * f + at, total.to(out.dtype.element_ty), mask=inside)

    @triton.jit
    def _place(g, heads) -> Any:
        """Direction, point and head together, head and point of a program.

        Directions of one head follow each other, so that its own values stay in the cache.
        """
        program = tl.program_id(0).to(tl.int64)
        headed = program // g
        return program % g, headed, headed % heads, headed // heads

    @triton.jit
    def _attention_kernel(
        dq, dk, dv, q, k, v, p, ctx, out, scale, heads, rows, s, g, h,
        dq_r, dq_q, dq_g, dk_r, dk_s, dk_g, dv_r, dv_s, dv_g,
        BLOCK_Q: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_H: tl.constexpr,
    ) -> Any:  # fmt: skip
        direction, headed, head, r = _place(g, heads)
        at_q = tl.program_id(1) * BLOCK_Q + tl.arange(0, BLOCK_Q)
        at_h = tl.arange(0, BLOCK_H)
        in_q, in_h = at_q < rows, at_h < h
        own = in_q[:, None] & in_h[None, :]
        tangent_q = dq + r * dq_r + direction * dq_g + head * h + at_q[:, None] * dq_q + at_h[None, :]
        moved_q = tl.load(tangent_q, mask=own, other=0.0)
        value_q = tl.load(q + headed * rows * h + at_q[:, None] * h + at_h[None, :], mask=own, other=0.0)
        total = tl.zeros([BLOCK_Q, BLOCK_H], dtype=tl.float32)
        weight = tl.zeros([BLOCK_Q], dtype=tl.float32)
        for low in range(0, s, BLOCK_S):
            at_s = low + tl.arange(0, BLOCK_S)
            in_s = at_s < s
            seen = in_s[:, None] & in_h[None, :]
            by_s = headed * s * h + at_s[:, None] * h + at_h[None, :]
            value_k = tl.load(k + by_s, mask=seen, other=0.0)
            moved_k = tl.load(
                dk + r * dk_r + direction * dk_g + head * h + at_s[:, None] * dk_s + at_h[None, :], mask=seen, other=0.0
            )
            logits = tl.dot(moved_q, tl.trans(value_k)) + tl.dot(value_q, tl.trans(moved_k))
            share = tl.load(
                p + headed * rows * s + at_q[:, None] * s + at_s[None, :], mask=in_q[:, None] & in_s[None, :], other=0.0
            )
            change = logits * scale * share.to(tl.float32)
            weight += tl.sum(change, 1)
            value_v = tl.load(v + by_s, mask=seen, other=0.0)
            moved_v = tl.load(
                dv + r * dv_r + direction * dv_g + head * h + at_s[:, None] * dv_s + at_h[None, :], mask=seen, other=0.0
            )
            total += tl.dot(change.to(value_v.dtype), value_v) + tl.dot(share, moved_v)
        mean = tl.load(ctx + headed * rows * h + at_q[:, None] * h + at_h[None, :], mask=own, other=0.0)
        total -= weight[:, None] * mean.to(tl.float32)
        to = out + ((r * rows + at_q[:, None]) * g + direction) * heads * h + head * h + at_h[None, :]
        tl.store(to, total.to(out.dtype.element_ty), mask=own)

    @triton.jit
    def _first_kernel(
        p, m, v, dv, ctx, own, slot, members, out, low, heads, rows, s, g, h,
        MEMBERS: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_H: tl.constexpr,
    ) -> Any:  # fmt: skip
        direction, headed, head, r = _place(g, heads)
        at_q = tl.program_id(1) * BLOCK_Q + tl.arange(0, BLOCK_Q)
        at_h = tl.arange(0, BLOCK_H)
        in_q, in_h = at_q < rows, at_h < h
        inside = in_q[:, None] & in_h[None, :]
        by_q = headed * rows * h + at_q[:, None] * h + at_h[None, :]
        total = tl.zeros([BLOCK_Q, BLOCK_H], dtype=tl.float32)
        weight = tl.zeros([BLOCK_Q], dtype=tl.float32)
        for member in tl.static_range(MEMBERS):
            token = tl.load(members + (r * g + direction) * MEMBERS + member)
            there = token < s
            column = (headed * s + token) * rows + at_q
            share = tl.load(p + column, mask=in_q & there, other=0.0).to(tl.float32)
            change = tl.load(m + column, mask=in_q & there, other=0.0).to(tl.float32)
            by_token = (headed * s + token) * h + at_h
            moved = tl.load(dv + by_token, mask=in_h & there, other=0.0).to(tl.float32)
            value = tl.load(v + by_token, mask=in_h & there, other=0.0).to(tl.float32)
            total += share[:, None] * moved[None, :] + change[:, None] * value[None, :]
            weight += change
        mean = tl.load(ctx + by_q, mask=inside, other=0.0).to(tl.float32)
        mine = tl.load(slot + r * rows + at_q, mask=in_q, other=-1) == low + direction
        total += tl.load(own + by_q, mask=inside & mine[:, None], other=0.0).to(tl.float32)
        total -= weight[:, None] * mean
        to = out + ((r * rows + at_q[:, None]) * g + direction) * heads * h + head * h + at_h[None, :]
        tl.store(to, total.to(out.dtype.element_ty), mask=inside)
