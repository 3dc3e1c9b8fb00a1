"""A rule of its own for a text whose path is steep where those of the sample are not.

The path is cut into panels, each with a Gauss–Legendre rule of few nodes. What a panel misses is known: the integral
of J_g(γ(α)) (x − r) over [a, b] is e(γ(b)) − e(γ(a)), and both sides cost one direction and two forward passes. Panels
that miss most are halved until the whole sum is near enough, so that nodes gather at the steep place and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre

from attribution_core.quadrature.rules import Doubles

PANEL_NODES = 8
FIRST_PANELS = 4
# Halved together: every panel that misses at least this share of what the worst one misses.
WORST_SHARE = 0.25


@dataclass(frozen=True, eq=False)
class Panel:
    """[low, high] of the path, its nodes α and weights, and the vector by which their sum misses the integral."""

    low: float
    high: float
    alpha_N: Doubles
    weight_N: Doubles
    defect_D: Doubles


def panel_rule(
    summed: Callable[[Doubles, Doubles], Doubles],
    embedded: Callable[[Doubles], Doubles],
    goal: float,
    max_nodes: int,
) -> tuple[Doubles, Doubles] | None:
    """Nodes α [N] and weights [N] with which a text's sum misses its target by ``goal`` at the most; None if too many.

    ``summed`` gives Σ_k w_k J_g(γ(α_k)) (x − r), [D], for nodes and weights, ``embedded`` e(γ(α)), [N, D].
    """
    x, weight = legendre.leggauss(PANEL_NODES)

    def panels(bounds: list[tuple[float, float]]) -> list[Panel]:
        ends_ND = embedded(np.array(bounds).flatten()).reshape(len(bounds), 2, -1)
        made = []
        for (low, high), (start_D, end_D) in zip(bounds, ends_ND, strict=True):
            alpha_N = low + (high - low) * (x + 1.0) / 2.0
            weight_N = weight * (high - low) / 2.0
            made.append(Panel(low, high, alpha_N, weight_N, summed(alpha_N, weight_N) - (end_D - start_D)))
        return made

    edges = np.linspace(0.0, 1.0, FIRST_PANELS + 1)
    there = panels(list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)))
    while np.linalg.norm(sum(panel.defect_D for panel in there)) > goal:
        size = [float(np.linalg.norm(panel.defect_D)) for panel in there]
        steep = [at for at, own in enumerate(size) if own >= WORST_SHARE * max(size)]
        if (len(there) + len(steep)) * PANEL_NODES > max_nodes:
            return None
        halves = []
        for at in steep:
            middle = (there[at].low + there[at].high) / 2.0
            halves += [(there[at].low, middle), (middle, there[at].high)]
        there = [panel for at, panel in enumerate(there) if at not in steep] + panels(halves)
    there.sort(key=lambda panel: panel.low)
    return np.concatenate([panel.alpha_N for panel in there]), np.concatenate([panel.weight_N for panel in there])
