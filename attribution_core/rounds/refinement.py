"""Pairs that miss their own tolerance although both of their texts meet theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attribution_core.contributions import Quadrature
from attribution_core.model.encoder import ReadText
from attribution_core.pairs.columns import PairColumns

REFINEMENT = 8.0
# float32 cannot show a residual below this.
FINEST_TOLERANCE = 2e-6


def refine(
    columns: PairColumns,
    at: int,
    again: Callable[[Sequence[ReadText], float], PairColumns],
    quadrature: Quadrature,
    pair_tolerance: float,
) -> None:
    """Compute a pair again with a smaller tolerance on both texts, until its error is small enough.

    A text whose residual meets its tolerance can still miss it for the pair, because what is integrated may be up to
    three times as long as e. Only the pair at hand is refined: what a text gets never depends on its other partners.
    """
    tolerance = quadrature.tolerance
    while (
        abs(columns.error[at]) > pair_tolerance
        and min(one.nodes for one in columns.texts_of(at)) < quadrature.max_nodes
        and tolerance >= FINEST_TOLERANCE
    ):
        tolerance /= REFINEMENT
        columns.replace(at, again([one.text for one in columns.texts_of(at)], tolerance))
