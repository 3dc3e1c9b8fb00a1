"""Equal to the paper's formula, completed and as it is, for every family, pooling, cut, similarity, grouping and way.

Weights, texts and the combinations beyond family × pooling are drawn anew each run from the printed seed.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
from oracle import Oracle, OraclePair, Side
from tiny_models import FAMILIES, POOLINGS, TinyModels, random_text

from attribution_core import Attributor, PairAttribution

PRODUCTS = ("generic", "structured")
WAYS = ("forward", "reverse", "partner")
LAYERS = (0, 1, -2, -1)
UNITS = ("token", "word", "sentence")
SUMS_TO = ("difference", "score")
NODES = 50


def check_pair(pair: PairAttribution, judge: OraclePair, tolerance: float) -> None:
    """Matrix and all terms equal, in units of ‖e(a)‖‖e(b)‖ where the similarity is dot."""
    unit = 1.0 if pair.similarity == "cosine" else judge.norms
    expected = judge.grouped(pair.a.groups.of_token, pair.b.groups.of_token, pair.sums_to)
    np.testing.assert_allclose(pair.matrix / unit, expected / unit, atol=tolerance, rtol=0)
    np.testing.assert_allclose(pair.row_sums / unit, expected.sum(1) / unit, atol=10 * tolerance, rtol=0)
    for name in ("score", "reference_a", "reference_b", "reference_ab"):
        assert getattr(pair, name) / unit == pytest.approx(getattr(judge, name) / unit, abs=tolerance), name
    assert pair.total / unit == pytest.approx(expected.sum() / unit, abs=20 * tolerance)


def grouped(side: Side, of_token: tuple[int, ...]) -> np.ndarray:
    """The oracle's token contributions summed over groups."""
    out = np.zeros((max(of_token) + 1, side.contributions_SD.shape[1]))
    for row, group in zip(side.contributions_SD, of_token, strict=True):
        out[group] += row
    return out


@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_matrix_equals_the_papers_formula(
    family: str, pooling: str | tuple[str, ...], tiny: TinyModels, rng: random.Random, seed: int
) -> None:
    """A wrong factor, node, layer, mask or pooling weight in any way of multiplying would show here."""
    turn = FAMILIES.index(family) + POOLINGS.index(pooling) + seed
    layer = LAYERS[turn % 4]
    similarity = ("cosine", "dot")[turn // 4 % 2]
    head: dict[str, object] = rng.choice(
        [{}, {"dense": (10, "tanh")}, {"normalize": True}, {"dense": (16, "identity"), "normalize": True}]
    )
    model = tiny.load(family, pooling=pooling, seed=seed % 7 + 1, similarity=similarity, **head)
    a, b = random_text(rng, 5, sentences=True), random_text(rng, 8, sentences=True)
    print(f"layer {layer}, {similarity}, head {head}, texts {a!r} and {b!r}")
    judge = Oracle(model, layer=layer, similarity=similarity, nodes=NODES).pair(a, b)
    for products in PRODUCTS if isinstance(pooling, str) else PRODUCTS[:1]:
        for way in WAYS:
            unit, sums_to = UNITS[turn % 3], SUMS_TO[turn % 2]
            turn += 1
            attributor = Attributor(
                model,
                layer=layer,
                groups=unit,
                quadrature="riemann",
                nodes=NODES,
                products=products,
                way=way,
                sums_to=sums_to,
            )
            pair = attributor.attribute(a, b)
            assert way in (pair.a.way, pair.b.way)
            assert pair.a.nodes == pair.b.nodes == NODES
            assert pair.layer == layer % 4
            check_pair(pair, judge, 1e-5)


@pytest.mark.parametrize("products", PRODUCTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_contributions_equal_the_formula_in_float64(
    family: str, products: str, tiny: TinyModels, rng: random.Random, seed: int
) -> None:
    """To 1e-10: an approximation that float32 hides, or a constant of the wrong type, would show."""
    turn = FAMILIES.index(family) + seed
    layer, similarity = LAYERS[turn % 4], ("cosine", "dot")[turn // 4 % 2]
    model = tiny.load(
        family, pooling=POOLINGS[turn % 5], seed=seed % 7 + 1, dense=(12, "tanh"), normalize=True, similarity=similarity
    )
    texts = [random_text(rng, 4), random_text(rng, 9, sentences=True)]
    oracle = Oracle(model, layer=layer, similarity=similarity, nodes=NODES)
    sides = [oracle.side(text) for text in texts]
    for way, unit in zip(WAYS[:2], rng.sample(UNITS, 2), strict=True):
        attributor = Attributor(
            model,
            layer=layer,
            groups=unit,
            quadrature="riemann",
            nodes=NODES,
            dtype="float64",
            products=products,
            way=way,
        )
        for text, side in zip(attributor.contributions(attributor.read(texts, "text")), sides, strict=True):
            assert text.values_GD.dtype == np.float64
            expected = grouped(side, text.explained.groups.of_token)
            np.testing.assert_allclose(text.values_GD, expected, atol=1e-10, rtol=1e-10)
            np.testing.assert_allclose(text.embedding_D, side.embedding_D, atol=1e-10)
            np.testing.assert_allclose(text.reference_D, side.reference_D, atol=1e-10)


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_matrix_behind_a_prompt_equals_the_formula(
    family: str, include_prompt: bool, tiny: TinyModels, rng: random.Random, seed: int
) -> None:
    """Prompt tokens stay in the reference and, where the model says so, out of the pooling."""
    model = tiny.load(
        family,
        pooling=rng.choice(POOLINGS),
        prompts={"q": "question: "},
        include_prompt=include_prompt,
        seed=seed % 7 + 1,
    )
    a, b = random_text(rng, 4), random_text(rng, 6)
    judge = Oracle(model, layer=-2, nodes=20).pair(a, b, prompt="question: ")
    for sums_to in SUMS_TO:
        attributor = Attributor(
            model,
            groups="token",
            quadrature="riemann",
            nodes=20,
            prompt_a="q",
            prompt_b="q",
            sums_to=sums_to,
            way=rng.choice(WAYS),
        )
        pair = attributor.attribute(a, b)
        assert "prompt" in pair.a.groups.kinds
        check_pair(pair, judge, 1e-5)


def test_gauss_converges_to_the_integral_of_the_formula(tiny: TinyModels, rng: random.Random) -> None:
    """Many Riemann nodes and few Gauss nodes meet in the same matrix: the mesh bends the parameter, not the path."""
    model = tiny.load("roberta")
    a, b = random_text(rng, 3), random_text(rng, 3)
    # The right-hand rule's error falls as 1/N, so that two counts extrapolate to the integral.
    coarse, fine = (Oracle(model, layer=1, nodes=nodes).pair(a, b).matrix for nodes in (200, 400))
    pair = Attributor(model, layer=1, groups="token", tolerance=1e-4, sums_to="difference").attribute(a, b)
    assert pair.converged
    assert max(pair.a.nodes, pair.b.nodes) < 200
    np.testing.assert_allclose(pair.matrix, 2 * fine - coarse, atol=2e-3)
