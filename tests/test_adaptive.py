"""Texts with a steep path get nodes where it is steep, and so meet a tolerance that the sample's mesh misses."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from tiny_models import TinyModels, random_text

from attribution_core import Attributor, Contributions, contributions
from attribution_core.quadrature.adaptive import INTERVAL_NODES, adaptive_rule
from attribution_core.quadrature.rules import Doubles, gauss
from attribution_core.rounds.refinement import FINEST_TOLERANCE


class SteepPath:
    """e(α) with a step of a given width at a random place, in a random direction, on a smooth curve."""

    def __init__(self, rng: random.Random, width: float) -> None:
        numbers = np.random.default_rng(rng.randrange(1 << 30))
        self.smooth_D, self.step_D = numbers.normal(size=(2, 6))
        self.at, self.width = rng.uniform(0.1, 0.9), width

    def embedded(self, alpha: Doubles) -> Doubles:
        return np.outer(np.sin(alpha), self.smooth_D) + np.outer(np.tanh((alpha - self.at) / self.width), self.step_D)

    def summed(self, alpha: Doubles, weight: Doubles) -> Doubles:
        slope = np.cosh(np.clip((alpha - self.at) / self.width, -300, 300)) ** -2.0 / self.width
        return np.asarray(weight @ (np.outer(np.cos(alpha), self.smooth_D) + np.outer(slope, self.step_D)))

    def missed(self, alpha: Doubles, weight: Doubles) -> float:
        ends = self.embedded(np.array([0.0, 1.0]))
        return float(np.linalg.norm(self.summed(alpha, weight) - (ends[1] - ends[0])))


@pytest.mark.parametrize("width", [0.3, 1e-2, 1e-3])
def test_nodes_gather_where_the_path_is_steep(width: float, rng: random.Random) -> None:
    """A step a thousandth wide is met with fewer nodes than one rule over the whole path would ever do with."""
    path = SteepPath(rng, width)
    rule = adaptive_rule(path.summed, path.embedded, 1e-4, 256)
    assert rule is not None
    alpha, weight = rule
    assert path.missed(alpha, weight) <= 1e-4
    assert (np.diff(alpha) > 0).all()
    assert ((alpha > 0) & (alpha < 1)).all()
    assert weight.sum() == pytest.approx(1.0)
    assert len(alpha) % INTERVAL_NODES == 0
    if width <= 1e-3:
        assert path.missed(*gauss(256)) > 1e-2
        near = np.abs(alpha - path.at) < 20 * width
        assert near.sum() >= len(alpha) / 4


def test_too_many_intervals_are_refused(rng: random.Random) -> None:
    """A step that no allowed number of nodes can follow is told as such, and soon."""
    path = SteepPath(rng, 1e-9)
    calls: list[int] = []

    def summed(alpha: Doubles, weight: Doubles) -> Doubles:
        calls.append(len(alpha))
        return path.summed(alpha, weight)

    assert adaptive_rule(summed, path.embedded, 1e-6, 64) is None
    assert sum(calls) <= 2 * 64


@pytest.mark.rotates(2)
@pytest.mark.parametrize("way", ["forward", "reverse", "partner"])
@pytest.mark.parametrize("products", ["structured", "generic"])
def test_a_rule_of_its_own_explains_the_same(
    products: str, way: str, tiny: TinyModels, rng: random.Random, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Texts sent there by force, beside batch-mates and alone: what 200 nodes of one rule find, to the tolerance."""
    model = tiny.load(rng.choice(["bert", "mpnet", "roberta"]), seed=seed % 5 + 1)
    pairs = [(random_text(rng, 2), random_text(rng, 7)), (random_text(rng, 4), random_text(rng, 5))]
    settings: dict[str, Any] = {"layer": 1, "products": products, "way": way}
    exact = Attributor(model, nodes=200, **settings).attribute_pairs(pairs)
    monkeypatch.setattr(contributions, "STEEP_NODES", 1)
    attributor = Attributor(model, tolerance=1e-4, **settings)
    mesh = attributor.contributor.mesh
    monkeypatch.setattr(type(mesh), "start", lambda *_, **__: 1)
    together = attributor.attribute_pairs(pairs)
    for pair, found, wanted in zip(pairs, together, exact, strict=True):
        (alone,) = attributor.attribute_pairs([pair])
        for side in (found.a, found.b):
            assert side.converged
            assert side.nodes % INTERVAL_NODES == 0
        assert (found.a.nodes, found.b.nodes) == (alone.a.nodes, alone.b.nodes)
        unit = max(1.0, float(np.abs(wanted.matrix).max()))
        np.testing.assert_allclose(found.matrix / unit, wanted.matrix / unit, atol=1e-3, rtol=0)
        np.testing.assert_allclose(found.matrix / unit, alone.matrix / unit, atol=2e-5, rtol=0)


def test_a_path_that_nothing_follows_still_gets_the_most_nodes(
    tiny: TinyModels, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the adaptive rule is refused the ladder goes on to its end, and the text says that it has not converged.

    No rule is looked for again at the next count: it would cost as many nodes each time.
    """
    asked: list[float] = []
    monkeypatch.setattr(contributions, "STEEP_NODES", 4)
    monkeypatch.setattr(contributions, "adaptive_rule", lambda *given: asked.append(given[2]))
    attributor = Attributor(tiny.load("bert"), tolerance=1e-7, max_nodes=96)
    found: list[Contributions] = attributor.contributions(attributor.read([random_text(rng, 9)], "text"))
    # Below this residual float32 shows no gain by more nodes, and the ladder ends early.
    fine = found[0].explained.residual <= FINEST_TOLERANCE
    assert found[0].explained.nodes == 96 or found[0].explained.converged or fine
    assert len(asked) == 1
