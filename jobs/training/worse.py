"""Whether a training made the model worse on its dev pairs, and what to do then."""

from __future__ import annotations

# Of a correlation; what is shown has two digits of its hundredfold.
LEAST = 5e-5


def is_worse(before: float | None, after: float | None) -> bool:
    """Whether the dev Spearman correlation fell from ``before`` to ``after``, both in [-1, 1]; False without one."""
    return before is not None and after is not None and not after > before - LEAST


def what_to_do(keep: str, kept_epoch: int, best_epoch: int, best: float | None, before: float) -> str:
    """One sentence of advice; ``best_epoch`` reached ``best``, and the model has the weights of ``kept_epoch``."""
    if keep == "last" and best is not None and best_epoch != kept_epoch and not is_worse(before, best):
        return f"keep: best takes epoch {best_epoch}, which reached {100 * best:.2f}"
    return (
        "check that scale is the range of the scores and that high ones mean similar texts; then try a smaller "
        "learning_rate, more pairs or other epochs"
    )
