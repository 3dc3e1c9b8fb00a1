"""A worker without a model that fails on command: the engine's tests need the faults, not the numbers.

The job's ``model`` is a folder of commands. ``NAME/`` holds one empty file for each time that the fault ``NAME`` is to
happen: ``raise-3``, ``crash-3`` (shard 3), ``start``, ``refuse``, ``refuse-later`` (any worker but the first). What
was tried is written to ``tried/``.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from row_tables import attribution_table, text_table

from attribution_core.errors import ModelError
from jobs.config.job import JobConfig, load_job
from jobs.engine.driver import Outcome, run_job
from jobs.engine.shard_rows import ShardTables
from jobs.engine.worker import ShardReport, Worker, versions
from jobs.run.event_log import EventLog
from jobs.run.facts import WorkerFacts
from jobs.run.manifest import Shard, read_shard
from jobs.run.reader import open_run
from jobs.run.tables import attribution_schema, commit_shard, reject_table
from jobs.storage.store import LocalStore, Store

READ_SECONDS, COMPUTE_SECONDS, WRITE_SECONDS = 0.1, 0.3, 0.3


def command(folder: Path, fault: str, times: int) -> None:
    """Have ``fault`` happen ``times`` times."""
    (folder / fault).mkdir(exist_ok=True)
    for number in range(times):
        (folder / fault / str(number)).touch()


def tried(folder: Path) -> list[str]:
    """What was tried: ``start``, or a shard's number, once a try."""
    return sorted(path.name.split("~")[0] for path in (folder / "tried").iterdir())


def zero_rows(shard: Shard) -> list[dict[str, Any]]:
    """Rows of a shard's pairs without a number in them."""
    zeros = {field.name: 0 for field in attribution_schema()} | {
        name: [] for name in ("row_sums", "col_sums", "row_lift", "col_lift", "largest", "top")
    }
    ids = ("pair_id", "text_a_id", "text_b_id")
    return [zeros | {name: row[name] for name in ids} for row in shard.pairs.to_pylist()]


class PretendWorker(Worker):
    """Commits parts with the pairs' ids and zeros."""

    def load(self) -> WorkerFacts:
        self._try("start")
        if self._due("start"):
            raise OSError("no room on this machine")
        later = tried(Path(self._job.model)).count("start") > 1
        if self._due("refuse") or (later and self._due("refuse-later")):
            raise ModelError("model pretend cannot be loaded: it is refused")
        self._store = Store.open(self._run_url, self._job.storage)
        weights = Path(self._job.model) / "weights"
        fingerprint = weights.read_text() if weights.exists() else "zeros"
        return WorkerFacts(fingerprint, 4, "cosine", versions(), "cpu", "here", os.getpid())

    def run_shard(self, index: int) -> ShardReport:
        self._try(str(index))
        shard = read_shard(self._store, self._planned(), index)
        slow = Path(self._job.model) / "slow"
        time.sleep(float(slow.read_text()) if slow.exists() else 0)
        if self._due(f"crash-{index}"):
            os._exit(1)
        if self._due(f"raise-{index}"):
            raise ArithmeticError(f"shard {index} does not add up")
        rows = zero_rows(shard)
        kept = shard.pairs.select(self._planned().kept.names)
        table = attribution_table(rows, kept, self._job.store)
        written = commit_shard(self._store, index, table, text_table([]), reject_table([]), self._job.format)
        return ShardReport(index, len(rows), 0, {}, written, 0.0, 0.0, 0.0)

    def _try(self, what: str) -> None:
        folder = Path(self._job.model) / "tried"
        folder.mkdir(exist_ok=True)
        (folder / f"{what}~{uuid.uuid4().hex}").touch()

    def _due(self, fault: str) -> bool:
        for token in (Path(self._job.model) / fault).glob("*"):
            try:
                token.unlink()
            except FileNotFoundError:
                continue  # another process took this one
            return True
        return False


class SlowStore(LocalStore):
    """A store that is far away."""

    def open_input(self, name: str) -> BinaryIO:
        time.sleep(READ_SECONDS)
        return super().open_input(name)

    def commit(self, name: str, data: bytes) -> bool:
        time.sleep(WRITE_SECONDS)
        return super().commit(name, data)


class StagedWorker(PretendWorker):
    """Reads, computes and commits as a real worker does, over a slow store and without a model."""

    def load(self) -> WorkerFacts:
        facts = super().load()
        self._store = SlowStore(self._run_url)
        assert self._log is not None
        self._events = EventLog(Store.open(self._run_url), self._log)
        self._one_at_a_time = threading.Lock()
        return facts

    def run_shard(self, index: int) -> ShardReport:
        self._try(str(index))
        return Worker.run_shard(self, index)

    def _compute(self, shard: Shard) -> ShardTables:
        asked = time.perf_counter()
        # As on a device: one shard at a time, while others are read and written.
        with self._one_at_a_time:
            waited = time.perf_counter() - asked
            time.sleep(COMPUTE_SECONDS)
        if self._due(f"crash-{shard.index}"):
            os._exit(1)
        if self._due(f"raise-{shard.index}"):
            raise ArithmeticError(f"shard {shard.index} does not add up")
        return ShardTables(
            attribution_table(zero_rows(shard)),
            np.arange(len(shard.pairs)),
            text_table([]),
            waited=waited,
            computed=COMPUTE_SECONDS,
        )


class Place:
    """A job over 24 pairs in 8 shards, its folder of faults, and what the engine said."""

    def __init__(self, folder: Path) -> None:
        self.faults = folder / "model"
        self.faults.mkdir()
        (self.faults / "config.json").write_text('{"num_hidden_layers": 6}')
        self.input = folder / "pairs.csv"
        rows = [f"question {i},answer {i},{i}" for i in range(24)]
        self.input.write_text("\n".join(["sentence1,sentence2,label", *rows]) + "\n")
        self.output = folder / "run"
        self.said: list[str] = []

    def job(self, **settings: Any) -> JobConfig:
        given = {"model": str(self.faults), "input": str(self.input), "output": str(self.output), "shards": 8}
        # Starting a process takes seconds: in this one, unless the test is about those that die.
        return load_job(None, given | {"workers": {"ray": False}} | settings)

    def run(self, *, restart: bool = False, worker_class: type[Worker] = PretendWorker, **settings: Any) -> Outcome:
        self.said = []
        return run_job(self.job(**settings), echo=self.said.append, restart=restart, worker_class=worker_class)

    def pair_ids(self) -> list[str]:
        return sorted(open_run(self.output).to_table(["pair_id"])["pair_id"].to_pylist())
