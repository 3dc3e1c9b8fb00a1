"""A pair's cells sum to its score: every text token inherits its part of the reference, by every way of computing."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import Oracle
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tiny_models import FAMILIES, POOLINGS, TOKENIZERS, TinyModels, random_text
from torch import nn

from attribution_core import Attributor, Contributions, PairAttribution, SettingError, TextError
from attribution_core.pairs.columns import Undefined
from attribution_core.pairs.completion import Completion

WAYS = ("forward", "reverse", "partner")
SUMS_TO = ("score", "difference", "centred")
NODES = 12


def completed_by_hand(one: Contributions, sums_to: str = "score", centre_D: Any = None) -> np.ndarray:
    """ĉ [G, D] in float64, a token at a time."""
    out = one.values_GD.astype(np.float64).copy()
    groups = one.explained.groups
    text = [g for g in groups.of_token if groups.kinds[g] == "text"]
    inherited = {
        "score": one.reference_D,
        "difference": 0.0 * one.reference_D,
        "centred": one.reference_D - (0.0 if centre_D is None else centre_D),
    }[sums_to]
    for g in text:
        out[g] += inherited.astype(np.float64) / len(text)
    return out


def sample(rng: random.Random, count: int = 60) -> list[str]:
    texts: set[str] = set()
    while len(texts) < count:
        texts.add(random_text(rng, rng.randint(2, 7)))
    return sorted(texts)


# Sums ----------------------------------------------------------------------------------------------------------------


@pytest.mark.rotates(3)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_cells_sum_to_the_score_of_the_model(
    family: str, way: str, tiny: TinyModels, rng: random.Random, seed: int
) -> None:
    """Would catch a share that special tokens take, a reference of the wrong text, and a total that hides its error."""
    model = tiny.load(family, pooling=rng.choice(POOLINGS), similarity=rng.choice(("cosine", "dot")), seed=seed % 5)
    attributor = Attributor(model, layer=rng.choice((0, 1, -1)), way=way, groups=rng.choice(("token", "word")))
    given = [(random_text(rng, 4), random_text(rng, 9)) for _ in range(4)]
    for pair, (a, b) in zip(attributor.attribute_pairs(given), given, strict=True):
        score = float(model.similarity(model.encode([a]), model.encode([b])))
        unit = 1.0
        if pair.similarity == "dot":
            unit = float(np.linalg.norm(model.encode(a)) * np.linalg.norm(model.encode(b)))
        assert pair.sums_to == "score"
        assert pair.total / unit == pytest.approx(score / unit, abs=1e-2)
        assert pair.error == pytest.approx((pair.total - pair.score) / unit, abs=2e-5)
        assert float(pair.row_sums.sum()) / unit == pytest.approx(pair.total / unit, abs=1e-4)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_completed_cells_equal_the_oracle_for_every_sum_and_way(
    similarity: str, tiny: TinyModels, rng: random.Random, seed: int
) -> None:
    """Centred sums too: o is taken off once a text, and not off special tokens."""
    family = rng.choice(FAMILIES)
    model = tiny.load(family, similarity=similarity, pooling=rng.choice(POOLINGS[:5]), seed=seed % 7 + 1)
    layer, unit = rng.choice((0, 1, -1)), rng.choice(("token", "word", "sentence"))
    a, b = random_text(rng, 5, sentences=True), random_text(rng, 8, sentences=True)
    judge = Oracle(model, layer=layer, similarity=similarity, nodes=NODES).pair(a, b)
    texts = sample(rng)
    centre = np.stack([Oracle(model, layer=layer, similarity=similarity, nodes=1).side(t).embedding_D for t in texts])
    norms = 1.0 if similarity == "cosine" else judge.norms
    for way in WAYS:
        for sums_to in SUMS_TO:
            attributor = Attributor(
                model,
                layer=layer,
                groups=unit,
                quadrature="riemann",
                nodes=NODES,
                way=way,
                sums_to=sums_to,
                centre=texts if sums_to == "centred" else None,
            )
            pair = attributor.attribute(a, b)
            mean = centre.mean(0)
            expected = judge.grouped(pair.a.groups.of_token, pair.b.groups.of_token, sums_to, (mean, mean))
            np.testing.assert_allclose(pair.matrix / norms, expected / norms, atol=1e-5, rtol=0)


def test_the_difference_is_what_it_was_before(tiny: TinyModels, rng: random.Random) -> None:
    """The products of raw contributions, to which nothing is added."""
    attributor = Attributor(tiny.load("bert"), sums_to="difference", nodes=6, way="forward")
    a, b = random_text(rng, 4), random_text(rng, 6)
    first, second = attributor.contributions(attributor.read([a, b], "text"))
    norm = float(
        np.linalg.norm(first.embedding_D.astype(np.float64)) * np.linalg.norm(second.embedding_D.astype(np.float64))
    )
    # Contributions made alone and with a batch-mate differ in float32's last digits, so bits are not compared.
    formula = first.values_GD @ second.values_GD.T / norm
    np.testing.assert_allclose(attributor.attribute(a, b).matrix, formula, atol=1e-7, rtol=1e-6)


def test_documents_differ_by_their_words_as_by_their_scores(tiny: TinyModels, rng: random.Random) -> None:
    """The bars of one query never contradict its ranking: their difference is the difference of the scores."""
    model = tiny.load("mpnet", normalize=True)
    attributor = Attributor(model, mode="retrieval")
    query = random_text(rng, 4)
    pairs = attributor.attribute_pairs([(query, random_text(rng, words)) for words in (3, 6, 9, 12)])
    for one in pairs:
        for other in pairs:
            margin = float(one.row_sums.sum() - other.row_sums.sum())
            assert margin == pytest.approx(one.score - other.score, abs=abs(one.error) + abs(other.error) + 1e-5)


def test_special_and_prompt_tokens_inherit_nothing(tiny: TinyModels, rng: random.Random) -> None:
    """They stand in the reference as well; a share of theirs would be counted twice."""
    model = tiny.load("bert", prompts={"query": "question: ", "document": "answer: "})
    attributor = Attributor(model, mode="retrieval", nodes=4, layer=1)
    (one,) = attributor.contributions(attributor.read([random_text(rng, 5)], "query"))
    kinds = np.array(one.explained.groups.kinds)
    assert {"special", "prompt", "text"} == set(kinds)
    w_G = one.explained.groups.token_shares
    assert (w_G[kinds != "text"] == 0).all()
    assert w_G.sum() == pytest.approx(1.0)
    completed = Completion("score").completed(one)
    np.testing.assert_array_equal(completed[kinds != "text"], one.values_GD[kinds != "text"])
    np.testing.assert_allclose(completed, completed_by_hand(one), atol=1e-5)


@pytest.mark.parametrize("unit", ["word", "sentence"])
def test_completed_groups_are_the_sum_of_their_tokens(unit: str, tiny: TinyModels, rng: random.Random) -> None:
    """A group's share counts tokens: shares by group would break the sum over a sentence's words."""
    model = tiny.load("roberta")
    text = random_text(rng, 14, sentences=True)
    tokens, groups = (
        next(iter(at.contributions(at.read([text], "text"))))
        for at in (Attributor(model, groups=u, nodes=4) for u in ("token", unit))
    )
    summed = np.zeros_like(groups.values_GD)
    np.add.at(summed, np.array(groups.explained.groups.of_token), Completion().completed(tokens))
    np.testing.assert_allclose(Completion().completed(groups), summed, atol=1e-5)


def test_partners_chunks_and_order_change_no_completed_cell(tiny: TinyModels, rng: random.Random) -> None:
    """A text's cells with one partner do not depend on the other partners that it is pulled back along."""
    model = tiny.load("xlm-roberta")
    query, documents = random_text(rng, 3), [random_text(rng, words) for words in (8, 12, 20)]
    pulled = Attributor(model, nodes=6, way="partner", sums_to="score")
    pairs = [(query, document) for document in documents]
    together, turned = pulled.attribute_pairs(pairs), pulled.attribute_pairs(pairs[::-1])[::-1]
    pushed = Attributor(model, nodes=6, way="forward").attribute_pairs(pairs)
    small = Attributor(model, nodes=6, way="partner", memory=1 << 20).attribute_pairs(pairs)
    for one, *others in zip(together, turned, pushed, small, strict=True):
        assert one.b.way == "partner" or one.a.way == "partner"
        for other in others:
            np.testing.assert_allclose(one.matrix, other.matrix, atol=1e-5)
            np.testing.assert_allclose(one.row_lift, other.row_lift, atol=1e-5)
            np.testing.assert_allclose(one.col_lift, other.col_lift, atol=1e-5)


