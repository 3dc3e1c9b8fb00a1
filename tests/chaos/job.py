"""The job that is disturbed: its input, its model, its file, and its driver as a process of its own."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from chaos.worker import ROOM, Event, read_diary

TESTS = Path(__file__).resolve().parent.parent
SHARDS = 30
PAIRS = 90
# Seconds that a shard's parts take beside the real work, which is too little for a moment to fall into.
PACE = {"compute": 0.2, "write": 0.05}
LOOK_SECONDS = 0.02


class HungError(Exception):
    """Something took longer than a run may take."""


@dataclass(frozen=True)
class Material:
    """What all runs share: a tiny random model, and a table of pairs of which some are bad."""

    model: Path
    pairs: Path
    texts: tuple[str, ...]  # first texts of good pairs, each of which is in one shard

    @staticmethod
    def make(folder: Path) -> Material:
        """Made anew in ``folder``, the same every time."""
        from tiny_models import TinyModels, random_text

        rng = random.Random(7)
        folder.mkdir(parents=True, exist_ok=True)
        documents = [random_text(rng, rng.randint(4, 14)) for _ in range(PAIRS // 3)]
        rows = [(f"{random_text(rng, rng.randint(3, 9))} {n}", rng.choice(documents), str(n)) for n in range(PAIRS)]
        bad = [("", documents[0], "empty"), ("\u200b", documents[1], "no token"), (rows[3][0], "", "empty")]
        pairs = folder / "pairs.csv"
        with open(pairs, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("sentence1", "sentence2", "label"), *rows[:40], *bad, *rows[40:]])
        return Material(TinyModels(folder).folder("bert"), pairs, tuple(row[0] for row in rows))


@dataclass
class Job:
    """One job in a folder of its own. ``output`` may be a folder or an ``s3://`` address."""

    folder: Path
    material: Material
    output: str
    storage: dict[str, str] = field(default_factory=dict)
    pace: Mapping[str, Any] = field(default_factory=lambda: dict(PACE))

    def __post_init__(self) -> None:
        # The model is a copy, because the faults of one run are kept beside it.
        self.model = self.folder / "model"
        shutil.copytree(self.material.model, self.model)
        self.room = self.model / ROOM
        self.room.mkdir()
        (self.room / "settings.json").write_text(json.dumps(dict(self.pace)))
        self.file = self.folder / "job.yaml"
        self.file.write_text(yaml.safe_dump(self.settings()))

    def settings(self) -> dict[str, Any]:
        """The job file. Nodes are fixed, so that two runs differ by rounding alone."""
        return {
            "model": str(self.model),
            "input": str(self.material.pairs),
            "output": self.output,
            "shards": SHARDS,
            "top_k": 400,
            "quadrature": {"nodes": 4},
            "workers": {"count": 2, "cpus": 1},
            "memory": "256MiB",
            "storage": self.storage,
        }

    def fault(self, name: str, times: int = 1) -> None:
        """Have the worker's fault ``name`` happen ``times`` times."""
        (self.room / name).mkdir(exist_ok=True)
        for number in range(times):
            (self.room / name / str(number)).touch()

    def diary(self) -> list[Event]:
        """What the workers wrote down so far."""
        return read_diary(self.room)

    def done(self) -> list[Event]:
        """The commits so far, oldest first."""
        return sorted((event for event in self.diary() if event.what == "done"), key=lambda event: event.at)


class Driver:
    """``tokenpair run`` on a job's file. What it says goes to files beside the job."""

    def __init__(self, job: Job, environment: Mapping[str, str], name: str) -> None:
        self.job = job
        self.said = job.folder / f"{name}.out"
        self.began = time.time()
        with open(self.said, "wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "chaos.driver", "run", str(job.file)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=job.folder,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def text(self) -> str:
        """What it said, on both streams."""
        return self.said.read_text(errors="replace")

    def kill(self, number: int = signal.SIGKILL, *, group: bool = False) -> None:
        """Send a signal, to its whole process group as a terminal does where ``group``."""
        if self.running:
            (os.killpg if group else os.kill)(self.process.pid, number)

    def wait(self, seconds: float) -> int:
        """Its exit code; HungError where it does not end within ``seconds``, and then it is ended."""
        try:
            return self.process.wait(timeout=max(seconds, 0.1))
        except subprocess.TimeoutExpired:
            self.kill(signal.SIGUSR1)
            time.sleep(1)
            self.end()
            raise HungError(f"the driver did not end within {seconds:.0f} s") from None

    def end(self) -> None:
        """End it and what it started, whatever it does."""
        if self.running:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=10)


def wait_until(what: Callable[[], bool], driver: Driver, seconds: float) -> bool:
    """Whether ``what`` came true; False where the driver ended before. HungError after ``seconds``."""
    end = time.monotonic() + seconds
    while not what():
        if not driver.running:
            return what()
        if time.monotonic() > end:
            driver.kill(signal.SIGUSR1)
            time.sleep(1)
            raise HungError(f"nothing to disturb within {seconds:.0f} s")
        time.sleep(LOOK_SECONDS)
    return True


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """The variables of a driver or a raylet: this process's own, the way to these modules, and ``more``."""
    given = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    return given | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | dict(more)
