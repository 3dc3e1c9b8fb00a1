"""No number comes from random weights: a checkpoint and the model that is built from it must be of one kind."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Router
from tiny_families import MORE_FAMILIES
from tiny_models import FAMILIES, TinyModels, randomise
from torch import Tensor
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer
from typer.testing import CliRunner

from attribution_core.attribution import Attributor
from attribution_core.errors import ModelError
from attribution_core.model.families import family_of
from attribution_core.model.loading import load_model
from attribution_core.model.own_precision import PAIRS
from attribution_core.quadrature.calibration import PathFamily
from jobs.cli import main as cli
from jobs.run.totals import Totals

Weights = dict[str, Tensor]
POINTER = (
    "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32\nsize 90868\n"
)


@pytest.fixture
def folder(tiny: TinyModels, tmp_path: Path) -> Path:
    """A model of a transformer, pooling and a Dense layer, to be tampered with."""
    return Path(shutil.copytree(tiny.folder("bert", dense=(8, "tanh")), tmp_path / "model"))


def rewrite(place: Path, change: Callable[[Weights], Weights]) -> None:
    weights = change(load_file(place / "model.safetensors"))
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})


def without(*signs: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: one for name, one in weights.items() if not any(sign in name for sign in signs)}


def configure(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | fields), "utf-8")


def refusal(folder: Path) -> str:
    """The one line that a model is refused with."""
    with pytest.raises(ModelError) as caught:
        load_model(folder, device="cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Those of whose weights transformers has names of its own.
RENAMED = ("nomic-bert", "gte", "jina-v3")


@pytest.mark.parametrize("family", [*FAMILIES, *MORE_FAMILIES, *RENAMED[1:]])
def test_a_weight_that_any_family_lacks_is_named(
    tiny: TinyModels, rng: random.Random, tmp_path: Path, family: str
) -> None:
    """Each weight but the pooler's, which mean pooling does not use, is one that embeddings depend on."""
    copied = Path(shutil.copytree(tiny.folder(family), tmp_path / "model"))
    load_model(copied, device="cpu")
    names = sorted(name for name in load_file(copied / "model.safetensors") if "pooler" not in name)
    lost = rng.choice(names)
    rewrite(copied, without(lost))
    found = refusal(copied)
    assert "its checkpoint lacks" in found
    assert lost.removeprefix("encoder.") in found or family in RENAMED


def test_a_whole_layer_is_named_once(folder: Path) -> None:
    rewrite(folder, without("encoder.layer.2."))
    assert "lacks encoder.layer.2.*, which would be random numbers" in refusal(folder)


def test_a_pooler_may_be_missing_where_pooling_does_not_use_it(folder: Path) -> None:
    names = set(load_file(folder / "model.safetensors"))
    assert {"pooler.dense.weight", "pooler.dense.bias"} <= names
    expected = load_model(folder, device="cpu")[1].encode("some words")
    rewrite(folder, without("pooler"))
    assert abs(load_model(folder, device="cpu")[1].encode("some words") - expected).max() == 0


def test_weights_that_nothing_takes_are_named(folder: Path) -> None:
    rewrite(folder, lambda weights: weights | {"encoder.layer.0.adapter.weight": torch.ones(2, 2)})
    assert "nothing in BertModel uses encoder.layer.0.adapter.weight" in refusal(folder)
    rewrite(folder, without("adapter"))
    configure(folder, num_hidden_layers=2)
    assert "uses encoder.layer.2.*, encoder.layer.3.*" in refusal(folder)
    configure(folder, num_hidden_layers=5)
    assert "lacks encoder.layer.4.*" in refusal(folder)


@pytest.mark.parametrize("module", ["2_Dense"])
def test_modules_above_the_transformer_are_checked_too(folder: Path, module: str) -> None:
    rewrite(folder / module, without("bias"))
    assert "bias" in refusal(folder)
    rewrite(folder / module, lambda weights: weights | {"linear.bias": torch.zeros(8), "linear.more": torch.zeros(8)})
    assert "more" in refusal(folder)


def test_a_weight_of_another_shape_is_named_with_both_shapes(folder: Path) -> None:
    name = "encoder.layer.1.output.dense.bias"
    rewrite(folder, lambda weights: weights | {name: torch.zeros(7)})
    assert f"weight {name} has shape 7 in the checkpoint and 24 by config.json" in refusal(folder)


