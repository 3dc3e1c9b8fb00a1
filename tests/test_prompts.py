"""Prompts and routes: what encode_query and encode_document do is what is attributed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from row_tables import summarise
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tiny_models import FAMILIES, TinyModels, random_text

from attribution_core import Attributor, ModelError, PairAttribution

PROMPTS = {"query": "question: ", "document": "document, number three: "}


def routed(
    tiny: TinyModels, folder: Path, *, shared: bool, families: tuple[str, str] = ("bert", "bert"), **changes: Any
) -> SentenceTransformer:
    """A model whose queries and documents go different ways, saved and loaded as a user would."""
    torch.manual_seed(3)
    own = [Path(tiny.folder(family, seed=at)) for at, family in enumerate(families)]
    transformers = [Transformer(str(path), max_seq_length=32, **changes) for path in own]
    if shared:
        transformers[1] = transformers[0]
    else:
        transformers[1].max_seq_length = 20
    widths = [one.get_embedding_dimension() for one in transformers]
    query = [transformers[0], Pooling(widths[0], "mean"), Dense(widths[0], 10)]
    document = [transformers[1], Pooling(widths[1], "cls"), Dense(widths[1], 10), Dense(10, 10)]
    router = Router.for_query_document(query_modules=query, document_modules=document)
    model = SentenceTransformer(modules=[router, Normalize()], device="cpu", prompts=PROMPTS)
    model.save(str(folder), create_model_card=False)
    return SentenceTransformer(str(folder), device="cpu")


def check(model: SentenceTransformer, a: str, b: str, **settings: Any) -> PairAttribution:
    """The pair's score is that of encode_query and encode_document, and its cells sum to what they must."""
    pair = Attributor(model, mode="retrieval", tolerance=1e-3, **settings).attribute(a, b)
    expected = float(model.similarity(model.encode_query([a]), model.encode_document([b])))
    assert pair.score == pytest.approx(expected, abs=1e-5)
    assert abs(pair.error) <= 1e-2
    return pair


@pytest.mark.parametrize("shared", [True, False])
def test_a_routers_scores_are_those_of_encode_query_and_encode_document(
    tiny: TinyModels, tmp_path: Path, rng: random.Random, shared: bool
) -> None:
    """Each role has its own head, tokenizer and length, also where the transformer is one and the same."""
    model = routed(tiny, tmp_path / "routed", shared=shared)
    pair = check(model, random_text(rng, 60), random_text(rng, 60))
    assert (len(pair.a.tokens), len(pair.b.tokens)) == (32, 32 if shared else 20)
    assert pair.a.truncated
    assert pair.b.truncated


def test_routes_of_different_families_have_a_product(tiny: TinyModels, tmp_path: Path, rng: random.Random) -> None:
    """Tokens of one vocabulary read by the other's tokenizer would be other words."""
    model = routed(tiny, tmp_path / "routed", shared=False, families=("bert", "xlm-roberta"))
    texts = random_text(rng, 5), random_text(rng, 7)
    pair = check(model, *texts)
    assert pair.a.tokens[0] == "[CLS]"
    assert pair.b.tokens[0] == "<s>"
    alone = Attributor(model, mode="retrieval").attribute_pairs([texts, texts[::-1]])
    assert alone[0].score == pytest.approx(pair.score, abs=1e-5)


def test_lengths_of_a_role_cut_its_texts(tiny: TinyModels, tmp_path: Path, rng: random.Random) -> None:
    """query_length and document_length belong to one transformer that both roles share."""
    model = routed(tiny, tmp_path / "routed", shared=True, query_length=9, document_length=15)
    pair = check(model, random_text(rng, 60), random_text(rng, 60))
    assert (len(pair.a.tokens), len(pair.b.tokens)) == (9, 15)


def test_symmetric_pairs_take_the_routers_default_route(tiny: TinyModels, tmp_path: Path, rng: random.Random) -> None:
    model = routed(tiny, tmp_path / "routed", shared=False)
    a, b = random_text(rng, 4), random_text(rng, 6)
    pair = Attributor(model, nodes=4).attribute(a, b)
    assert pair.score == pytest.approx(float(model.similarity(model.encode([a]), model.encode([b]))), abs=1e-5)


