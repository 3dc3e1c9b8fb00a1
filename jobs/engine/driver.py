"""The life of a run: plan, workers over shards, reconciliation with the plan, and ``_SUCCESS`` last."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from attribution_core.errors import TokenpairError
from jobs.config.job import JobConfig
from jobs.engine.outcome import Outcome
from jobs.engine.placement import in_this_process, machines
from jobs.engine.run_loop import STATE_VERSION, RunLoop
from jobs.engine.signals import Interrupted, stoppable
from jobs.engine.worker import Worker, versions
from jobs.errors import RunError
from jobs.plan.plan import make_plan
from jobs.plan.preflight import check_before_planning
from jobs.progress import Progress, counted, make_progress
from jobs.run.event_log import EventLog, driver_log, new_start, state_file
from jobs.run.manifest import MANIFEST, Plan, load_plan
from jobs.run.record import (
    check_ours,
    check_same_inputs,
    check_same_job,
    check_same_model_files,
    differing_inputs,
    half_removed,
    read_record,
    tidy,
    wipe,
)
from jobs.run.tables import JOB_FILE, SUCCESS, finished_shards
from jobs.run.totals import Totals, read_index_totals, read_totals
from jobs.sources import input_files
from jobs.storage.store import Store

__all__ = ["Interrupted", "Outcome", "run_job"]


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
    for errors that the user can correct and Interrupted on SIGINT or SIGTERM; a shard that fails for good is in the
    Outcome.
    """
    with stoppable():
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
    record = _existing_record(run, job, restart=restart)
    if record is not None and run.exists(SUCCESS):
        return _finished_before(run)
    run.check_writable()
    start = new_start()
    with (
        _reported(Store.open(job.output, job.storage), start) as report,
        progress or make_progress(echo, quiet=quiet) as shown,
    ):
        if not run.exists(MANIFEST):
            shown.phase("planning: reading the input")
        plan = _plan(run, job, record, say)
        report.events.log("planned", pairs=plan.pairs, texts=plan.texts, shards=len(plan.shards))
        todo = sorted(set(range(len(plan.shards))) - finished_shards(run))
        done_before = len(plan.shards) - len(todo)
        if done_before:
            there = "is" if done_before == 1 else "are"
            say(f"going on with {run.url}: {done_before} of {counted(len(plan.shards), 'shard')} {there} there")
        loop = RunLoop(job, run, plan, record, todo, worker_class, start=start, events=report.events, say=say)
        report.loop = loop
        if todo:
            local = in_this_process(job, plan)
            if not local:
                shown.phase("starting Ray")
            report.events.state(loop.snapshot("starting"))
            with machines(local) as workplace:
                loop.work(shown, workplace, metrics=not local)
        outcome = _reconciled(run, plan, job, loop, time.monotonic() - began)
        report.end("finished" if outcome.complete else "incomplete")
    tidy(run)
    return outcome


@dataclass
class _Report:
    """Writes the events and the state of this start to the run directory, from before its plan to its end."""

    events: EventLog
    start: str
    loop: RunLoop | None = None

    def end(self, phase: str, reason: str = "") -> None:
        """The last line and state of this start."""
        self.events.log("end", phase=phase, reason=reason)
        self.events.state(self.loop.snapshot(phase, reason=reason) if self.loop else self.before(phase, reason))

    def before(self, phase: str, reason: str = "") -> dict[str, Any]:
        """The state while there is no plan."""
        return {
            "version": STATE_VERSION,
            "start": self.start,
            "phase": phase,
            "reason": reason,
            "host": platform.node(),
            "process": os.getpid(),
        }


@contextlib.contextmanager
def _reported(run: Store, start: str) -> Iterator[_Report]:
    """The events of one start; the last one says how the block ended."""
    report = _Report(EventLog(run, driver_log(start), state_file(start)), start)
    report.events.log("start", host=platform.node(), process=os.getpid(), versions=versions())
    report.events.state(report.before("planning"))
    try:
        yield report
    except KeyboardInterrupt as stop:
        report.end("stopped", str(stop))
        raise
    except TokenpairError as error:
        report.end("failed", str(error))
        raise
    except BaseException as error:
        report.end("failed", type(error).__name__)
        raise
    finally:
        report.events.close()


