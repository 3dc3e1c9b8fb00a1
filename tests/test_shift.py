"""Shifted models: the reference of every text embeds to zero, however the model is used."""

from __future__ import annotations

import copy
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from tiny_models import FAMILIES, TinyModels, random_text

from attribution_core.errors import ModelError
from attribution_core.model.loading import load_model
from attribution_core.model.modules import is_shifted
from attribution_core.training.dropout import shared_dropout
from attribution_core.training.references import reference_features
from attribution_core.training.shift import ShiftedTransformer, shift_model


def texts(rng: random.Random, count: int = 5, longest: int = 12) -> list[str]:
    return [random_text(rng, rng.randint(1, longest)) for _ in range(count)]


def as_reference(model: SentenceTransformer, features: dict[str, Any]) -> dict[str, Any]:
    """The features of the references of a batch."""
    first: Any = model[0]
    return reference_features(dict(features), features["kept_mask"], first.pad_id)


def embed(model: SentenceTransformer, features: dict[str, Any]) -> torch.Tensor:
    return model(dict(features))["sentence_embedding"]


def loop_embeddings(base: SentenceTransformer, some: list[str], prompt: str = "") -> torch.Tensor:
    """The shift by its definition, text by text without padding: pooled e(text) tokens less e(reference) tokens."""
    transformer, pooling, *head = base
    out = []
    for text in some:
        read = base.tokenizer(
            prompt + text,
            return_tensors="pt",
            return_special_tokens_mask=True,
            return_offsets_mapping=True,
            truncation=True,
            max_length=base.max_seq_length,
        )
        kept = read.pop("special_tokens_mask").bool() | (read.pop("offset_mapping")[..., 1] <= len(prompt))
        reference = torch.where(kept, read["input_ids"], base.tokenizer.pad_token_id)
        with torch.no_grad():
            x = transformer.model(**read).last_hidden_state
            r = transformer.model(**{**read, "input_ids": reference}).last_hidden_state
            features: dict[str, Any] = {"token_embeddings": x - r, "attention_mask": read["attention_mask"]}
            for module in (pooling, *(m for m in head if not isinstance(m, Normalize))):
                features = module(features)
        out.append(features["sentence_embedding"][0])
    return torch.stack(out)


