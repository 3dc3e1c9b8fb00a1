"""Properties of a worker's model and process that a run records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attribution_core.model.own_precision import OwnPrecision


@dataclass(frozen=True)
class WorkerFacts:
    """Properties of a worker, known when its model is loaded.

    ``reference`` has, by role, the token that replaces each word in a reference text. ``own_precision`` compares the
    scores of a half-precision checkpoint with those of its float32 copy; None for a float32 checkpoint. ``probe`` is
    the embedding of an index's probe as a query, with which readers check that a vector is of the same model.
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
    probe: list[float] | None = None
