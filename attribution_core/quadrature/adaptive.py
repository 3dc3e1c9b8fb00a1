"""Adaptive quadrature for a text whose path is steep where those of the sample are not.

The path is cut into intervals, each with a Gauss–Legendre rule of few nodes. The error of an interval is known: the
integral of J_g(γ(α)) (x − r) over [a, b] is e(γ(b)) − e(γ(a)), and both sides cost one direction and two forward
passes. Intervals of the largest error are halved until the whole sum is near enough, so that nodes gather at the steep
place and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre

from attribution_core.quadrature.rules import Doubles

INTERVAL_NODES = 8
FIRST_INTERVALS = 4
# Halved together: every interval whose error is at least this share of the largest.
WORST_SHARE = 0.25


@dataclass(frozen=True, eq=False)
class Interval:
    """[low, high] of the path, its nodes α and weights, and the vector by which their sum differs from the integral."""

    low: float
    high: float
    alpha_N: Doubles
    weight_N: Doubles
    defect_D: Doubles


def adaptive_rule(
    summed: Callable[[Doubles, Doubles], Doubles],
    embedded: Callable[[Doubles], Doubles],
    goal: float,
    max_nodes: int,
) -> tuple[Doubles, Doubles] | None:
    """Return nodes α [N] and weights [N] with which a text's sum is within ``goal`` of its target; None if too many.

    ``summed`` gives Σ_k w_k J_g(γ(α_k)) (x − r), [D], for nodes and weights, ``embedded`` e(γ(α)), [N, D].
    """
    x, weight = legendre.leggauss(INTERVAL_NODES)

    def intervals(bounds: list[tuple[float, float]]) -> list[Interval]:
        ends_ND = embedded(np.array(bounds).flatten()).reshape(len(bounds), 2, -1)
        made = []
        for (low, high), (start_D, end_D) in zip(bounds, ends_ND, strict=True):
            alpha_N = low + (high - low) * (x + 1.0) / 2.0
            weight_N = weight * (high - low) / 2.0
            made.append(Interval(low, high, alpha_N, weight_N, summed(alpha_N, weight_N) - (end_D - start_D)))
        return made

    edges = np.linspace(0.0, 1.0, FIRST_INTERVALS + 1)
    there = intervals(list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)))
    while np.linalg.norm(sum(one.defect_D for one in there)) > goal:
        size = [float(np.linalg.norm(one.defect_D)) for one in there]
        steep = [at for at, own in enumerate(size) if own >= WORST_SHARE * max(size)]
        if (len(there) + len(steep)) * INTERVAL_NODES > max_nodes:
            return None
        halves = []
        for at in steep:
            middle = (there[at].low + there[at].high) / 2.0
            halves += [(there[at].low, middle), (middle, there[at].high)]
        there = [one for at, one in enumerate(there) if at not in steep] + intervals(halves)
    there.sort(key=lambda one: one.low)
    return np.concatenate([one.alpha_N for one in there]), np.concatenate([one.weight_N for one in there])
