"""Errors name a flag where a flag was used, and the job file's setting where that is where the value stands."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from jobs.cli import main as cli
from jobs.cli.flag_names import FlagNames, flat
from jobs.cli.flags import JOB_FLAGS
from jobs.config.job import JobConfig

NAMES = FlagNames(JOB_FLAGS)


def errors(*words: str) -> list[str]:
    result = CliRunner().invoke(cli.app, list(words))
    assert result.exit_code == 2, result.output
    return [line.removeprefix("tokenpair: error: ") for line in result.stderr.splitlines()]


def test_every_flag_sets_a_setting_that_there_is() -> None:
    """Would catch a setting that is renamed and leaves its flag behind."""
    beside = {"beir", "split"}  # of a folder that is resolved into settings
    for path in JOB_FLAGS:
        first, _, rest = path.partition(".")
        assert first in JobConfig.model_fields or first in beside, path
        if rest:
            assert rest in JobConfig.model_fields[first].annotation.model_fields, path  # type: ignore[union-attr]
    help_text = CliRunner().invoke(cli.app, ["run", "--help"], env={"COLUMNS": "200"}).stdout
    assert [flag for flag in JOB_FLAGS.values() if flag not in help_text] == []


def test_nested_settings_are_told_by_their_path() -> None:
    assert dict(flat({"a": 1, "b": {"c": None, "d": {"e": 2}}})) == {"a": 1, "b.c": None, "b.d.e": 2}


@pytest.mark.parametrize("command", ["run", "plan", "submit"])
def test_without_a_job_file_settings_are_flags(command: str) -> None:
    found = errors(command, "--input", "x.csv", "--top-k", "0", "--gpus", "-1", "--query-prompt", "", "--output", "o")
    assert [line.split(":")[0] for line in found] == ["--model", "--top-k", "--gpus"]


def test_beside_a_job_file_those_that_were_given_are(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump({"model": "m", "input": "x", "output": "o", "top_k": 0, "shards": 0}), "utf-8")
    found = errors("run", str(file), "--layer", "5000", "--shards", "-1")
    assert sorted(line.rsplit("; allowed", 1)[0] for line in found) == sorted(
        ["--layer: found 5000", "--shards: found -1", f"{file}: top_k: found 0"]
    )


def test_training_has_flags_of_its_own() -> None:
    found = errors("train", "--train", "x", "--model", "m", "--output", "o", "--epochs", "0", "--workers", "0")
    assert [line.split(":")[0] for line in found] == ["--scale", "--epochs", "--workers"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/top_k/p.csv: columns.a: there is no column 'top_k'", "/top_k/p.csv: --a: there is no column 'top_k'"),
        ("took two (set columns.a and columns.b to choose)", "took two (set --a and --b to choose)"),
        ("with workers.gpus: 0 it computes on CPUs", "with --gpus 0 it computes on CPUs"),
        ("correct them, or set max_rejects to a larger share", "correct them, or set --max-rejects to a larger share"),
        ("check storage.endpoint_url and the network", "check --endpoint-url and the network"),
        ("r: holds another job (…): layer: -2 there, -1 now; top_k: 8 there, 9 now",
         "r: holds another job (…): --layer: -2 there, -1 now; --top-k: 8 there, 9 now"),
        ("add --no-header (header: false); its model: x", "add --no-header (header: false); its model: x"),
        ("set log_format (--log-format) if it is one", "set log_format (--log-format) if it is one"),
        ("the model and its layer: all is well", "the model and its layer: all is well"),
        ("layer 99 does not exist", "--layer 99 does not exist"),
        ("layers are many", "layers are many"),
        ("quadrature.max_nodes: found 1", "quadrature.max_nodes: found 1"),
    ],
)  # fmt: skip
def test_names_are_replaced_and_nothing_else(line: str, said: str) -> None:
    assert NAMES.line(line) == said
