"""Models that were trained with a prefix which their configuration lacks are met with a note, and no others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_models import TinyModels
from typer.testing import CliRunner

from jobs.cli import main as cli
from jobs.config.job import load_job
from jobs.plan.missing_prompts import families, family_of, missing_prompts

UNSET = {"query": None, "document": None}


@pytest.fixture
def folder(tiny: TinyModels, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny.folder("bert"), tmp_path / "e5-base-v2"))


def settle(folder: Path, file: str, **fields: Any) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | fields), "utf-8")


def notes(folder: Path, **settings: Any) -> list[str]:
    job = {"model": str(folder), "input": "i.csv", "output": "o", "mode": "retrieval"}
    return missing_prompts(load_job(None, job | settings))


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("intfloat/e5-small-v2", "E5"),
        ("intfloat/multilingual-e5-large", "E5"),
        ("intfloat/multilingual-e5-large-instruct", "E5 instruct"),
        ("BAAI/bge-large-en-v1.5", "BGE (English)"),
        ("models/bge_small_zh", "BGE (Chinese)"),
        ("nomic-ai/nomic-embed-text-v1.5", "Nomic Embed"),
        ("Snowflake/snowflake-arctic-embed-l-v2.0", "Arctic Embed 2"),
        ("BAAI/bge-m3", None),
        ("sentence-transformers/all-MiniLM-L6-v2", None),
        ("BAAI/bge-reranker-base", None),
        ("someone/le5-base", None),
    ],
)
def test_names(name: str, family: str | None) -> None:
    found = family_of(name, None)
    assert (found.family if found else None) == family


def test_every_family_says_where_its_prefix_is_from() -> None:
    for one in families():
        assert one.source.startswith("https://")
        assert one.query or one.document


def test_a_prefix_that_nobody_set_is_noted_with_how_to_set_it(folder: Path) -> None:
    (note,) = notes(folder)
    assert "'query: ' before queries and 'passage: ' before documents" in note
    assert "--query-prompt 'query: ' --document-prompt 'passage: '" in note
    assert notes(folder, mode="symmetric") == []
    assert notes(folder, prompts={"query": "query: ", "document": "passage: "}) == []
    assert notes(folder, prompts={"query": "", "document": ""}) == [], "none is a choice as well"
    (half,) = notes(folder, prompts={"query": "query: "})
    assert "--document-prompt" in half
    assert "--query-prompt" not in half


def test_a_configuration_that_has_it_is_left_alone(folder: Path) -> None:
    settle(folder, "config_sentence_transformers.json", prompts={"query": "query: ", "document": "passage: "})
    assert notes(folder) == []
    settle(folder, "config_sentence_transformers.json", prompts={"query": "query: ", "passage": "passage: "})
    (documents,) = notes(folder)
    assert "--document-prompt" in documents, "a prompt called passage is not the document's once it is loaded"
    assert "--query-prompt" not in documents
    settle(folder, "config_sentence_transformers.json", prompts={"query": "", "document": ""})
    assert len(notes(folder)) == 1, "sentence-transformers writes empty ones of its own"
    settle(folder, "config_sentence_transformers.json", prompts={"any": "query: "}, default_prompt_name="any")
    assert len(notes(folder)) == 1, "a default prompt is not that of queries and documents"


@pytest.mark.parametrize(
    "card",
    [
        "# E5-base-v2\n\ntext\n",
        "---\nbase_model: intfloat/e5-base-v2\n---\n",
        "---\nbase_model:\n- intfloat/e5-base-v2\ntags: [x]\n---\n# Mine\n",
        "# SentenceTransformer based on intfloat/e5-base-v2\n",
    ],
)
def test_a_card_names_what_a_folder_does_not(folder: Path, card: str) -> None:
    moved = folder.rename(folder.with_name("model"))
    assert notes(moved) == []
    (moved / "README.md").write_text(card, "utf-8")
    assert len(notes(moved)) == 1
    settle(moved, "config.json", model_type="mpnet")
    assert notes(moved) == [], "another architecture is another model"


def test_a_published_configuration_is_trusted_where_it_is_not_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere")
    assert notes(Path("mixedbread-ai/mxbai-embed-large-v1")) == []
    assert len(notes(Path("intfloat/e5-base-v2"))) == 1


def test_plan_and_doctor_say_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(
        "query,doc\n" + "".join(f"the red dog {n},a book about rain {n}\n" for n in range(5)), "utf-8"
    )
    log = ["plan", "--model", str(folder), "--input", str(tmp_path / "log.csv"), "--a", "query", "--b", "doc"]
    result = CliRunner().invoke(cli.app, [*log, "--mode", "retrieval"])
    assert result.exit_code == 0, result.output
    assert "note: E5 models are trained with 'query: ' before queries" in result.output
    result = CliRunner().invoke(cli.app, log)
    assert "note:" not in result.output
    result = CliRunner().invoke(cli.app, ["doctor", str(folder), "--seconds", "0"])
    assert result.exit_code == 0, result.output
    assert "E5 models are trained with" in " ".join(result.output.split())
