"""Chunk sizes from a budget in bytes; the budget is halved when memory runs out, and on no other error."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from attribution_core.errors import SettingError, TokenpairError

logger = logging.getLogger("tokenpair")

DEFAULT_BUDGET = 2 << 30
SMALLEST_BUDGET = 1 << 20
# The rest is what allocators keep beside what is asked of them.
USABLE = 0.75
# The parameter's number in glibc's malloc.h, and the size from which blocks are mapped on their own.
M_MMAP_THRESHOLD = -3
LARGE_BLOCK = 16 << 20


def hand_back_freed_memory() -> None:
    """Let this process return large blocks to the system as soon as they are freed.

    glibc keeps freed blocks of up to 32 MiB for itself once it has seen some, and with blocks of many sizes its heap
    grows to several times what is in use. Elsewhere than on glibc nothing is done.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)


def budget_bytes(memory: int | float, device: torch.device) -> int:
    """Bytes that ``memory`` allows: a number of bytes, or a share (above 0, below 1) of the device's memory.

    Raises:
        SettingError: where it is neither, or less than 1 MiB.
    """
    if isinstance(memory, float) and 0 < memory < 1:
        memory = int(memory * device_bytes(device))
    if isinstance(memory, bool) or not isinstance(memory, int) or memory < SMALLEST_BUDGET:
        raise SettingError(
            f"memory is {memory!r}; it must be a number of bytes, at least {SMALLEST_BUDGET} (1 MiB), "
            "or a share of the device's memory, above 0 and below 1"
        )
    return memory


def device_bytes(device: torch.device) -> int:
    """The memory of a GPU, or of the machine where the device is its CPU."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class LayerShape:
    """What decides the cost of a token: hidden and feed-forward width, heads, layers above the cut, bytes a value.

    ``whole`` says that a layer is multiplied out as the model wrote it, attention of all heads at once; ``positions``
    counts the relative positions that such a layer scores beside the tokens (DeBERTa). ``tangent_bytes`` are those of a
    tangent's value where it is held in another type than what it is multiplied into.
    """

    d: int
    inner: int
    heads: int
    layers: int
    bytes: int
    whole: bool = False
    positions: int = 0
    tangent_bytes: int | None = None

    def reading_bytes(self, tokens: int) -> int:
        """Bytes that the forward pass of one text and its reference takes."""
        return 2 * self.bytes * tokens * (8 * self.d + 2 * self.inner + 3 * self.heads * (tokens + self.positions))

    def point_bytes(self, tokens: int) -> int:
        """Bytes that one node of one text of ``tokens`` tokens holds while its directions are computed.

        Every layer keeps queries, keys, values, outputs of the heads, two normalised inputs with their gains, the
        activation's derivative and the attention weights; the first layer its directions beside them. A layer that is
        differentiated as a whole keeps everything that its backward pass reads.
        """
        if self.whole:
            scores = self.heads * (tokens + self.positions)
            layer = 16 * self.d + 5 * self.inner + 4 * scores
            return self.bytes * tokens * ((self.layers + 1) * layer)
        layer = 9 * self.d + self.inner + self.heads * tokens
        working = 8 * self.d + 2 * self.inner + 4 * self.heads * tokens
        other = 0 if self._tangent == self.bytes else self._tangent * tokens * self.layers * layer
        return self.bytes * tokens * (self.layers * layer + working) + other

    def direction_bytes(self, tokens: int) -> int:
        """Bytes that one direction at one node of one text holds at its peak, inside attention or feed-forward.

        What grows with the square of the length lives a few heads at a time (``directions.layer``), but where a layer
        is multiplied out as a whole.
        """
        if self.whole:
            attention = 8 * self.d + 5 * self.heads * (tokens + self.positions)
            # torch.func pushes in the model's own type.
            return self.bytes * tokens * max(attention, 8 * self.d + 5 * self.inner)
        return self._tangent * tokens * max(12 * self.d, 5 * self.d + 2 * self.inner)

    @property
    def _tangent(self) -> int:
        return self.tangent_bytes or self.bytes


@dataclass(frozen=True)
class Chunk:
    """How many texts, nodes and directions go through the layers at once."""

    texts: int
    nodes: int
    directions: int


def plan_chunk(shape: LayerShape, budget: int, *, tokens: int, texts: int, nodes: int, directions: int) -> Chunk:
    """The largest chunk within ``budget`` bytes: first all nodes, then more directions of each, then more texts.

    A chunk of b texts × n nodes × k directions takes b·n points and b·n·k directions.
    """
    point, direction = shape.point_bytes(tokens), shape.direction_bytes(tokens)
    budget = int(budget * USABLE)
    n = max(1, min(nodes, budget // (point + direction)))
    k = max(1, min(directions, (budget // n - point) // direction))
    b = max(1, min(texts, budget // (n * (point + k * direction))))
    return Chunk(b, n, k)


T = TypeVar("T")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: CUDA's own class, or what the CPU allocator raises."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)


def with_halving(run: Callable[[int], T], budget: int, *, floor: int = 1 << 22) -> tuple[T, int]:
    """Run ``run(budget)``; on out-of-memory free what is cached, halve the budget and run it again.

    Returns the result and the budget that worked, so that the caller can keep it.

    Raises:
        TokenpairError: where even ``floor`` bytes are too many.
    """
    while True:
        try:
            return run(budget), budget
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if budget // 2 < floor:
                raise TokenpairError(
                    "out of memory even with the smallest chunks; use a smaller model or device"
                ) from error
        budget //= 2
        logger.warning("out of memory: going on with chunks of %d MiB", budget >> 20)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
