"""Max pooling and activations with kinks: the paper's formula, the model's own scores, and few nodes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import Oracle, check_pair, grouped
from tiny_models import TinyModels, random_text

from attribution_core import Attributor, ModelError, SettingError
from attribution_core.directions import maxima
from attribution_core.quadrature.rules import Doubles, gauss
from attribution_core.training.shift import shift_model
from jobs.config.job import load_job
from jobs.engine.driver import run_job

WAYS = ("forward", "reverse", "partner")
CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("bert", {"pooling": "max", "dense": (10, "relu")}),
    ("modernbert", {"pooling": ("mean", "max"), "normalize": True}),
    ("distilbert", {"pooling": ("max", "cls"), "dense": (9, "tanh"), "normalize": True}),
    ("qwen3", {"pooling": "max"}),
)


@pytest.mark.parametrize(("family", "shape"), CASES, ids=[family for family, _ in CASES])
def test_contributions_equal_the_formula(
    family: str, shape: dict[str, Any], tiny: TinyModels, rng: random.Random, seed: int
) -> None:
    """In float64, at every kind of cut, beside a batch-mate of another length."""
    model = tiny.load(family, seed=seed % 3, similarity=rng.choice(("cosine", "dot")), **shape)
    texts = [random_text(rng, 4), random_text(rng, 9)]
    for layer, way in ((0, "forward"), (-1, "reverse")):
        oracle = Oracle(model, layer=layer, similarity=str(model.similarity_fn_name), nodes=8)
        attributor = Attributor(model, dtype="float64", layer=layer, quadrature="riemann", nodes=8, way=way)
        for text, own in zip(attributor.contributions(attributor.read(texts, "text")), texts, strict=True):
            expected = grouped(oracle.side(own), text.explained.groups.of_token)
            allowed = (1e-5 if attributor.encoder.family.casts else 1e-10) * max(1.0, float(np.abs(expected).max()))
            np.testing.assert_allclose(text.values_GD, expected, rtol=0, atol=allowed)


@pytest.mark.parametrize("include_prompt", [True, False])
def test_matrix_behind_a_prompt_equals_the_formula(
    include_prompt: bool, tiny: TinyModels, rng: random.Random, seed: int
) -> None:
    """A prompt out of the pooling must be out of the maxima too."""
    prompts = {"q": "question: "}
    pooling = rng.choice(("max", ("mean", "max")))
    model = tiny.load("mpnet", pooling=pooling, prompts=prompts, include_prompt=include_prompt, seed=seed % 3)
    judge = Oracle(model, layer=-2, nodes=8).pair("rain falls", "The coffee is bad.", prompt="question: ")
    settings: dict[str, Any] = {"quadrature": "riemann", "nodes": 8, "prompt_a": "q", "prompt_b": "q"}
    for way in WAYS:
        check_pair(Attributor(model, way=way, **settings).attribute("rain falls", "The coffee is bad."), judge)


@pytest.mark.parametrize("pooling", ["max", ("mean", "max")], ids=str)
def test_scores_equal_the_models_similarity(
    pooling: str | tuple[str, ...], tiny: TinyModels, rng: random.Random
) -> None:
    """In a padded batch, behind prompts that are left out of the pooling, and where a text is cut off."""
    prompts = {"query": "question: ", "document": "document: "}
    model = tiny.load("bert", pooling=pooling, prompts=prompts, include_prompt=False, dense=(10, "relu"))
    a, b = random_text(rng, 2), [random_text(rng, words) for words in (90, 3, 12)]
    expected = model.similarity(model.encode_query([a]), model.encode_document(b)).numpy()[0]
    attributor = Attributor(model, mode="retrieval", quadrature="riemann", nodes=1)
    scores = [pair.score for pair in attributor.attribute_pairs([(a, one) for one in b])]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)


# Few nodes ---------------------------------------------------------------------------------------------------------


def test_rows_of_maxima_are_integrated_between_the_nodes(rng: random.Random) -> None:
    """Ten nodes say how long each row was the largest, and what it gave, as a hundred thousand points do."""
    numbers = np.random.default_rng(rng.randrange(1 << 30))
    size, speed, phase = numbers.normal(size=(3, 7, 40))

    def at(alpha: Doubles) -> tuple[Doubles, Doubles]:
        angle = 2.0 * speed * alpha[:, None, None] + phase
        return size * np.sin(angle), 2.0 * speed * size * np.cos(angle)

    alpha_N, _ = gauss(10)
    rows_NRd, slope_NRd = at(alpha_N)
    weights = maxima.row_weights(torch.from_numpy(rows_NRd), alpha_N).numpy()
    fine_FRd, slope_FRd = at((np.arange(20_000) + 0.5) / 20_000)
    largest_FRd = fine_FRd == fine_FRd.max(1, keepdims=True)
    assert (np.diff(fine_FRd.argmax(1), axis=0) != 0).sum() > 10
    np.testing.assert_allclose(weights.sum(0), largest_FRd.mean(0), atol=1e-3)
    np.testing.assert_allclose((weights * slope_NRd).sum(0), (largest_FRd * slope_FRd).mean(0), atol=1e-2)
    np.testing.assert_allclose(
        (weights * slope_NRd).sum((0, 1)), np.diff(at(np.array([0.0, 1.0]))[0].max(1), axis=0)[0], atol=3e-3
    )


@pytest.mark.rotates(2)
@pytest.mark.parametrize("way", ["forward", "reverse"])
def test_few_nodes_approach_the_integral_of_the_formula(
    way: str, tiny: TinyModels, rng: random.Random, seed: int
) -> None:
    """What 400 Riemann nodes of the model's own maxima approach; in any company, behind padding, in any chunks."""
    shape: dict[str, Any] = {"pooling": ("mean", "max"), "dense": (12, "tanh"), "normalize": True, "seed": seed % 3}
    model = tiny.load("bert", prompts={"query": "question: "}, include_prompt=False, **shape)
    settings: dict[str, Any] = {"layer": -1, "way": way, "mode": "retrieval", "tolerance": 1e-3}
    attributor, narrow = Attributor(model, **settings), Attributor(model, **settings)
    narrow.contributor.integrator.budget = 1
    exact = Attributor(model, **settings, quadrature="riemann", nodes=400, dtype="float64")
    texts = [random_text(rng, words) for words in (2, 9)]
    together, in_pieces, judged = (one.contributions(one.read(texts, "query")) for one in (attributor, narrow, exact))
    for text, pieces, wanted, own in zip(together, in_pieces, judged, texts, strict=True):
        assert text.explained.converged
        assert text.explained.nodes <= 16
        size = np.linalg.norm(wanted.embedding_D)
        np.testing.assert_allclose(text.values_GD / size, wanted.values_GD / size, atol=5e-3)
        (alone,) = attributor.contributions(attributor.read([own], "query"))
        assert alone.explained.nodes == text.explained.nodes == pieces.explained.nodes
        for other in (alone, pieces):
            np.testing.assert_allclose(text.values_GD / size, other.values_GD / size, atol=1e-4)


