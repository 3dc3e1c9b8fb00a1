"""Every family: scores, sums, padding and batch-mates, and names that share code; test_oracle has the formula."""

from __future__ import annotations

import copy
import itertools
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import Oracle, check_pair
from PIL import Image
from sentence_transformers import SentenceTransformer
from tiny_families import ALIASES, FAST, FIXED, GENERIC, MORE_FAMILIES
from tiny_models import POOLINGS, TinyModels, random_text
from torch import nn
from transformers import EmbeddingGemma2Config, EmbeddingGemma2Model

from attribution_core import Attributor, ModelError, integrator
from attribution_core.errors import TextError
from attribution_core.model.inspection import LAYER_COUNTS, ModelFiles
from attribution_core.quadrature.calibration import SAMPLE
from attribution_core.training.shift import shift_model

NODES = 6
WAYS = ("forward", "reverse", "partner")
CUTS = (0, 1, -2, -1)
UNITS = ("token", "word", "sentence")
SIMILARITIES = ("cosine", "dot")
TOLERANCE = 2e-3
QUICK: dict[str, Any] = {"quadrature": "riemann", "nodes": 2}
HEADS: tuple[dict[str, Any], ...] = (
    {},
    {"normalize": True},
    {"dense": (10, "tanh")},
    {"dense": (16, "identity"), "normalize": True},  # Sentence-T5 and GTR
)


@pytest.fixture(autouse=True)
def _small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quadrature learned from fewer texts: nodes stand less well, and as many as are needed are taken."""
    monkeypatch.setattr("attribution_core.contributions.SAMPLE", SAMPLE[:4])


def pooling_of(family: str, turn: int) -> str | tuple[str, ...]:
    """Decoders are mostly pooled by their last token; it comes up every other time."""
    decoder = family.startswith(("qwen", "gemma", "llama", "mistral"))
    return "lasttoken" if decoder and turn % 2 else POOLINGS[turn % len(POOLINGS)]


@pytest.mark.parametrize("family", ALIASES)
def test_families_with_much_the_same_layers_work_too(family: str, tiny: TinyModels, seed: int) -> None:
    """The formula in both directions, scores, and texts in a padded batch: one look at each."""
    model = tiny.load(family, pooling=pooling_of(family, seed), seed=seed % 3)
    pairs = [("rain falls", "The coffee is bad."), ("three", "a dog runs after the red ball to the river")]
    judge = Oracle(model, layer=1, nodes=3).pair(*pairs[0])
    folder = str(tiny.folder(family, pooling=pooling_of(family, seed), seed=seed % 3))
    for way, one in (("forward", model), ("partner", folder)):
        attributor = Attributor(one, layer=1, quadrature="riemann", nodes=3, way=way)
        found = attributor.attribute_pairs(pairs)
        assert way in (found[0].a.way, found[0].b.way)
        check_pair(found[0], judge)
        for pair, (a, b) in zip(found, pairs, strict=True):
            assert pair.score == pytest.approx(float(model.similarity(model.encode(a), model.encode(b))), abs=2e-5)


@pytest.mark.rotates(2, cover=False)
@pytest.mark.parametrize("family", MORE_FAMILIES)
def test_scores_equal_the_models_similarity(family: str, tiny: TinyModels, rng: random.Random, seed: int) -> None:
    """In a padded batch too, behind prompts in or out of the pooling, and where a text is cut off."""
    prompts = {"query": "question: ", "document": "document: "}
    turn = MORE_FAMILIES.index(family) + seed
    model = tiny.load(
        family, pooling=pooling_of(family, turn), prompts=prompts, include_prompt=turn % 2 == 0, **rng.choice(HEADS)
    )
    a, b = [random_text(rng, words) for words in (2, 7, 90)], [random_text(rng, words) for words in (90, 3, 12)]
    expected = model.similarity(model.encode_query(a), model.encode_document(b)).numpy()
    attributor = Attributor(model, mode="retrieval", quadrature="riemann", nodes=1)
    pairs = list(itertools.product(range(3), range(3)))
    found = attributor.attribute_pairs([(a[i], b[j]) for i, j in pairs])
    for pair, (i, j) in zip(found, pairs, strict=True):
        assert pair.score == pytest.approx(float(expected[i, j]), abs=2e-5)
        assert pair.a.truncated == (i == 2)
        assert {kind for kind in pair.a.groups.kinds if kind != "special"} == {"prompt", "text"}


@pytest.mark.rotates(2, cover=False)
@pytest.mark.parametrize("family", MORE_FAMILIES)
def test_sums_hold_and_batch_mates_change_nothing(
    family: str, tiny: TinyModels, rng: random.Random, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Local attention, relative positions and left padding all leave room for a padded row to leak into another."""
    # With the rule's own weights the residual is what the sum misses; matched ones leave less (test_contributions).
    monkeypatch.setattr(integrator, "DAMPING", 1e12)
    turn = MORE_FAMILIES.index(family) + seed
    model = tiny.load(family, pooling=pooling_of(family, turn), seed=seed % 3)
    attributor = Attributor(model, layer=rng.choice((1, 2, 3)), max_nodes=24)
    encoder = attributor.encoder
    texts = [random_text(rng, words) for words in (1, 3, 8)]
    read = attributor.read(texts, "text")
    together = attributor.contributions(read)
    for text, found in zip(read, together, strict=True):
        gap = found.values_GD.astype(np.float64).sum(0) - (found.embedding_D.astype(np.float64) - found.reference_D)
        size = float(np.linalg.norm(found.embedding_D))
        assert float(np.linalg.norm(gap)) / size == pytest.approx(found.explained.residual, abs=2e-5)
        assert found.explained.converged or found.explained.nodes == 24
        (alone,) = attributor.contributions([text])
        assert np.abs(alone.values_GD - found.values_GD).max() / size <= 1e-4
        assert alone.explained.nodes == found.explained.nodes
    plain, padded = encoder.batch(read), encoder.batch(read, length=30)
    for row, text in enumerate(read):
        own = slice(0, len(text))
        np.testing.assert_allclose(plain.x_BSd[row, own], padded.x_BSd[row, own], atol=2e-5, rtol=0)
        np.testing.assert_allclose(plain.r_BSd[row, own], padded.r_BSd[row, own], atol=2e-5, rtol=0)


