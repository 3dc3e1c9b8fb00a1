"""A real head of a Ray cluster on loopback, with a token: the fixture ``head``."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
PROGRAM = [sys.executable, "-c", "from jobs.cli.main import main; main()"]
START_SECONDS = 300
STARTS = 3


@dataclass(frozen=True)
class Head:
    """A running head; ``environment`` is what a user needs to reach it."""

    url: str
    gcs: str
    token: str
    folder: Path
    home: Path
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        return clean(self.home) | {
            "RAY_API_SERVER_ADDRESS": self.url,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
        }

    def tokenpair(self, *words: str | Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """One command of the program, as a user of this head."""
        return subprocess.run(
            [*PROGRAM, *map(str, words)],
            env=dict(self.environment if env is None else env),
            capture_output=True,
            text=True,
            timeout=600,
            cwd=self.home,
        )


def clean(home: Path) -> dict[str, str]:
    """An environment that says nothing of a cluster or a store."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_"))}
    return kept | {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1", "HOME": str(home), "OMP_NUM_THREADS": "1"}


@contextlib.contextmanager
def running_head(more: Mapping[str, str] | None = None) -> Iterator[Head]:
    """`ray start --head` on loopback, ended with all that it started; never by `ray stop`, which ends every Ray."""
    with contextlib.ExitStack() as stack:
        for start in range(STARTS):
            try:
                head = stack.enter_context(_started(more))
                break
            except RuntimeError:
                # Ray gives up starting after half a minute, which a busy machine may need.
                if start == STARTS - 1:
                    raise
        yield head


@contextlib.contextmanager
def _started(more: Mapping[str, str] | None) -> Iterator[Head]:
    # Ray's sockets must have short names.
    folder = Path(tempfile.mkdtemp(prefix="tph", dir="/tmp"))
    home = folder / "home"
    home.mkdir()
    gcs, dashboard, agent = _free_ports(3)
    token = secrets.token_hex(32)
    command = [
        str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--node-ip-address=127.0.0.1",
        f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={agent}", "--num-cpus=2", "--object-store-memory=100000000",
        f"--temp-dir={folder}/r",
    ]  # fmt: skip
    env = clean(home) | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_USAGE_STATS_ENABLED": "0"}
    # Without this Ray takes 127.0.0.1 to mean this machine's own address.
    env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    # As on a cluster's machine: tokenpair comes with each job and not from here.
    env |= {"PATH": f"{Path(sys.executable).parent}:{env['PATH']}", **(more or {})}
    del env["PYTHONPATH"]
    with open(folder / "head.log", "wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=home, start_new_session=True)
    head = Head(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}", token, folder, home, process)
    try:
        _wait_ready(head)
        yield head
    finally:
        if process.poll() is not None:
            print(f"the head ended by itself: {(folder / 'head.log').read_text(errors='replace')[-3000:]}")
            for log in (folder / "r").glob("session_2*/logs/*.err"):
                print(log.name, log.read_text(errors="replace")[-1000:])
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=20)
        _end_what_is_left(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _end_what_is_left(folder: Path) -> None:
    # Some of Ray's processes have sessions of their own; all of them name this head's folder.
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"{folder}/".encode() in (entry / "cmdline").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue


def _wait_ready(head: Head) -> None:
    end = time.monotonic() + START_SECONDS
    request = urllib.request.Request(f"{head.url}/api/version", headers={"Authorization": f"Bearer {head.token}"})
    while time.monotonic() < end:
        if head.process.poll() is not None:
            break
        # The dashboard answers before the rest is there.
        if "Ray runtime started" in (head.folder / "head.log").read_text(errors="replace"):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(request, timeout=5)
                return
        time.sleep(0.3)
    raise RuntimeError(f"the head did not start: {(head.folder / 'head.log').read_text(errors='replace')[-2000:]}")


def _free_ports(count: int) -> list[int]:
    """Ports below those that the system gives away by itself, so that nobody has them before Ray does."""
    found: list[int] = []
    for port in secrets.SystemRandom().sample(range(23000, 32000), 500):
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")
