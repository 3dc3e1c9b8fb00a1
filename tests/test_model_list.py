"""``tokenpair doctor --list``: every verdict is what the code does, every prefix what jobs are warned about."""

from __future__ import annotations

import datetime
import io
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from test_static import static_module
from transformers import CONFIG_MAPPING, AutoModel, PreTrainedModel
from typer.testing import CliRunner

from attribution_core.errors import ModelError
from attribution_core.model.checkpoint import _check_class
from attribution_core.model.families import FAMILIES, Family, family_of
from attribution_core.model.inspection import CONFIG, LAYER_COUNTS, SETTINGS, ModelFiles, refuse_by_description
from attribution_core.model.modules import POOLING_MODES, cut_modules
from jobs.cli import main as cli
from jobs.doctor.model_list import ListedModel, model_list
from jobs.plan.missing_prompts import family_of as prompts_of
from jobs.views.doctor.model_list import INDENT, OWNER, terminal_models

MODELS = model_list().models
XLNET = Family("XLNet", ("xlnet",), "layer", True)
# What sentence-transformers writes into the settings of each kind.
CLASSES = {"late interaction": "MultiVectorEncoder", "sparse": "SparseEncoder"}


@cache
def built(architecture: str) -> PreTrainedModel | None:
    """The class that transformers itself builds for an architecture, without weights; None where it has none."""
    if architecture not in CONFIG_MAPPING:
        return None
    config = CONFIG_MAPPING[architecture]()
    for name in LAYER_COUNTS:
        if isinstance(getattr(config, name, None), int):
            setattr(config, name, 1)
    with torch.device("meta"):
        model: PreTrainedModel = AutoModel.from_config(config)
    return model


def refusal(one: ListedModel, folder: Path) -> str:
    """Why the code refuses a model of this kind, architecture and pooling; "" where it does not."""
    if one.kind == "static":
        try:
            cut_modules([static_module(0)], "text", "cosine")  # type: ignore[arg-type]
        except ModelError as error:
            return str(error)
        return ""
    classes = [one.class_name] if one.class_name else None
    (folder / CONFIG).write_text(json.dumps({"model_type": one.architecture, "architectures": classes}))
    (folder / SETTINGS).write_text(json.dumps({"model_type": CLASSES.get(one.kind, "SentenceTransformer")}))
    assert ModelFiles(folder).late == (one.kind == "late interaction")
    model = built(one.architecture)
    try:
        refuse_by_description(str(folder))
        if model is None:
            return f"transformers has no {one.architecture}: it needs code of its own (trust_remote_code)"
        model.config.auto_map = {"AutoModel": "modeling.Model"} if one.own_code else None
        model.config.architectures = classes
        _check_class(one.name, model)
        assert family_of(model).find_layers(model)
    except ModelError as error:
        return str(error)
    return "" if not one.pooling or one.pooling in POOLING_MODES else f"pooling {one.pooling}"


def difference(one: ListedModel, folder: Path) -> str:
    """What the row should say instead; "" where it is right."""
    reason = refusal(one, folder)
    flags = ["pickled_weights"] if one.weights == "pickled" else []
    known = any(one.architecture in family.model_types for family in FAMILIES)
    if "trust_remote_code" in reason and "trust_remote_code" in one.flags and known:
        # The model's own class cannot be built here: the list says that its layers are where its family has them.
        reason = ""
        flags.append("trust_remote_code")
    verdict = "refused" if reason else "flag" if flags else "works"
    if (one.verdict, sorted(one.flags)) == (verdict, [] if reason else sorted(flags)):
        return "" if one.note or not reason else f"{one.name} needs a note: {reason}"
    return f"{one.name}: verdict is {one.verdict} {list(one.flags)}, the code says {verdict} {flags} {reason}"