@pytest.mark.parametrize("family", ["modernbert", "gemma3", "gemma3-bidirectional"])
def test_rows_that_see_nothing_stay_finite_in_float64(family: str, tiny: TinyModels) -> None:
    """Behind local attention a padded row may be masked from every token, and a NaN there would spread to all."""
    attributor = Attributor(tiny.load(family), layer=2, quadrature="riemann", nodes=2, dtype="float64")
    read = attributor.read(["rain", "a dog runs after the red ball that rolls down to the river"], "text")
    for text, found in zip(read, attributor.contributions(read), strict=True):
        (alone,) = attributor.contributions([text])
        np.testing.assert_allclose(found.values_GD, alone.values_GD, rtol=0, atol=1e-5)


# Models for images and texts ------------------------------------------------------------------------------------------


def test_a_clip_of_the_older_kind_is_the_same_model(tiny: TinyModels, tmp_path: Path) -> None:
    """clip-ViT-B-32 is saved so: one module of a class of its own, and the end of a text is the highest id."""
    source = tiny.folder("clip")
    shutil.copytree(source, tmp_path / "0_CLIPModel")
    (tmp_path / "0_CLIPModel" / "sentence_bert_config.json").unlink()
    for name in ("modules.json", "config_sentence_transformers.json"):
        (tmp_path / "0_CLIPModel" / name).unlink()
    module = {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
    (tmp_path / "modules.json").write_text(json.dumps([module]), "utf-8")
    texts = ("rain falls", "the red ball")
    found = [Attributor(str(one), **QUICK).attribute(*texts) for one in (source, tmp_path)]
    np.testing.assert_array_equal(found[0].matrix, found[1].matrix)
    assert ModelFiles(tmp_path).size("text", LAYER_COUNTS) == 4


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("https://example.org/a.png", "the address of an image"),
        ("rain <|endoftext|> falls", "an end-of-text token inside"),
    ],
)
def test_texts_that_a_model_for_images_reads_otherwise_are_rejected(tiny: TinyModels, text: str, why: str) -> None:
    attributor = Attributor(tiny.load("clip"), **QUICK)
    with pytest.raises(TextError, match=why) as caught:
        attributor.attribute("the red ball", text)
    assert "\n" not in str(caught.value)
    attributor.attribute("the red ball", "https://example.org/a and more")
    with pytest.raises(TextError, match="the first text is Image, not text"):
        attributor.attribute(Image.new("RGB", (8, 8)), "the red ball")  # type: ignore[arg-type]
    # A model of texts alone reads an address as it reads any text.
    Attributor(tiny.load("bert"), **QUICK).attribute("the red ball", text)


@pytest.mark.parametrize("setting", ["padding", "model_input_names"])
def test_padding_that_the_batch_decides_on_is_refused(tiny: TinyModels, setting: str) -> None:
    """SigLIP reads padding: a text's embedding would depend on the longest text beside it."""
    model = tiny.load("siglip")
    pair = Attributor(model, **QUICK).attribute("coffee " * 9, "coffee " * 30)
    assert [len(pair.a.tokens), len(pair.b.tokens), pair.a.truncated, pair.b.truncated] == [FIXED, FIXED, False, True]
    if setting == "padding":
        model[0].processing_kwargs = {}
    else:
        model.tokenizer.model_input_names = ["input_ids", "attention_mask"]
    with pytest.raises(ModelError, match="SiglipModel reads padding as it reads words"):
        Attributor(model)


