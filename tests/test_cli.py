"""The commands as a user meets them: exit codes, one line for each mistake, nothing lost when a run is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from s3_server import S3Server
from tiny_models import TinyModels, random_text
from typer.testing import CliRunner

from jobs.cli import main as cli
from jobs.config.job import StorageOptions, load_job
from jobs.engine.worker import Worker
from jobs.plan.plan import make_plan
from jobs.run.reader import open_run
from jobs.run.tables import finished_shards
from jobs.storage.store import Store

REPOSITORY = Path(__file__).parent.parent
PROGRAM = [sys.executable, "-c", "from jobs.cli.main import main; main()"]
A, B = "The coffee is bad.", "This is not a good coffee."


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_"))}
    return kept | {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"} | more


def tokenpair(*words: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *map(str, words)], env=env or environment(), capture_output=True, text=True, timeout=200
    )


def assert_users_error(code: int, errors: str, *parts: str) -> None:
    """One clear line on stderr, exit code 2, no traceback."""
    assert code == 2, errors
    lines = [line for line in errors.splitlines() if line.startswith("tokenpair: error: ")]
    assert len(lines) == 1, errors
    assert "Traceback" not in errors
    for part in parts:
        assert part in lines[0]


@pytest.fixture(scope="module")
def model(tiny: TinyModels) -> Path:
    return tiny.folder("bert", normalize=True)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    import random

    chance = random.Random(7)
    path = tmp_path / "pairs.csv"
    rows = [f'"{random_text(chance, 5)}","{random_text(chance, 6)}",{i}' for i in range(120)]
    path.write_text("\n".join(["sentence1,sentence2,label", *rows]) + "\n")
    return path


def test_help_imports_nothing_heavy() -> None:
    # `tokenpair --help` must answer in well under a second; torch alone takes several.
    heavy = "torch ray transformers sentence_transformers duckdb pandas pyarrow numpy pydantic matplotlib s3fs"
    code = f"import sys, jobs.cli.main; print([name for name in '{heavy}'.split() if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_help_names_every_command() -> None:
    done = tokenpair("--help")
    assert done.returncode == 0
    for command in ("run", "plan", "explain", "show", "demo", "version"):
        assert f"\n  {command}" in done.stdout


@pytest.mark.parametrize("words", [["run", "--layer", "x"], ["run", "--nonsense"], ["nonsense"], ["explain", "a"]])
def test_usage_errors_exit_2(words: list[str]) -> None:
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr


def test_every_wrong_setting_has_its_line(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("model: m\ninput: x.csv\noutput: o\ngroups: words\nquadrature: {nodes: 0}\ntopk: 3\n")
    result = CliRunner().invoke(cli.app, ["run", str(job)])
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"tokenpair: error: {job}: groups: found 'words'; allowed: token, word or sentence; "
        "in retrieval mode also {query: …, document: …} with one for each",
        f"tokenpair: error: {job}: quadrature.nodes: found 0; allowed: a whole number from 1 to 100000, "
        "or null to choose it for every text",
        f"tokenpair: error: {job}: topk: is not a setting; did you mean top_k?",
    ]


def test_a_missing_setting_is_suggested_before_a_nearer_one(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    for text, meant in (("modle: m\n", "model"), ("model: m\nmodle: symmetric\n", "mode")):
        job.write_text(text + "input: x.csv\noutput: o\n")
        result = CliRunner().invoke(cli.app, ["run", str(job)])
        assert result.exit_code == 2
        assert f"modle: is not a setting; did you mean {meant}?" in result.stderr


def test_files_that_cannot_be_written_are_told_before_computing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unwanted:
        def __init__(self, *_: object, **__: object) -> None:
            pytest.fail("it was computed")

    monkeypatch.setattr("attribution_core.attribution.Attributor", Unwanted)
    monkeypatch.setattr("jobs.run.reader.open_run", Unwanted)
    for target, part in ((tmp_path / "no" / "x.html", "there is no folder"), (tmp_path, "it is a folder")):
        for option in ("--html", "--png"):
            for words in (["explain", A, B, "--model", "m"], ["show", str(tmp_path), "1"]):
                result = CliRunner().invoke(cli.app, [*words, option, str(target)])
                assert_users_error(result.exit_code, result.stderr, str(target), part)


def test_mistakes_are_told_in_one_line(tmp_path: Path, pairs: Path, model: Path) -> None:
    out = str(tmp_path / "run")
    given = ["--model", str(model), "--output", out]
    for words, part in [
        (["run", *given, "--input", str(tmp_path / "no.csv")], "no.csv"),
        (["run", *given, "--input", str(pairs), "--a", "question"], "question"),
        (["run", "--model", "./no-model", "--output", out, "--input", str(pairs)], "no-model"),
        (["run", *given, "--input", "ftp://host/x.csv"], "ftp"),
        (["run", *given[:2], "--output", str(pairs), "--input", str(pairs)], "pairs.csv"),
        (["show", str(tmp_path / "nowhere"), "1"], "nowhere"),
        (["explain", A, B, "--model", str(tmp_path / "no-model")], "no-model"),
        (["explain", A, B, "--model", str(model), "--layer", "99"], "99"),
        (["explain", A, " ", "--model", str(model)], "error: the second text"),
        (["explain", "", B, "--model", str(model)], "error: the first text"),
        (["run", *given, "--input", str(pairs), "--layer", "77"], "layer 77 does not exist"),
        (["explain", A, B, "--model", str(model), "--html", str(tmp_path / "no" / "x.html")], "x.html"),
    ]:
        result = CliRunner().invoke(cli.app, words)
        assert_users_error(result.exit_code, result.stderr, part)
    assert not (tmp_path / "run" / "job.yaml").exists()


def test_secrets_in_addresses_are_not_repeated(tmp_path: Path) -> None:
    for words in (
        ["run", "--model", "m", "--input", "s3://KEY:SECRET@bucket/x.csv", "--output", "o"],
        ["show", "run", "1", "--endpoint-url", "http://KEY:SECRET@host/"],
    ):
        result = CliRunner().invoke(cli.app, words)
        assert_users_error(result.exit_code, result.stderr)
        assert "SECRET" not in result.output + result.stderr


def test_a_bug_is_called_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr("jobs.config.job.load_job", broken)
    result = CliRunner().invoke(cli.app, ["run"])
    assert result.exit_code == 1
    assert result.stderr == (
        "tokenpair: this is a bug in tokenpair: ZeroDivisionError: by (--debug shows the traceback)\n"
    )
    shown = CliRunner().invoke(cli.app, ["--debug", "run"])
    assert isinstance(shown.exception, ZeroDivisionError)


def test_escape_sequences_do_not_reach_the_terminal(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, ["show", str(tmp_path / "\x1b[31mred"), "1"])
    assert "\x1b" not in result.stderr
    assert "\\x1b[31mred" in result.stderr


def test_explain_prints_and_writes(tmp_path: Path, model: Path) -> None:
    page, picture = tmp_path / "pair.html", tmp_path / "pair.png"
    words = ["explain", A, "<script>alert(1)</script> coffee", "--model", str(model), "--top", "2"]
    result = CliRunner().invoke(cli.app, [*words, "--html", str(page), "--png", str(picture)])
    assert result.exit_code == 0, result.stderr
    assert "coffee" in result.stdout
    assert page.read_text().startswith("<!doctype html>")
    assert "<script>" not in page.read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")


# --- whole runs ---


def rows(url: str, storage: StorageOptions | None = None) -> pa.Table:
    return open_run(url, storage).to_table().sort_by("pair_id")


def undisturbed(model: Path, pairs: Path, folder: Path) -> pa.Table:
    """The same job by a plain worker in this process, without Ray, in another order."""
    job = load_job(None, {"model": str(model), "input": str(pairs), "output": str(folder), "shards": 40})
    store = Store.open(job.output)
    plan = make_plan(job, store)
    worker = Worker(job.model_dump(mode="json"), str(folder))
    worker.load()
    for index in reversed(range(len(plan.shards))):
        assert worker.run_shard(index).written
    return rows(str(folder))


def assert_same_rows(one: pa.Table, other: pa.Table) -> None:
    assert one.column_names == other.column_names
    assert one["pair_id"].to_pylist() == other["pair_id"].to_pylist()
    assert one["label"].to_pylist() == other["label"].to_pylist()
    for name in ("score", "reference_a", "reference_b", "reference_ab", "total", "positive"):
        np.testing.assert_allclose(one[name].to_numpy(), other[name].to_numpy(), atol=1e-5)


def _stopped(command: list[str], env: dict[str, str], store: Store, how: signal.Signals) -> subprocess.Popen[str]:
    """Start the command, and stop it as soon as it has committed something new."""
    before = finished_shards(store)
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
    end = time.monotonic() + 120
    while finished_shards(store) <= before and process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(how)
    return process


@pytest.mark.long
def test_stopped_and_killed_run_gives_the_rows_of_an_undisturbed_one(
    tmp_path: Path, model: Path, pairs: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # SIGINT, then kill -9 of the driver, then a rerun to the end, against a plain loop; on a real S3 server.
    url = f"s3://{s3.bucket}/killed"
    for name, value in s3.admin.items():
        monkeypatch.setenv(name, value)
    env = environment(**{name: value for name, value in s3.admin.items() if name != "AWS_ENDPOINT_URL"})
    storage = StorageOptions(endpoint_url=s3.endpoint)
    store = Store.open(url, storage)
    words = ["run", "--model", model, "--input", pairs, "--output", url, "--shards", "40", "--workers", "1"]
    command = [*PROGRAM, *map(str, words), "--endpoint-url", s3.endpoint]

    stopped = _stopped(command, env, store, signal.SIGINT)
    _, errors = stopped.communicate(timeout=60)
    assert stopped.returncode == 130, errors
    assert "the same command goes on where it stopped" in errors
    assert "Traceback" not in errors
    assert 0 < len(finished_shards(store)) < 40
    assert not store.exists("_SUCCESS")

    killed = _stopped(command, env, store, signal.SIGKILL)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert not store.exists("_SUCCESS")

    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "going on with" in done.stderr
    assert "120 attributed" in done.stdout
    assert s3.admin["AWS_SECRET_ACCESS_KEY"] not in store.read("job.yaml").decode() + done.stderr + done.stdout
    assert_same_rows(rows(url, storage), undisturbed(model, pairs, tmp_path / "calm"))


@pytest.mark.parametrize("keys", ["wrong", "read_only"])
def test_bucket_without_permission_is_told_in_one_line(
    tmp_path: Path, model: Path, pairs: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch, keys: str
) -> None:
    given: dict[str, str] = getattr(s3, keys)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    url = f"s3://{s3.bucket}/{keys}"
    words = ["run", "--model", str(model), "--input", str(pairs), "--output", url, "--endpoint-url", s3.endpoint]
    result = CliRunner().invoke(cli.app, words)
    assert_users_error(result.exit_code, result.stderr, s3.bucket)
    assert given["AWS_SECRET_ACCESS_KEY"] not in result.output + result.stderr
