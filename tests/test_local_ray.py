"""What Ray opens in a local run, to whom, and what it says: nothing beyond loopback, nothing without a token."""

from __future__ import annotations

import http.client
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest
from processes import below, command_line, holding, listening
from tiny_models import TinyModels, random_text

from jobs.cluster.token import MODE, TOKEN, TOKEN_PATH, own_token

REPOSITORY = Path(__file__).parent.parent
PROGRAM = [sys.executable, "-c", "from jobs.cli.main import main; main()"]
METRICS = -1
SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAMARKERMARKERMARK",
    "AWS_SECRET_ACCESS_KEY": "markersecretmarkersecretmarkersecretmark",
    "AWS_SESSION_TOKEN": "markersessionmarkersessionmarkersession",
    "HF_TOKEN": "hf_markermarkermarkermarkermarker",
}

pytestmark = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's /proc")


@dataclass(frozen=True)
class Running:
    """A run as it goes on: what was seen of it while its worker was computing."""

    home: Path
    folder: Path
    temporary: Path
    sockets: list[tuple[int, str, int]]
    commands: list[str]
    tokens: set[str]
    modes: set[int]
    refused: dict[int, int]
    output: str


def _environment(pid: int) -> dict[str, str]:
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(one.partition("=")[::2] for one in raw.split("\0") if "=" in one)


def _answer(port: int) -> int | None:
    """The status with which a port answers a request without a token, None where it does not speak HTTP."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/job_agent/jobs/x/logs", timeout=5) as answer:
            # Counters for Prometheus: the one thing that Ray tells everybody on this machine.
            return METRICS if answer.read(6) == b"# HELP" else int(answer.status)
    except urllib.error.HTTPError as error:
        return int(error.code)
    except (OSError, ValueError, http.client.HTTPException):
        return None


@pytest.fixture(scope="module")
def running(tiny: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> Running:
    room = tmp_path_factory.mktemp("local")
    chance = random.Random(3)
    rows = [f'"{random_text(chance, 5)}","{random_text(chance, 6)}"' for _ in range(60)]
    (room / "pairs.csv").write_text("\n".join(["sentence1,sentence2", *rows]) + "\n")
    home, folder = room / "home", room / "run"
    home.mkdir()
    # Ray's sockets must have short names.
    temporary = Path(subprocess.run(["mktemp", "-d", "/tmp/tpXXXX"], capture_output=True, text=True).stdout.strip())
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_"))}
    kept |= {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1", "HOME": str(home), "TMPDIR": str(temporary)}
    words = ["--model", tiny.folder("bert"), "--input", room / "pairs.csv", "--output", folder, "--workers", "1"]
    command = [*PROGRAM, "run", *map(str, words), "--shards", "30", "--rule", "riemann", "--nodes", "2000"]
    with open(room / "output", "wb") as output:
        process = subprocess.Popen(
            command, env=kept | SECRETS, stdout=output, stderr=output, cwd=room, start_new_session=True
        )
    try:
        end = time.monotonic() + 120
        while not list(folder.glob("attributions/*")) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        assert process.poll() is None, (room / "output").read_text()
        pids = below(process.pid)
        environments = {pid: _environment(pid) for pid in pids - {process.pid}}
        sockets = list(listening(pids))
        answers = {port: _answer(port) for _, _, port in sockets}
        seen = Running(
            home=home,
            folder=folder,
            temporary=temporary,
            sockets=sockets,
            commands=[command_line(pid) for pid in pids],
            tokens={found[TOKEN] for found in environments.values() if TOKEN in found},
            modes={stat.S_IMODE(one.stat().st_mode) for one in temporary.iterdir() if "ray" in one.name},
            refused={port: code for port, code in answers.items() if code is not None},
            output="",
        )
        _check_files(seen)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        left = list(temporary.iterdir())
        shutil.rmtree(temporary)
    assert not left
    return Running(**{**vars(seen), "output": (room / "output").read_text()})


def _check_files(seen: Running) -> None:
    # While they are there: they go with the run.
    for secret in (*SECRETS.values(), *seen.tokens):
        assert holding(seen.temporary, secret) == []


def test_nothing_listens_beyond_loopback(running: Running) -> None:
    assert len(running.sockets) >= 3, "Ray listens somewhere: nothing was seen"
    assert [one for one in running.sockets if not ip_address(one[1]).is_loopback] == []


def test_every_local_run_has_a_token_of_its_own(running: Running) -> None:
    """One that is only in the environment of its own processes: in no file, on no command line, in no output."""
    assert len(running.tokens) == 1
    (token,) = running.tokens
    assert len(token) == 64
    assert not any(token in line for line in running.commands)
    assert token not in running.output
    assert not list(running.home.rglob("*"))
    assert holding(running.folder, token) == []


def test_what_speaks_http_refuses_who_has_no_token(running: Running) -> None:
    """Ray's agent takes jobs, which run any command: also another user of this machine must not get at it."""
    assert {port: code for port, code in running.refused.items() if code not in (401, 403, METRICS)} == {}


def test_files_of_ray_are_closed_to_others_and_go_with_the_run(running: Running) -> None:
    assert running.modes == {0o700}


@pytest.mark.parametrize("name", SECRETS)
def test_no_secret_is_told(running: Running, name: str) -> None:
    """Not in the run directory, the process list or the output; nor in Ray's logs, as long as they were there."""
    secret = SECRETS[name]
    assert holding(running.folder, secret) == []
    assert not any(secret in line for line in running.commands)
    assert secret not in running.output


def test_own_token_puts_the_environment_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "mine")
    monkeypatch.delenv(MODE, raising=False)
    monkeypatch.delenv(TOKEN_PATH, raising=False)
    with own_token():
        assert os.environ[MODE] == "token"
        first = os.environ[TOKEN]
    with own_token():
        assert os.environ[TOKEN] not in ("mine", first)
    assert os.environ[TOKEN] == "mine"
    assert MODE not in os.environ
