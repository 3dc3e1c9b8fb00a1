"""Attributions of shifted models: no reference terms, so that the paper's cells are those that sum to the score."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import MORE_FAMILIES
from tiny_models import LAYERS, TinyModels, random_text

from attribution_core.attribution import Attributor
from attribution_core.errors import SettingError
from attribution_core.training.dropout import shared_dropout
from attribution_core.training.references import reference_features
from attribution_core.training.shift import shift_model

PAIRS = 4
# Of the paper, whose sum is the score of a shifted model alone.
PAPER: dict[str, Any] = {"sums_to": "difference"}


def pairs(rng: random.Random) -> list[tuple[str, str]]:
    # Lengths differ within a pair and a batch, and some texts share theirs.
    return [(random_text(rng, rng.randint(1, 9)), random_text(rng, rng.randint(4, 20))) for _ in range(PAIRS)]


def assert_exact(found: list[Any], gap: float) -> None:
    """No reference term, and the paper's sums are the scores to ``gap``."""
    assert all(pair.sums_to == "difference" for pair in found), "sums to the score would miss nothing"
    # A difference of float32 scores: a few units of their last digit.
    assert largest_reference(found) <= 3e-6 * max(1.0, *(abs(pair.score) for pair in found))
    assert max(abs(pair.score - pair.total) for pair in found) <= gap


def largest_reference(found: list[Any]) -> float:
    return max(max(map(abs, (pair.reference_a, pair.reference_b, pair.reference_ab))) for pair in found)


@pytest.mark.parametrize("layer", range(LAYERS))
def test_the_sum_is_the_score_at_every_layer(tiny: TinyModels, rng: random.Random, layer: int) -> None:
    family = rng.choice(("bert", "roberta", "mpnet", "distilbert"))
    model = shift_model(tiny.load(family, normalize=True))
    given = pairs(rng)
    found = Attributor(model, layer=layer, tolerance=1e-4, **PAPER).attribute_pairs(given)
    assert_exact(found, 1e-3)
    wanted = model.similarity_pairwise(model.encode([a for a, _ in given]), model.encode([b for _, b in given]))
    np.testing.assert_allclose([pair.score for pair in found], wanted, atol=1e-5)


@pytest.mark.rotates(2)
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
    common: dict[str, Any] = {"layer": 2, "quadrature": "gauss", "nodes": 24, "dtype": "float64", **PAPER}
    given = pairs(rng)
    found = Attributor(model, products=products, way=way, **common).attribute_pairs(given)
    judge = Attributor(model, products="generic", way="forward", **common).attribute_pairs(given)
    for one, other in zip(found, judge, strict=True):
        np.testing.assert_allclose(one.matrix, other.matrix, atol=1e-6)
        assert abs(one.total - one.score) < 1e-3
        assert max(abs(one.reference_a), abs(one.reference_b), abs(one.reference_ab)) < 1e-9


@pytest.mark.rotates(3)
@pytest.mark.parametrize("way", ["forward", "reverse", "partner"])
@pytest.mark.parametrize("layer", range(LAYERS))
def test_sums_to_the_score_and_to_the_difference_are_the_same(
    tiny: TinyModels, rng: random.Random, layer: int, way: str
) -> None:
    """Nothing is inherited from a reference that embeds to zero; in the model as it was, much is."""
    base = tiny.load(rng.choice(("bert", "roberta", "mpnet", "distilbert")), similarity=rng.choice(("cosine", "dot")))
    given = pairs(rng)
    common: dict[str, Any] = {"layer": layer, "way": way, "nodes": 8, "groups": rng.choice(("token", "word"))}
    for model, same in ((shift_model(base), True), (base, False)):
        score, paper = (
            Attributor(model, sums_to=sums_to, **common).attribute_pairs(given) for sums_to in ("score", "difference")
        )
        moved = 0.0
        for one, other in zip(score, paper, strict=True):
            size = float(np.linalg.norm(model.encode(one.a.text)) * np.linalg.norm(model.encode(one.b.text)))
            unit = size if one.similarity == "dot" else 1.0
            for name in ("matrix", "row_sums", "col_sums", "total"):
                difference = np.abs(np.asarray(getattr(one, name)) - np.asarray(getattr(other, name)))
                moved = max(moved, float(difference.max()) / unit)
        assert moved <= 2e-6 if same else moved > 1e-3, moved


@pytest.mark.parametrize("reference", ["unk", "mask", "dog"])
def test_another_reference_than_padding_is_refused_in_one_line(tiny: TinyModels, reference: str) -> None:
    """A shifted model embeds texts less their reference of padding, and no other reference is zero in it."""
    base = tiny.load("bert")
    Attributor(base, reference=reference)
    with pytest.raises(SettingError, match="exact against that alone; take 'pad'") as error:
        Attributor(shift_model(base), reference=reference)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("pooling", ["cls", "weightedmean", "lasttoken", ("mean", "cls")])
def test_every_pooling_is_shifted_before_it(tiny: TinyModels, rng: random.Random, pooling: Any) -> None:
    model = shift_model(tiny.load("bert", pooling=pooling))
    assert_exact(Attributor(model, layer=1, tolerance=1e-4, **PAPER).attribute_pairs(pairs(rng)), 1e-3)


def test_dot_products_sum_too(tiny: TinyModels, rng: random.Random) -> None:
    model = shift_model(tiny.load("bert", similarity="dot"))
    given = pairs(rng)
    found = Attributor(model, tolerance=1e-4, **PAPER).attribute_pairs(given)
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
    found = Attributor(model, mode="retrieval", layer=1, tolerance=1e-4, **PAPER).attribute_pairs(given)
    assert_exact(found, 1e-2)
    wanted = model.similarity_pairwise(
        model.encode_query([a for a, _ in given]), model.encode_document([b for _, b in given])
    )
    np.testing.assert_allclose([pair.score for pair in found], wanted, atol=1e-5)


def test_a_base_model_is_told_from_its_shifted_form(tiny: TinyModels, rng: random.Random) -> None:
    base = tiny.load("bert")
    given = pairs(rng)
    plain, shifted = Attributor(base), Attributor(shift_model(base))
    assert largest_reference(plain.attribute_pairs(given)) > 1e-3
    assert largest_reference(shifted.attribute_pairs(given)) <= 1e-6
    assert plain.fingerprint() != shifted.fingerprint()


@pytest.mark.rotates(3, cover=False)
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
    found = Attributor(model.eval(), layer=1, tolerance=1e-4, **PAPER).attribute_pairs(given[:2])
    assert_exact(found, 1e-2)
    wanted = model.similarity_pairwise(model.encode([a for a, _ in given[:2]]), model.encode([b for _, b in given[:2]]))
    np.testing.assert_allclose([pair.score for pair in found], wanted, atol=1e-5)