@pytest.mark.parametrize("family", ["bert", "roberta", "mpnet", "distilbert", "electra", "modernbert", "deberta-v2"])
def test_the_head_of_a_language_model_is_let_through(tiny: TinyModels, tmp_path: Path, family: str) -> None:
    """Checkpoints of pretraining carry one, and sentence-transformers puts pooling on what is below it."""
    source = tiny.folder(family)
    model = AutoModelForMaskedLM.from_config(AutoConfig.from_pretrained(source))
    randomise(model, 3)
    model.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path / "model")
    _, loaded = load_model(tmp_path / "model", device="cpu")
    base = model.base_model.state_dict()
    for name, value in loaded[0].model.state_dict().items():
        assert "pooler" in name or torch.equal(value, base[name])
    # The same head where nothing says that the checkpoint has one.
    configure(tmp_path / "model", architectures=[type(loaded[0].model).__name__])
    assert "nothing in" in refusal(tmp_path / "model")


def test_old_position_buffers_are_let_through(folder: Path) -> None:
    rewrite(folder, lambda weights: weights | {"embeddings.position_ids": torch.arange(80)[None]})
    load_model(folder, device="cpu")


def test_another_class_than_the_one_named_is_refused(folder: Path) -> None:
    configure(folder, architectures=["BertForMaskedLM"])
    load_model(folder, device="cpu")
    for named in ("NomicBertModel", "BertBidirectionalModel", "RobertaModel"):
        configure(folder, architectures=[named])
        assert f"names the class {named} and transformers built BertModel" in refusal(folder)
    configure(folder, architectures=["BertModel"], auto_map={"AutoModel": "modeling_own.BertModel"})
    assert "names code of its own (modeling_own.BertModel)" in refusal(folder)
    configure(folder, auto_map={"AutoModelForMaskedLM": "modeling_own.BertForMaskedLM"})
    load_model(folder, device="cpu")


@pytest.mark.parametrize("family", ["qwen2", "llama", "mistral"])
def test_attention_is_what_the_configuration_says(tiny: TinyModels, tmp_path: Path, family: str) -> None:
    """transformers' decoders follow one of the two fields that say so, and would silently ignore the other."""
    copied = Path(shutil.copytree(tiny.folder(family), tmp_path / "model"))
    causal = load_model(copied, device="cpu")[1].encode("some words")
    configure(copied, use_bidirectional_attention=True)
    assert "says use_bidirectional_attention: true, but " in refusal(copied)
    configure(copied, use_bidirectional_attention=None, is_causal=False)
    assert abs(load_model(copied, device="cpu")[1].encode("some words") - causal).max() > 1e-3


@pytest.mark.parametrize("own_code", [False, True])
def test_experts_that_would_be_dropped_are_named(tiny: TinyModels, tmp_path: Path, own_code: bool) -> None:
    """nomic-embed-text-v2-moe is a nomic_bert by its configuration."""
    copied = Path(shutil.copytree(tiny.folder("nomic-bert"), tmp_path / "model"))
    configure(copied, num_experts=0)
    load_model(copied, device="cpu")
    mapped = {"auto_map": {"AutoModel": "modeling_own.NomicBertModel"}} if own_code else {}
    configure(copied, num_experts=8, moe_top_k=2, moe_every_n_layers=2, **mapped)
    assert "a mixture of 8 experts, and NomicBertModel has none and would ignore their weights" in refusal(copied)


def test_experts_that_transformers_has_are_refused_too() -> None:
    config = SimpleNamespace(model_type="qwen3_moe", num_experts=128)
    with pytest.raises(ModelError, match="a router picks some of 128 experts"):
        family_of(SimpleNamespace(config=config))


def test_layers_of_own_code_may_be_elsewhere() -> None:
    with pytest.raises(ModelError, match="not where transformers' own Nomic-BERT has them"):
        family_of(SimpleNamespace(config=SimpleNamespace(model_type="nomic_bert"), encoder=None))


@pytest.mark.parametrize(
    ("fields", "instead"),
    [({"model_type": "new"}, "as 'gte'"), ({"architectures": ["XLMRobertaLoRA"]}, "as 'jina_embeddings_v3'")],
)
def test_own_code_that_transformers_has_by_now_is_named(folder: Path, fields: dict[str, Any], instead: str) -> None:
    configure(folder, **fields)
    assert instead in refusal(folder)


OWN_CODE = """
from transformers import LlamaConfig, LlamaModel


class LlamaBidirectionalConfig(LlamaConfig):
    model_type = "llama_bidirec"
    is_causal = False


class LlamaBidirectionalModel(LlamaModel):
    config_class = LlamaBidirectionalConfig
"""


