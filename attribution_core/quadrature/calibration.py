"""The quadrature of a model and layer, fitted once to a built-in sample of texts.

The sample is fixed, so that the nodes, and with them every result, depend on nothing but the model, the layer and the
text itself: not on the shard a text is in, nor on which text was asked for first. The sample only decides the
places and weights of nodes; whether they suffice is measured on every text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.polynomial import chebyshev, legendre

from attribution_core.errors import ModelError
from attribution_core.quadrature.rules import (
    MESH_POINTS,
    NODE_COUNTS,
    UNIFORM,
    Doubles,
    Mesh,
    gauss,
    ladder,
    mesh_from_speeds,
    mesh_points,
)

SAMPLE = (
    "Rain.",
    "Where is the station?",
    "A dog runs after a red ball.",
    "The committee will publish its report on Tuesday.",
    "cheap flights from Lisbon to Oslo in October",
    "She has not answered any of the three letters that he wrote last winter.",
    "Interest rates rose by 0.25 percentage points, the fourth increase in a row.",
    "how to sort a list of dictionaries by a value of the dictionary",
    "Two children in yellow coats are feeding ducks at the edge of a frozen pond.",
    "The proof is by induction on the number of vertices of the graph.",
    "Heat transfer to a slender cone in hypersonic flow was measured at several angles of attack.",
    "No refunds are given after fourteen days unless the goods are faulty.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "Return the absolute value of a number; the argument may be an integer or a floating point number.",
    "The old lighthouse keeper climbed the stairs every evening, counted the ships on the horizon, wrote their number "
    "into a book bound in green leather, and lit the lamp before the fog came in from the sea.",
    "Patients who received the drug slept longer than those who did not, but the difference was small, and it "
    "vanished when the analysis was adjusted for age, weight and the hour at which the dose had been taken.",
    "A library lends books to its members. Every member may borrow up to ten books for three weeks, and may extend a "
    "loan twice unless somebody else has reserved the book. Books that come back late cost ten cents a day. The "
    "oldest volumes, which stand behind glass on the second floor, can be read only in the reading room.",
)


# Rules with more nodes than this are left as they are: the sample is too small to better them.
MOST_FITTED = 16
# Texts whose lengths differ by at most this factor count as of the same length.
LIKE = 2.0
NEAREST = 3
FINE_POINTS = 64
# A rule is replaced by its fit only where the sample's residual falls below this share of what it was.
WORTH_FITTING = 0.8


@dataclass(frozen=True, eq=False)
class CalibratedMesh:
    """The nodes for one model and layer, and how many a text is likely to need.

    ``fitted`` holds nodes and weights by their count, better than the mesh's own; ``needed`` the tokens of each text of
    the sample, ascending, and the nodes that met the tolerance on it; ``needed_by_queries`` is the same for the finer
    tolerance of queries, empty where they have that of all texts.
    """

    mesh: Mesh = UNIFORM
    fitted: Mapping[int, tuple[Doubles, Doubles]] = field(default_factory=dict)
    needed: tuple[tuple[int, int], ...] = ()
    needed_by_queries: tuple[tuple[int, int], ...] = ()

    def for_polynomials(self) -> CalibratedMesh:
        """The mesh alone, and twice the nodes: a polynomial through the nodes of a Gauss rule has half its degree."""
        twice = [tuple((length, 2 * count) for length, count in some) for some in (self.needed, self.needed_by_queries)]
        return CalibratedMesh(self.mesh, {}, *twice)

    def nodes(self, count: int) -> tuple[Doubles, Doubles]:
        """Nodes α [N] and weights [N]."""
        return self.fitted[count] if count in self.fitted else gauss(count, self.mesh)

    def start(self, tokens: int, *, query: bool = False) -> int:
        """Return the node count to try first: the median of what the sample's texts of about that length needed.

        Where the sample has none, it is what those of the nearest lengths needed: long texts need more.
        """
        needed = self.needed_by_queries if query and self.needed_by_queries else self.needed
        if not needed:
            return NODE_COUNTS[0]
        like = [count for length, count in needed if tokens / LIKE <= length <= tokens * LIKE]
        if not like:
            nearest = sorted(needed, key=lambda one: (abs(math.log(one[0] / tokens)), one))
            like = [count for _, count in nearest[:NEAREST]]
        return sorted(like)[(len(like) - 1) // 2]


def calibrate(
    path_BND: Doubles,
    tokens: Sequence[int],
    tolerance: float,
    max_nodes: int,
    query_tolerance: float | None = None,
) -> CalibratedMesh:
    """Mesh, fitted rules and first counts, from the embeddings of some texts at :func:`mesh_points` of their paths.

    ``tokens`` [B] are the texts' lengths. ``query_tolerance`` is that of queries, where it is another.
    """
    # One polynomial for each coordinate of each text, through the embeddings; its derivative is exact for it.
    degree = path_BND.shape[1] - 1
    values = np.moveaxis(path_BND, 1, 0).reshape(degree + 1, -1)
    slope = 2.0 * chebyshev.chebder(chebyshev.chebfit(2.0 * mesh_points() - 1.0, values, degree))
    norm_B = np.linalg.norm(path_BND[:, -1], axis=1)
    slope /= np.repeat(norm_B, path_BND.shape[2])

    def basis(alpha: Doubles) -> Doubles:
        return np.asarray(chebyshev.chebvander(2.0 * alpha - 1.0, len(slope) - 1), np.float64)

    def derivative(alpha: Doubles) -> Doubles:
        return np.moveaxis((basis(alpha) @ slope).reshape(len(alpha), len(path_BND), -1), 0, 1)

    mesh = mesh_from_speeds(np.linalg.norm(derivative(mesh_points()), axis=2))
    counts = ladder(max_nodes)
    family = PathFamily.of(derivative)
    fitted = {count: rule for count in counts if count <= MOST_FITTED and (rule := family.fit(*gauss(count, mesh)))}
    calibrated = CalibratedMesh(mesh, fitted)
    target_BD = (path_BND[:, -1] - path_BND[:, 0]) / norm_B[:, None]
    residuals: dict[int, Doubles] = {}
    for count in counts:
        alpha, weight = calibrated.nodes(count)
        # Of polynomials only the basis is integrated.
        integral_BD = ((weight @ basis(alpha)) @ slope).reshape(target_BD.shape)
        residuals[count] = np.linalg.norm(integral_BD - target_BD, axis=1)

    def needed_at(tolerance: float) -> tuple[tuple[int, int], ...]:
        needed = np.full(len(path_BND), max_nodes)
        for count in reversed(counts):
            needed = np.where(residuals[count] <= tolerance, count, needed)
        return tuple(sorted(zip(map(int, tokens), map(int, needed), strict=True)))

    by_queries = () if query_tolerance in (None, tolerance) else needed_at(float(query_tolerance or tolerance))
    return replace(calibrated, needed=needed_at(tolerance), needed_by_queries=by_queries)


@dataclass(frozen=True, eq=False)
class PathFamily:
    """The principal components over [0, 1] of the derivatives along some paths.

    ``series`` are their Chebyshev coefficients [n, J], ``integrals`` [J] their integrals, ``strength`` [J] how much of
    each a text has. A quadrature that is exact for the strong ones serves texts that are like the sample.
    """

    series: Doubles
    integrals: Doubles
    strength: Doubles

    @staticmethod
    def of(derivative: Callable[[Doubles], Doubles]) -> PathFamily:
        """The components of derivative(α [n]), [B, n, D]."""
        x, weight = legendre.leggauss(FINE_POINTS)
        alpha, weight = (x + 1.0) / 2.0, weight / 2.0
        slope_BND = derivative(alpha)
        curves = np.moveaxis(slope_BND, 1, 0).reshape(FINE_POINTS, -1)
        if not np.isfinite(curves).all():
            raise ModelError(
                "the model's embeddings of ordinary sentences are zero or not finite, so there is nothing to "
                "attribute: its weights are damaged"
            )
        u, strength, _ = np.linalg.svd(np.sqrt(weight)[:, None] * curves, full_matrices=False)
        kept = max(1, int((strength > 1e-9 * strength[0]).sum()))
        components = u[:, :kept] / np.sqrt(weight)[:, None]
        order = np.arange(MESH_POINTS - 1)
        by_legendre = (2 * order + 1)[:, None] * (legendre.legvander(x, order[-1]).T @ (weight[:, None] * components))
        # A path through MESH_POINTS has a derivative of so many terms: as many points give its other series exactly.
        angle = math.pi * (order + 0.5) / len(order)
        series = 2.0 / len(order) * np.cos(np.outer(order, angle)) @ legendre.legval(np.cos(angle), by_legendre).T
        series[0] /= 2.0
        return PathFamily(series, weight @ components, strength[:kept] / math.sqrt(len(slope_BND)))

    def fit(self, alpha: Doubles, weight: Doubles) -> tuple[Doubles, Doubles] | None:
        """Nodes and weights that integrate the family better than those given, None where it is not worth it.

        A generalised Gauss rule in the sense of least squares, found by Levenberg and Marquardt's method.
        """
        both = np.hstack([self.series, np.vstack([2.0 * chebyshev.chebder(self.series), 0.0 * self.series[:1]])])
        order = np.arange(len(both))
        n = len(alpha)

        def curves(alpha: Doubles) -> tuple[Doubles, Doubles]:
            """The components and their slopes, each [n, J]."""
            values = np.cos(order * np.arccos(2.0 * alpha - 1.0)[:, None]) @ both
            return values[:, : len(self.strength)], values[:, len(self.strength) :]

        def residual(weight: Doubles, at: Doubles) -> Doubles:
            return np.asarray(self.strength * (weight @ at - self.integrals))

        point = np.concatenate([alpha, weight])
        at, slope = curves(alpha)
        error = residual(weight, at)
        first = cost = float(error @ error)
        damping = 1e-3
        for _ in range(60):
            jacobian = np.concatenate([point[n:, None] * slope, at]).T * self.strength[:, None]
            normal, gradient = jacobian.T @ jacobian, jacobian.T @ error
            step = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-300), gradient)
            following = point - step
            inside = bool((following[:n] > 0).all() and (following[:n] < 1).all() and (following[n:] > 0).all())
            new_at, new_slope = curves(following[:n]) if inside else (at, slope)
            new = residual(following[n:], new_at) if inside else error
            if inside and float(new @ new) < cost:
                settled = float(new @ new) > cost * (1.0 - 1e-6)
                point, at, slope, error, cost = following, new_at, new_slope, new, float(new @ new)
                damping = max(damping / 5.0, 1e-12)
                if settled:
                    break
            else:
                damping *= 5.0
                if damping > 1e6:
                    break
        if not cost < WORTH_FITTING**2 * first:
            return None
        ascending = np.argsort(point[:n])
        return point[:n][ascending], point[n:][ascending]
