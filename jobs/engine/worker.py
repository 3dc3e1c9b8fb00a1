"""One process that turns shards into parts. A plain class: it runs without Ray, which only wraps it.

Its methods may be called from several threads. Reading the next shard and writing the last one then overlap with
computing, which happens in threads of its own (``jobs.engine.pipeline``).
"""

from __future__ import annotations

import os
import platform
import threading
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from jobs.cluster.environment import quiet_libraries
from jobs.config.job import parse_job
from jobs.engine.document_rows import DocumentComputer, ShardDocuments
from jobs.engine.indexed_documents import IndexedDocuments
from jobs.engine.shard_rows import ShardComputer, ShardTables
from jobs.errors import RunError
from jobs.index.queries import ModelEncoder
from jobs.plan.centre import mean_embeddings
from jobs.plan.preflight import refuse_late
from jobs.run.event_log import EventLog
from jobs.run.facts import WorkerFacts
from jobs.run.manifest import Plan, Shard, load_plan, read_shard
from jobs.run.record import check_same_job, read_record
from jobs.run.tables import (
    JOB_FILE,
    commit_documents,
    commit_shard,
    reject_table,
    result_part,
)
from jobs.storage.store import Store

if TYPE_CHECKING:
    # torch takes seconds to import; the driver imports this module and needs none of it.
    from attribution_core.attribution import Attributor

# Of a traceback, for the log.
FRAMES = 4
# The text that readers of an index embed to check that they use its model; any sentence does.
PROBE = "how is lift made by a wing in a supersonic stream"


@dataclass(frozen=True)
class ShardReport:
    """What became of one shard. ``written`` is false where another worker had committed it before.

    ``wait_seconds`` it was read and waited for the shards before it to be computed.
    """

    index: int
    pairs: int
    texts: int
    rejected: dict[str, int]
    written: bool
    read_seconds: float
    compute_seconds: float
    write_seconds: float
    wait_seconds: float = 0.0