def test_a_llama_with_code_of_its_own_is_attributed_once_it_is_trusted(tiny: TinyModels, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(tiny.folder("llama", pooling="mean"), tmp_path / "model"))
    (copied / "own_llama.py").write_text(OWN_CODE, "utf-8")
    configure(
        copied,
        model_type="llama_bidirec",
        architectures=["LlamaBidirectionalModel"],
        auto_map={
            "AutoConfig": "own_llama.LlamaBidirectionalConfig",
            "AutoModel": "own_llama.LlamaBidirectionalModel",
        },
    )
    assert "set trust_remote_code" in refusal(copied)
    model = load_model(copied, device="cpu", trust_remote_code=True)[1]
    texts = ("rain falls", "the red ball")
    pair, causal = (
        Attributor(one, quadrature="riemann", nodes=2).attribute(*texts) for one in (model, tiny.load("llama"))
    )
    expected = float(model.similarity(*(model.encode([text]) for text in texts)))
    assert pair.score == pytest.approx(expected, abs=1e-5)
    assert abs(pair.score - causal.score) > 1e-3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("module", ["", "2_Dense"])
def test_weights_that_are_not_finite_are_named(folder: Path, rng: random.Random, module: str, value: float) -> None:
    names = [name for name in load_file(folder / module / "model.safetensors") if "pooler" not in name]
    name = rng.choice(sorted(names))

    def spoiled(weights: Weights) -> Weights:
        weights[name].view(-1)[rng.randrange(weights[name].numel())] = value
        return weights

    rewrite(folder / module, spoiled)
    found = refusal(folder)
    assert "NaN or infinite values in its weights" in found
    assert name in found
    # A model that the caller has loaded is looked at as well.
    with pytest.raises(ModelError, match="NaN or infinite"):
        Attributor(SentenceTransformer(str(folder), device="cpu"))


def test_an_unused_weight_may_be_infinite(folder: Path) -> None:
    rewrite(folder, lambda weights: weights | {"pooler.dense.bias": torch.full((24,), float("inf"))})
    load_model(folder, device="cpu")


@pytest.mark.parametrize("file", ["model.safetensors", "2_Dense/model.safetensors", "tokenizer.json"])
def test_a_git_lfs_pointer_is_called_one(folder: Path, file: str) -> None:
    (folder / file).write_text(POINTER, "utf-8")
    assert f"its file {file} is a git-lfs pointer" in refusal(folder)


def test_pointers_that_nobody_opens_are_no_fault(folder: Path) -> None:
    (folder / "onnx").mkdir()
    for unused in ("onnx/model.onnx", "pytorch_model.bin", "tf_model.h5"):
        (folder / unused).write_text(POINTER, "utf-8")
    load_model(folder, device="cpu")


@pytest.mark.parametrize(
    ("file", "kind"), [("onnx/model.onnx", "ONNX"), ("openvino_model.xml", "OpenVINO"), ("tf_model.h5", "TensorFlow")]
)
def test_files_of_other_backends_alone_are_named(folder: Path, file: str, kind: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(b"x" * 4096)
    assert f"it holds {kind} files alone" in refusal(folder)


def test_a_folder_without_weights_says_which(folder: Path) -> None:
    (folder / "2_Dense" / "model.safetensors").unlink()
    assert "its folder 2_Dense holds no weights" in refusal(folder)
    (folder / "model.safetensors").unlink()
    assert "its folder holds no weights" in refusal(folder)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_download_that_was_cut_short_is_named(folder: Path, share: float) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: int(share * len(whole))])
    assert "its file model.safetensors is damaged or cut short" in refusal(folder)


