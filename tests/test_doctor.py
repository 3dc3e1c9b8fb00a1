"""``tokenpair doctor``: what it says of a model is true, and what cannot be attributed is refused with the reason."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from sentence_transformers.sparse_encoder.modules import MLMTransformer, SpladePooling
from test_static import static_module
from tiny_families import FAST
from tiny_models import FAMILIES, MAX_LENGTH, TinyModels
from torch import nn
from transformers import BertForMaskedLM
from typer.testing import CliRunner

from attribution_core.attribution import Attributor
from attribution_core.quadrature.calibration import SAMPLE
from attribution_core.training.shift import shift_model
from jobs.cli import main as cli
from jobs.config.job import parse_job
from jobs.doctor import examination
from jobs.doctor.examination import examine
from jobs.doctor.findings import Diagnosis
from jobs.doctor.job_lines import job_lines
from jobs.doctor.sample import sample_pairs
from jobs.views.doctor.terminal import terminal_diagnosis

NAMES = {
    "bert": "BERT",
    "roberta": "RoBERTa",
    "xlm-roberta": "XLM-RoBERTa",
    "mpnet": "MPNet",
    "distilbert": "DistilBERT",
    "electra": "ELECTRA",
    "albert": "ALBERT",
    "deberta-v2": "DeBERTa-v2/v3",
    "modernbert": "ModernBERT",
    "nomic-bert": "Nomic-BERT",
    "t5": "T5 encoder",
    "qwen3": "Qwen2/Qwen3",
    "gemma3": "Gemma 3",
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few short texts, and speed from one pass."""
    monkeypatch.setattr("attribution_core.contributions.SAMPLE", SAMPLE[:3])
    monkeypatch.setattr(examination, "MEASURED_SECONDS", 0.0)
    monkeypatch.setattr(
        examination, "sample_pairs", lambda: [("rain falls", "the red ball"), ("a dog", "where is it?")]
    )


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(cli.app, ["doctor", *map(str, words)])


def refused(*words: str | Path) -> str:
    """The one line that says why."""
    result = run(*words)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("tokenpair: error: ")]
    return line


@pytest.mark.rotates(3, cover=False)
@pytest.mark.parametrize("family", NAMES)
def test_every_family_gets_a_true_page(family: str, tiny: TinyModels, seed: int) -> None:
    """Family, layers, pooling, lengths, scores and completeness, as they were built."""
    pooling = "lasttoken" if family.startswith("qwen3") else "mean"
    folder = tiny.folder(family, pooling=pooling, seed=seed % 3)
    found = examine(str(folder), seconds=0.0)
    (side,) = found.sides
    assert (side.family, side.layers, side.pooling, side.reads) == (NAMES[family], 4, (pooling,), MAX_LENGTH)
    assert side.fast == (family in FAMILIES or family in FAST)
    assert "padding token" in side.reference
    assert (found.mode, found.similarity, found.cuts, found.speed.layer) == ("symmetric", "cosine", (0, 1, 2, 3), 2)
    assert found.scores.same
    assert found.scores.loaded_difference <= 1e-5
    assert found.sensitivity.clean
    assert not found.references.exact
    assert found.speed.pairs_a_second > 0
    (check,) = found.layers
    assert check.layer == 2
    assert check.texts == 4
    assert check.residual_largest <= 2e-3 or check.converged < 4
    assert bool(found.problems) == (check.converged < 4)
    assert check.error_largest <= 1e-2 or check.converged < 4


def test_the_command_prints_a_page_and_a_job_that_can_be_run(tiny: TinyModels) -> None:
    """Every layer with its nodes, and YAML that the job file takes as it is."""
    folder = tiny.folder("bert", normalize=True)
    result = run(folder)
    assert result.exit_code == 0, result.output
    for part in (
        "BERT, 4 layers (linearised by hand), cut at layer 0 … 3",
        "Transformer → Pooling → Normalize",
        "equal model.similarity",
        "padding and other texts of a batch change nothing",
        "word pairs and special tokens sum to the score (off by",
        "pairs/s",
        "[PAD] (padding token) in place of every word",
    ):
        assert part in " ".join(result.stdout.split()), part
    assert "blank" not in result.stdout
    assert "exact" not in result.stdout
    table = result.stdout.split("by layer\n")[1].split("Nodes:")[0]
    assert [line.split()[0] for line in table.splitlines()[1:]] == ["0", "1", "2*", "3"]
    assert all(len(line) <= 80 for line in table.splitlines())
    job = yaml.safe_load(result.stdout.split("For the job file\n")[1])
    parsed = parse_job(job)
    assert (parsed.model, parsed.mode, parsed.similarity, parsed.layer) == (str(folder), "symmetric", "cosine", -2)


