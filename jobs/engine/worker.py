"""One process that turns shards into parts. A plain class: it runs without Ray, which only wraps it.

Its methods may be called from several threads. Reading the next shard and writing the last one then overlap with
computing, which all happens in one thread of its own.
"""

from __future__ import annotations

import os
import platform
import queue
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jobs.config.job import parse_job
from jobs.errors import RunError
from jobs.run.event_log import EventLog
from jobs.run.facts import WorkerFacts

if TYPE_CHECKING:
    import pyarrow as pa

    from attribution_core.attribution import Attributor
    from attribution_core.contribution_cache import ContributionCache
    from attribution_core.model.encoder import ReadText
    from attribution_core.results import ExplainedText, PairAttribution
    from jobs.run.manifest import Plan, Shard

MOST_PAIRS_AT_ONCE = 8192
# Matrices wait as float32 and once more as float64 while they are summed up.
BYTES_A_CELL = 32
# Of the memory budget, for contributions of texts that other shards need too. Computing takes three quarters of it.
CACHE_SHARE = 1 / 16
# Of a traceback, for the log.
FRAMES = 4

T = TypeVar("T")
TextKey = tuple[str, str]  # text id, role


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


@dataclass
class _Computed:
    """Rows of one shard, in the order of its pairs."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    texts: dict[TextKey, ExplainedText] = field(default_factory=dict)
    rejects: list[dict[str, Any]] = field(default_factory=list)


class _ComputeThread:
    """Calls of one thread, one after the other. It is a daemon: a program that is stopped does not wait for it."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None]
        self._calls = queue.SimpleQueue()
        threading.Thread(target=self._work, name="compute", daemon=True).start()

    def submit(self, call: Callable[..., T], *arguments: Any) -> Future[T]:
        """Queue ``call``; the future has its result."""
        future: Future[T] = Future()
        self._calls.put((future, call, arguments))
        return future

    def close(self) -> None:
        """End the thread after the calls that are queued."""
        self._calls.put(None)

    def _work(self) -> None:
        while (queued := self._calls.get()) is not None:
            future, call, arguments = queued
            try:
                future.set_result(call(*arguments))
            except BaseException as error:
                future.set_exception(error)
            # A call's arguments and result may be large; the next call may be far away.
            del queued, future, call, arguments