def test_other_towers_and_fine_tuning_are_refused(tiny: TinyModels) -> None:
    model = tiny.load("clip")
    with pytest.raises(ModelError, match="a text tower pools inside itself"):
        shift_model(model)
    model[0].model.config.model_type = "align"
    with pytest.raises(ModelError, match="supported are the texts of CLIP"):
        Attributor(model)


def test_the_texts_of_embedding_gemma_2_are_read_by_its_text_model(tiny: TinyModels) -> None:
    """What every layer gets of the tokens moves along the path too, so that no word stays in a reference."""
    text = tiny.load("embedding-gemma2", pooling="mean")
    pair = Attributor(text, **QUICK).attribute("rain falls", "the red ball")
    whole = copy.deepcopy(text)
    config = EmbeddingGemma2Config(text_config=text[0].model.config, vision_config=None, audio_config=None)
    whole[0].model = EmbeddingGemma2Model(config).eval()
    whole[0].model.language_model.load_state_dict(text[0].model.state_dict())
    whole[0].model_forward_params = None
    attributor = Attributor(whole, **QUICK)
    assert attributor.encoder.family.name == "EmbeddingGemma 2"
    np.testing.assert_allclose(attributor.attribute("rain falls", "the red ball").matrix, pair.matrix, atol=1e-6)
    # A reference is the same whatever the words were: nothing of them is left above the cut.
    a, b = attributor.read(["rain falls", "red ball"], "text")
    assert len(a) == len(b)
    found = attributor.contributions([a, b])
    np.testing.assert_allclose(found[0].reference_D, found[1].reference_D, atol=1e-6)


PARTS = (
    "{%% for message in messages %%}%s"
    "{%% for part in message['content'] %%}{{ part['text'] }}{%% endfor %%}{%% endfor %%}"
)


def test_a_chat_template_may_stand_around_a_text_if_it_adds_nothing(tiny: TinyModels, tmp_path: Path) -> None:
    """EmbeddingGemma 2 is saved so: a prompt is the system's message, and the text the user's."""
    model = tiny.load("gemma3-bidirectional", pooling="mean", prompts={"query": "question: "}, include_prompt=False)
    plain = dict(model[0].modality_config["text"])
    model[0].modality_config["message"] = plain | {"format": "structured"}
    model.tokenizer.chat_template = "<s>" + PARTS % "" + "</s>"
    model.save(str(tmp_path), create_model_card=False)
    model = SentenceTransformer(str(tmp_path), device="cpu")
    pairs = [("rain falls", "red ball"), ("a", "coffee " * 90)]
    found = Attributor(str(tmp_path), mode="retrieval", **QUICK).attribute_pairs(pairs)
    for pair, (a, b) in zip(found, pairs, strict=True):
        assert pair.score == pytest.approx(
            float(model.similarity(model.encode_query(a), model.encode_document(b))), abs=2e-5
        )
    assert found[0].a.groups.kinds.count("prompt") > 0
    model.tokenizer.chat_template = "<s>" + PARTS % "{{ message['role'] }}" + "</s>"
    with pytest.raises(ModelError, match="into a chat template that adds to them"):
        Attributor(model)


# What is peculiar to some --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [*MORE_FAMILIES, "ernie"])
def test_layers_of_berts_kind_take_the_fast_path(family: str, tiny: TinyModels) -> None:
    """Quietly falling back to torch.func would cost a factor of two."""
    products = type(Attributor(tiny.load(family)).contributor.products).__name__
    assert products == ("StructuredProducts" if family in (*FAST, "ernie") else "GenericProducts")
    assert {*FAST, *GENERIC} == set(MORE_FAMILIES)


@pytest.mark.parametrize("family", FAST)
def test_fast_path_equals_torch_func(family: str, tiny: TinyModels, rng: random.Random, seed: int) -> None:
    """At each cut: a shared layer is first, last and in between at once."""
    model = tiny.load(family, pooling=POOLINGS[seed % 5], seed=seed % 3)
    pairs = [(random_text(rng, 3), random_text(rng, 9))]
    for layer, way in zip(CUTS, (*WAYS, "forward"), strict=True):
        settings: dict[str, Any] = {"layer": layer, "quadrature": "riemann", "nodes": 4, "way": way, "dtype": "float64"}
        slow, fast = (
            Attributor(model, products=products, **settings).attribute_pairs(pairs)[0]
            for products in ("generic", "structured")
        )
        np.testing.assert_allclose(fast.matrix, slow.matrix, atol=1e-6, rtol=0)
        assert fast.total == pytest.approx(slow.total, abs=1e-11)