def test_json_carries_the_same_findings(tiny: TinyModels) -> None:
    """For whoever checks models by machine."""
    result = run(tiny.folder("bert"), "--json", "--seconds", "0")
    found = json.loads(result.stdout)
    assert found["healthy"] is True
    assert found["scores_match"] is True
    assert found["exact"] is False
    assert found["reference"] == "pad"
    assert [one["layer"] for one in found["layers"]] == [2]
    assert "3 of 4 cuts were not measured" in " ".join(found["notices"])
    assert yaml.safe_load(found["job"])["model"] == found["model"]


def test_prompts_make_it_retrieval(tiny: TinyModels) -> None:
    """The two roles are examined as they will be attributed."""
    prompts = {"query": "question: ", "document": "document: "}
    found = examine(str(tiny.folder("bert", prompts=prompts)), seconds=0.0)
    assert found.mode == "retrieval"
    assert [(side.role, side.prompt) for side in found.sides] == list(prompts.items())
    assert found.scores.same


def test_a_router_with_a_static_side_is_told_side_by_side(tiny: TinyModels, tmp_path: Path) -> None:
    """One side has layers, the other none."""
    transformer = Transformer(str(tiny.folder("bert")), max_seq_length=32)
    width = transformer.get_embedding_dimension()
    router = Router.for_query_document(
        query_modules=[static_module(1, width)], document_modules=[transformer, Pooling(width)]
    )
    SentenceTransformer(modules=[router, Normalize()], device="cpu").save(str(tmp_path), create_model_card=False)
    found = examine(str(tmp_path), seconds=0.0)
    assert [(side.role, side.layers, side.reads) for side in found.sides] == [("query", 0, None), ("document", 4, 32)]
    assert found.scores.same
    assert found.speed.layer == 2
    result = run(tmp_path, "--seconds", "0")
    assert "query: static embedding: no layers, so the cut is at the embeddings" in " ".join(result.stdout.split())


def test_a_static_model_is_exact(tmp_path: Path) -> None:
    """Nothing is left of its reference terms, and it has one cut."""
    SentenceTransformer(modules=[static_module(1)], device="cpu").save(str(tmp_path), create_model_card=False)
    found = examine(str(tmp_path))
    assert found.references.exact
    assert found.cuts == (0,)
    assert [check.nodes_largest for check in found.layers] == [1]
    assert "layer" not in yaml.safe_load("\n".join(job_lines(found)))
    shown = " ".join(run(tmp_path).stdout.split())
    assert "word pairs sum to the score" in shown
    assert "exact model" in shown


def test_the_table_says_by_how_much_sums_miss_the_scores(tiny: TinyModels) -> None:
    """Errors and special tokens, against sums of whole matrices."""
    folder = tiny.folder("bert")
    (check,) = examine(str(folder), seconds=0.0).layers
    pairs = Attributor(str(folder), layer=2).attribute_pairs(examination.sample_pairs())
    errors = [abs(float(pair.matrix.astype(float).sum()) - pair.score) for pair in pairs]
    assert check.error_largest == pytest.approx(max(errors), abs=1e-6)
    assert check.error_median == pytest.approx(sum(errors) / 2, abs=1e-6)
    special = [abs(float(pair.matrix.sum() - pair.matrix[1:-1, 1:-1].sum())) for pair in pairs]
    assert check.special_median == pytest.approx(sum(special) / 2, abs=1e-5)
    assert check.special_median > 1e-3