@pytest.mark.parametrize("family", FAMILIES)
def test_embedding_is_that_of_the_text_less_that_of_its_reference(
    tiny: TinyModels, rng: random.Random, family: str
) -> None:
    """Also where positions come from ids (RoBERTa, MPNet), in one batch of mixed lengths, and behind Normalize."""
    base = tiny.load(family, normalize=True)
    some = texts(rng, 7)
    found = torch.tensor(shift_model(base).encode(some, batch_size=4))
    torch.testing.assert_close(found, loop_embeddings(base, some), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean", "weightedmean", "lasttoken", ("mean", "cls")])
def test_references_embed_to_zero_at_every_length(tiny: TinyModels, rng: random.Random, pooling: Any) -> None:
    model = shift_model(tiny.load("bert", pooling=pooling))
    features = model.preprocess([random_text(rng, n) for n in (1, 2, 3, 9, 40, 70)])
    with torch.no_grad():
        zero, other = embed(model, as_reference(model, features)), embed(model, features)
    assert (zero.norm(dim=1) <= 1e-6 * other.norm(dim=1)).all()


def test_references_embed_to_zero_under_dropout_and_carry_gradients(tiny: TinyModels, rng: random.Random) -> None:
    """Text and reference must lose the same units; with other masks the reference is noise of the size of a text."""
    model = shift_model(tiny.load("bert", pooling="mean")).train()
    features = model.preprocess(texts(rng, 6))
    reference = as_reference(model, features)
    zero, once, again = (embed(model, one) for one in (reference, features, features))
    assert float((once - again).detach().abs().max()) > 1e-3, "dropout was off"
    assert float(zero.detach().abs().max()) <= 1e-5
    # The last bias is in text and reference alike: it has no gradient if, and only if, the reference has one.
    once.square().sum().backward()
    first: Any = model[0]
    bias, weight = (
        one.grad.norm() for one in reversed(list(first.model.encoder.layer[-1].output.LayerNorm.parameters()))
    )
    assert float(bias) <= 1e-4 * float(weight)


def test_dropout_that_would_be_drawn_again_is_refused(tiny: TinyModels) -> None:
    """Gradient checkpointing computes layers a second time, outside of the block that shares masks."""
    model = shift_model(tiny.load("bert"))
    first: Any = model[0]
    first.model.activation_checkpointing_enable()
    model.train()
    with pytest.raises(ModelError, match="gradient checkpointing"):
        embed(model, model.preprocess(["a dog"]))


def test_shared_dropout_loses_the_same_units_in_every_row(tiny: TinyModels, rng: random.Random) -> None:
    """In eager attention and in torch's own."""
    for attention in ("eager", "sdpa"):
        model = tiny.load("bert", pooling="mean")
        first: Any = model[0]
        first.model.set_attn_implementation(attention)
        model.train()
        features = model.preprocess([random_text(rng, 8)] * 3)
        with shared_dropout():
            same = embed(model, features)
        assert torch.allclose(same, same[:1].expand_as(same), atol=1e-5)
        other = embed(model, features)
        assert not torch.allclose(other, other[:1].expand_as(other), atol=1e-3)


def test_gradients_are_those_of_a_model_that_reads_text_and_reference(tiny: TinyModels, rng: random.Random) -> None:
    """Sharing references among the rows of a batch must not lose their gradients."""
    base = tiny.load("bert", pooling="mean")
    model = shift_model(base).eval()
    features = model.preprocess(texts(rng, 6, longest=4))
    embed(model, features).pow(2).sum().backward()
    plain: Any = base[0]
    reference = as_reference(model, features)
    names = ("input_ids", "attention_mask", "token_type_ids")
    x, r = (plain.model(**{n: one[n] for n in names}).last_hidden_state for one in (features, reference))
    mask = features["attention_mask"].unsqueeze(-1)
    (((x - r) * mask).sum(1) / mask.sum(1)).pow(2).sum().backward()
    wanted = dict(plain.model.named_parameters())
    shifted: Any = model[0]
    for name, value in shifted.model.named_parameters():
        if wanted[name].grad is not None:
            torch.testing.assert_close(value.grad, wanted[name].grad, atol=1e-4, rtol=1e-3)


def test_padding_and_batch_mates_do_not_change_an_embedding(tiny: TinyModels, rng: random.Random) -> None:
    for family in ("bert", "roberta"):
        model = shift_model(tiny.load(family))
        some = [random_text(rng, n) for n in (1, 4, 30, 2, 50)]
        alone = np.stack([model.encode(text) for text in some])
        np.testing.assert_allclose(model.encode(some, batch_size=5), alone, atol=1e-5)
        np.testing.assert_allclose(model.encode(some[::-1], batch_size=2)[::-1], alone, atol=1e-5)


def test_left_padding_shifts_every_row_by_its_own_reference(tiny: TinyModels, rng: random.Random) -> None:
    """A row that begins behind padding has other positions than a row that does not."""
    model = shift_model(tiny.load("bert"))
    model.tokenizer.padding_side = "left"
    features = model.preprocess([random_text(rng, n) for n in (3, 20, 9)])
    assert int(features["attention_mask"][0, 0]) == 0
    with torch.no_grad():
        zero, other = embed(model, as_reference(model, features)), embed(model, features)
    assert (zero.norm(dim=1) <= 1e-6 * other.norm(dim=1)).all()


def test_prompts_stay_in_the_reference(tiny: TinyModels, rng: random.Random) -> None:
    prompts = {"query": "question: ", "document": ""}
    base = tiny.load("xlm-roberta", prompts=prompts)
    model, some = shift_model(base), texts(rng, 4)
    assert model.prompts == base.prompts
    found = torch.tensor(model.encode(some, prompt_name="query"))
    torch.testing.assert_close(found, loop_embeddings(base, some, "question: "), atol=1e-5, rtol=1e-5)
    assert not np.allclose(found, model.encode(some), atol=1e-3)


def test_references_are_computed_once_and_follow_the_weights(
    tiny: TinyModels, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inference keeps them; any change of the weights, as an optimiser or ``load_state_dict`` makes it, is noticed."""
    model = shift_model(tiny.load("bert"))
    first: Any = model[0]
    some = texts(rng, 6)
    rows: list[int] = []
    plain = ShiftedTransformer.unshifted

    def counting(self: ShiftedTransformer, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        rows.append(len(features["input_ids"]))
        return plain(self, features, **kwargs)

    monkeypatch.setattr(ShiftedTransformer, "unshifted", counting)
    model.encode(some)
    assert len(rows) == 2
    model.encode(some)
    assert rows[2:] == [6], "references that were known were computed again"
    for fused in (False, True):
        before = model.encode(some)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=fused)
        for one in model.parameters():
            one.grad = torch.ones_like(one)
        optimizer.step()
        changed = model.encode(some)
        assert not np.allclose(changed, before, atol=1e-3)
        np.testing.assert_allclose(changed, copy.deepcopy(model).encode(some), atol=1e-5)
    fresh = copy.deepcopy(model)
    assert len(first._references) > 0
    assert len(fresh[0]._references) == 0
    np.testing.assert_allclose(changed, fresh.encode(some), atol=1e-5)
    other = shift_model(tiny.load("bert", seed=5))
    model.load_state_dict(other.state_dict())
    np.testing.assert_allclose(model.encode(some), other.encode(some), atol=1e-5)
    for one in model.parameters():
        one.data.mul_(1.01)  # leaves no trace, so it has to be said
    first.forget_references()
    np.testing.assert_allclose(model.encode(some), copy.deepcopy(model).encode(some), atol=1e-5)


def test_saved_model_loads_as_tokenpairs_own_and_no_other_class_does(
    tiny: TinyModels, rng: random.Random, tmp_path: Path
) -> None:
    model, some = shift_model(tiny.load("mpnet", normalize=True)), texts(rng, 5)
    model.save(str(tmp_path / "exact"), create_model_card=False)
    name, loaded = load_model(tmp_path / "exact", device="cpu")
    assert is_shifted(loaded)
    assert name == str(tmp_path / "exact")
    np.testing.assert_array_equal(loaded.encode(some), model.encode(some))
    with pytest.raises(ValueError, match="trust_remote_code"):
        SentenceTransformer(str(tmp_path / "exact"), device="cpu")
    trusted = SentenceTransformer(str(tmp_path / "exact"), device="cpu", trust_remote_code=True)
    np.testing.assert_array_equal(trusted.encode(some), model.encode(some))
    modules = tmp_path / "exact" / "modules.json"
    modules.write_text(modules.read_text().replace("shift.ShiftedTransformer", "shift.Other"))
    with pytest.raises(ModelError, match="code of its own"):
        load_model(tmp_path / "exact", device="cpu")


def test_a_pickled_model_embeds_alike(tiny: TinyModels, rng: random.Random) -> None:
    """Worker processes of ``encode`` get their model so."""
    model, some = shift_model(tiny.load("bert")), texts(rng, 3)
    model.encode(some)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).encode(some), model.encode(some))


def test_the_callers_model_is_left_as_it_was(tiny: TinyModels, rng: random.Random) -> None:
    base, some = tiny.load("bert", normalize=True, dense=(8, "identity")), texts(rng, 3)
    before = base.encode(some)
    shifted = shift_model(base)
    with torch.no_grad():
        for value in shifted.parameters():
            value.add_(1.0)
    np.testing.assert_array_equal(base.encode(some), before)
    assert not is_shifted(base)


def test_heads_keep_zero_at_zero_or_are_refused(tiny: TinyModels, rng: random.Random) -> None:
    """A linear Dense loses its bias, which is the shift behind it; behind a tanh there is no such way."""
    base, some = tiny.load("bert", dense=(8, "identity"), normalize=True), texts(rng, 4)
    model = shift_model(base)
    assert not any(isinstance(module, Normalize) for module in model)
    transformer, pooling, dense, _ = base
    raw = [transformer, pooling, dense]

    def behind(features: dict[str, Any]) -> torch.Tensor:
        features = dict(features)
        for module in raw:
            features = module(features)
        return features["sentence_embedding"]

    features = model.preprocess(some)
    with torch.no_grad():
        wanted = behind(features) - behind(as_reference(model, features))
        torch.testing.assert_close(embed(model, features), wanted, atol=1e-5, rtol=1e-5)
    with pytest.raises(ModelError, match="bias before its Tanh"):
        shift_model(tiny.load("bert", dense=(8, "tanh")))
    unbiased = tiny.load("bert")
    unbiased.append(Dense(24, 8, bias=False))
    assert float(np.abs(shift_model(unbiased).encode(some)).max()) > 0
    unbiased.append(Normalize())
    unbiased.append(Dense(8, 8, bias=False))
    with pytest.raises(ModelError, match="Normalize before other modules"):
        shift_model(unbiased)


def test_a_normalised_dot_model_becomes_a_cosine_model(tiny: TinyModels) -> None:
    """Its dot products were cosines; without Normalize they would be something else."""
    assert shift_model(tiny.load("bert", normalize=True, similarity="dot")).similarity_fn_name == "cosine"
    assert shift_model(tiny.load("bert", similarity="dot")).similarity_fn_name == "dot"


def test_features_made_by_hand_are_told_what_they_lack(tiny: TinyModels) -> None:
    model = shift_model(tiny.load("bert"))
    with pytest.raises(ModelError, match="kept_mask"):
        model(dict(model.tokenizer(["a dog"], return_tensors="pt")))