def _existing_record(run: Store, job: JobConfig, *, restart: bool) -> dict[str, Any] | None:
    """The record of an existing run of this job over this input; RunError where the directory holds something else.

    Everything that can be checked without planning is checked here, before anything is removed or written.
    """
    record = read_record(run)
    if record is None:
        check_ours(run)
    elif not restart:
        check_same_job(run, record, job)
    files = input_files(job)
    if record is not None and not restart:
        check_same_inputs(run, record, files)
        check_same_model_files(run, record, job.model)
        if run.exists(SUCCESS):
            return record
    check_before_planning(job)
    # Where --restart was interrupted late, texts and rejects of the old run would be taken for the new one's.
    if restart or (record is not None and half_removed(run)):
        wipe(run)
        return None
    return record


def _plan(run: Store, job: JobConfig, record: dict[str, Any] | None, say: Callable[[str], None]) -> Plan:
    """The stored plan, where it is of this job over this input; else a new one.

    RunError where another job has stored its plan there: ``job.yaml`` may still be this job's.
    """
    plan = load_plan(run)
    if plan is None or record is None:
        if plan is not None and (plan.job != job.digest() or _other_inputs(plan, job)):
            # Left by a start that never got as far as its model, and of another job or over other input.
            run.remove(MANIFEST)
        plan = make_plan(job, run)
        for notice in plan.notices:
            say(f"note: {notice}")
    _check_ours(run, plan, job)
    rejected = sum(plan.rejected.values())
    # Workers may reject more rows: a text without a token shows only when it is tokenised.
    so_far = f", {counted(rejected, 'row')} rejected so far" if rejected else ""
    of = f" of {counted(plan.texts, 'text')}" if plan.task == "pairs" else ""
    planned = f"{counted(plan.pairs, plan.noun)}{of} in {counted(len(plan.shards), 'shard')}"
    say(planned + so_far)
    return plan


def _check_ours(run: Store, plan: Plan, job: JobConfig) -> None:
    if plan.job != job.digest():
        remedy = "choose another output, or --restart to delete that run"
        raise RunError(f"{run.url}: its plan is of another job, which was started there at the same time ({remedy})")


def _other_inputs(plan: Plan, job: JobConfig) -> list[str]:
    return differing_inputs(plan.inputs, input_files(job))


def _reconciled(run: Store, plan: Plan, job: JobConfig, loop: RunLoop, seconds: float) -> Outcome:
    """Compare what is in the store with the plan; ``_SUCCESS`` only when nothing is missing."""
    missing = sorted(set(range(len(plan.shards))) - finished_shards(run))
    failed = {index: loop.schedule.failed.get(index, "its part is no longer in the run directory") for index in missing}
    if job.task == "index":
        totals = read_index_totals(run, job.format, job.quadrature.tolerance)
    else:
        totals = read_totals(run, job.format, job.sums_to)
    if not failed:
        record = read_record(run)
        if record is None:
            raise RunError(f"{run.url}: its {JOB_FILE} was removed while it ran")
        # Another driver may have deleted the run meanwhile: the directory is then not this job's.
        check_same_job(run, record, job)
        run.commit(SUCCESS, json.dumps(asdict(totals), ensure_ascii=False, indent=1).encode())
    return Outcome(
        url=run.url,
        totals=totals,
        planned_pairs=plan.pairs,
        shards=len(plan.shards),
        failed=failed,
        pairs_now=loop.pairs_now,
        seconds=seconds,
        computing_seconds=loop.computing_seconds,
        worker_seconds=loop.worker_seconds,
        busy_seconds=sum(loop.busy_seconds.values()),
        workers=loop.workers,
        retries=loop.schedule.retries,
        warnings=tuple(plan.warnings),
        noun=plan.noun,
    )


def _finished_before(run: Store) -> Outcome:
    try:
        totals = Totals.of(json.loads(run.read(SUCCESS)))
    except (ValueError, TypeError, RecursionError):
        totals = Totals()
    return Outcome(run.url, totals, totals.pairs, 0, {}, 0, 0.0, already_finished=True, warnings=_warnings(run))


def _warnings(run: Store) -> tuple[str, ...]:
    try:
        plan = load_plan(run)
    except RunError:  # of another version; what it came to can be said all the same
        return ()
    return () if plan is None else tuple(plan.warnings)
