"""Nodes and weights for the path integral from the reference (α = 0) to the text (α = 1).

The paper uses right-hand Riemann sums. The integrand peaks somewhere on the path, always in much the same place for
one model and layer; a *mesh* learned from some texts puts nodes there: Gauss–Legendre in a variable u(α) whose speed
follows the arc length of the embedding along the path, de Boor's equidistribution. Since u is analytic (the logarithm
of its density is a polynomial), the rule keeps the exponential convergence of Gauss–Legendre. Rules of few nodes are
then fitted to the sample's paths themselves (``attribution_core.quadrature.calibration``).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.polynomial import chebyshev, legendre
from numpy.typing import NDArray

from attribution_core.errors import SettingError

Rule = Literal["gauss", "riemann"]
RULES: tuple[str, ...] = ("gauss", "riemann")
NODE_COUNTS = (
    *(3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256),
    *(320, 384, 448, 512, 640, 768, 896, 1024),
)
MESH_POINTS = 33
MESH_DEGREE = 14
ARC_LENGTH_EXPONENT = 0.7

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Mesh:
    """A density on the path: nodes are close together where ``log_density`` (a Chebyshev series on [0, 1]) is large."""

    log_density: tuple[float, ...] = (0.0,)

    def density(self, alpha: Doubles) -> Doubles:
        """ρ(α), not normalised."""
        return np.asarray(np.exp(chebyshev.chebval(2.0 * alpha - 1.0, self.log_density)))


UNIFORM = Mesh()


def mesh_points() -> Doubles:
    """The α at which the speed of the embedding along the path is sampled: Chebyshev points with both ends."""
    return (1.0 - np.cos(np.linspace(0.0, math.pi, MESH_POINTS))) / 2.0


def mesh_from_speeds(speed_BN: Doubles) -> Mesh:
    """The mesh that serves some texts, from the speeds |de/dα| of each at :func:`mesh_points`.

    Every text counts alike: speeds are divided by the text's mean before they are averaged.
    """
    density_BN = np.maximum(speed_BN, 1e-12 * speed_BN.max(initial=1e-300)) ** ARC_LENGTH_EXPONENT
    density_N = (density_BN / density_BN.mean(1, keepdims=True)).mean(0)
    density_N = np.maximum(density_N, 1e-3 * density_N.max())
    series = chebyshev.chebfit(2.0 * mesh_points() - 1.0, np.log(density_N), MESH_DEGREE)
    return Mesh(tuple(float(c) for c in series))


@functools.lru_cache(maxsize=256)
def gauss(count: int, mesh: Mesh = UNIFORM) -> tuple[Doubles, Doubles]:
    """Nodes α [N] and weights [N] of Gauss–Legendre in the mesh's variable u; the weights sum to 1 as N grows."""
    u, weight = legendre.leggauss(count)
    u, weight = (u + 1.0) / 2.0, weight / 2.0
    grid = np.linspace(0.0, 1.0, 65)
    inner, inner_weight = legendre.leggauss(16)
    pieces = grid[:-1, None] + (inner + 1.0) / 2.0 / 64
    masses = (mesh.density(pieces) * inner_weight / 2.0 / 64).sum(1)
    cumulated = np.concatenate([[0.0], np.cumsum(masses)])
    total = cumulated[-1]
    targets = u * total
    piece = np.clip(np.searchsorted(cumulated, targets) - 1, 0, 63)
    alpha = _solve(mesh, grid[piece], grid[piece + 1], targets - cumulated[piece], inner, inner_weight)
    return alpha, weight * total / mesh.density(alpha)


def riemann(count: int) -> tuple[Doubles, Doubles]:
    """The paper's right-hand rule: α = 1/N, 2/N … 1, weights 1/N."""
    return np.arange(1, count + 1) / count, np.full(count, 1.0 / count)


def check_rule(rule: str, nodes: int | None, max_nodes: int, tolerance: float) -> Rule:
    """Check the settings of a quadrature.

    Raises:
        SettingError: naming the setting, its value and what is allowed.
    """
    if rule not in RULES:
        raise SettingError(f"quadrature {rule!r} is unknown; allowed are {', '.join(RULES)}")
    if nodes is not None and nodes < 1:
        raise SettingError(f"nodes is {nodes}; it must be at least 1")
    if max_nodes < 1:
        raise SettingError(f"max_nodes is {max_nodes}; it must be at least 1")
    if not tolerance > 0:
        raise SettingError(f"tolerance is {tolerance}; it must be above 0")
    return "gauss" if rule == "gauss" else "riemann"


def ladder(max_nodes: int) -> tuple[int, ...]:
    """The node counts that are tried, smallest first, up to and including ``max_nodes``."""
    return (*(count for count in NODE_COUNTS if count < max_nodes), max_nodes)


def _solve(mesh: Mesh, low: Doubles, high: Doubles, target: Doubles, inner: Doubles, inner_weight: Doubles) -> Doubles:
    """The α in [low, high] up to which the density's mass from ``low`` is ``target`` (Newton, kept in the bracket)."""
    left, right = low.copy(), high.copy()
    alpha = (low + high) / 2.0
    for _ in range(60):
        half = (alpha - low) / 2.0
        mass = (mesh.density(low[:, None] + half[:, None] * (inner + 1.0)) * inner_weight).sum(1) * half
        right = np.where(mass > target, alpha, right)
        left = np.where(mass > target, left, alpha)
        following = alpha - (mass - target) / mesh.density(alpha)
        following = np.where((left <= following) & (following <= right), following, (left + right) / 2.0)
        moved = np.abs(following - alpha).max()
        alpha = following
        if moved < 1e-15:
            break
    return np.asarray(alpha)
