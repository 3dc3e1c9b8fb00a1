"""The cut model reads, encodes and scores as the loaded model does, and leaves that model alone."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny_models import FAMILIES, MAX_LENGTH, POOLINGS, TinyModels, random_text
from transformers import FNetConfig, FNetModel

from attribution_core import Attributor, ModelError, SettingError, TextError
from attribution_core.model.encoder import ReadText

ODD_TEXTS = (
    "The coffee isn't good.",
    "naïve café — Ünïcode",
    "👍🏽 good 👨‍👩‍👧 coffee 😀😀",
    "zero\u200bwidth\u200djoined\ufeff book",
    "tab\there\nnew line\r\n\x07bell\x00nul",
    "e\u0301 combining a\u030a",
    "コーヒーは良くない。 这不是好咖啡。",
    "مرحبا بالعالم שלום",
    "   spaces   around   ",
    "ﬁne ½ ™ ①",
    "[SEP] </s> [PAD] <pad> inside",
    "x",
    "!?…",
)


def read_one(model: SentenceTransformer, text: str, **settings: Any) -> ReadText:
    return Attributor(model, **settings).read([text], "text")[0]


# What the text is read as ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_that_the_model_encodes(family: str, tiny: TinyModels) -> None:
    """Labels read with another call than the encoded ids would drift apart on odd characters."""
    model = tiny.load(family)
    for text, read in zip(ODD_TEXTS, Attributor(model).read(ODD_TEXTS, "text"), strict=True):
        ids = model.tokenize([text])["input_ids"][0].tolist()
        assert list(read.ids) == ids, text
        assert list(read.tokens) == model.tokenizer.convert_ids_to_tokens(ids)
        assert (read.kept[0], read.kept[-1]) == (True, True)
        assert not any(read.kept[1:-1]), "a special token written in the text is text"
        assert read.truncated is False
        assert read.cut_at is None


@pytest.mark.parametrize("unit", ["token", "word", "sentence"])
@pytest.mark.parametrize("family", FAMILIES)
def test_offsets_slice_the_original_text(family: str, unit: str, tiny: TinyModels) -> None:
    """Offsets of the normalised or prompted text would point beside the words in the original."""
    attributor = Attributor(tiny.load(family), groups=unit)
    for text, read in zip(ODD_TEXTS, attributor.read(ODD_TEXTS, "text"), strict=True):
        groups = read.groups
        covered: set[int] = set()
        for label, start, end, kind in zip(groups.labels, groups.starts, groups.ends, groups.kinds, strict=True):
            assert 0 <= start <= end <= len(text)
            if kind == "text":
                covered |= set(range(start, end))
                if unit != "token" and end > start:
                    assert label == text[start:end]
        seen = {at for at in covered if text[at].isalnum()}
        assert {at for at, char in enumerate(text) if char.isascii() and char.isalnum()} <= seen


def test_word_labels_come_from_the_text_not_the_tokenizer(tiny: TinyModels) -> None:
    """Lower-cased pieces without accents are not what a reader wrote."""
    labels = read_one(tiny.load("bert"), "Naïve READERS aren't fastest 😀").groups.labels
    assert labels == ("[CLS]", "Naïve", "READERS", "aren't", "fastest", "😀", "[SEP]")


@pytest.mark.parametrize("family", FAMILIES)
def test_text_over_the_models_length_is_recorded_as_cut(family: str, tiny: TinyModels, rng: random.Random) -> None:
    """Truncation must never be silent, and what follows the cut is no group."""
    text = random_text(rng, 200)
    model = tiny.load(family)
    read = read_one(model, text)
    assert read.truncated
    assert len(read) == MAX_LENGTH
    assert read.cut_at is not None
    # The last token may be a lone space: the model read it, and no word ends with it.
    assert text[: read.cut_at].rstrip() == text[: max(read.groups.ends)]
    whole = read_one(model, text[: read.cut_at])
    assert whole.ids == read.ids
    # Tokens of bytes may end inside the last character, which is then cut itself.
    needed = len(model.tokenizer(text[: read.cut_at], truncation=False)["input_ids"])
    assert whole.truncated == (needed > MAX_LENGTH)
    assert not whole.truncated or (family == "roberta" and not text[read.cut_at - 1].isascii())


@pytest.mark.parametrize("family", FAMILIES)
def test_text_that_just_fits_is_not_marked_as_cut(family: str, tiny: TinyModels) -> None:
    """White space and characters that leave no token behind the last one are not lost text."""
    model = tiny.load(family)
    for tail in ("", "   ", "\n\n", "\u200b", " \u200b "):
        assert not read_one(model, f"the book is open{tail}").truncated, repr(tail)


def test_prompt_tokens_are_marked_and_offsets_leave_them_out(tiny: TinyModels) -> None:
    """A prompt shifts every character; its tokens are neither text nor special."""
    for family in FAMILIES:
        model = tiny.load(family, prompts={"query": "question: "})
        read = Attributor(model, mode="retrieval").read(["Where is rain?"], "query")[0]
        text_groups = [g for g, kind in enumerate(read.groups.kinds) if kind == "text"]
        assert [read.groups.labels[g] for g in text_groups] == ["Where", "is", "rain", "?"], family
        assert read.groups.starts[text_groups[0]] == 0
        assert set(read.groups.kinds) == {"text", "special", "prompt"}
        assert read.prompt == "question: "


def test_roles_take_the_prompts_that_encode_would_take(tiny: TinyModels) -> None:
    """encode uses the default prompt, encode_query and encode_document their own first."""
    prompts = {"query": "question: ", "document": "document: ", "other": "number: "}
    model = tiny.load("bert", prompts=prompts, default_prompt_name="other")
    symmetric, retrieval = Attributor(model), Attributor(model, mode="retrieval")
    assert symmetric.read(["rain"], "text")[0].prompt == "number: "
    assert retrieval.read(["rain"], "query")[0].prompt == "question: "
    assert retrieval.read(["rain"], "document")[0].prompt == "document: "
    named = Attributor(model, mode="retrieval", prompt_a="other", prompt_b="model: ")
    assert named.read(["rain"], "query")[0].prompt == "number: "
    assert named.read(["rain"], "document")[0].prompt == "model: "


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "\u200b"])
def test_text_without_a_token_is_refused_by_name(text: str, tiny: TinyModels) -> None:
    """There is nothing to attribute, and a matrix without rows helps nobody."""
    attributor = Attributor(tiny.load("bert"))
    assert attributor.read([text], "text")[0].problem == "no token to attribute"
    with pytest.raises(TextError, match=r"pair 1: the second text has no token to attribute"):
        attributor.attribute_pairs([("rain", "rain"), ("rain", text)])


def test_text_that_is_no_string_is_refused(tiny: TinyModels) -> None:
    """A null cell must not be attributed as the word None."""
    with pytest.raises(TextError, match="pair 0: the first text is NoneType"):
        Attributor(tiny.load("bert")).attribute(None, "rain")  # type: ignore[arg-type]


# What the model says -----------------------------------------------------------------------------------------------


def check_scores(model: SentenceTransformer, pairs: list[tuple[str, str]], attributor: Attributor) -> None:
    found = np.array([pair.score for pair in attributor.attribute_pairs(pairs)])
    one_by_one = [
        (model.encode([a], convert_to_tensor=True), model.encode([b], convert_to_tensor=True)) for a, b in pairs
    ]
    expected = np.array([float(model.similarity(e_a, e_b)) for e_a, e_b in one_by_one])
    unit = np.array(
        [float(e_a.norm() * e_b.norm()) if attributor.similarity == "dot" else 1.0 for e_a, e_b in one_by_one]
    )
    np.testing.assert_allclose(found / unit, expected / unit, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_score_equals_the_models_similarity(
    family: str, pooling: str | tuple[str, ...], tiny: TinyModels, rng: random.Random
) -> None:
    """The attribution must be of the very number that the user's model returns."""
    head: dict[str, Any] = rng.choice([{}, {"dense": (10, "tanh")}, {"normalize": True}, {"truncate_dim": 7}])
    model = tiny.load(family, pooling=pooling, similarity=rng.choice(("cosine", "dot")), **head)
    pairs = [(random_text(rng, 3), random_text(rng, 9)), (random_text(rng, 90), ODD_TEXTS[rng.randrange(5)])]
    check_scores(model, pairs, Attributor(model, quadrature="riemann", nodes=1))


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_score_equals_similarity_with_every_part_at_once(similarity: str, tiny: TinyModels, rng: random.Random) -> None:
    """Dense, then Normalize, then cutting to seven values: the order decides the norm."""
    model = tiny.load("mpnet", dense=(12, "tanh"), normalize=True, truncate_dim=7, similarity=similarity)
    attributor = Attributor(model, quadrature="riemann", nodes=1)
    assert attributor.encoder.embedding_width == 7
    check_scores(model, [(random_text(rng, 4), random_text(rng, 6)) for _ in range(3)], attributor)


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_score_equals_similarity_behind_prompts(
    family: str, include_prompt: bool, tiny: TinyModels, rng: random.Random
) -> None:
    """Query and document prompts, in or out of the pooling, as encode_query and encode_document do it."""
    prompts = {"query": "question: ", "document": "document, number three: "}
    model = tiny.load(family, pooling=rng.choice(POOLINGS), prompts=prompts, include_prompt=include_prompt)
    a, b = random_text(rng, 4), random_text(rng, 12)
    expected = float(model.similarity(model.encode_query([a]), model.encode_document([b])))
    pair = Attributor(model, mode="retrieval", quadrature="riemann", nodes=1).attribute(a, b)
    assert pair.score == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_callers_model_is_left_as_it_was(family: str, tiny: TinyModels, rng: random.Random) -> None:
    """Attribution needs eager attention and its own dtype: on a copy."""
    model = tiny.load(family, similarity="dot")
    transformer: Any = model[0]
    attention = transformer.model.config._attn_implementation
    assert attention == ("eager" if family == "mpnet" else "sdpa")
    model.to(torch.float16)
    model.train()
    before = copy.deepcopy(model.state_dict())
    texts = [random_text(rng, 5), random_text(rng, 7)]
    model.eval()
    encoded = model.encode(texts)
    model.train()
    Attributor(model, nodes=4).attribute(*texts)
    assert model.training
    assert transformer.model.config._attn_implementation == attention
    assert {value.dtype for value in model.parameters()} == {torch.float16}
    assert not any(value.requires_grad is False for value in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    model.eval()
    np.testing.assert_array_equal(model.encode(texts), encoded)


# What is refused ---------------------------------------------------------------------------------------------------


def test_negative_layers_count_from_the_top(tiny: TinyModels) -> None:
    """Layer −2 of four layers is layer 2."""
    model = tiny.load("bert")
    assert [Attributor(model, layer=layer).layer for layer in (-4, -2, -1, 0, 3)] == [0, 2, 3, 0, 3]


@pytest.mark.parametrize("layer", [4, -5, 17])
def test_a_layer_that_does_not_exist_is_refused(layer: int, tiny: TinyModels) -> None:
    """Silently taking another layer would attribute another model."""
    with pytest.raises(ModelError, match=rf"layer {layer} does not exist: the model has 4 layers"):
        Attributor(tiny.load("bert"), layer=layer)


@pytest.mark.parametrize("similarity", ["euclidean", "manhattan"])
def test_a_distance_is_refused_with_the_reason(similarity: str, tiny: TinyModels) -> None:
    """Whether it is the model's own or asked for."""
    with pytest.raises(SettingError, match=f"{similarity}.*not a product of two embeddings"):
        Attributor(tiny.load("bert"), similarity=similarity)
    with pytest.raises(SettingError, match="ask for 'cosine' or 'dot'"):
        Attributor(tiny.load("bert", similarity=similarity))
    assert Attributor(tiny.load("bert", similarity=similarity), similarity="cosine").similarity == "cosine"


def test_an_unsupported_family_is_refused_with_the_list(tiny: TinyModels) -> None:
    """The user learns which families work."""
    model = tiny.load("bert")
    transformer: Any = model[0]
    config = FNetConfig(vocab_size=len(model.tokenizer), hidden_size=24, num_hidden_layers=1, intermediate_size=24)
    transformer.model = FNetModel(config)
    with pytest.raises(ModelError, match=r"'fnet' cannot be attributed yet; supported are BERT, .*ModernBERT.*static"):
        Attributor(model)


def test_a_module_that_cannot_be_attributed_is_named(tiny: TinyModels) -> None:
    """Two poolings, or none, are no encoder that can be cut."""
    model = tiny.load("bert")
    with pytest.raises(ModelError, match="Transformer → Pooling"):
        Attributor(SentenceTransformer(modules=[model[0]], device="cpu"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"groups": "letter"}, "groups 'letter' is unknown; allowed are token, word, sentence"),
        ({"mode": "both"}, "mode 'both' is unknown; allowed are symmetric, retrieval"),
        ({"dtype": "float16"}, "dtype 'float16' is unknown"),
        ({"memory": 1000}, "memory is 1000; it must be a number of bytes"),
        ({"memory": "2GiB"}, "memory is '2GiB'; it must be a number of bytes"),
        ({"similarity": "hamming"}, "similarity 'hamming' is unknown"),
        ({"prompt_a": "x: "}, "symmetric mode both texts have the same prompt"),
        ({"way": "sideways"}, "way 'sideways' is unknown"),
        ({"products": "quick"}, "products 'quick' is unknown"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(settings: dict[str, Any], said: str, tiny: TinyModels) -> None:
    """Each message names the setting, what was found and what is allowed."""
    with pytest.raises(SettingError, match=said):
        Attributor(tiny.load("bert"), **settings)


def test_a_folder_without_a_model_is_refused(tmp_path: Any) -> None:
    """One clear line, not a traceback of three libraries."""
    with pytest.raises(ModelError, match="there is no model folder"):
        Attributor(tmp_path / "nothing")
    with pytest.raises(ModelError, match="holds no model"):
        Attributor(str(tmp_path))


def test_fingerprint_tells_models_apart_and_only_models(tiny: TinyModels) -> None:
    """A resumed run relies on it: equal for the same folder, different for other weights or another head."""
    same = [Attributor(tiny.load("bert")).fingerprint() for _ in range(2)]
    others = [Attributor(tiny.load("bert", **shape)).fingerprint() for shape in ({"seed": 9}, {"pooling": "cls"})]
    assert same[0] == same[1]
    assert len({same[0], *others}) == 3