def test_a_route_that_cannot_be_attributed_is_named(tiny: TinyModels, tmp_path: Path) -> None:
    model = routed(tiny, tmp_path / "routed", shared=True)
    router: Any = model[0]
    router.sub_modules["query"] = router.sub_modules["query"][:1]
    with pytest.raises(ModelError, match="modules for a query are Transformer → Normalize"):
        Attributor(model, mode="retrieval")
    router.sub_modules = torch.nn.ModuleDict({"document": router.sub_modules["document"]})
    with pytest.raises(ModelError, match="no route for a query"):
        Attributor(model, mode="retrieval")


def test_routes_of_different_widths_are_refused(tiny: TinyModels, tmp_path: Path) -> None:
    model = routed(tiny, tmp_path / "routed", shared=True)
    router: Any = model[0]
    router.sub_modules["document"] = router.sub_modules["document"][:2]
    with pytest.raises(ModelError, match="10 values and a document's 24"):
        Attributor(model, mode="retrieval")


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_prompt_tokens_are_marked_and_left_out_of_top(
    family: str, include_prompt: bool, tiny: TinyModels, rng: random.Random
) -> None:
    """They count in the totals and in special, and are shown only when asked for."""
    model = tiny.load(family, prompts=PROMPTS, include_prompt=include_prompt)
    pair = check(model, random_text(rng, 4), random_text(rng, 6), layer=1)
    for text in (pair.a, pair.b):
        kinds = text.groups.kinds
        shown = [text.groups.labels[g] for g, kind in enumerate(kinds) if kind == "prompt"]
        assert shown
        assert text.prompt == PROMPTS[text.role]
    hidden = {g for g, kind in enumerate(pair.a.groups.kinds) if kind != "text"}
    assert not {cell.i for cell in pair.top(10_000)} & hidden
    assert {cell.i for cell in pair.top(10_000, special=True)} >= hidden
    sums = summarise(pair, 10_000)
    kept = sum(cell.value for cell in sums.top)
    assert kept + sums.special == pytest.approx(pair.total, abs=1e-5)
    assert sums.special != 0


def test_at_layer_0_of_a_bert_prompts_have_exactly_no_contribution(tiny: TinyModels, rng: random.Random) -> None:
    """The reference keeps them, and below the first layer nothing has been mixed into them; nor do they inherit."""
    model = tiny.load("bert", prompts=PROMPTS)
    pair = check(model, random_text(rng, 4), random_text(rng, 6), layer=0)
    for axis, text in ((0, pair.a), (1, pair.b)):
        for g, kind in enumerate(text.groups.kinds):
            cells = np.take(pair.matrix, g, axis)
            assert (kind == "text") == bool(cells.any())


def test_prompts_are_given_by_name_or_text(tiny: TinyModels, tmp_path: Path, rng: random.Random) -> None:
    """What the job file says stands before the texts, and '' puts nothing there."""
    from jobs.config.job import parse_job
    from jobs.engine.model import make_attributor

    model = tiny.folder("bert", prompts=PROMPTS, default_prompt_name="document")
    common = {"model": str(model), "input": "x.csv", "output": str(tmp_path / "run")}
    loaded = SentenceTransformer(str(model), device="cpu")
    a, b = random_text(rng, 4), random_text(rng, 6)
    for prompts, by_query, by_document in (
        ({}, {}, {}),
        ({"query": "document"}, {"prompt_name": "document"}, {}),
        ({"query": "model: ", "document": ""}, {"prompt": "model: "}, {"prompt": ""}),
    ):
        job = parse_job(common | {"mode": "retrieval", "prompts": prompts})
        pair = make_attributor(job).attribute(a, b)
        expected = loaded.similarity(loaded.encode_query([a], **by_query), loaded.encode_document([b], **by_document))
        assert pair.score == pytest.approx(float(expected), abs=1e-5), prompts
    for text, arguments in ((None, {}), ("query", {"prompt_name": "query"}), ("", {"prompt": ""})):
        job = parse_job(common | {"prompts": {"text": text}})
        pair = make_attributor(job).attribute(a, b)
        expected = loaded.similarity(loaded.encode([a], **arguments), loaded.encode([b], **arguments))
        assert pair.score == pytest.approx(float(expected), abs=1e-5), text
