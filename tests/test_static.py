"""Static embeddings: no layers, a linear mean, exact with one node; alone and as one side of a Router."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import Oracle
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding
from tiny_models import TOKENIZERS, TinyModels, random_text
from torch import nn

from attribution_core import Attributor, ModelError, TextError

WIDTH = 16


def static_module(seed: int, width: int = WIDTH) -> StaticEmbedding:
    tokenizer = TOKENIZERS["bert"]()
    weights = torch.randn(len(tokenizer), width, generator=torch.Generator().manual_seed(seed))
    return StaticEmbedding(tokenizer, embedding_weights=weights)


def saved(modules: list[nn.Module], folder: Path, **settings: Any) -> SentenceTransformer:
    """The model written to a folder and read again, as a user would."""
    SentenceTransformer(modules=modules, device="cpu", **settings).save(str(folder), create_model_card=False)
    return SentenceTransformer(str(folder), device="cpu")


def by_hand(model: SentenceTransformer, text: str) -> np.ndarray:
    """c_i = E[token i] / n, token by token."""
    module: Any = model[0]
    ids = module.tokenizer.encode(text, add_special_tokens=False).ids
    return np.stack([module.embedding.weight[one].detach().numpy() / len(ids) for one in ids])


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_a_static_model_is_exact_with_one_node(similarity: str, tmp_path: Path, rng: random.Random, seed: int) -> None:
    """Each cell is the product of two word vectors, nothing is left over, and the sum is the score itself."""
    model = saved([static_module(seed)], tmp_path / "static", similarity_fn_name=similarity)
    a, b = random_text(rng, 4), random_text(rng, 9)
    attributor = Attributor(model, groups="token")
    pair = attributor.attribute(a, b)
    expected = by_hand(model, a) @ by_hand(model, b).T
    unit = float(np.linalg.norm(by_hand(model, a).sum(0)) * np.linalg.norm(by_hand(model, b).sum(0)))
    unit = unit if similarity == "cosine" else 1.0
    np.testing.assert_allclose(pair.matrix, expected / unit, atol=1e-5)
    score = float(model.similarity(model.encode([a]), model.encode([b])))
    assert pair.total == pytest.approx(score, abs=1e-5)
    assert pair.score == pytest.approx(score, abs=1e-5)
    assert (pair.reference_a, pair.reference_b, pair.reference_ab) == (0.0, 0.0, 0.0)
    assert (pair.a.nodes, pair.b.nodes, pair.layer) == (1, 1, 0)
    assert attributor.encoder.reference_name == "the empty text (zero)"
    assert set(pair.a.groups.kinds) == {"text"}
    words = Attributor(model).attribute(a, b)
    assert words.total == pytest.approx(score, abs=1e-5)
    assert " ".join(words.a.groups.labels).replace(" ", "") == a.replace(" ", "")


def test_a_text_that_moves_through_a_bent_head_gets_its_nodes(tmp_path: Path, rng: random.Random) -> None:
    """One node is exact for a linear head alone."""
    bent = saved([static_module(3), Dense(WIDTH, 8, activation_function=nn.Tanh())], tmp_path / "bent")
    pair = Attributor(bent).attribute(random_text(rng, 3), random_text(rng, 3))
    assert min(pair.a.nodes, pair.b.nodes) > 1
    assert abs(pair.error) <= 1e-2
    flat = saved([static_module(3), Dense(WIDTH, 8, activation_function=nn.Identity())], tmp_path / "flat")
    pair = Attributor(flat).attribute(random_text(rng, 3), random_text(rng, 3))
    assert (pair.a.nodes, pair.b.nodes) == (1, 1)
    assert abs(pair.error) <= 1e-5
    assert pair.reference_ab != 0.0, "a bias is the embedding of the empty text"


@pytest.mark.parametrize("static_side", ["query", "document"])
def test_a_router_may_have_a_static_side(
    static_side: str, tiny: TinyModels, tmp_path: Path, rng: random.Random, seed: int
) -> None:
    """Word vectors for queries, a transformer for documents: each side cut where it can be."""
    transformer = Transformer(str(tiny.folder("bert", seed=1)), max_seq_length=32)
    width = transformer.get_embedding_dimension()
    deep: list[nn.Module] = [transformer, Pooling(width, "mean")]
    shallow: list[nn.Module] = [static_module(seed, width)]
    query, document = (shallow, deep) if static_side == "query" else (deep, shallow)
    router = Router.for_query_document(query_modules=query, document_modules=document)  # type: ignore[arg-type]
    model = saved([router, Normalize()], tmp_path / "routed")
    a, b = random_text(rng, 4), random_text(rng, 7)
    score = float(model.similarity(model.encode_query([a]), model.encode_document([b])))
    settings: dict[str, Any] = {"mode": "retrieval", "groups": "token", "quadrature": "riemann", "nodes": 8}
    for layer in (0, 2, -1):
        attributor = Attributor(model, layer=layer, **settings)
        assert attributor.layer == layer % 4
        pair = attributor.attribute(a, b)
        assert pair.score == pytest.approx(score, abs=1e-5)
        deep_text, shallow_text = (b, a) if static_side == "query" else (a, b)
        alone = SentenceTransformer(modules=deep, device="cpu")
        side = Oracle(alone, layer=layer, nodes=8).side(deep_text)
        contributions = side.completed_SD("score")
        vectors = by_hand(SentenceTransformer(modules=shallow, device="cpu"), shallow_text)
        expected = vectors @ contributions.T if static_side == "query" else contributions @ vectors.T
        norm = float(np.linalg.norm(vectors.sum(0)) * side.embedding_D.norm())
        np.testing.assert_allclose(pair.matrix, expected / norm, atol=1e-5)
        assert pair.total == pytest.approx(score, abs=0.1)  # eight right-hand nodes
        # The static side's reference is zero, so the terms that it is part of vanish.
        assert pair.reference_ab == 0.0
        assert (pair.reference_b if static_side == "query" else pair.reference_a) == 0.0
    chosen = Attributor(model, mode="retrieval").attribute(a, b)
    assert abs(chosen.error) <= 1e-2


def test_prompts_before_static_texts_are_prompts(tmp_path: Path, rng: random.Random) -> None:
    """They belong to the reference, as everywhere."""
    model = saved([static_module(5)], tmp_path / "static", prompts={"query": "question: ", "document": "document: "})
    a, b = random_text(rng, 3), random_text(rng, 5)
    pair = Attributor(model, mode="retrieval").attribute(a, b)
    expected = float(model.similarity(model.encode_query([a]), model.encode_document([b])))
    assert pair.score == pytest.approx(expected, abs=1e-5)
    assert pair.a.groups.kinds[:2] == ("prompt", "prompt")
    assert pair.reference_ab != 0.0
    assert abs(pair.error) <= 1e-5


def test_what_a_static_model_cannot_do_is_refused(tmp_path: Path) -> None:
    """Each with the reason, and what to ask for instead."""
    normalized = saved([static_module(1), Normalize()], tmp_path / "unit", similarity_fn_name="dot")
    with pytest.raises(ModelError, match=r"no derivative at the empty text.*ask for similarity 'cosine'"):
        Attributor(normalized)
    a, b = "red ball", "the ball is red"
    asked = Attributor(normalized, similarity="cosine").attribute(a, b)
    expected = float(normalized.similarity(normalized.encode([a]), normalized.encode([b])))
    assert asked.total == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ModelError, match=r"layer 2 does not exist: the model has no layers"):
        Attributor(normalized, similarity="cosine", layer=2)
    with pytest.raises(TextError, match="no token to attribute"):
        Attributor(normalized, similarity="cosine").attribute("red ball", "  ")
