"""Attributions of shifted models: no reference terms, and a sum that is the score, at every cut and in every way."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import MORE_FAMILIES
from tiny_models import LAYERS, TinyModels, random_text

from attribution_core.attribution import Attributor
from attribution_core.training.dropout import shared_dropout
from attribution_core.training.references import reference_features
from attribution_core.training.shift import shift_model
from jobs.exactness import COLUMNS, exactness_of

PAIRS = 4


def pairs(rng: random.Random) -> list[tuple[str, str]]:
    # Lengths differ within a pair and a batch, and some texts share theirs.
    return [(random_text(rng, rng.randint(1, 9)), random_text(rng, rng.randint(4, 20))) for _ in range(PAIRS)]


def exactness(found: list[Any]) -> Any:
    return exactness_of({name: np.array([getattr(pair, name) for pair in found]) for name in COLUMNS})


@pytest.mark.parametrize("layer", range(LAYERS))
def test_the_sum_is_the_score_at_every_layer(tiny: TinyModels, rng: random.Random, layer: int) -> None:
    family = rng.choice(("bert", "roberta", "mpnet", "distilbert"))
    model = shift_model(tiny.load(family, normalize=True))
    given = pairs(rng)
    found = Attributor(model, layer=layer, tolerance=1e-4).attribute_pairs(given)
    told = exactness(found)
    assert told.exact, told
    assert told.largest_gap <= 1e-3
    wanted = model.similarity_pairwise(model.encode([a for a, _ in given]), model.encode([b for _, b in given]))
    np.testing.assert_allclose([pair.score for pair in found], wanted, atol=1e-5)


@pytest.mark.parametrize("products", ["generic", "structured"])
@pytest.mark.parametrize("way", ["forward", "reverse", "partner"])
def test_every_way_of_multiplying_sees_the_shift(tiny: TinyModels, rng: random.Random, products: str, way: str) -> None:
    """A head that is not linear is linearised where the shifted embedding is, not where the plain one would be."""
    base = tiny.load("bert")
    width = base.get_sentence_embedding_dimension()
    from sentence_transformers.base.modules import Dense

    torch.manual_seed(rng.randrange(1 << 16))
    base.append(Dense(width, 16, bias=False, activation_function=torch.nn.Tanh()))
    model = shift_model(base)
    common: dict[str, Any] = {"layer": 2, "quadrature": "gauss", "nodes": 24, "dtype": "float64"}
    given = pairs(rng)
    found = Attributor(model, products=products, way=way, **common).attribute_pairs(given)
    judge = Attributor(model, products="generic", way="forward", **common).attribute_pairs(given)
    for one, other in zip(found, judge, strict=True):
        np.testing.assert_allclose(one.matrix, other.matrix, atol=1e-6)
        assert abs(one.total - one.score) < 1e-3
        assert max(abs(one.reference_a), abs(one.reference_b), abs(one.reference_ab)) < 1e-9


@pytest.mark.parametrize("pooling", ["cls", "weightedmean", "lasttoken", ("mean", "cls")])
def test_every_pooling_is_shifted_before_it(tiny: TinyModels, rng: random.Random, pooling: Any) -> None:
    model = shift_model(tiny.load("bert", pooling=pooling))
    told = exactness(Attributor(model, layer=1, tolerance=1e-4).attribute_pairs(pairs(rng)))
    assert told.exact, told
    assert told.largest_gap <= 1e-3


def test_dot_products_sum_too(tiny: TinyModels, rng: random.Random) -> None:
    model = shift_model(tiny.load("bert", similarity="dot"))
    given = pairs(rng)
    found = Attributor(model, tolerance=1e-4).attribute_pairs(given)
    for pair, (a, b) in zip(found, given, strict=True):
        e_a, e_b = model.encode(a), model.encode(b)
        size = float(np.linalg.norm(e_a) * np.linalg.norm(e_b))
        assert pair.score == pytest.approx(float(e_a @ e_b), abs=1e-5 * size)
        assert abs(pair.total - pair.score) <= 1e-3 * size
        assert abs(pair.reference_ab) <= 1e-6 * size


def test_queries_with_a_prompt_sum_too(tiny: TinyModels, rng: random.Random) -> None:
    """Prompt tokens stay in the reference, above and below the cut."""
    model = shift_model(tiny.load("xlm-roberta", prompts={"query": "question: ", "document": "text: "}))
    given = pairs(rng)
    found = Attributor(model, mode="retrieval", layer=1, tolerance=1e-4).attribute_pairs(given)
    assert exactness(found).exact
    wanted = model.similarity_pairwise(
        model.encode_query([a for a, _ in given]), model.encode_document([b for _, b in given])
    )
    np.testing.assert_allclose([pair.score for pair in found], wanted, atol=1e-5)


def test_a_base_model_is_told_from_its_shifted_form(tiny: TinyModels, rng: random.Random) -> None:
    base = tiny.load("bert")
    given = pairs(rng)
    plain, shifted = Attributor(base), Attributor(shift_model(base))
    assert not exactness(plain.attribute_pairs(given)).exact
    assert plain.fingerprint() != shifted.fingerprint()


@pytest.mark.parametrize("family", MORE_FAMILIES)
def test_every_family_can_be_made_exact(tiny: TinyModels, rng: random.Random, family: str) -> None:
    """Local and causal attention, relative positions, padding on the left, tokenizers without a padding token."""
    pooling = "lasttoken" if rng.random() < 0.3 else "mean"
    model = shift_model(tiny.load(family, pooling=pooling))
    given = pairs(rng)
    first: Any = model[0]
    features = model.preprocess([text for pair in given for text in pair])
    reference = reference_features(dict(features), features["kept_mask"], first.pad_id)
    for training in (False, True):
        with torch.no_grad(), shared_dropout():
            model.train(training)
            zero, other = (model(dict(one))["sentence_embedding"] for one in (reference, features))
        assert (zero.norm(dim=1) <= 1e-5 * other.norm(dim=1).mean()).all(), f"training: {training}"
    found = Attributor(model.eval(), layer=1, tolerance=1e-4).attribute_pairs(given[:2])
    told = exactness(found)
    assert told.exact, told
    assert told.largest_gap <= 1e-2
    wanted = model.similarity_pairwise(model.encode([a for a, _ in given[:2]]), model.encode([b for _, b in given[:2]]))
    np.testing.assert_allclose([pair.score for pair in found], wanted, atol=1e-5)
