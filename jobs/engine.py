"""The life of a run: plan, workers over shards, reconciliation with the plan, and ``_SUCCESS`` last."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from jobs.config import JobConfig
from jobs.dataset import JOB_FILE, SUCCESS, finished_shards
from jobs.pool import Crew, Event, connected
from jobs.preflight import check_before_planning
from jobs.progress import Progress, State, counted, duration, make_progress
from jobs.record import (
    check_ours,
    check_same_inputs,
    check_same_job,
    check_same_model,
    differing_inputs,
    encoded_record,
    make_record,
    read_record,
    tidy,
    wipe,
)
from jobs.schedule import Schedule, staffing
from jobs.stores import Store
from jobs.totals import Totals, read_totals
from jobs.worker import Worker, WorkerFacts

if TYPE_CHECKING:
    from jobs.plan import Plan

SECONDS_BETWEEN_LOOKS = 1.0
# The settings that a plan was made for, until job.yaml has them.
CLAIM = "plan/settings.json"
FAILED_SHOWN = 10


@dataclass(frozen=True)
class Outcome:
    """What a run came to. ``failed`` names each missing shard with its reason; ``seconds`` is this start's time.

    ``pairs_now`` were attributed by this start, in ``computing_seconds`` from the first worker's readiness on;
    ``totals`` are of the whole run.
    """

    url: str
    totals: Totals
    planned_pairs: int
    shards: int
    failed: dict[int, str]
    pairs_now: int
    seconds: float
    computing_seconds: float = 0.0
    workers: int = 0
    retries: int = 0
    already_finished: bool = False

    @property
    def complete(self) -> bool:
        """Whether every planned shard is there."""
        return not self.failed

    @property
    def exit_code(self) -> int:
        """0 when all is done, 1 while a planned shard is missing."""
        return 0 if self.complete else 1

    def lines(self) -> list[str]:
        """The summary that a user reads."""
        lines = self.totals.lines()
        if self.already_finished:
            return [f"already finished: {self.url}", *lines]
        if self.pairs_now:
            rate = self.pairs_now / self.computing_seconds if self.computing_seconds else 0.0
            lines.append(
                f"time     {duration(self.seconds)}, of which {duration(self.computing_seconds)} computing: "
                f"{rate:,.1f} pairs/s by {counted(self.workers, 'worker')}"
            )
        for shard, reason in list(self.failed.items())[:FAILED_SHOWN]:
            lines.append(f"MISSING  shard {shard}: {reason}")
        if len(self.failed) > FAILED_SHOWN:
            lines.append(f"MISSING  and {counted(len(self.failed) - FAILED_SHOWN, 'further shard')}")
        if self.failed:
            lines.append(
                f"result   INCOMPLETE, {len(self.failed)} of {counted(self.shards, 'shard')} missing: {self.url}"
            )
            lines.append("         the same command tries the missing shards again")
        else:
            lines.append(f"result   {self.url}")
        return lines


class Interrupted(KeyboardInterrupt):
    """A run was stopped by a signal after it had begun; ``exit_code`` is the shell's for that signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def run_job(
    job: JobConfig,
    *,
    quiet: bool = False,
    echo: Callable[[str], None] = print,
    restart: bool = False,
    progress: Progress | None = None,
    worker_class: type[Worker] = Worker,
) -> Outcome:
    """Run ``job`` to its end, or go on with what an earlier start left in its run directory.

    ``echo`` gets notices (not when ``quiet``), never the summary: that is ``Outcome.lines()``. Raises TokenpairError
    for what the user can mend and Interrupted on SIGINT or SIGTERM; a shard that fails for good is in the Outcome.
    """
    with _stoppable():
        return _run_job(job, quiet, echo, restart, progress, worker_class)