class Worker:
    """Attributes shards of the job ``settings`` and commits them to the run directory ``run_url``.

    ``threads`` is the number of threads to compute with and ``device`` where (None: a GPU where there is one).
    ``pairs_file`` names the plan that is meant, so that another driver's is not taken for it; ``log`` is the name of
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
        self._computing = _ComputeThread()
        self._planning = threading.Lock()
        self._plan: Plan | None = None
        self._attributor: Attributor | None = None
        self._cache: ContributionCache | None = None
        self._record: bytes | None = None

    def greet(self) -> None:
        """Answers as soon as the worker has a place to run."""

    def load(self) -> WorkerFacts:
        """Load the model and open the run directory; a TokenpairError where that fails."""
        from jobs.storage.store import Store

        began = time.perf_counter()
        # OpenMP reads this when torch is imported.
        os.environ["OMP_NUM_THREADS"] = str(self._threads)
        self._attributor = self._computing.submit(self._load_model).result()
        # The driver has been there: if the store is away now, that passes.
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
        )
        if self._pairs_file is not None:
            # While it loaded, or waited for a machine, the directory may have become another run's.
            self._check_still_the_run()
            self._planned()
        if self._job.sums_to == "centred":
            self._computing.submit(self._centre).result()
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
        """Read, attribute and commit shard ``index`` of the plan; whatever another writer committed stays."""
        try:
            report = self._run_shard(index)
        except Exception as error:
            self._note("failed", shard=index, reason=f"{type(error).__name__}: {error}", where=_where(error))
            raise
        told = {k: round(v, 4) if isinstance(v, float) else v for k, v in vars(report).items() if k != "index"}
        self._note("committed", shard=index, **told)
        return report

    def close(self) -> None:
        """End the worker's thread; no call may follow."""
        self._computing.close()

    def _run_shard(self, index: int) -> ShardReport:
        from jobs.run.manifest import read_shard
        from jobs.run.tables import commit_shard, part_name, reject_table, text_row, text_table

        began = time.perf_counter()
        self._check_still_the_run()
        if self._store.exists(part_name("attributions", index, self._job.format)):
            # Another driver's worker was here, or one whose driver is gone.
            return ShardReport(index, 0, 0, {}, False, time.perf_counter() - began, 0.0, 0.0)
        shard = read_shard(self._store, self._planned(), index)
        there = time.perf_counter()
        computed, started, ended = self._computing.submit(self._timed, shard).result()
        texts = text_table([text_row(text, text_id) for (text_id, _), text in computed.texts.items()])
        self._check_still_the_run()
        written = commit_shard(
            self._store,
            index,
            self._attributions(shard, computed),
            texts,
            reject_table(computed.rejects),
            self._job.format,
        )
        rejected = dict(Counter(reject["reason"] for reject in computed.rejects))
        return ShardReport(
            index=index,
            pairs=len(computed.rows),
            texts=len(texts),
            rejected=rejected,
            written=written,
            read_seconds=there - began,
            wait_seconds=started - there,
            compute_seconds=ended - started,
            write_seconds=time.perf_counter() - ended,
        )

    def _timed(self, shard: Shard) -> tuple[_Computed, float, float]:
        """What is computed of ``shard``, from when and until when."""
        started = time.perf_counter()
        return self._compute(shard), started, time.perf_counter()

    def _check_still_the_run(self) -> None:
        """RunError where the run directory was given to another run: a worker may outlive its driver.

        Its parts would be taken for those of the new run.
        """
        from jobs.run.record import check_same_job, read_record
        from jobs.run.tables import JOB_FILE

        record = self._store.read(JOB_FILE) if self._store.exists(JOB_FILE) else None
        if record == self._record:
            return
        if self._record is not None:
            raise RunError(f"{self._run_url}: its {JOB_FILE} was removed or replaced while it ran")
        # A worker hired late may find another run from the start.
        found = read_record(self._store)
        if found is not None:
            check_same_job(self._store, found, self._job)
        self._record = record

    def _note(self, event: str, **fields: Any) -> None:
        if self._events is not None:
            self._events.log(event, **fields)

    def _load_model(self) -> Attributor:
        from jobs.cluster.environment import quiet_libraries

        quiet_libraries()
        import torch

        from attribution_core.memory import hand_back_freed_memory
        from jobs.engine.model import make_attributor

        hand_back_freed_memory()
        torch.set_num_threads(self._threads)
        return make_attributor(self._job, self._device, self._threads)

    def _centre(self) -> None:
        from jobs.plan.centre import mean_embeddings

        centre_file = self._planned().centre_file
        assert self._attributor is not None
        assert centre_file is not None, "a job with centred sums is planned with a sample"
        self._attributor.centre_on(mean_embeddings(self._store, centre_file, self._attributor))

    def _planned(self) -> Plan:
        from jobs.run.manifest import load_plan

        with self._planning:
            if self._plan is None:
                found = load_plan(self._store)
                if found is None:
                    raise RunError(f"{self._run_url}: its plan is gone")
                if self._pairs_file not in (None, found.pairs_file) or found.job != self._job.digest():
                    raise RunError(f"{self._run_url}: its plan was replaced while it ran")
                self._plan = found
            return self._plan

    def _compute(self, shard: Shard) -> _Computed:
        from attribution_core.pairs import EMBEDS_TO_ZERO, Undefined

        assert self._attributor is not None, "load() comes before run_shard()"
        role_a, role_b = self._attributor.roles
        read = self._read(shard)
        of_a: list[TextKey] = [(key, role_a) for key in shard.pairs["text_a_id"].to_pylist()]
        of_b: list[TextKey] = [(key, role_b) for key in shard.pairs["text_b_id"].to_pylist()]
        computed = _Computed()

        def reject(at: int, problems: list[tuple[str, str]]) -> None:
            computed.rejects.append(_reject(shard.pairs, at, problems, read[of_a[at]].text, read[of_b[at]].text))

        readable: list[int] = []
        for at, (a, b) in enumerate(zip(of_a, of_b, strict=True)):
            problems = [(side, why) for side, key in (("a", a), ("b", b)) if (why := read[key].problem)]
            if problems:
                reject(at, problems)
            else:
                readable.append(at)
        self._choose_cached(shard)
        ids = shard.pairs["pair_id"].to_pylist()
        for part in _slices(readable, of_a, of_b, read, self._attributor.contributor.integrator.budget):
            pairs = self._attributor.pairs([(read[of_a[at]], read[of_b[at]]) for at in part], self._cache)
            for at, pair in zip(part, pairs, strict=True):
                if isinstance(pair, Undefined):
                    reject(at, [(side, EMBEDS_TO_ZERO) for side in pair.sides])
                    continue
                computed.kept.append(at)
                computed.rows.append(self._row(pair, ids[at], of_a[at][0], of_b[at][0]))
                for key, text in ((of_a[at], pair.a), (of_b[at], pair.b)):
                    # A pair that was refined carries more nodes than the text has by itself.
                    present = computed.texts.setdefault(key, text)
                    if text.nodes < present.nodes:
                        computed.texts[key] = text
        computed.texts = self._owned(shard, computed.texts, read)
        return computed

    def _read(self, shard: Shard) -> dict[TextKey, ReadText]:
        """Every text of the shard, tokenised."""
        assert self._attributor is not None
        by_role: dict[str, list[tuple[str, str]]] = {}
        for text_id, role, text in zip(*(shard.texts[n].to_pylist() for n in ("text_id", "role", "text")), strict=True):
            by_role.setdefault(role, []).append((text_id, text))
        read: dict[TextKey, ReadText] = {}
        for role, found in by_role.items():
            texts = self._attributor.read([text for _, text in found], role)  # type: ignore[arg-type]
            read.update({(text_id, role): text for (text_id, _), text in zip(found, texts, strict=True)})
        return read

    def _choose_cached(self, shard: Shard) -> None:
        """Cache the contributions of the texts of ``shard`` that other shards need as well."""
        from attribution_core.contribution_cache import ContributionCache

        assert self._attributor is not None
        if self._cache is None:
            self._cache = ContributionCache(int(self._attributor.contributor.integrator.budget * CACHE_SHARE))
        columns = zip(*(shard.texts[name].to_pylist() for name in ("role", "text", "shared")), strict=True)
        self._cache.admit((role, text) for role, text, shared in columns if shared)

    def _row(self, pair: PairAttribution, pair_id: str, text_a_id: str, text_b_id: str) -> dict[str, Any]:
        from attribution_core.topk import summarise
        from jobs.run.tables import attribution_row

        sums = summarise(pair, self._job.top_k)
        return attribution_row(
            pair, sums, pair_id=pair_id, text_a_id=text_a_id, text_b_id=text_b_id, store=self._job.store
        )

    def _owned(
        self, shard: Shard, explained: dict[TextKey, ExplainedText], read: dict[TextKey, ReadText]
    ) -> dict[TextKey, ExplainedText]:
        """The texts whose rows this shard writes, in the plan's order.

        A text may be owned here though each of its pairs here was turned away: another shard's pairs still need it.
        """
        assert self._attributor is not None
        names = ("text_id", "role", "owner")
        rows = zip(*(shard.texts[name].to_pylist() for name in names), strict=True)
        owned = [(text_id, role) for text_id, role, owner in rows if owner and not read[text_id, role].problem]
        lone = [key for key in owned if key not in explained]
        alone = self._attributor.contributions([read[key] for key in lone], self._cache) if lone else []
        explained = explained | {key: one.explained for key, one in zip(lone, alone, strict=True)}
        return {key: explained[key] for key in owned}

    def _attributions(self, shard: Shard, computed: _Computed) -> pa.Table:
        import pyarrow as pa

        from jobs.run.tables import attribution_table

        kept = shard.pairs.select(self._planned().kept.names).take(pa.array(computed.kept, pa.int64()))
        return attribution_table(computed.rows, kept, self._job.store)