class Worker:
    """Attributes shards of the job ``settings`` and commits them to the run directory ``run_url``.

    ``threads`` is the number of threads to compute with and ``device`` where (None: a GPU where there is one).
    ``pairs_file`` names the plan to use, so that the plan of another driver is not used instead; ``log`` is the name of
    the worker's own log in the run directory.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        run_url: str,
        threads: int = 1,
        device: str | None = None,
        pairs_file: str | None = None,
        log: str | None = None,
    ) -> None:
        self._job = parse_job(settings)
        self._run_url = run_url
        self._threads = threads
        self._device = device
        self._pairs_file = pairs_file
        self._log = log
        self._events: EventLog | None = None
        self._planning = threading.Lock()
        self._plan: Plan | None = None
        self._attributor: Attributor | None = None
        self._computer: ShardComputer | DocumentComputer | None = None
        self._record_mark: str | None = None

    def greet(self) -> None:
        """Answers as soon as the worker has a place to run."""

    def load(self) -> WorkerFacts:
        """Load the model and open the run directory; a TokenpairError where that fails."""
        began = time.perf_counter()
        # OpenMP reads this when torch is imported.
        os.environ["OMP_NUM_THREADS"] = str(self._threads)
        self._attributor = self._load_model()
        if self._attributor.late:
            # The driver may not have had the model's description.
            refuse_late(self._job)
        indexing = self._job.task == "index"
        if indexing:
            self._computer = DocumentComputer(self._job, self._attributor)
        # The driver already opened this store, so an outage is transient: retry.
        self._store = Store.open(self._run_url, self._job.storage, patient=True)
        facts = WorkerFacts(
            fingerprint=self._attributor.fingerprint(),
            layer=self._attributor.layer,
            similarity=self._attributor.similarity,
            versions=versions(),
            device=str(self._attributor.encoder.device),
            host=platform.node(),
            process=os.getpid(),
            reference=self._attributor.references,
            own_precision=self._attributor.own_precision,
            probe=ModelEncoder(self._attributor)(PROBE).tolist() if indexing else None,
        )
        if self._pairs_file is not None:
            # While it loaded, or waited for a machine, the directory may have become another run's.
            self._check_still_the_run()
            self._planned()
        if self._job.sums_to == "centred":
            self._centre()
        if not indexing:
            self._computer = ShardComputer(self._job, self._attributor, self._indexed())
        if self._log is not None:
            self._events = EventLog(Store.open(self._run_url, self._job.storage, patient=True), self._log)
        self._note(
            "loaded",
            host=facts.host,
            process=facts.process,
            device=facts.device,
            threads=self._threads,
            seconds=round(time.perf_counter() - began, 3),
        )
        return facts

    def run_shard(self, index: int) -> ShardReport:
        """Read, attribute and commit shard ``index`` of the plan; a part that another writer committed stays."""
        try:
            report = self._run_shard(index)
        except Exception as error:
            self._note("failed", shard=index, reason=f"{type(error).__name__}: {error}", where=_where(error))
            raise
        facts = {k: round(v, 4) if isinstance(v, float) else v for k, v in vars(report).items() if k != "index"}
        self._note("committed", shard=index, **facts)
        return report

    def close(self) -> None:
        """End the worker's threads; no call may follow."""
        if self._computer is not None:
            self._computer.close()

    def _run_shard(self, index: int) -> ShardReport:
        began = time.perf_counter()
        self._check_still_the_run()
        if self._store.exists(result_part(self._job.task, index, self._job.format)):
            # Another worker committed it: another driver's, or one that outlived its driver.
            return ShardReport(index, 0, 0, {}, False, time.perf_counter() - began, 0.0, 0.0)
        shard = read_shard(self._store, self._planned(), index)
        there = time.perf_counter()
        computed = self._compute(shard)
        ended = time.perf_counter()
        self._check_still_the_run()
        rejects = reject_table(computed.rejects)
        if isinstance(computed, ShardDocuments):
            pairs = texts = computed.count
            written = commit_documents(self._store, index, computed.part, rejects, self._job.format)
        else:
            pairs, texts = len(computed.attributions), len(computed.texts)
            attributions = self._attributions(shard, computed)
            written = commit_shard(self._store, index, attributions, computed.texts, rejects, self._job.format)
        rejected = dict(Counter(reject["reason"] for reject in computed.rejects))
        return ShardReport(
            index=index,
            pairs=pairs,
            texts=texts,
            rejected=rejected,
            written=written,
            read_seconds=there - began,
            wait_seconds=computed.waited,
            compute_seconds=computed.computed,
            write_seconds=time.perf_counter() - ended,
        )

    def _check_still_the_run(self) -> None:
        """RunError where the run directory was given to another run: a worker may outlive its driver.

        Otherwise its parts would count as the new run's. ``job.yaml`` is read once; after that only its mark is read.
        """
        mark = self._store.mark(JOB_FILE)
        if mark == self._record_mark:
            return
        if self._record_mark is not None:
            raise RunError(f"{self._run_url}: its {JOB_FILE} was removed or replaced while it ran")
        # A worker that starts late may find another run from the start.
        record = read_record(self._store)
        if record is not None:
            check_same_job(self._store, record, self._job)
            self._record_mark = mark

    def _note(self, event: str, **fields: Any) -> None:
        if self._events is not None:
            self._events.log(event, **fields)

    def _load_model(self) -> Attributor:
        quiet_libraries()
        import torch

        from attribution_core.memory import hand_back_freed_memory
        from jobs.engine.model import make_attributor

        hand_back_freed_memory()
        torch.set_num_threads(self._threads)
        return make_attributor(self._job, self._device, self._threads)

    def _indexed(self) -> IndexedDocuments | None:
        """The documents of the index that the job names."""
        if self._job.index is None:
            return None
        assert self._attributor is not None
        number = self._planned().index_snapshot
        assert number is not None, "the plan of a job with an index names a snapshot"
        return IndexedDocuments(self._job, self._attributor, number)

    def _centre(self) -> None:
        centre_file = self._planned().centre_file
        assert self._attributor is not None
        assert centre_file is not None, "a job with centred sums is planned with a sample"
        self._attributor.centre_on(mean_embeddings(self._store, centre_file, self._attributor))

    def _planned(self) -> Plan:
        with self._planning:
            if self._plan is None:
                plan = load_plan(self._store)
                if plan is None:
                    raise RunError(f"{self._run_url}: its plan was removed")
                if self._pairs_file not in (None, plan.pairs_file) or plan.job != self._job.digest():
                    raise RunError(f"{self._run_url}: its plan was replaced while it ran")
                self._plan = plan
            return self._plan

    def _compute(self, shard: Shard) -> ShardTables | ShardDocuments:
        assert self._computer is not None, "load() comes before run_shard()"
        return self._computer.compute(shard)

    def _attributions(self, shard: Shard, computed: ShardTables) -> pa.Table:
        """The attributions of a shard with the columns passed through."""
        table = computed.attributions
        kept = shard.pairs.select(self._planned().kept.names).take(pa.array(computed.attributed, pa.int64()))
        for field in kept.schema:
            table = table.append_column(field, kept[field.name])
        return table


def _where(error: BaseException) -> list[str]:
    """The innermost places of the program that an error came through, without values."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    return [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    known = {"python": platform.python_version()}
    for name in ("tokenpair", "torch", "sentence-transformers", "transformers", "ray"):
        try:
            known[name] = version(name)
        except PackageNotFoundError:
            known[name] = "not installed"
    return known
