"""References of a batch of texts as token ids, and a cache of their embeddings.

A row is described by the ids of its reference up to its last token: two texts of one length, prompt and special
tokens share it, wherever the batch is padded to.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from attribution_core.byte_cache import ByteCache

KEPT_BYTES = 256 << 20
# The features of a batch that a layer call can see and that have one value a token.
PER_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


@dataclass(frozen=True)
class Layout:
    """One distinct reference: its ids, mask and the like up to the last token, each of one length."""

    columns: tuple[tuple[str, tuple[int, ...]], ...]

    def __len__(self) -> int:
        return len(self.columns[0][1])


def reference_features(features: dict[str, Any], kept_BS: Tensor, pad_id: int) -> dict[str, Any]:
    """The features of a batch with every token that is not kept replaced by padding, under the same mask."""
    ids_BS, mask_BS = features["input_ids"], features["attention_mask"]
    replaced_BS = mask_BS.bool() & ~kept_BS.bool()
    return {**features, "input_ids": ids_BS.masked_fill(replaced_BS, pad_id)}


def layouts(features: dict[str, Any]) -> list[Layout]:
    """The layout of each row of a batch of references."""
    names = [name for name in PER_TOKEN if name in features]
    mask_BS = features["attention_mask"].cpu()
    s = mask_BS.shape[1]
    length_B = (s - mask_BS.bool().flip(1).int().argmax(1)).tolist()
    values = [features[name].expand(mask_BS.shape).cpu().tolist() for name in names]
    return [
        Layout(tuple((name, tuple(column[row][:length])) for name, column in zip(names, values, strict=True)))
        for row, length in enumerate(length_B)
    ]


def stacked(some: Sequence[Layout], like: dict[str, Any], pad_id: int) -> dict[str, Any]:
    """The features of some distinct references as one batch, padded on the right to the longest."""
    s = max(len(one) for one in some)
    device = like["input_ids"].device
    batch = {name: value for name, value in like.items() if name not in PER_TOKEN and not isinstance(value, Tensor)}
    for name, _ in some[0].columns:
        rows_US = torch.full((len(some), s), pad_id if name == "input_ids" else 0, dtype=like[name].dtype)
        for row, one in enumerate(some):
            rows_US[row, : len(one)] = torch.tensor(dict(one.columns)[name], dtype=rows_US.dtype)
        batch[name] = rows_US.to(device)
    return batch


def is_per_row(value: Any, b: int) -> bool:
    """Whether a feature has one row a text."""
    return isinstance(value, Tensor) and value.ndim > 1 and len(value) == b


class ReferenceCache:
    """Token embeddings of references by layout, good until the weights they were computed with change.

    A change is seen by the storage and version of every parameter and buffer, and by the steps of torch's optimisers;
    code that writes through ``.data``, which cannot be seen, must call :meth:`forget`. Copies and pickles begin empty.
    """

    def __init__(self) -> None:
        self._known: ByteCache[Layout, Tensor] = ByteCache(KEPT_BYTES)
        self._state: Hashable = None
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: Any) -> ReferenceCache:
        return ReferenceCache()

    def __reduce__(self) -> tuple[type[ReferenceCache], tuple[()]]:
        return ReferenceCache, ()

    def __len__(self) -> int:
        return len(self._known)

    def forget(self) -> None:
        """Drop all cached references."""
        with self._lock:
            self._known.clear()

    def embeddings(
        self, wanted: Sequence[Layout], state: Hashable, compute: Callable[[list[Layout]], list[Tensor]]
    ) -> list[Tensor]:
        """Token embeddings [length, d] of each layout; those not known under ``state`` are computed, all at once."""
        with self._lock:
            if state is None or state != self._state:
                self._known.clear()
                self._state = state
            fresh = [one for one in dict.fromkeys(wanted) if one not in self._known]
            if fresh:
                for one, embedding in zip(fresh, compute(fresh), strict=True):
                    self._known[one] = embedding
            found = [self._known[one] for one in wanted]
            self._known.shrink()
            return found


# Fused optimisers change weights without counting it as a new version.
_optimizer_steps = itertools.count(1)
_last_step = 0


def _count_step(*_: Any) -> None:
    global _last_step
    _last_step = next(_optimizer_steps)


register_optimizer_step_post_hook(_count_step)


def weights_state(module: nn.Module) -> Hashable:
    """A value that changes with the weights of a module; None where changes cannot be seen."""
    try:
        values = (*module.parameters(), *module.buffers())
        return _last_step, *((value.data_ptr(), value._version) for value in values)
    except RuntimeError:  # tensors made in inference mode count no versions
        return None
