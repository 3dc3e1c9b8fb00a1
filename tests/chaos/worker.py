"""The worker of these runs: the real one, which takes its time, fails on command and writes down what it does.

The job's ``model`` is a real model's folder with one folder more, ``chaos/``: ``pace`` says how long things
take, ``NAME/`` holds a file for each time that the fault ``NAME`` is to happen, and ``events.jsonl`` is the diary.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.engine.worker import ShardReport, Worker
from jobs.run.facts import WorkerFacts
from jobs.run.manifest import Shard

ROOM = "chaos"
# Beyond what a worker has already; enough for a tiny model to go on in, and soon full.
HEADROOM_BYTES = 64 << 20


@dataclass(frozen=True)
class Event:
    """A line of the diary: ``what`` is driver, loading, ready, begin, done or fault; ``at`` by the system's clock."""

    at: float
    what: str
    process: int
    shard: int | None = None
    written: bool | None = None


def note(room: Path, what: str, **more: Any) -> None:
    """Add a line to the diary; lines of several processes do not mix, because each is one short write."""
    line = json.dumps({"at": time.time(), "what": what, "process": os.getpid(), **more}) + "\n"
    handle = os.open(room / "events.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


def read_diary(room: Path) -> list[Event]:
    """The diary so far."""
    path = room / "events.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [Event(**json.loads(line)) for line in lines]


class ChaosWorker(Worker):
    """Takes ``pace`` seconds a shard beside its real work, so that a random moment falls into any part of it."""

    def load(self) -> WorkerFacts:
        self._room = Path(self._job.model) / ROOM
        self._pace = json.loads((self._room / "pace").read_text())
        self._chance = random.Random(os.getpid())
        note(self._room, "loading")
        facts = super().load()
        commit = self._store.commit

        def slowly(name: str, data: bytes) -> bool:
            # A shard's files then do not appear all at once.
            self._rest("write")
            return commit(name, data)

        self._store.commit = slowly  # type: ignore[method-assign]
        note(self._room, "ready")
        return facts

    def run_shard(self, index: int) -> ShardReport:
        note(self._room, "begin", shard=index)
        report = super().run_shard(index)
        note(self._room, "done", shard=index, written=report.written)
        return report

    def _compute(self, shard: Shard) -> Any:
        self._rest("compute")
        if self._pace.get("deadly") in shard.texts["text"].to_pylist():
            note(self._room, "fault", shard=shard.index)
            os.kill(os.getpid(), signal.SIGKILL)
        if self._due("ended-for-memory"):
            note(self._room, "fault", shard=shard.index)
            _fill(400 << 20)
            # What the kernel does to whoever fills a machine.
            os.kill(os.getpid(), signal.SIGKILL)
        if self._due("no-more-memory"):
            note(self._room, "fault", shard=shard.index)
            return self._starved(shard)
        if self._due("torch-out-of-memory"):
            note(self._room, "fault", shard=shard.index)
            return self._refused_memory(shard)
        return super()._compute(shard)

    def _starved(self, shard: Shard) -> Any:
        """Compute while the system gives this process no more memory than it has, for this shard."""
        before = resource.getrlimit(resource.RLIMIT_AS)
        held = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + HEADROOM_BYTES, before[1]))
        try:
            _fill(2 * HEADROOM_BYTES)
            return super()._compute(shard)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)

    def _refused_memory(self, shard: Shard) -> Any:
        """Compute while torch's linear map says once that the device is out of memory."""
        import torch

        linear = torch.nn.functional.linear
        refusals = iter([True])

        def refused(*arguments: Any, **keywords: Any) -> Any:
            if next(refusals, False):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB (injected)")
            return linear(*arguments, **keywords)

        torch.nn.functional.linear = refused
        try:
            return super()._compute(shard)
        finally:
            torch.nn.functional.linear = linear

    def _rest(self, what: str) -> None:
        time.sleep(self._pace.get(what, 0.0) * self._chance.uniform(0.5, 1.5))

    def _due(self, fault: str) -> bool:
        for token in (self._room / fault).glob("*"):
            try:
                token.unlink()
            except FileNotFoundError:
                continue  # another process took this one
            return True
        return False


def _fill(size: int) -> None:
    """Take ``size`` bytes and touch them."""
    held = bytearray(size)
    held[:: resource.getpagesize()] = b"x" * len(held[:: resource.getpagesize()])