# Lift ----------------------------------------------------------------------------------------------------------------


def lift_by_hand(one: Contributions, other: Contributions) -> np.ndarray:
    """l_i = ĉ_i(a) · (ê_b − s ê_a) / ‖e(a)‖ in float64."""
    e_a, e_b = one.embedding_D.astype(np.float64), other.embedding_D.astype(np.float64)
    unit_a, unit_b = e_a / np.linalg.norm(e_a), e_b / np.linalg.norm(e_b)
    return completed_by_hand(one) @ (unit_b - (unit_a @ unit_b) * unit_a) / np.linalg.norm(e_a)


@pytest.mark.rotates(3)
@pytest.mark.parametrize("sums_to", SUMS_TO)
@pytest.mark.parametrize("way", WAYS)
def test_lift_is_its_formula_whatever_the_cells_sum_to(
    sums_to: str, way: str, tiny: TinyModels, rng: random.Random, seed: int
) -> None:
    """Sums to zero; in the partner direction it needs products that no cell has."""
    model = tiny.load(rng.choice(FAMILIES), seed=seed % 5 + 1)
    centre = sample(rng) if sums_to == "centred" else None
    attributor = Attributor(model, way=way, sums_to=sums_to, tolerance=1e-4, centre=centre)
    judge = Attributor(model, way="forward", tolerance=1e-4)
    given = [(random_text(rng, 3), random_text(rng, words)) for words in (7, 11)]
    for pair, (a, b) in zip(attributor.attribute_pairs(given), given, strict=True):
        of_a, of_b = judge.contributions(judge.read([a, b], "text"))
        assert pair.row_lift is not None
        assert pair.col_lift is not None
        for found, expected in ((pair.row_lift, lift_by_hand(of_a, of_b)), (pair.col_lift, lift_by_hand(of_b, of_a))):
            np.testing.assert_allclose(found, expected, atol=max(2e-4, 1e-2 * float(np.abs(expected).max())))
            assert float(found.sum()) == pytest.approx(0.0, abs=5e-4)