def test_kinks_of_a_head_are_marked_and_not_refused(tiny: TinyModels, rng: random.Random) -> None:
    """Behind a ReLU each value of the embedding has kinks of its own: what misses the tolerance says so."""
    attributor = Attributor(tiny.load("bert", dense=(10, "relu")), layer=-1, max_nodes=64)
    (text,) = attributor.contributions(attributor.read([random_text(rng, 6)], "text"))
    missing_D = text.values_GD.sum(0) - (text.embedding_D - text.reference_D)
    size = float(np.linalg.norm(text.embedding_D))
    assert text.explained.converged == (text.explained.residual <= 2e-3)
    assert np.linalg.norm(missing_D) / size <= text.explained.residual + 1e-5 <= 0.1


def test_a_job_takes_a_max_pooled_folder(tiny: TinyModels, tmp_path: Path) -> None:
    """The rows sum to the scores."""
    folder = tiny.folder("bert", pooling=("mean", "max"))
    (tmp_path / "pairs.tsv").write_text("a\tb\nrain falls\tthe red ball\nThe coffee is bad.\train\n")
    settings = {"input": str(tmp_path / "pairs.tsv"), "model": str(folder), "output": str(tmp_path / "run")}
    outcome = run_job(load_job(None, settings | {"workers": {"ray": False}}), quiet=True)
    assert (outcome.exit_code, outcome.totals.pairs, outcome.totals.unconverged) == (0, 2, 0)


def test_what_needs_pooling_weights_is_refused(tiny: TinyModels) -> None:
    """Hand-linearised layers end in weights; a shift is subtracted behind pooling."""
    model = tiny.load("bert", pooling="max")
    with pytest.raises(SettingError, match="pooling mode other than max; use 'generic'"):
        Attributor(model, products="structured")
    with pytest.raises(ModelError, match="max pooling cannot be shifted"):
        shift_model(model)
