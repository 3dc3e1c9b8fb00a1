"""One start of a run: gives shards to workers, reacts to their events, and reports progress until all are done."""

from __future__ import annotations

import os
import platform
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jobs.cluster.resources import WorkerResources, worker_resources
from jobs.config.job import JobConfig
from jobs.engine.crew import Crew, Event, Machines
from jobs.engine.metrics import Metrics
from jobs.engine.scheduler import Schedule
from jobs.engine.worker import Worker
from jobs.progress import Progress, State, counted, duration
from jobs.run.event_log import now
from jobs.run.facts import WorkerFacts
from jobs.run.record import check_same_job, check_same_model, encoded_record, make_record, model_files, read_record
from jobs.run.tables import JOB_FILE
from jobs.storage.store import Store

if TYPE_CHECKING:
    from jobs.run.event_log import EventLog
    from jobs.run.manifest import Plan

SECONDS_BETWEEN_LOOKS = 1.0
# How often the machines are counted; how long a worker without a shard is kept, and a run without any worker goes on.
SECONDS_BETWEEN_COUNTS = 5.0
IDLE_SECONDS = 30.0
PLACEMENT_SECONDS = 900.0
SECONDS_BETWEEN_PROGRESS = 60.0
FIRST_COMPLAINT_SECONDS = 20.0
ERRORS_KEPT = 10
FAILED_KEPT = 100
STATE_VERSION = 1