def test_verdicts_are_what_the_code_does(tmp_path: Path) -> None:
    """Fails where the code starts or stops supporting something, with all rows that have to change."""
    wrong = [text for one in MODELS if (text := difference(one, tmp_path))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("changed", "value", "rows"),
    [
        ("attribution_core.model.families.FAMILIES", FAMILIES[1:], "all-MiniLM-L6-v2: .* the code says refused"),
        ("attribution_core.model.families.FAMILIES", (*FAMILIES, XLNET), "some/xlnet: .* the code says works"),
        ("attribution_core.model.inspection.KINDS", {"SentenceTransformer": "no"}, "LaBSE: .* the code says refused"),
        (f"{__name__}.POOLING_MODES", ("mean",), "bge-base-en-v1.5: .* the code says refused"),
    ],
)
def test_a_change_of_the_code_shows(
    changed: str, value: Any, rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison sees a family, a kind and a pooling that come or go."""
    xlnet = ListedModel(name="some/xlnet", kind="one vector", architecture="xlnet", verdict="refused", note="unknown")
    assert difference(xlnet, tmp_path) == ""
    monkeypatch.setattr(changed, value)
    assert re.search(rows, "\n".join(difference(one, tmp_path) for one in (*MODELS, xlnet)))


def test_prefixes_are_those_that_jobs_are_warned_about() -> None:
    """A job names the missing prefix of exactly those models that the list tells to set one."""
    for one in MODELS:
        assert bool(one.prefixes) == (one.prefix_set_by is not None), one.name
        known = prompts_of(one.name, None)
        if known is None:
            assert one.prefix_set_by != "you", f"known_prompts.json does not know {one.name}"
        else:
            assert one.architecture in known.model_types, one.name
            assert (one.query, one.document) == (known.query, known.document), one.name
            assert (one.prefix_set_by == "model") == known.in_configuration, one.name


def test_the_list_is_what_it_says() -> None:
    assert len(MODELS) >= 40
    assert len({one.name for one in MODELS}) == len(MODELS)
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+", one.name) for one in MODELS)
    assert {one.kind for one in MODELS} == {"one vector", "late interaction", "sparse", "static"}
    assert datetime.date(2026, 11, 1) < model_list().written


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_gets_every_name_whole(width: int) -> None:
    """Nothing is wider than the terminal, and every note and prefix is below its model."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    terminal_models(model_list(), console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    text = " ".join(line.removeprefix(INDENT) for line in lines)
    for one in MODELS:
        assert any(line.split()[:1] == [one.name.removeprefix(OWNER)] for line in lines)
        assert one.note in text
        assert all(repr(prefix) in text for prefix in one.prefixes.values())


def doctor(*words: str) -> Any:
    return CliRunner().invoke(cli.app, ["doctor", *words])


def test_other_programs_get_a_line_a_model_and_json() -> None:
    head, *lines = doctor("--list").stdout.splitlines()
    rows = [dict(zip(head.split("\t"), line.split("\t"), strict=True)) for line in lines]
    assert [row["name"] for row in rows] == [one.name for one in MODELS]
    verdicts = {row["name"]: row["verdict"] for row in rows}
    assert verdicts["sentence-transformers/all-MiniLM-L6-v2"] == "works"
    assert verdicts["BAAI/bge-m3"] == "works with --pickled-weights"
    (e5,) = [row for row in rows if row["name"] == "intfloat/e5-base-v2"]
    assert (e5["query prefix"], e5["document prefix"], e5["set by"]) == ("'query: '", "'passage: '", "you")
    found = json.loads(doctor("--list", "--json").stdout)
    assert found["written"] == str(model_list().written)
    assert [ListedModel(**row) for row in found["models"]] == list(MODELS)


@pytest.mark.parametrize("words", [(), ("all-MiniLM-L6-v2", "--list")])
def test_a_model_or_the_list(words: tuple[str, ...]) -> None:
    result = doctor(*words)
    assert result.exit_code == 2
    assert "give either a MODEL to examine or --list" in result.stderr