def test_dot_has_no_lift(tiny: TinyModels) -> None:
    pair = Attributor(tiny.load("bert", similarity="dot"), nodes=4).attribute("red ball", "the dog")
    assert (pair.row_lift, pair.col_lift) == (None, None)


# Centres -------------------------------------------------------------------------------------------------------------


def test_centred_sums_leave_the_mean_of_the_sample_out(tiny: TinyModels, rng: random.Random) -> None:
    """Σ Â = (e_a − o_query) · (e_b − o_document) / norm, with the means of each role's own texts."""
    model = tiny.load("mpnet", prompts={"query": "question: ", "document": "answer: "})
    texts = {"query": sample(rng, 50), "document": sample(rng, 70)}
    attributor = Attributor(model, mode="retrieval", sums_to="centred", centre=texts)
    a, b = random_text(rng, 4), random_text(rng, 8)
    pair = attributor.attribute(a, b)
    e_a, e_b = model.encode_query(a).astype(np.float64), model.encode_document(b).astype(np.float64)
    o_a, o_b = model.encode_query(texts["query"]).mean(0), model.encode_document(texts["document"]).mean(0)
    expected = (e_a - o_a) @ (e_b - o_b) / (np.linalg.norm(e_a) * np.linalg.norm(e_b))
    assert pair.total == pytest.approx(float(expected), abs=1e-2)
    assert pair.error == pytest.approx(pair.total - float(expected), abs=1e-4)
    assert pair.score == pytest.approx(float(e_a @ e_b / (np.linalg.norm(e_a) * np.linalg.norm(e_b))), abs=1e-5)


def test_too_small_a_sample_is_refused(tiny: TinyModels, rng: random.Random) -> None:
    """Fifty distinct texts a role; equal ones count once."""
    model = tiny.load("bert")
    texts = sample(rng, 49)
    with pytest.raises(SettingError, match=r"needs 50 distinct texts or more; there are 49"):
        Attributor(model, sums_to="centred", centre=[*texts, *texts])
    with pytest.raises(SettingError, match=r"distinct documents or more; there are 49"):
        Attributor(model, mode="retrieval", sums_to="centred", centre={"query": sample(rng), "document": texts})
    with pytest.raises(SettingError, match=r"give texts by role"):
        Attributor(model, mode="retrieval", sums_to="centred", centre=texts)
    with pytest.raises(SettingError, match=r"needs a sample of texts"):
        Attributor(model, sums_to="centred").attribute("red ball", "the dog")
    with pytest.raises(SettingError, match=r"sums_to 'total' is unknown"):
        Attributor(model, sums_to="total")


# References ----------------------------------------------------------------------------------------------------------


