"""Features of some texts at the cut, padded to one length, and how their rows are repeated and picked."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from attribution_core.byte_cache import ByteCache


@dataclass(frozen=True, eq=False)
class TextBatch:
    """Features of some texts at the cut, right-padded to one length.

    ``x_BSd`` and ``r_BSd`` are the features of texts and references, ``pool_BMS`` the weights with which each pooling
    mode sums token embeddings (of max: ones for the rows that it looks at), ``moving_BS`` the group of each token whose
    row may differ from its reference's (−1: the others), known before anything is computed and so an array of the
    processor, ``calls`` the further arguments of each layer above the cut. ``pooled`` is the largest number of rows
    that pooling looks at in a text, ``shift_BD`` what a shifted model subtracts from pooled embeddings. ``references``
    name the texts' references: texts of the same name have the same one. ``prompt_length`` counts the prompt's tokens,
    where the model may leave them out of pooling.
    """

    x_BSd: Tensor
    r_BSd: Tensor
    pool_BMS: Tensor
    mask_BS: Tensor
    moving_BS: NDArray[np.int64]
    groups: int
    calls: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]
    pooled: int
    references: tuple[Hashable, ...]
    shift_BD: Tensor | None = None
    prompt_length: int | None = None

    @cached_property
    def delta_BSd(self) -> Tensor:
        """x − r."""
        return self.x_BSd - self.r_BSd

    def select(self, rows: list[int]) -> TextBatch:
        """Some texts of the batch."""
        b = len(self.x_BSd)
        if rows == list(range(b)):
            return self
        index_B = picked(rows)
        return TextBatch(
            x_BSd=self.x_BSd[index_B],
            r_BSd=self.r_BSd[index_B],
            pool_BMS=self.pool_BMS[index_B],
            mask_BS=self.mask_BS[index_B],
            moving_BS=self.moving_BS[index_B],
            groups=self.groups,
            calls=pick_rows(self.calls, b, index_B),
            pooled=self.pooled,
            references=tuple(self.references[row] for row in rows),
            shift_BD=None if self.shift_BD is None else self.shift_BD[index_B],
            prompt_length=self.prompt_length,
        )


@dataclass(frozen=True, eq=False)
class Shared:
    """An argument of a layer that belongs to the model: no row of it is a text's, whatever its first axis counts."""

    value: Any


def by_reference(
    known: ByteCache[Any, Tensor], keys: Sequence[Hashable], compute: Callable[[list[int]], Iterable[Tensor]]
) -> Tensor:
    """The value of each text's reference, [B, …]; texts of one key share it.

    ``compute`` gives the values of some rows, one of each key that is not known yet; these are kept in ``known``.
    """
    distinct = dict(zip(keys, range(len(keys)), strict=True))
    fresh = [row for key, row in distinct.items() if key not in known]
    if fresh:
        for row, value in zip(fresh, compute(fresh), strict=True):
            known[keys[row]] = value.clone()
    # Embeddings of late interaction are as long as their texts.
    found = pad_sequence([known[key] for key in distinct], batch_first=True)
    known.shrink()
    place = {key: at for at, key in enumerate(distinct)}
    return found[torch.tensor([place[key] for key in keys], device=found.device)]


def padded(rows: Sequence[NDArray[Any]], length: int, fill: int = 0) -> NDArray[np.int64]:
    """Rows of whole numbers, right-padded with ``fill`` to one length, [rows, length]."""
    out = np.full((len(rows), length), fill, np.int64)
    out[np.arange(length) < np.fromiter(map(len, rows), np.int64, len(rows))[:, None]] = np.concatenate(rows)
    return out


def repeat_rows(value: Any, b: int, copies: int) -> Any:
    """Repeat every tensor whose first axis is the batch ``copies`` times, row by row, inside nested containers.

    What is :class:`Shared` comes back by itself, as it is.
    """
    if isinstance(value, Shared):
        return value.value
    if isinstance(value, Tensor):
        if copies == 1:
            return value
        return (
            value.repeat_interleave(copies, 0)
            if value.ndim and value.shape[0] == b and b > 1
            else _spread(value, b, copies)
        )
    if isinstance(value, dict):
        return {key: repeat_rows(item, b, copies) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(repeat_rows(item, b, copies) for item in value)
    return value


def _spread(value: Tensor, b: int, copies: int) -> Tensor:
    # One text's tensors broadcast over its copies without being copied; shared ones are left alone.
    return value.expand(copies, *value.shape[1:]) if b == 1 and value.ndim and value.shape[0] == 1 else value


def picked(rows: list[int]) -> slice | list[int]:
    """An index for some rows: a slice where they follow each other, for which a GPU need not wait."""
    follow = bool(rows) and rows == list(range(rows[0], rows[0] + len(rows)))
    return slice(rows[0], rows[0] + len(rows)) if follow else rows


def most_pooled(pool_BMS: Tensor) -> int:
    """The largest number of rows that any pooling mode looks at in a text."""
    return int((pool_BMS != 0).sum(-1).max())


def pick_rows(value: Any, rows: int, index: slice | list[int]) -> Any:
    """Some rows of every tensor that has one a text, inside nested containers; shared ones are left alone."""
    if isinstance(value, Tensor):
        return value[index] if value.ndim and value.shape[0] == rows and rows > 1 else value
    if isinstance(value, dict):
        return {key: pick_rows(item, rows, index) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(pick_rows(item, rows, index) for item in value)
    return value


def finite_in_float32(value: Any) -> Any:
    """Attention masks that stay finite when they are cast to float32, inside nested containers.

    A float64 model masks with float64's lowest number. Where attention weights are computed in float32 that becomes
    −∞, and a padded row that sees no token at all becomes NaN, which spreads.
    """
    if isinstance(value, Tensor):
        is_mask = value.is_floating_point() and value.ndim == 4
        return value.clamp_min(torch.finfo(torch.float32).min) if is_mask else value
    if isinstance(value, dict):
        return {key: finite_in_float32(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(finite_in_float32(item) for item in value)
    return value