def _run_job(
    job: JobConfig,
    quiet: bool,
    echo: Callable[[str], None],
    restart: bool,
    progress: Progress | None,
    worker_class: type[Worker],
) -> Outcome:
    began = time.monotonic()
    say = (lambda _: None) if quiet else echo
    run = Store.open(job.output, job.storage)
    record = _look(run, job, restart=restart)
    if record is not None and run.exists(SUCCESS):
        return _finished_before(run)
    run.check_writable()
    plan = _plan(run, job, record, say)
    todo = sorted(set(range(len(plan.shards))) - finished_shards(run))
    done_before = len(plan.shards) - len(todo)
    if done_before:
        there = "is" if done_before == 1 else "are"
        say(f"going on with {run.url}: {done_before} of {counted(len(plan.shards), 'shard')} {there} there")
    attempt = _Attempt(job, run, plan, record, todo, worker_class)
    if todo:
        with progress or make_progress(echo, quiet=quiet) as shown:
            attempt.work(shown, say)
    return _reconciled(run, plan, job, attempt, time.monotonic() - began)


def _look(run: Store, job: JobConfig, *, restart: bool) -> dict[str, Any] | None:
    """The record of a run of this very job over this input that is there already; RunError where something else is.

    Whatever can be told without planning is told here, before anything is removed or written.
    """
    from jobs.sources import input_files

    record = read_record(run)
    if record is None:
        check_ours(run)
    elif not restart:
        check_same_job(run, record, job)
    files = input_files(job)
    if record is not None and not restart:
        check_same_inputs(run, record, files)
        if run.exists(SUCCESS):
            return record
    check_before_planning(job)
    if restart:
        wipe(run)
        return None
    return record


def _plan(run: Store, job: JobConfig, record: dict[str, Any] | None, say: Callable[[str], None]) -> Plan:
    """The plan that is there, where it is this job's over this input; else a new one."""
    from jobs.plan import MANIFEST, load_plan, make_plan

    plan = load_plan(run)
    if plan is None or record is None:
        claim = json.dumps(job.identity(), ensure_ascii=False, sort_keys=True, indent=1).encode()
        if plan is not None and not (run.exists(CLAIM) and run.read(CLAIM) == claim and not _other_inputs(plan, job)):
            # Left by a start that never got as far as its model, and of another job or over other input.
            run.remove(MANIFEST)
        run.replace(CLAIM, claim)
        plan = make_plan(job, run)
        for notice in plan.notices:
            say(f"note: {notice}")
    rejected = sum(plan.rejected.values())
    # Workers may turn away more: what has no token shows only when it is tokenised.
    turned_away = f", {counted(rejected, 'row')} turned away so far" if rejected else ""
    planned = f"{counted(plan.pairs, 'pair')} of {counted(plan.texts, 'text')} in {counted(len(plan.shards), 'shard')}"
    say(planned + turned_away)
    return plan


def _other_inputs(plan: Plan, job: JobConfig) -> list[str]:
    from jobs.sources import input_files

    return differing_inputs(plan.inputs, input_files(job))