def test_an_adapter_in_a_layer_is_not_passed_over(tiny: TinyModels) -> None:
    """A layer that only looks like BERT's has more weights than the fast path reads."""

    class Adapted(nn.Linear):
        def forward(self, x: Any) -> Any:
            return super().forward(x) + 0.5 * x

    model = tiny.load("bert")
    settings: dict[str, Any] = {"quadrature": "riemann", "nodes": 60}
    plain = Attributor(model, **settings).attribute("rain falls", "red ball")
    layer: Any = model[0].model.encoder.layer[-1].attention.output  # type: ignore[union-attr]
    adapted = Adapted(layer.dense.in_features, layer.dense.out_features)
    adapted.load_state_dict(layer.dense.state_dict())
    layer.dense = adapted
    attributor = Attributor(model, **settings)
    assert type(attributor.contributor.products).__name__ == "GenericProducts"
    pair = attributor.attribute("rain falls", "red ball")
    assert pair.score == pytest.approx(
        float(model.similarity(model.encode(["rain falls"]), model.encode(["red ball"]))), abs=1e-5
    )
    assert abs(pair.score - plain.score) > 1e-4
    assert abs(pair.error) <= 5e-2


def test_a_shared_layer_is_cut_at_its_calls(tiny: TinyModels) -> None:
    """ALBERT has one layer and four calls of it; each call is another cut."""
    model = tiny.load("albert")
    settings: dict[str, Any] = {"quadrature": "riemann", "nodes": 60}
    found = [Attributor(model, layer=layer, **settings).attribute("rain falls", "red ball") for layer in range(4)]
    assert [pair.layer for pair in found] == [0, 1, 2, 3]
    assert all(abs(pair.error) <= 5e-2 for pair in found)
    assert all(np.abs(a.matrix - b.matrix).max() > 1e-4 for a, b in itertools.pairwise(found))
    with pytest.raises(ModelError, match="the model has 4 layers"):
        Attributor(model, layer=4)


def test_relative_positions_are_never_taken_for_rows_of_a_batch(tiny: TinyModels, rng: random.Random) -> None:
    """DeBERTa passes its table of relative positions to each layer: its rows may be as many as there are texts."""
    model = tiny.load("deberta-v3")
    rows = model[0].model.encoder.rel_embeddings.weight.shape[0]  # type: ignore[union-attr]
    # Texts of lengths of their own bring a reference each.
    for words in ([3, 4, 5, 6], [3] * 8):
        texts = [" ".join(rng.sample(("rain", "dog", "red", "ball", "book", "river", "paper"), n)) for n in words]
        attributor = Attributor(model, quadrature="riemann", nodes=3, layer=1)
        together = attributor.contributions(attributor.read(texts, "text"))
        for text, found in zip(texts, together, strict=True):
            (alone,) = attributor.contributions(attributor.read([text], "text"))
            np.testing.assert_allclose(alone.values_GD, found.values_GD, atol=1e-5)
    assert rows == 8


@pytest.mark.parametrize(
    ("present", "name"),
    [(("eos_token", "unk_token"), "</s> (end-of-text token)"), (("unk_token",), "<unk> (unknown token)")],
)
def test_a_tokenizer_without_padding_token_gets_a_reference(
    present: tuple[str, ...], name: str, tiny: TinyModels
) -> None:
    """Its end-of-text token, which such models are padded with, or else its unknown token, on a copy."""
    model = tiny.load("llama", pooling="lasttoken")
    chosen = {"eos_token": "</s>", "unk_token": "<unk>"}
    for kind in ("pad_token", "eos_token", "unk_token"):
        setattr(model.tokenizer, kind, chosen.get(kind) if kind in present else None)
    attributor = Attributor(model, layer=1, quadrature="riemann", nodes=60)
    assert attributor.encoder.reference_name == name
    assert model.tokenizer.pad_token is None
    pair = attributor.attribute("rain falls", "the red ball is here")
    assert abs(pair.error) <= 0.1
    # sentence-transformers itself pads with nothing less than a padding token.
    model.tokenizer.pad_token = "</s>"
    assert pair.score == pytest.approx(
        float(model.similarity(model.encode(["rain falls"]), model.encode(["the red ball is here"]))), abs=1e-5
    )


def test_a_tokenizer_without_any_such_token_is_refused(tiny: TinyModels) -> None:
    """Without it there is no reference text."""
    model = tiny.load("llama")
    for kind in ("pad_token", "eos_token", "unk_token"):
        setattr(model.tokenizer, kind, None)
    with pytest.raises(ModelError, match="no padding, end-of-text or unknown token"):
        Attributor(model)
