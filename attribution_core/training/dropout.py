"""Dropout that loses the same units in every row of a batch.

A text and its reference differ in tokens alone, so under dropout both have to lose the same units at the same
positions, or the reference would not embed to zero. With one mask for all rows, one reference serves every text of its
length in the batch, and a batch that is split among workers loses the same units as a whole one.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


@contextlib.contextmanager
def shared_dropout() -> Iterator[None]:
    """Inside the block, dropout in this thread draws one mask for all rows (the first axis) of what it is given."""
    with _OneMask():
        yield


class _OneMask(TorchFunctionMode):
    """Replaces the functions that drop units, for all callers."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return REPLACED.get(func, func)(*args, **(kwargs or {}))


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if not training or p == 0.0:
        return input
    mask = _mask(input, p)
    return input.mul_(mask) if inplace else input * mask


def _mask(like: Tensor, p: float) -> Tensor:
    """1/(1 − p) with probability 1 − p, else 0; one row of the shape of ``like``."""
    return torch.empty_like(like[:1]).bernoulli_(1.0 - p).div_(1.0 - p)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """torch's attention by its definition, with one dropout mask for all rows; [B, H, S, d]."""
    if dropout_p == 0.0:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if enable_gqa:
        copies = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(copies, -3), value.repeat_interleave(copies, -3)
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~allowed, -math.inf)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    weights = scores.softmax(-1)
    return (weights * _mask(weights, dropout_p)) @ value


REPLACED: dict[Callable[..., Any], Callable[..., Any]] = {
    F.dropout: _dropout,
    F.scaled_dot_product_attention: _attention,
}