class _Attempt:
    """One start of a run: the crew, the schedule, and what has been reported so far."""

    def __init__(
        self,
        job: JobConfig,
        run: Store,
        plan: Plan,
        record: dict[str, Any] | None,
        todo: list[int],
        worker_class: type[Worker],
    ) -> None:
        self.schedule = Schedule(todo)
        self.workers = 0
        self.pairs_now = 0
        self.computing_seconds = 0.0
        self._start_failure = ""
        self._job, self._run, self._plan, self._record = job, run, plan, record
        self._worker_class = worker_class
        self._left = set(todo)
        self._pairs = sum(shard.pairs for shard in plan.shards) - sum(plan.shards[index].pairs for index in todo)
        self._computing_since: float | None = None

    def work(self, progress: Progress, say: Callable[[str], None]) -> None:
        """Until every shard is committed or given up."""
        progress.waiting("starting Ray")
        with connected() as resources, _stoppable():
            staff = staffing(self._job.workers, resources, len(self._left), self._job.memory_bytes or 0)
            # Ray hides the GPUs from a worker that asked for none only in some set-ups.
            device = None if staff.gpus else "cpu"
            settings = self._job.model_dump(mode="json")
            arguments = (settings, self._run.url, staff.threads, device, self._plan.pairs_file)
            crew = Crew(staff, arguments, self._worker_class, wanted=staff.count)
            progress.waiting("loading the model")
            try:
                while not self.schedule.finished:
                    crew.wanted = min(staff.count, max(len(self._left) - len(self.schedule.failed), 1))
                    crew.hire()
                    if crew.exhausted:
                        self.schedule.give_up(f"no worker could be started: {self._start_failure}")
                        break
                    for event in crew.events(SECONDS_BETWEEN_LOOKS):
                        self._take(event, say)
                    while (next_one := self.schedule.assign(crew.wanted)) is not None:
                        worker, shard = next_one
                        crew.run(int(str(worker)), shard)
                    self.workers = max(self.workers, crew.ready)
                    if crew.ready:
                        progress.update(self._state(crew))
            finally:
                self.computing_seconds = self._computed_for()
                crew.dismiss()

    def _take(self, event: Event, say: Callable[[str], None]) -> None:
        if event.kind == "started":
            assert event.facts is not None
            self._recorded(event.facts)
            self.schedule.join(event.worker)
            self._computing_since = self._computing_since or time.monotonic()
        elif event.kind == "refused":
            assert event.error is not None
            raise event.error
        elif event.kind == "not_started":
            self._start_failure = event.reason
            say(f"a worker could not be started: {event.reason}")
        elif event.kind == "done":
            assert event.shard is not None
            assert event.report is not None
            self.schedule.done(event.worker, event.shard)
            self._left.discard(event.shard)
            self._pairs += self._plan.shards[event.shard].pairs
            self.pairs_now += event.report.pairs
        elif event.kind == "raised":
            assert event.shard is not None
            self.schedule.raised(event.worker, event.shard, event.reason)
            say(f"shard {event.shard}: {event.reason}")
        else:
            lost = self.schedule.in_flight(event.worker)
            self.schedule.crashed(event.worker, event.reason)
            say(f"a worker was lost with shards {', '.join(map(str, lost)) or 'none'}: {event.reason}")

    def _recorded(self, facts: WorkerFacts) -> None:
        """Write ``job.yaml`` once the model is known to load; later workers must have the very same model."""
        if self._record is None:
            record = make_record(self._job, facts, self._plan.inputs)
            if self._run.commit(JOB_FILE, encoded_record(record)):
                self._record = record
            else:
                # Another driver was first: the run is its job's.
                self._record = read_record(self._run)
                assert self._record is not None
                check_same_job(self._run, self._record, self._job)
        check_same_model(self._run, self._record, facts)

    def _state(self, crew: Crew) -> State:
        return State(
            shards=len(self._plan.shards) - len(self._left),
            all_shards=len(self._plan.shards),
            pairs=self._pairs,
            all_pairs=self._plan.pairs,
            pairs_now=self.pairs_now,
            workers=crew.ready,
            retries=self.schedule.retries,
            seconds=self._computed_for(),
        )

    def _computed_for(self) -> float:
        return time.monotonic() - self._computing_since if self._computing_since is not None else 0.0


def _reconciled(run: Store, plan: Plan, job: JobConfig, attempt: _Attempt, seconds: float) -> Outcome:
    """Compare what is in the store with the plan; ``_SUCCESS`` only when nothing is missing."""
    missing = sorted(set(range(len(plan.shards))) - finished_shards(run))
    failed = {
        index: attempt.schedule.failed.get(index, "its part is not in the run directory any more") for index in missing
    }
    totals = read_totals(run, job.format)
    if not failed:
        run.commit(SUCCESS, json.dumps(asdict(totals), ensure_ascii=False, indent=1).encode())
        tidy(run)
    return Outcome(
        url=run.url,
        totals=totals,
        planned_pairs=plan.pairs,
        shards=len(plan.shards),
        failed=failed,
        pairs_now=attempt.pairs_now,
        seconds=seconds,
        computing_seconds=attempt.computing_seconds,
        workers=attempt.workers,
        retries=attempt.schedule.retries,
    )


def _finished_before(run: Store) -> Outcome:
    try:
        totals = Totals.of(json.loads(run.read(SUCCESS)))
    except (ValueError, TypeError):
        totals = Totals()
    return Outcome(run.url, totals, totals.pairs, 0, {}, 0, 0.0, already_finished=True)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGINT and SIGTERM raise Interrupted inside the block; only the main thread can be told so.

    Ray installs a handler of its own when it starts, so the block is entered again inside of it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: FrameType | None) -> None:
        # A second Ctrl-C must not break the cleaning up after the first.
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.SIG_IGN)
        raise Interrupted(number)

    before = {one: signal.signal(one, stop) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
