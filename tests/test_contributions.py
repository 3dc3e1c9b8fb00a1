"""Contributions sum to what they explain, and nothing but the text itself changes them."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import FAMILIES, POOLINGS, TinyModels, random_text

from attribution_core import Attributor, Contributions, PairAttribution, SettingError, TokenpairError, integrator
from attribution_core.memory import USABLE, LayerShape, is_out_of_memory, plan_chunk, with_halving

PRODUCTS = ("generic", "structured")
TOLERANCE = 2e-3


def contributions(attributor: Attributor, texts: list[str]) -> list[Contributions]:
    return attributor.contributions(attributor.read(texts, "text"))


def distance(first: Contributions, second: Contributions) -> float:
    """Largest difference of two results in units of ‖e‖."""
    assert first.explained.groups == second.explained.groups
    return float(np.abs(first.values_GD - second.values_GD).max() / np.linalg.norm(first.embedding_D))


def check_identity(pair: PairAttribution) -> None:
    found = pair.matrix.astype(np.float64).sum()
    assert pair.total == pytest.approx(found, abs=1e-4 * max(1.0, abs(found)))
    expected = pair.score
    if pair.sums_to == "difference":
        expected += pair.reference_ab - pair.reference_a - pair.reference_b
    unit = abs((pair.total - expected) / pair.error) if pair.error else 1.0
    assert pair.total == pytest.approx(expected, abs=1e-2 * max(1.0, unit))
    np.testing.assert_allclose(pair.row_sums, pair.matrix.sum(1), rtol=1e-3, atol=1e-4 * max(1.0, unit))
    np.testing.assert_allclose(pair.col_sums, pair.matrix.sum(0), rtol=1e-3, atol=1e-4 * max(1.0, unit))


# What they sum to --------------------------------------------------------------------------------------------------


@pytest.mark.rotates(3)
@pytest.mark.parametrize("weights", ["matched", "the rule's own"])
@pytest.mark.parametrize("products", PRODUCTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_contributions_sum_to_embedding_difference(
    family: str,
    products: str,
    weights: str,
    tiny: TinyModels,
    rng: random.Random,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Completeness: a lost or doubled group, or too few nodes that claim to be enough, would break it."""
    if weights != "matched":
        monkeypatch.setattr(integrator, "DAMPING", 1e12)
    layer = rng.choice((0, 1, 2, 3))
    model = tiny.load(family, pooling=rng.choice(POOLINGS[:5]), seed=seed % 5 + 1)
    attributor = Attributor(model, layer=layer, groups=rng.choice(("token", "word", "sentence")), products=products)
    for found in contributions(attributor, [random_text(rng, rng.randrange(1, 20), sentences=True) for _ in range(6)]):
        gap = found.values_GD.astype(np.float64).sum(0) - (found.embedding_D.astype(np.float64) - found.reference_D)
        residual = float(np.linalg.norm(gap) / np.linalg.norm(found.embedding_D))
        # The residual is what the rule's own weights miss; matched ones, of what converged, leave less.
        if weights == "matched" and found.explained.converged:
            assert residual <= found.explained.residual + 1e-5
        else:
            assert residual == pytest.approx(found.explained.residual, abs=1e-5)
        assert found.explained.converged == (found.explained.residual <= TOLERANCE)
        # Random weights may bend a path more than any node count allowed can follow; then all must have been tried.
        assert found.explained.converged or found.explained.nodes == 256, found.explained


@pytest.mark.rotates(3)
@pytest.mark.parametrize("sums_to", ["score", "difference"])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_prove_the_identity(
    family: str, similarity: str, sums_to: str, tiny: TinyModels, rng: random.Random, seed: int
) -> None:
    """Σ Â = f(a,b), Σ A = f(a,b) − f(a,r_b) − f(r_a,b) + f(r_a,r_b): one wrong norm under one term would show."""
    model = tiny.load(family, similarity=similarity, normalize=rng.random() < 0.5, seed=seed % 5 + 1)
    attributor = Attributor(model, layer=rng.choice((0, -2)), sums_to=sums_to)
    for pair in attributor.attribute_pairs([(random_text(rng, 3), random_text(rng, 8)) for _ in range(3)]):
        check_identity(pair)
        assert abs(pair.error) <= 1e-2
        assert pair.similarity == similarity


