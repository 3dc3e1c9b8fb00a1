"""Behind the cut: an unread sentence that matches the query better than every sentence that the model read.

The model reads a text up to its limit of tokens (``cut_at`` in ``texts``). The rule encodes the text's sentences one by
one. It says "the unread part may hold a better match", no more: an unread text on the query's subject sets it off as
well.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jobs.analysis.failures.result import Rate

NAME = "behind_the_cut"
# Of MiniLM, by tests/benchmarks/planted.py on 2026-11-29.
MEASURED = (
    Rate(collection="Cranfield", planted=60, controls=60, recognised=0.55, false_alarms=0.0, of="unrelated tails"),
    Rate(collection="SciFact", planted=60, controls=60, recognised=0.88, false_alarms=0.0, of="unrelated tails"),
    Rate(collection="Cranfield", planted=60, controls=60, recognised=0.55, false_alarms=0.33, of="on-topic tails"),
    Rate(collection="SciFact", planted=60, controls=60, recognised=0.88, false_alarms=0.48, of="on-topic tails"),
)


def better_unread(scores: NDArray[np.float64], starts: Sequence[int], cut_at: int | None) -> int | None:
    """Return the unread sentence that scores above every sentence that was read; None where there is none.

    ``scores`` [n] are the sentences' scores against the query, each encoded by itself; ``starts`` [n] the characters
    where they begin. A sentence that begins before ``cut_at`` counts as read.
    """
    if cut_at is None:
        return None
    unread = np.asarray(starts) >= cut_at
    if unread.all() or not unread.any():
        return None
    best = int(np.argmax(np.where(unread, scores, -np.inf)))
    return best if scores[best] > scores[~unread].max() else None
