"""Folders and files with names beyond ASCII, in any locale: a run is made, resumed, read and reported there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tiny_models import TinyModels

from jobs.cli.main import _as_utf8
from jobs.cluster.session import LONGEST_PLACE, _private_folder
from jobs.engine.metrics import tag_value
from jobs.errors import ClusterError

REPOSITORY = Path(__file__).parent.parent
PROGRAM = [sys.executable, "-c", "from jobs.cli.main import main; main()"]
# Python then takes names and texts for ASCII.
ASCII = {"LC_ALL": "C", "LANG": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def tokenpair(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_", "LC_", "PYTHON"))}
    env = kept | {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1", **more}
    return subprocess.run([*PROGRAM, *words], cwd=folder, env=env, capture_output=True, timeout=200)


@pytest.mark.parametrize("where", ["--no-ray", pytest.param("--ray", marks=pytest.mark.long)])
def test_a_run_with_every_name_beyond_ascii(where: str, tiny: TinyModels, tmp_path: Path) -> None:
    """Home, temporary files, the folder one is in, model, input and output: all at once, where Python reads ASCII."""
    room = tmp_path / "Jürgen’s Läufe 日本"
    home, temporary = room / "home ü", room / "tmp ü"
    for folder in (home, temporary):
        folder.mkdir(parents=True)
    shutil.copytree(tiny.folder("bert"), room / "Modell ä 50%")
    text = "sentence1,sentence2\nthe über café,日本 river\n,empty\nred dog,rain falls\n"
    (room / "pärs #1.csv").write_text(text, encoding="utf-8")
    env = {"HOME": str(home), "TMPDIR": str(temporary), "TOKENPAIR_CACHE": "", **ASCII}
    words = ["--model", "Modell ä 50%", "--input", "pärs #1.csv", "--output", "läufe 日本/1", "--shards", "2"]
    done = tokenpair(room, "run", *words, where, **env)
    assert done.returncode == 0, done.stderr.decode()
    assert f"result   {room}/läufe 日本/1".encode() in done.stdout, "the folder's own name, and as UTF-8"
    (room / "läufe 日本/1/_SUCCESS").unlink()
    (room / "läufe 日本/1/attributions/part-00001.parquet").unlink()
    again = tokenpair(room, "run", *words, "--no-ray", **env)
    assert again.returncode == 0, again.stderr.decode()
    assert b"1 of 2 shards is there" in again.stderr
    shown = tokenpair(room, "show", "läufe 日本/1", "pärs #1.csv:2", **env)
    assert "the über café".encode() in shown.stdout, shown.stderr.decode()
    for command, part in (("status", "finished"), ("stats", "A page with examples"), ("report", "report.html")):
        told = tokenpair(room, command, "läufe 日本/1", **env)
        assert told.returncode == 0, told.stderr.decode()
        assert part in (told.stdout + told.stderr).decode()


@pytest.mark.parametrize("name", ["ü", "a b", "long" * 20])
def test_ray_gets_a_folder_that_it_can_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / name
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    with _private_folder() as folder:
        folder.encode("ascii")
        assert len(folder) <= 42
        assert " " not in folder
        assert os.stat(Path(folder).parent).st_mode & 0o077 == 0, "closed to others"


def test_no_folder_for_ray_is_an_error_that_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "ü"))
    monkeypatch.setattr("jobs.cluster.session.COMMON_FOLDERS", (str(tmp_path / ("x" * LONGEST_PLACE)),))
    with pytest.raises(ClusterError, match="set TMPDIR"), _private_folder():
        pass


def test_metrics_tags_are_ascii_and_plain_ones_stay() -> None:
    for plain in ("/home/me/runs 1/a+b%20", "s3://bucket/run-1"):
        assert tag_value(plain) == plain
    assert tag_value("/läufe\n日") == "/l%C3%A4ufe%0A%E6%97%A5"
    assert tag_value("/bad\udcff") == "/bad%FF"


def test_words_of_the_command_line_keep_their_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a locale of Latin-1: bytes that are UTF-8 are a name on disk, others were typed in that encoding."""
    monkeypatch.setattr(os, "fsencode", lambda word: word.encode("latin-1"))
    assert _as_utf8("l\xc3\xa4ufe") == "läufe".encode()
    assert _as_utf8("caf\xe9") == "café".encode()
    assert _as_utf8("plain") == b"plain"


def test_a_program_of_ones_own_in_an_ascii_locale_is_told_what_to_set(tmp_path: Path) -> None:
    code = "from jobs.storage.store import Store; Store.open('/l\\u00e4ufe')"
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), **ASCII}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, timeout=100)
    assert b"start it with PYTHONUTF8=1" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["TMPDIR", "HOME"])
def test_names_that_are_not_utf8_are_told(name: str, tmp_path: Path) -> None:
    done = tokenpair(tmp_path, "status", ".", **{name: os.fsdecode(b"/tmp/bad\xff")})
    assert done.returncode == 2
    assert name.encode() in done.stderr
    assert b"is not valid UTF-8" in done.stderr
    assert done.stderr.count(b"\n") == 1