class RunLoop:
    """One start of a run: the crew, the schedule, and what was reported so far.

    ``events`` gets every event and the state; ``say`` a notice for the user.
    """

    def __init__(
        self,
        job: JobConfig,
        run: Store,
        plan: Plan,
        record: dict[str, Any] | None,
        todo: list[int],
        worker_class: type[Worker],
        *,
        start: str,
        events: EventLog,
        say: Callable[[str], None],
    ) -> None:
        self.schedule = Schedule(todo)
        self.workers = 0
        self.pairs_now = self.texts_now = self.rejected_now = 0
        self.busy_seconds: dict[int, float] = {}
        self.computing_seconds = 0.0
        self._start_failure = ""
        self._job, self._run, self._plan, self._record = job, run, plan, record
        self._worker_class = worker_class
        self._start, self._events, self._say = start, events, say
        self._left = set(todo)
        self._pairs = sum(shard.pairs for shard in plan.shards) - sum(plan.shards[index].pairs for index in todo)
        self._computing_since: float | None = None
        self._there_since: dict[int, float] = {}
        self._worked = 0.0
        self._idle_since: dict[int, float] = {}
        self._errors: deque[dict[str, str]] = deque(maxlen=ERRORS_KEPT)
        self._reported_failed = 0
        self._metrics: Metrics | None = None
        self._began = now()
        self._wanted = 0
        self._next_progress = time.monotonic() + SECONDS_BETWEEN_PROGRESS

    @property
    def worker_seconds(self) -> float:
        """Seconds that workers were there with their model, summed over workers."""
        return self._worked + sum(time.monotonic() - since for since in self._there_since.values())

    def work(self, progress: Progress, machines: Machines, *, metrics: bool) -> None:
        """Until every shard is committed or given up; ``metrics`` says whether Ray is there to publish them."""
        memory = self._job.memory_bytes or 0
        nodes = machines.nodes()
        asked = machines.asked(self._job.workers)
        resources = worker_resources(
            asked, nodes, len(self._left), memory, grows=machines.grows, ceiling=machines.ceiling()
        )
        asks = resources.asks()
        self._events.log("cluster", machines=len(nodes), grows=machines.grows, worker=asks, most=resources.most)
        self._metrics = Metrics(self._run.url) if metrics else None
        # Ray hides the GPUs from a worker that asked for none only in some set-ups.
        device = None if resources.gpus else "cpu"
        settings = self._job.model_dump(mode="json")
        arguments = {
            "settings": settings,
            "run_url": self._run.url,
            "threads": resources.threads,
            "device": device,
            "pairs_file": self._plan.pairs_file,
        }
        crew = machines.crew(resources, arguments, self._worker_class, self._start)
        progress.phase("loading the model")
        try:
            self._until_finished(crew, resources, machines, progress)
        finally:
            self.computing_seconds = self._computed_for()
            self._worked = self.worker_seconds
            self._there_since.clear()
            crew.dismiss()

    def _until_finished(self, crew: Crew, resources: WorkerResources, machines: Machines, progress: Progress) -> None:
        patience = _Patience(self._say, resources)
        next_count = 0.0
        nodes = machines.nodes()
        while not self.schedule.finished:
            if time.monotonic() >= next_count:
                nodes = machines.nodes() if machines.grows else nodes
                next_count = time.monotonic() + SECONDS_BETWEEN_COUNTS
            crew.wanted = self._wanted = resources.wanted(nodes, len(self._left) - len(self.schedule.failed))
            self._release(crew)
            crew.start_missing()
            if crew.exhausted:
                self.schedule.give_up(f"no worker could be started: {self._start_failure}")
                break
            if patience.exhausted(crew):
                limit = duration(PLACEMENT_SECONDS)
                self.schedule.give_up(
                    f"no machine had room for a worker within {limit} (it asks for {resources.asks()})"
                )
                break
            for event in crew.events(SECONDS_BETWEEN_LOOKS):
                if event.kind == "started" and self._computing_since is None:
                    doing = "indexing" if self._job.task == "index" else "attributing"
                    progress.phase(f"{doing}: {counted(len(self._left), 'shard')} to do")
                self._take(event)
            while (next_one := self.schedule.assign(crew.placed)) is not None:
                worker, shard = next_one
                self._idle_since.pop(int(str(worker)), None)
                crew.run(int(str(worker)), shard)
            self.workers = max(self.workers, crew.ready)
            self._report(crew, progress)

    def _release(self, crew: Crew) -> None:
        """Release workers for which no shard is left, so that others can use their machines."""
        if self.schedule.unassigned:
            idle: set[int] = set()
        else:
            idle = {w for w, since in self._idle_since.items() if time.monotonic() - since > IDLE_SECONDS}
        for worker in crew.spare(idle.__contains__):
            self._gone(worker)
            self.schedule.leave(worker)
            self._events.log("worker_released", worker=worker)

    def _take(self, event: Event) -> None:
        if event.kind == "placed":
            self._events.log("worker_placed", worker=event.worker)
        elif event.kind == "started":
            assert event.facts is not None
            facts = event.facts
            self._recorded(facts)
            self.schedule.join(event.worker)
            self._there_since[event.worker] = self._idle_since[event.worker] = time.monotonic()
            self._computing_since = self._computing_since or time.monotonic()
            self._events.log(
                "worker_ready", worker=event.worker, host=facts.host, process=facts.process, device=facts.device
            )
        elif event.kind == "refused":
            assert event.error is not None
            raise event.error
        elif event.kind == "not_started":
            self._start_failure = event.reason
            self._failure(f"a worker could not be started: {event.reason}", "worker_not_started", worker=event.worker)
        elif event.kind == "done":
            self._done(event)
        elif event.kind == "raised":
            assert event.shard is not None
            self.schedule.raised(event.worker, event.shard, event.reason)
            self._maybe_idle(event.worker)
            self._retried(event.worker, [event.shard])
            self._failure(
                f"shard {event.shard}: {event.reason}", "shard_raised", worker=event.worker, shard=event.shard
            )
        else:
            lost = self.schedule.in_flight(event.worker)
            self.schedule.crashed(event.worker, event.reason, with_machine=event.machine)
            self._gone(event.worker)
            self._retried(event.worker, lost)
            which = ", ".join(map(str, lost)) or "none"
            self._failure(
                f"a worker was lost with shards {which}: {event.reason}",
                "worker_lost",
                worker=event.worker,
                shards=lost,
            )

    def _done(self, event: Event) -> None:
        assert event.shard is not None
        assert event.report is not None
        report = event.report
        self.schedule.done(event.worker, event.shard)
        self._maybe_idle(event.worker)
        self._left.discard(event.shard)
        self._pairs += self._plan.shards[event.shard].pairs
        self.pairs_now += report.pairs
        self.texts_now += report.texts
        self.rejected_now += sum(report.rejected.values())
        self.busy_seconds[event.worker] = self.busy_seconds.get(event.worker, 0.0) + report.compute_seconds
        if self._metrics is not None:
            self._metrics.done(event.worker, report)
        self._events.log(
            "shard_done",
            shard=event.shard,
            worker=event.worker,
            pairs=report.pairs,
            texts=report.texts,
            rejected=report.rejected,
            written=report.written,
            read_seconds=round(report.read_seconds, 4),
            compute_seconds=round(report.compute_seconds, 4),
            write_seconds=round(report.write_seconds, 4),
        )

    def _gone(self, worker: int) -> None:
        since = self._there_since.pop(worker, None)
        self._idle_since.pop(worker, None)
        if since is not None:
            self._worked += time.monotonic() - since

    def _maybe_idle(self, worker: int) -> None:
        if not self.schedule.in_flight(worker):
            self._idle_since[worker] = time.monotonic()

    def _retried(self, worker: int, shards: list[int]) -> None:
        again = [shard for shard in shards if shard not in self.schedule.failed]
        if self._metrics is not None:
            self._metrics.retried(worker, len(again))

    def _failure(self, what: str, event: str, **fields: Any) -> None:
        """Something that went wrong, for the user, the log and the state."""
        self._say(what)
        self._errors.append({"time": now(), "what": what})
        self._events.log(event, reason=what, **fields)
        for shard, reason in list(self.schedule.failed.items())[self._reported_failed :]:
            self._events.log("shard_failed", shard=shard, reason=reason)
        self._reported_failed = len(self.schedule.failed)

    def _recorded(self, facts: WorkerFacts) -> None:
        """Write ``job.yaml`` once the model is known to load; later workers must have the very same model."""
        if self._record is None:
            record = make_record(self._job, facts, self._plan.inputs, model_files(self._job.model))
            if self._run.commit(JOB_FILE, encoded_record(record)):
                self._record = record
            else:
                # Another driver was first: the run is its job's.
                self._record = read_record(self._run)
                assert self._record is not None
                check_same_job(self._run, self._record, self._job)
        check_same_model(self._run, self._record, facts)

    def _report(self, crew: Crew, progress: Progress) -> None:
        state = self._state(crew.ready)
        if crew.ready:
            progress.update(state)
        if self._metrics is not None:
            self._metrics.now(crew.ready, len(self._left))
        starting = crew.placed - crew.ready
        self._events.state(self.snapshot("running" if crew.ready else "starting", crew.ready, starting, crew.waiting))
        if time.monotonic() >= self._next_progress:
            self._next_progress = time.monotonic() + SECONDS_BETWEEN_PROGRESS
            self._events.log("progress", line=state.line())

    def snapshot(
        self, phase: str, ready: int = 0, starting: int = 0, waiting: int = 0, reason: str = ""
    ) -> dict[str, Any]:
        """The state of this start as plain values, for the state file."""
        state = self._state(ready)
        failed = self.schedule.failed
        return {
            "version": STATE_VERSION,
            "start": self._start,
            "phase": phase,
            "reason": reason,
            "host": platform.node(),
            "process": os.getpid(),
            "began": self._began,
            "shards": {
                "all": state.all_shards,
                "done": state.shards,
                "running": self.schedule.running(),
                "failed": {str(shard): reason for shard, reason in list(failed.items())[:FAILED_KEPT]},
                "failed_count": len(failed),
            },
            "pairs": {"all": state.all_pairs, "done": state.pairs, "now": state.pairs_now},
            "texts": state.texts,
            "rejected": self.rejected_now,
            "rate": round(state.rate, 4),
            "seconds_left": None if state.seconds_left is None else round(state.seconds_left, 1),
            "retries": state.retries,
            "workers": {"ready": ready, "starting": starting, "waiting": waiting, "wanted": self._wanted},
            "busy_seconds": round(sum(self.busy_seconds.values()), 3),
            "worker_seconds": round(self.worker_seconds, 3),
            "errors": list(self._errors),
        }

    def _state(self, workers: int) -> State:
        return State(
            shards=len(self._plan.shards) - len(self._left),
            all_shards=len(self._plan.shards),
            pairs=self._pairs,
            all_pairs=self._plan.pairs,
            pairs_now=self.pairs_now,
            texts=self.texts_now,
            workers=workers,
            retries=self.schedule.retries,
            seconds=self._computed_for(),
            noun=self._plan.noun,
        )

    def _computed_for(self) -> float:
        return time.monotonic() - self._computing_since if self._computing_since is not None else 0.0


class _Patience:
    """How long a run waits for a machine for any worker, and what it reports meanwhile."""

    def __init__(self, say: Callable[[str], None], resources: WorkerResources) -> None:
        self._say, self._resources = say, resources
        self._since = time.monotonic()
        self._next = self._since + FIRST_COMPLAINT_SECONDS

    def exhausted(self, crew: Crew) -> bool:
        """Whether no worker has had a machine for too long."""
        clock = time.monotonic()
        if crew.placed or not crew.waiting:
            self._since, self._next = clock, clock + FIRST_COMPLAINT_SECONDS
            return False
        if clock >= self._next:
            self._next = clock + SECONDS_BETWEEN_PROGRESS
            waiting = counted(crew.waiting, "worker")
            self._say(f"{waiting} waiting for a machine with room for {self._resources.asks()} each")
        return clock - self._since > PLACEMENT_SECONDS