def test_sums_that_miss_their_scores_are_a_problem(tiny: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
    real = examination._layers

    def off(*args: Any) -> Any:
        from dataclasses import replace

        return tuple(replace(check, error_largest=0.3) for check in real(*args))

    monkeypatch.setattr(examination, "_layers", off)
    found = examine(str(tiny.folder("bert")), seconds=0.0)
    assert any("misses its score by up to 3.0e-01" in line for line in found.problems)


def test_another_reference_is_examined_and_goes_into_the_job(tiny: TinyModels) -> None:
    """Other numbers than padding's, and no talk of a missing padding token."""
    folder = tiny.folder("bert")
    pad, unk = (examine(str(folder), seconds=0.0, reference=one) for one in ("pad", "unk"))
    assert unk.sides[0].reference == "[UNK] (unknown token)"
    assert unk.references != pad.references
    assert not any("padding token" in line for line in unk.notices)
    assert yaml.safe_load("\n".join(job_lines(unk)))["reference"] == "unk"
    assert "reference" not in yaml.safe_load("\n".join(job_lines(pad)))
    assert "[UNK] (unknown token) in place of every word" in " ".join(
        run(folder, "--reference", "unk", "--seconds", "0").stdout.split()
    )
    assert "use 'pad', 'unk', 'mask'" in refused(folder, "--reference", "no such word here")


def test_what_is_wrong_is_said_and_fails(tiny: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose scores are not those of model.similarity must not pass for healthy."""
    real = examination._scores

    def shifted(*args: Any) -> Any:
        from dataclasses import replace

        return replace(real(*args), copy_difference=0.25)

    monkeypatch.setattr(examination, "_scores", shifted)
    result = run(tiny.folder("bert"), "--seconds", "0")
    assert result.exit_code == 1
    assert "DIFFER FROM model.similarity" in " ".join(result.stdout.split())
    assert "scores differ from model.similarity by up to 2.5e-01" in " ".join(result.stdout.split())


def test_a_model_that_sees_its_padding_is_found_out(tiny: TinyModels, tmp_path: Path) -> None:
    """Left padding moves the positions of a BERT: its embeddings depend on the longest text of the batch."""
    shutil.copytree(tiny.folder("bert"), tmp_path / "left")
    path = tmp_path / "left" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"padding_side": "left"}))
    found = examine(str(tmp_path / "left"), seconds=0.0)
    assert found.sensitivity.embedding > 1e-3
    assert found.sensitivity.contributions <= 1e-4
    assert any("change with their batch" in line for line in found.problems)


def test_half_precision_checkpoints_are_told_from_their_copy(tiny: TinyModels, tmp_path: Path) -> None:
    """transformers loads a checkpoint in its own type; attributions are of a float32 copy."""
    model = tiny.load("bert").bfloat16()
    model.save(str(tmp_path), create_model_card=False)
    found = examine(str(tmp_path), seconds=0.0)
    assert found.scores.loaded_type == "bfloat16"
    assert found.scores.same
    assert found.scores.loaded_difference > 1e-5
    assert any("bfloat16" in line for line in found.notices)


# Refusals ----------------------------------------------------------------------------------------------------------


def test_models_of_other_kinds_are_refused_with_the_reason(tiny: TinyModels, tmp_path: Path) -> None:
    """sentence-transformers would load each of them with mean pooling on top, and nothing would be wrong to see."""
    backbone = tiny.backbone("bert", _shape())
    CrossEncoder(str(backbone), device="cpu", num_labels=1).save(str(tmp_path / "cross"))
    assert "is a cross-encoder, which reads both texts at once" in refused(tmp_path / "cross")
    bare = tmp_path / "bare"
    shutil.copytree(backbone, bare)
    config = json.loads((bare / "config.json").read_text())
    (bare / "config.json").write_text(json.dumps(config | {"architectures": ["BertForSequenceClassification"]}))
    assert "is a cross-encoder" in refused(bare)
    shutil.copytree(backbone, tmp_path / "masked")
    BertForMaskedLM.from_pretrained(str(backbone)).save_pretrained(str(tmp_path / "masked"))
    modules: list[nn.Module] = [MLMTransformer(str(tmp_path / "masked")), SpladePooling()]
    SparseEncoder(modules=modules, device="cpu").save(str(tmp_path / "sparse"))
    assert "is a sparse encoder" in refused(tmp_path / "sparse")


def test_models_without_derivatives_are_refused_with_the_reason(tiny: TinyModels, tmp_path: Path) -> None:
    """Distances, quantised weights."""
    assert "'euclidean' cannot be attributed" in refused(tiny.folder("bert", similarity="euclidean"))
    shutil.copytree(tiny.folder("bert"), tmp_path / "quantised")
    path = tmp_path / "quantised" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": {"quant_method": "gptq"}}))
    assert "its weights are quantised" in refused(tmp_path / "quantised")


def test_a_shifted_model_keeps_its_reference(tiny: TinyModels, tmp_path: Path) -> None:
    """It embeds texts less those of padding: against another token it would be exact no more."""
    shift_model(tiny.load("bert")).save(str(tmp_path / "shifted"), create_model_card=False)
    assert "exact against that alone; take 'pad'" in refused(tmp_path / "shifted", "--reference", "unk")
    assert examine(str(tmp_path / "shifted"), seconds=0.0).references.exact


def test_folders_that_are_no_model_are_refused(tiny: TinyModels, tmp_path: Path) -> None:
    """One line each; a bare transformer is a model, but not one that was trained to embed."""
    assert "there is no model folder" in refused(tmp_path / "nowhere")
    assert "holds no model" in refused(tmp_path)
    found = examine(str(tiny.backbone("bert", _shape())), seconds=0.0)
    assert "not saved by sentence-transformers, which puts mean pooling on top" in found.notices[0]


def test_the_sample_is_the_same_each_time() -> None:
    """Two examinations of one model can be compared."""
    pairs = sample_pairs()
    assert pairs == sample_pairs()
    assert len(set(pairs)) == 12
    lengths = [len(document) for _, document in pairs]
    assert lengths == sorted(lengths)
    assert lengths[-1] > 4 * lengths[0]


def _shape() -> Any:
    from tiny_models import Shape

    return Shape()


def test_nothing_in_a_models_name_steers_the_terminal(tiny: TinyModels, rng: random.Random) -> None:
    """The page shows what folders and prompts hold."""
    found = examine(str(tiny.folder("bert")), seconds=0.0)
    hostile: Diagnosis = _renamed(found, "model\x1b[2J\x07")
    from rich.console import Console

    console = Console(record=True, width=80)
    terminal_diagnosis(hostile, console)
    assert "\x1b" not in console.export_text(styles=False)


def _renamed(found: Diagnosis, name: str) -> Diagnosis:
    from dataclasses import replace

    return replace(found, model=name)
