"""The mesh of a model and layer, learned once from texts that every run has at hand.

The sample is fixed, so that the nodes, and with them every result, depend on nothing but the model, the layer and the
text itself: not on the shard a text is in, nor on which text was asked for first. The mesh only decides where nodes
stand; whether they suffice is measured on every text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev

from attribution_core.quadrature import UNIFORM, Doubles, Mesh, gauss, ladder, mesh_from_speeds, mesh_points

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


@dataclass(frozen=True)
class CalibratedMesh:
    """A mesh, and the smallest node count that is worth trying: few texts of the sample met the tolerance below it."""

    mesh: Mesh = UNIFORM
    start: int = 4


def calibrate(path_BND: Doubles, tolerance: float, max_nodes: int) -> CalibratedMesh:
    """The mesh for paths given by their embeddings at :func:`mesh_points`, and where to start on the ladder.

    The start is the count that a fifth of the sample needs: lower counts would be tried in vain on most texts.
    """
    points = 2.0 * mesh_points() - 1.0
    # One polynomial for each coordinate of each text, through the embeddings; its derivative is exact for it.
    values = np.moveaxis(path_BND, 1, 0).reshape(len(points), -1)
    series = chebyshev.chebfit(points, values, len(points) - 1)
    slope = 2.0 * chebyshev.chebder(series)

    def derivative(alpha: Doubles) -> Doubles:
        at_nodes = chebyshev.chebval(2.0 * alpha - 1.0, slope)
        return np.moveaxis(at_nodes.reshape(len(path_BND), -1, len(alpha)), 2, 1)

    mesh = mesh_from_speeds(np.linalg.norm(derivative(mesh_points()), axis=2))
    target_BD, norm_B = path_BND[:, -1] - path_BND[:, 0], np.linalg.norm(path_BND[:, -1], axis=1)
    for count in ladder(max_nodes):
        alpha, weight = gauss(count, mesh)
        sum_BD = np.einsum("bnD,n->bD", derivative(alpha), weight)
        residual_B = np.linalg.norm(sum_BD - target_BD, axis=1) / norm_B
        if (residual_B <= tolerance).mean() >= 0.2:
            return CalibratedMesh(mesh, count)
    return CalibratedMesh(mesh, max_nodes)