@pytest.mark.parametrize("products", PRODUCTS)
def test_special_tokens_contribute_exactly_nothing_at_layer_0_of_bert_alone(products: str, tiny: TinyModels) -> None:
    """BERT's special tokens equal their reference there; RoBERTa's move, for the padding token has no position."""
    for family, nothing in (("bert", True), ("distilbert", True), ("roberta", False), ("mpnet", False)):
        attributor = Attributor(tiny.load(family), layer=0, groups="token", nodes=8, products=products)
        (found,) = contributions(attributor, ["Where is the station?"])
        kinds = np.array(found.explained.groups.kinds)
        special = np.abs(found.values_GD[kinds == "special"])
        assert (special[-1] == 0).all() == nothing, family
        assert (np.abs(found.values_GD[kinds == "text"]).max(1) > 0).all(), family
        above = Attributor(tiny.load(family), layer=1, groups="token", nodes=8, products=products)
        (higher,) = contributions(above, ["Where is the station?"])
        assert (np.abs(higher.values_GD[kinds == "special"]).max(1) > 0).all(), family


@pytest.mark.parametrize("products", PRODUCTS)
@pytest.mark.parametrize("unit", ["word", "sentence"])
def test_group_contributions_are_the_sum_of_their_tokens(
    unit: str, products: str, tiny: TinyModels, rng: random.Random, seed: int
) -> None:
    """A group is one direction instead of many; the sum must be the same."""
    model = tiny.load(rng.choice(FAMILIES), seed=seed % 5 + 1)
    text = random_text(rng, 14, sentences=True)
    tokens, groups = (
        contributions(Attributor(model, groups=u, nodes=6, products=products), [text])[0] for u in ("token", unit)
    )
    summed = np.zeros_like(groups.values_GD)
    np.add.at(summed, np.array(groups.explained.groups.of_token), tokens.values_GD)
    np.testing.assert_allclose(groups.values_GD, summed, atol=1e-5 * float(np.linalg.norm(tokens.embedding_D)))


def test_pair_matrix_of_swapped_texts_is_the_transpose(tiny: TinyModels, rng: random.Random) -> None:
    """Neither side is special in a symmetric pair."""
    attributor = Attributor(tiny.load("xlm-roberta"), nodes=6)
    a, b = random_text(rng, 4), random_text(rng, 7)
    np.testing.assert_allclose(attributor.attribute(a, b).matrix, attributor.attribute(b, a).matrix.T, atol=1e-5)


# What must not change them -----------------------------------------------------------------------------------------


