"""What a worker found out about its model, which a run records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attribution_core.model.own_precision import OwnPrecision


@dataclass(frozen=True)
class WorkerFacts:
    """What a worker is, once its model is loaded.

    ``reference`` names what stands in place of a word in a reference, by role; ``own_precision`` says how far a
    half-precision checkpoint's scores are from the float32 copy's.
    """

    fingerprint: str
    layer: int
    similarity: str
    versions: dict[str, str]
    device: str
    host: str
    process: int
    reference: dict[str, str] = field(default_factory=dict)
    own_precision: OwnPrecision | None = None