@pytest.mark.rotates(3)
@pytest.mark.parametrize("reference", ["unk", "mask", "coffee"])
@pytest.mark.parametrize("family", FAMILIES)
def test_another_reference_is_the_oracles_with_that_token(
    family: str, reference: str, tiny: TinyModels, rng: random.Random, seed: int
) -> None:
    """Every word becomes that token, special tokens stay; batches are padded with padding all the same."""
    model = tiny.load(family, seed=seed % 5 + 1)
    tokenizer: Any = model.tokenizer
    if reference in ("unk", "mask"):
        token = getattr(tokenizer, f"{reference}_token")
        if token is None:
            with pytest.raises(SettingError, match=f"reference '{reference}': the model's tokenizer has no"):
                Attributor(model, reference=reference)
            return
        token_id = tokenizer.convert_tokens_to_ids(token)
    else:
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (" coffee", "coffee")]
        token_id = next(one[0] for one in ids if len(one) == 1 and one[0] != tokenizer.unk_token_id)
    a, b = random_text(rng, 4), random_text(rng, 9)
    layer = rng.choice((0, 1, -1))
    judge = Oracle(model, layer=layer, nodes=8, reference_id=token_id).pair(a, b)
    for sums_to in ("score", "difference"):
        attributor = Attributor(
            model,
            layer=layer,
            groups="token",
            quadrature="riemann",
            nodes=8,
            reference=reference,
            sums_to=sums_to,
            way=rng.choice(WAYS),
        )
        pair = attributor.attribute(a, b)
        expected = judge.grouped(pair.a.groups.of_token, pair.b.groups.of_token, sums_to)
        np.testing.assert_allclose(pair.matrix, expected, atol=1e-5, rtol=0)
        assert pair.reference_ab == pytest.approx(judge.reference_ab, abs=1e-5)
        assert attributor.settings()["reference"] == reference
        assert reference in attributor.references["text"].lower() or reference == "unk"


@pytest.mark.parametrize("word", ["coffee library", "", "  ", "zzqx"])
def test_a_reference_of_no_or_many_tokens_is_refused(word: str, tiny: TinyModels) -> None:
    """One line that says what is needed."""
    with pytest.raises(SettingError, match=r"use 'pad', 'unk', 'mask' or a word of one token") as error:
        Attributor(tiny.load("bert"), reference=word)
    assert "\n" not in str(error.value)


# Embeddings of length zero -------------------------------------------------------------------------------------------


def static_with_a_zero(folder: Path, *more: nn.Module, **settings: Any) -> SentenceTransformer:
    """A static model that knows nothing of the word "coffee"."""
    tokenizer = TOKENIZERS["bert"]()
    weights = torch.randn(len(tokenizer), 16, generator=torch.Generator().manual_seed(3))
    weights[tokenizer.convert_tokens_to_ids("coffee")] = 0.0
    modules = [StaticEmbedding(tokenizer, embedding_weights=weights), *more]
    SentenceTransformer(modules=modules, device="cpu", **settings).save(str(folder), create_model_card=False)
    return SentenceTransformer(str(folder), device="cpu")


def test_an_embedding_of_length_zero_has_no_cosine(tmp_path: Path) -> None:
    """The pair is named, the others of the call are computed, and nothing is NaN."""
    attributor = Attributor(static_with_a_zero(tmp_path / "model"))
    with pytest.raises(TextError, match=r"pair 1: the second text cannot be attributed: its embedding is zero.*coffee"):
        attributor.attribute_pairs([("red ball", "the dog"), ("red ball", "coffee")])
    a, b = attributor.read(["red ball", "coffee"], "text"), attributor.read(["the dog", "coffee"], "text")
    found = attributor.pairs([(a[0], b[0]), (a[0], b[1]), (a[1], b[1])])
    assert isinstance(found[0], PairAttribution)
    assert np.isfinite(found[0].matrix).all()
    assert found[1:] == [Undefined(("b",)), Undefined(("a", "b"))]


def test_an_embedding_of_length_zero_has_a_dot_product(tmp_path: Path) -> None:
    pair = Attributor(static_with_a_zero(tmp_path / "model", similarity_fn_name="dot")).attribute("red ball", "coffee")
    assert (pair.score, pair.total, pair.error) == (0.0, 0.0, 0.0)


def test_static_models_with_prompts_and_biases_sum_to_the_score(tmp_path: Path, rng: random.Random) -> None:
    """There the reference is not zero: a prompt's words, or a bias behind the mean."""
    model = static_with_a_zero(
        tmp_path / "model", Dense(16, 8, activation_function=nn.Identity()), prompts={"query": "question: "}
    )
    a, b = random_text(rng, 4), random_text(rng, 6)
    pair = Attributor(model, mode="retrieval").attribute(a, b)
    score = float(model.similarity(model.encode_query([a]), model.encode_document([b])))
    assert pair.reference_ab != 0.0
    assert pair.total == pytest.approx(score, abs=1e-5)
