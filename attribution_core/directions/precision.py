"""Faster arithmetic for tangents, and where it is allowed.

Embeddings, references and what contributions must sum to are always computed in the encoder's own type. Tangents may
run with TF32 products or in half precision: contributions are judged by a residual that is measured on the result
itself, and where a text then misses its tolerance it is computed again in full precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from attribution_core.errors import SettingError

Precision = Literal["float32", "tf32", "fp16", "bf16"]
PRECISIONS = ("auto", "float32", "tf32", "fp16", "bf16")
# What ten bits of mantissa add to the residual of a text, two layers above the cut (all-MiniLM-L6-v2: 7e-4 to 1.3e-3).
# With bfloat16 it is eight times that, beyond any tolerance that would be lowered for it.
NOISE: dict[str, float] = {"tf32": 1e-3, "fp16": 1e-3}
REDUCED: tuple[Precision, ...] = ("tf32", "fp16", "bf16")


def choose_precision(asked: str, device: torch.device, dtype: torch.dtype) -> Precision:
    """The precision of tangents: half on GPUs and full on CPUs unless asked for; an encoder in float64 has no other.

    fp16 rounds as TF32 does, eight times finer than bf16, and is multiplied twice as fast as TF32; what its range
    cannot hold becomes infinite, shows in the residual, and is computed again.

    Raises:
        SettingError: for an unknown precision, or a reduced one beside float64.
    """
    if asked not in PRECISIONS:
        raise SettingError(f"precision {asked!r} is unknown; allowed are {', '.join(PRECISIONS)}")
    if dtype == torch.float64:
        if asked in REDUCED:
            raise SettingError(f"precision {asked!r} does not go with dtype float64")
        return "float32"
    if asked == "auto":
        return "fp16" if device.type == "cuda" else "float32"
    return next((one for one in REDUCED if one == asked), "float32")


def tangent_dtype(precision: Precision, full: torch.dtype) -> torch.dtype:
    """The type that tangents are held in."""
    return {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, full)


@contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Let float32 matrix products use TF32 inside the block, where a reduced precision was asked for."""
    if precision == "float32" or not torch.cuda.is_available():
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
