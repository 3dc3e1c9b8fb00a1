"""A sentence would win: a sentence of the right document, encoded by itself, outranks the document above it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from jobs.analysis.failures.result import Rate

NAME = "sentence_would_win"
# Of MiniLM, by tests/benchmarks/planted.py on 2026-11-29.
MEASURED = (
    Rate(collection="Cranfield", planted=60, controls=60, recognised=0.8, false_alarms=0.2),
    Rate(collection="SciFact", planted=60, controls=60, recognised=0.88, false_alarms=0.48),
)


def winning_sentence(scores: NDArray[np.float64], winner: float) -> int | None:
    """Return the best sentence of a document where it scores above ``winner``, the score of the wrong document; else
    None.

    ``scores`` [n] are the sentences' scores against the query, each encoded by itself. A document of one sentence has
    none: encoding it again changes nothing.
    """
    if len(scores) < 2:
        return None
    best = int(np.argmax(scores))
    return best if scores[best] > winner else None
