"""A model's name that is nowhere: said in one line, within seconds, with what to do."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tiny_models import TinyModels
from typer.testing import CliRunner

from attribution_core.errors import ModelError
from attribution_core.model import hub
from attribution_core.model.loading import load_model
from jobs.cli import main as cli

NAME = "somebody/some-model"


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    hub._asked.cache_clear()
    return tmp_path / "cache"


@contextmanager
def served(status: int, code: str = "") -> Iterator[tuple[str, list[str]]]:
    """A hub that gives every question the same answer; its address, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = b'{"id": "somebody/some-model"}' if status == 200 else b"{}"
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def online(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)


@pytest.mark.parametrize(
    "words",
    [
        ["explain", "a", "b", "--model", NAME],
        ["doctor", NAME],
        ["plan", "--model", NAME, "--input", "pairs.csv"],
        ["run", "--model", NAME, "--input", "pairs.csv", "--output", "run"],
        ["train", "--model", NAME, "--train", "train.csv", "--scale", "0", "5", "--output", "out"],
    ],
)
def test_every_command_says_that_an_uncached_name_is_offline(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("pairs.csv", "train.csv"):
        Path(name).write_text("sentence1,sentence2,score\na dog,a cat,2\n", "utf-8")
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 2
    [line] = [line for line in result.stderr.splitlines() if "error" in line]
    assert f"model {NAME} cannot be loaded" in line
    assert f"not in the local cache ({tmp_path / 'cache'})" in line
    assert "set HF_HUB_OFFLINE=0, or give a folder" in line
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir() and path.name != "cache") in ([], ["run"])


def test_the_variable_that_forbids_is_the_one_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    with pytest.raises(ModelError, match="set TRANSFORMERS_OFFLINE=0, or give a folder"):
        hub.check_available(NAME)


def test_a_hub_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    online(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"http://127.0.0.1:9 does not answer: check the network, or give a folder"):
        hub.check_available(NAME)


def test_a_name_that_the_hub_does_not_know_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(404, "RepoNotFound") as (address, asked):
        online(monkeypatch, address)
        with pytest.raises(ModelError, match="has no such model, or shows it only with HF_TOKEN: check the name"):
            hub.check_available("just-a-name")
    assert asked == ["/api/models/just-a-name", "/api/models/sentence-transformers/just-a-name"]


@pytest.mark.parametrize("status", [200, 500, 429])
def test_a_hub_that_answers_otherwise_is_left_to_the_loading(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(status) as (address, _):
        online(monkeypatch, address)
        hub.check_available(NAME)


def test_a_cached_model_is_not_asked_for(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = empty_cache / "models--somebody--some-model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}", "utf-8")
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("abc", "utf-8")
    assert hub.cached_folder(NAME) == snapshot
    hub.check_available(NAME)
    assert "only a part of it is in the local cache" in hub.why_not(NAME)
    assert "HF_HUB_OFFLINE=1" in hub.why_not(NAME)


def test_a_cached_model_is_used_where_the_hub_is_silent(
    empty_cache: Path, tiny: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its libraries would ask for it for minutes."""
    snapshot = empty_cache / "models--somebody--some-model" / "snapshots" / "abc"
    shutil.copytree(tiny.folder("bert"), snapshot)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("abc", "utf-8")
    online(monkeypatch, "http://127.0.0.1:9")
    assert hub.place_of(NAME) == str(snapshot)
    name, _ = load_model(NAME, device="cpu")
    assert name == NAME
    with served(200) as (address, _):
        hub._asked.cache_clear()
        online(monkeypatch, address)
        assert hub.place_of(NAME) == NAME


@pytest.mark.parametrize("name", ["a/b/c", "über/modell", "a model", "a--b/.."])
def test_what_cannot_be_a_name_of_the_hub_is_called_neither(name: str) -> None:
    with pytest.raises(ModelError, match=r"neither a folder nor a model of the hub"):
        hub.check_available(name)