def _where(error: BaseException) -> list[str]:
    """The innermost places of the program that an error came through, without values."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    return [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("tokenpair", "torch", "sentence-transformers", "transformers", "ray"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _slices(
    pairs: list[int], of_a: list[TextKey], of_b: list[TextKey], read: dict[TextKey, ReadText], memory: int
) -> Iterator[list[int]]:
    """Runs of pairs whose matrices fit into ``memory`` bytes together."""
    part: list[int] = []
    size = 0
    for at in pairs:
        cells = len(read[of_a[at]].groups) * len(read[of_b[at]].groups) * BYTES_A_CELL
        if part and (len(part) >= MOST_PAIRS_AT_ONCE or size + cells > memory):
            yield part
            part, size = [], 0
        part.append(at)
        size += cells
    if part:
        yield part


def _reject(pairs: pa.Table, at: int, problems: list[tuple[str, str]], a: str, b: str) -> dict[str, Any]:
    from jobs.sources.rows import row_text

    row = pairs.slice(at, 1).to_pylist()[0]
    place = {name: row.pop(name) for name in ("pair_id", "file", "row")}
    for name in ("ordinal", "text_a_id", "text_b_id"):
        row.pop(name)
    reason = "; ".join(f"{side}: {problem}" for side, problem in problems)
    return place | {"reason": reason, "row_text": row_text({"a": a, "b": b, **row})}
