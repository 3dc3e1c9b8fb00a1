"""Faster arithmetic for tangents, and where it is allowed.

Embeddings, references and the choice of nodes are always computed in the encoder's own type. Tangents may run with
TF32 products or in bfloat16: contributions are judged by a residual that is measured on the result itself, and where a
text then misses its tolerance it is computed again in full precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from attribution_core.errors import SettingError

Precision = Literal["float32", "tf32", "bf16"]
PRECISIONS = ("auto", "float32", "tf32", "bf16")


def choose_precision(asked: str, device: torch.device, dtype: torch.dtype) -> Precision:
    """The precision of tangents: TF32 on GPUs and full on CPUs unless asked for; an encoder in float64 has no other.

    Raises:
        SettingError: for an unknown precision, or a reduced one beside float64.
    """
    if asked not in PRECISIONS:
        raise SettingError(f"precision {asked!r} is unknown; allowed are {', '.join(PRECISIONS)}")
    if dtype == torch.float64:
        if asked in ("tf32", "bf16"):
            raise SettingError(f"precision {asked!r} does not go with dtype float64")
        return "float32"
    if asked == "auto":
        return "tf32" if device.type == "cuda" else "float32"
    return "tf32" if asked == "tf32" else "bf16" if asked == "bf16" else "float32"


def tangent_dtype(precision: Precision, full: torch.dtype) -> torch.dtype:
    """The type that tangents are held in."""
    return torch.bfloat16 if precision == "bf16" else full


@contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Let float32 matrix products use TF32 inside the block, where that was asked for."""
    if precision != "tf32" or not torch.cuda.is_available():
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
