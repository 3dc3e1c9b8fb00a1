"""Equal to the paper's formula, completed and as it is: the one place where every family meets the oracle.

Each family × pooling takes one combination of cut, grouping, similarity, head and sums, drawn from ``--seed``. By
default one pair of them in six is run, so that every family and every pooling occurs; ``-m long`` has the others.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from oracle import Oracle, check_pair, grouped
from tiny_families import FAST, MORE_FAMILIES
from tiny_models import FAMILIES, LAYERS, POOLINGS, TinyModels, random_text

from attribution_core import Attributor

PRODUCTS = ("generic", "structured")
WAYS = ("forward", "reverse", "partner")
CUTS = (0, 1, -2, -1)
UNITS = ("token", "word", "sentence")
SIMILARITIES = ("cosine", "dot")
SUMS_TO = ("difference", "score")
HEADS: tuple[dict[str, Any], ...] = (
    {},
    {"normalize": True},
    {"dense": (10, "tanh")},
    {"dense": (16, "identity"), "normalize": True},  # Sentence-T5 and GTR
)
# The rule is the same whatever its number of nodes: a wrong one shows with few.
NODES = 8


def pooling_of(family: str, pooling: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """Decoders are pooled by their last token, in place of the first."""
    decoder = family.startswith(("qwen", "gemma", "llama", "mistral"))
    return "lasttoken" if decoder and pooling == "cls" else pooling


@pytest.mark.rotates(6)
@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
@pytest.mark.parametrize("family", [*FAMILIES, *MORE_FAMILIES])
def test_matrix_equals_the_papers_formula(
    family: str, pooling: str | tuple[str, ...], tiny: TinyModels, rng: random.Random, seed: int
) -> None:
    """A wrong factor, node, layer, mask, bias, norm or pooling weight in any direction would show here."""
    pooling = pooling_of(family, pooling)
    layer, unit, similarity, head = rng.choice(CUTS), rng.choice(UNITS), rng.choice(SIMILARITIES), rng.choice(HEADS)
    print(f"layer {layer}, {unit}, {similarity}, {pooling}, {head}")
    model = tiny.load(family, pooling=pooling, seed=seed % 3, similarity=similarity, **head)
    a, b = random_text(rng, 5, sentences=True), random_text(rng, 8, sentences=True)
    oracle = Oracle(model, layer=layer, similarity=similarity, nodes=NODES)
    judge = oracle.pair(a, b)
    settings: dict[str, Any] = {"layer": layer, "groups": unit, "quadrature": "riemann", "nodes": NODES}
    fast = isinstance(pooling, str) and (family in FAMILIES or family in FAST)
    for products in PRODUCTS if fast else PRODUCTS[:1]:
        for way in WAYS:
            sums_to = rng.choice(SUMS_TO)
            attributor = Attributor(model, products=products, way=way, sums_to=sums_to, **settings)
            pair = attributor.attribute(a, b)
            assert way in (pair.a.way, pair.b.way)
            assert pair.a.nodes == pair.b.nodes == NODES
            assert pair.layer == layer % LAYERS
            check_pair(pair, judge)


@pytest.mark.parametrize("family", [*FAMILIES, *MORE_FAMILIES])
def test_contributions_equal_the_formula_in_float64(
    family: str, tiny: TinyModels, rng: random.Random, seed: int
) -> None:
    """To 1e-10: an approximation that float32 hides, or a constant of the wrong type, would show."""
    layer, similarity = rng.choice(CUTS), rng.choice(SIMILARITIES)
    pooling = pooling_of(family, rng.choice(POOLINGS[:5]))
    model = tiny.load(family, pooling=pooling, seed=seed % 3, dense=(12, "tanh"), normalize=True, similarity=similarity)
    texts = [random_text(rng, 4), random_text(rng, 9, sentences=True)]
    oracle = Oracle(model, layer=layer, similarity=similarity, nodes=NODES)
    # Some families compute parts of themselves in float32 whatever they are asked for.
    casts = Attributor(model).encoder.family.casts
    for products in PRODUCTS if family in FAMILIES else PRODUCTS[:1]:
        for way, unit in zip(WAYS[:2], rng.sample(UNITS, 2), strict=True):
            settings: dict[str, Any] = {"layer": layer, "groups": unit, "quadrature": "riemann", "nodes": NODES}
            attributor = Attributor(model, dtype="float64", products=products, way=way, **settings)
            for text, own in zip(attributor.contributions(attributor.read(texts, "text")), texts, strict=True):
                side = oracle.side(own)
                assert text.values_GD.dtype == np.float64
                expected = grouped(side, text.explained.groups.of_token)
                allowed = (1e-5 if casts else 1e-10) * max(1.0, float(np.abs(expected).max()))
                np.testing.assert_allclose(text.values_GD, expected, rtol=0, atol=allowed)
                np.testing.assert_allclose(text.embedding_D, side.embedding_D, atol=allowed)
                np.testing.assert_allclose(text.reference_D, side.reference_D, atol=allowed)


@pytest.mark.rotates(2)
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
        check_pair(pair, judge)


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