def test_sharded_checkpoints(folder: Path) -> None:
    expected = load_model(folder, device="cpu")[1].encode("some words")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    place = {name: f"model-0000{1 + at % 2}-of-00002.safetensors" for at, name in enumerate(names)}
    for file in set(place.values()):
        save_file({name: weights[name] for name in names if place[name] == file}, folder / file, {"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": place}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    assert abs(load_model(folder, device="cpu")[1].encode("some words") - expected).max() == 0

    second = folder / "model-00002-of-00002.safetensors"
    kept = load_file(second)
    lost = next(name for name in sorted(kept) if "layer.1" in name)
    save_file({name: one for name, one in kept.items() if name != lost}, second, {"format": "pt"})
    assert f"lacks {lost}" in refusal(folder)
    second.unlink()
    assert f"names the file {second.name}, which is not there" in refusal(folder)


def test_every_route_of_a_router_is_checked(tiny: TinyModels, tmp_path: Path) -> None:
    routes = [[*tiny.load("bert", seed=seed)] for seed in (0, 1)]
    router = Router.for_query_document(query_modules=routes[0], document_modules=routes[1])
    SentenceTransformer(modules=[router, Normalize()], device="cpu").save(str(tmp_path), create_model_card=False)
    load_model(tmp_path, device="cpu")
    document = next(path.parent for path in sorted(tmp_path.rglob("model.safetensors")) if "document" in str(path))
    rewrite(document, without("layer.3.output.dense.weight"))
    assert "lacks encoder.layer.3.output.dense.weight" in refusal(tmp_path)


@pytest.mark.parametrize("command", [["explain", "a cat", "a dog", "--model"], ["doctor"]])
def test_commands_refuse_in_one_line(folder: Path, command: list[str]) -> None:
    rewrite(folder, without("encoder.layer.2."))
    result = CliRunner().invoke(cli.app, [*command, str(folder)])
    assert result.exit_code == 2
    assert "lacks encoder.layer.2.*" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", ["symmetric", "retrieval"])
def test_a_half_precision_checkpoint_is_called_what_it_is(folder: Path, dtype: torch.dtype, mode: str) -> None:
    """How far its own scores are from the float32 copy's, by encoding with both."""
    assert Attributor(str(folder), mode=mode).own_precision is None
    for place in (folder, folder / "2_Dense"):
        rewrite(place, lambda weights: {name: one.to(dtype) for name, one in weights.items()})
    configure(folder, dtype=str(dtype).removeprefix("torch."))
    attributor = Attributor(str(folder), mode=mode)
    own = attributor.own_precision
    assert own is not None
    assert own.dtype == str(dtype).removeprefix("torch.")
    half = SentenceTransformer(str(folder), device="cpu")
    assert half.dtype == dtype
    full = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"}).float()
    scores = [
        torch.nn.functional.cosine_similarity(
            model.encode([a for a, _ in PAIRS], convert_to_tensor=True).float(),
            model.encode([b for _, b in PAIRS], convert_to_tensor=True).float(),
        )
        for model in (half, full)
    ]
    assert own.largest == pytest.approx(float((scores[0] - scores[1]).abs().max()), rel=1e-3, abs=1e-6)
    assert own.largest > 1e-6
    lines = Totals(checkpoint=asdict(own)).lines()
    assert any(own.dtype in line and f"{own.largest:.1e}" in line for line in lines)
    assert Totals.of(asdict(Totals(checkpoint=asdict(own)))) == Totals(checkpoint=asdict(own))


def test_a_tokenizer_without_its_vocabulary_is_refused(folder: Path) -> None:
    """transformers makes one of a few special tokens then, to which every word is unknown."""
    for file in folder.glob("tokenizer*"):
        file.unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}', "utf-8")
    assert "its tokenizer has " in refusal(folder)
    assert "so they do not belong together" in refusal(folder)


@pytest.mark.parametrize("file", ["config.json", "modules.json", "config_sentence_transformers.json"])
def test_a_description_that_is_cut_short_is_named(folder: Path, file: str) -> None:
    (folder / file).write_text('{"model_type": "bert",', "utf-8")
    assert f"its file {file} is damaged or cut short" in refusal(folder)


@pytest.mark.parametrize("family", ["bert", "roberta", "mpnet"])
def test_texts_beyond_the_table_of_positions_are_cut(tiny: TinyModels, tmp_path: Path, family: str) -> None:
    copied = Path(shutil.copytree(tiny.folder(family), tmp_path / "model"))
    settings = json.loads((copied / "sentence_bert_config.json").read_text("utf-8"))
    (copied / "sentence_bert_config.json").write_text(json.dumps(settings | {"max_seq_length": 4096}), "utf-8")
    pair = Attributor(str(copied), nodes=2, quadrature="riemann").attribute("coffee " * 300, "rain falls")
    assert pair.a.truncated
    assert len(pair.a.tokens) == {"bert": 80, "roberta": 78, "mpnet": 78}[family]


def test_a_model_whose_sample_embeds_to_no_number_is_called_damaged() -> None:
    with pytest.raises(ModelError, match="zero or not finite"):
        PathFamily.of(lambda alpha: np.full((2, len(alpha), 4), np.nan))