@pytest.mark.rotates(3)
@pytest.mark.parametrize("nodes", [6, None], ids=["fixed", "chosen"])
@pytest.mark.parametrize("products", PRODUCTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_batch_mates_and_order_change_nothing(
    family: str, products: str, nodes: int | None, tiny: TinyModels, rng: random.Random, seed: int
) -> None:
    """Padding that leaks into attention or pooling, or rows that are mixed up, would."""
    model = tiny.load(family, pooling=rng.choice(POOLINGS[:5]), seed=seed % 5 + 1)
    attributor = Attributor(model, layer=rng.choice((0, 1, 2, 3)), nodes=nodes, groups="word", products=products)
    texts = [random_text(rng, words) for words in (1, 2, 3, 3, 5, 7, 10, 70)]
    together = contributions(attributor, texts)
    turned = contributions(attributor, texts[::-1])[::-1]
    for text, first, second in zip(texts[:-1], together, turned, strict=False):
        (alone,) = contributions(attributor, [text])
        allowed = 1e-5 if nodes else TOLERANCE
        assert first.explained.text == text
        assert distance(first, second) <= allowed
        assert distance(first, alone) <= allowed
        if nodes is None:
            assert first.explained.nodes == alone.explained.nodes


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_neither_features_nor_pooling(family: str, tiny: TinyModels, rng: random.Random) -> None:
    """A batch padded further than it needs gives the same embedding from the same features."""
    encoder = Attributor(tiny.load(family, pooling=rng.choice(POOLINGS)), layer=1).encoder
    texts = encoder.read([random_text(rng, 3), random_text(rng, 5)], "text", "token")
    plain, padded = encoder.batch(texts), encoder.batch(texts, length=40)
    for row, text in enumerate(texts):
        torch.testing.assert_close(plain.x_BSd[row, : len(text)], padded.x_BSd[row, : len(text)], atol=1e-5, rtol=0)
        torch.testing.assert_close(plain.r_BSd[row, : len(text)], padded.r_BSd[row, : len(text)], atol=1e-5, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(encoder.g(plain.x_BSd, plain), encoder.g(padded.x_BSd, padded), atol=2e-5, rtol=0)


@pytest.mark.rotates(2)
@pytest.mark.parametrize("way", ["forward", "reverse"])
@pytest.mark.parametrize("products", PRODUCTS)
def test_chunk_sizes_change_nothing(products: str, way: str, tiny: TinyModels, rng: random.Random, seed: int) -> None:
    """A budget so small that nodes, directions and texts go one by one gives the same sums."""
    model = tiny.load(rng.choice(FAMILIES), pooling=rng.choice(POOLINGS[:5]), seed=seed % 5 + 1)
    texts = [random_text(rng, words) for words in (2, 3, 3, 5)]
    settings: dict[str, Any] = {"groups": "token", "nodes": 4, "layer": 1, "products": products, "way": way}
    wide = contributions(Attributor(model, **settings), texts)
    narrow = Attributor(model, memory=1 << 20, **settings)
    smallest = Attributor(model, memory=1 << 20, **settings)
    smallest.contributor.integrator.budget = 1
    for first, second, third in zip(wide, contributions(narrow, texts), contributions(smallest, texts), strict=True):
        assert distance(first, second) <= 3e-5
        assert distance(first, third) <= 3e-5


def test_each_distinct_text_is_computed_once(
    tiny: TinyModels, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A query with a hundred documents must not be computed a hundred times."""
    attributor = Attributor(tiny.load("bert"), nodes=4)
    seen: list[str] = []
    compute, project = attributor.contributor.contributions, attributor.contributor.projections

    def counted(texts: Any, **settings: Any) -> Any:
        seen.extend(text.text for text in texts)
        return compute(texts, **settings)

    def projected(texts: Any, cotangents: Any) -> Any:
        seen.extend(text.text for text in texts)
        return project(texts, cotangents)

    monkeypatch.setattr(attributor.contributor, "contributions", counted)
    monkeypatch.setattr(attributor.contributor, "projections", projected)
    query, documents = random_text(rng, 4), [random_text(rng, words) for words in (5, 6, 7)]
    pairs = attributor.attribute_pairs([(query, document) for document in [*documents, documents[0], query]])
    assert sorted(seen) == sorted({query, *documents})
    assert pairs[0].b is pairs[3].b
    assert all(pair.a is pairs[0].a for pair in pairs)
    np.testing.assert_array_equal(pairs[0].matrix, pairs[3].matrix)


# Nodes that do not suffice -----------------------------------------------------------------------------------------


def test_a_text_that_misses_the_tolerance_is_marked(tiny: TinyModels, rng: random.Random) -> None:
    """Silently passing it would be a wrong result that looks right."""
    attributor = Attributor(tiny.load("mpnet"), layer=0, max_nodes=2, tolerance=1e-6, pair_tolerance=1e9)
    pair = attributor.attribute(random_text(rng, 6), random_text(rng, 6))
    assert (pair.a.nodes, pair.a.converged, pair.converged) == (2, False, False)
    assert pair.a.residual > 1e-6
    fixed = Attributor(tiny.load("mpnet"), layer=0, quadrature="riemann", nodes=3).attribute("rain", "coffee is good")
    assert not fixed.converged


def test_harder_texts_get_more_nodes_and_a_smaller_tolerance_too(tiny: TinyModels, rng: random.Random) -> None:
    """The count is chosen per text from its own residual."""
    texts = [random_text(rng, words) for words in (1, 3, 6, 9, 15)]
    model = tiny.load("mpnet")
    loose, strict = (
        [found.explained for found in contributions(Attributor(model, layer=0, tolerance=t), texts)]
        for t in (2e-2, 5e-4)
    )
    assert all(text.converged or text.nodes == 256 for text in (*loose, *strict))
    assert all(few.nodes <= many.nodes for few, many in zip(loose, strict, strict=True))
    assert sum(text.nodes for text in strict) > sum(text.nodes for text in loose)
    assert len({text.nodes for text in strict}) > 1


def refinable(tiny: TinyModels, pair_tolerance: float) -> Attributor:
    """One whose texts all pass a very loose tolerance; weights and texts are fixed, so that some pair does not."""
    return Attributor(tiny.load("roberta"), layer=0, tolerance=0.3, pair_tolerance=pair_tolerance, max_nodes=64)


REFINED = [("The coffee is bad.", "This is not a good coffee."), ("rain", "How do I copy a file?"), ("dog", "red ball")]


def test_a_pair_that_misses_its_tolerance_gets_more_nodes(tiny: TinyModels) -> None:
    """Both texts may meet their tolerance and the pair still not."""
    before, after = refinable(tiny, 1e9).attribute_pairs(REFINED), refinable(tiny, 2e-3).attribute_pairs(REFINED)
    assert max(abs(pair.error) for pair in before) > 2e-3
    for old, new, (a, b) in zip(before, after, REFINED, strict=True):
        assert abs(new.error) <= 2e-3
        if abs(old.error) > 2e-3:
            assert max(new.a.nodes, new.b.nodes) > max(old.a.nodes, old.b.nodes)
        check_identity(new)
        # What a pair gets depends on the pair alone, not on which others were asked for with it.
        np.testing.assert_allclose(refinable(tiny, 2e-3).attribute(a, b).matrix, new.matrix, atol=1e-5)


def test_a_refined_pair_is_judged_by_the_tolerance_that_was_asked_for(tiny: TinyModels) -> None:
    """More nodes make a text better; it must not be marked for missing the stricter tolerance it was refined with."""
    for pair in refinable(tiny, 1e-7).attribute_pairs(REFINED):
        assert max(pair.a.residual, pair.b.residual) <= 0.3
        assert pair.converged


# Memory ------------------------------------------------------------------------------------------------------------


def failing_first(action: Any, errors: Iterator[Exception]) -> Any:
    """The same function, raising the given errors on its first calls."""

    def call(*args: Any, **kwargs: Any) -> Any:
        error = next(errors, None)
        if error is not None:
            raise error
        return action(*args, **kwargs)

    return call


@pytest.mark.parametrize("products", PRODUCTS)
def test_running_out_of_memory_halves_the_budget_and_changes_nothing(
    products: str,
    tiny: TinyModels,
    rng: random.Random,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The work goes on with smaller chunks, and says so."""
    texts = [random_text(rng, words) for words in (2, 5, 9)]
    settings: dict[str, Any] = {"nodes": 6, "products": products, "memory": 1 << 30}
    undisturbed = contributions(Attributor(tiny.load("roberta"), **settings), texts)
    disturbed = Attributor(tiny.load("roberta"), **settings)
    errors = iter([torch.OutOfMemoryError("injected"), MemoryError("injected")])
    monkeypatch.setattr(
        disturbed.contributor.products, "linearise", failing_first(disturbed.contributor.products.linearise, errors)
    )
    with caplog.at_level(logging.WARNING, logger="tokenpair"):
        found = contributions(disturbed, texts)
    assert disturbed.contributor.integrator.budget == 1 << 28
    assert "out of memory: going on with chunks of 512 MiB" in caplog.text
    assert all(distance(one, two) <= 3e-5 for one, two in zip(undisturbed, found, strict=True))


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("wrong"), KeyError("missing")])
def test_other_errors_are_not_taken_for_out_of_memory(
    error: Exception, tiny: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halving on any RuntimeError would hide bugs behind ever smaller chunks."""
    attributor = Attributor(tiny.load("bert"), nodes=4)
    monkeypatch.setattr(attributor.contributor.products, "linearise", failing_first(None, iter([error])))
    budget = attributor.contributor.integrator.budget
    with pytest.raises(type(error), match=str(error.args[0])):
        attributor.attribute("rain falls", "the coffee is good")
    assert attributor.contributor.integrator.budget == budget
    assert not is_out_of_memory(error)


def test_memory_that_never_suffices_ends_in_one_clear_error() -> None:
    """Halving must end."""

    def run(budget: int) -> None:
        raise torch.OutOfMemoryError(f"{budget}")

    with pytest.raises(TokenpairError, match="out of memory even with the smallest chunks"):
        with_halving(run, 1 << 30)
    assert is_out_of_memory(
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")
    )


@pytest.mark.parametrize("budget", [1, 1 << 20, 1 << 26, 1 << 32])
def test_chunks_fit_the_budget_or_are_the_smallest_there_are(budget: int) -> None:
    """Every chunk has one of each at least, and never more than asked for."""
    shape = LayerShape(d=384, inner=1536, heads=12, layers=2, bytes=4)
    for tokens in (4, 64, 512):
        chunk = plan_chunk(shape, budget, tokens=tokens, texts=9, nodes=50, directions=40)
        assert 1 <= chunk.texts <= 9
        assert 1 <= chunk.nodes <= 50
        assert 1 <= chunk.directions <= 40
        point = shape.point_bytes(tokens) + chunk.directions * shape.direction_bytes(tokens)
        held = chunk.texts * chunk.nodes * point
        assert held <= budget or (chunk.texts, chunk.nodes, chunk.directions) == (1, 1, 1)


def test_settings_of_the_quadrature_reach_the_user_as_setting_errors(tiny: TinyModels) -> None:
    """Before a model is run, and naming the setting."""
    wrong: list[dict[str, Any]] = [{"quadrature": "simpson"}, {"nodes": 0}, {"max_nodes": 0}, {"tolerance": -1.0}]
    for settings in wrong:
        with pytest.raises(SettingError, match=next(iter(settings))):
            Attributor(tiny.load("bert"), **settings)


def test_reading_many_texts_at_once_stays_within_the_budget(tiny: TinyModels, rng: random.Random) -> None:
    """A small budget reads fewer texts at a time, and gives the same contributions."""
    model = tiny.load("bert")
    texts = [random_text(rng, 12) for _ in range(24)]
    results, numbers = [], []
    for at_once in (2, None):
        attributor = Attributor(model, nodes=4)
        shape = attributor.contributor.shape
        # By the longest text, one that is twice as long as most would make the small budget a large one.
        shortest = min(len(text) for text in attributor.read(texts, "text"))
        memory = 1 << 30 if at_once is None else int(at_once * shape.reading_bytes(shortest) / USABLE) + 1
        attributor.contributor.integrator.budget = memory
        attributor.contributor.mesh  # noqa: B018 - its own reading is not what is counted
        batches: list[tuple[int, int]] = []
        whole = attributor.encoder.batch

        def counted(read: Any, whole: Any = whole, batches: Any = batches, **keywords: Any) -> Any:
            batches.append((len(read), max(len(text) for text in read)))
            return whole(read, **keywords)

        attributor.encoder.batch = counted  # type: ignore[method-assign]
        found = attributor.contributions(attributor.read(texts, "text"))
        results.append([one.values_GD for one in found])
        assert all(count == 1 or count * shape.reading_bytes(length) <= memory for count, length in batches)
        numbers.append(len(batches))
    assert numbers[0] > numbers[1], "the small budget never mattered"
    for small, large in zip(*results, strict=True):
        np.testing.assert_allclose(small, large, atol=3e-5)
