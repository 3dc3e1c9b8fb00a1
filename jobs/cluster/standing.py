"""What stands in a job's run directory already, as far as the machine that submits can see it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from attribution_core.errors import ModelError
from jobs.errors import ClusterError, RunError, SourceError, StoreError
from jobs.progress import counted, duration
from jobs.run.status import ALIVE_SECONDS, AT_WORK, Status, read_status

if TYPE_CHECKING:
    from jobs.config.job import JobConfig


def present_run(job: JobConfig, *, restart: bool = False) -> Status | None:
    """Where the run in the job's run directory stands; None where there is none, or this machine cannot read it.

    RunError where the run is another job's, or was planned from other input or begun with another model of that name,
    unless ``restart`` says that it is to be thrown away.
    """
    from jobs.run.record import check_same_inputs, check_same_job, check_same_model_files, read_record
    from jobs.sources import input_files
    from jobs.storage.store import Store

    # The cluster may have credentials and folders that this machine lacks: its own check then says what is wrong.
    with contextlib.suppress(StoreError):
        run = Store.open(job.output, job.storage)
        record = None if restart else read_record(run)
        if record is not None:
            check_same_job(run, record, job)
            with contextlib.suppress(SourceError, StoreError):
                check_same_inputs(run, record, input_files(job))
            with contextlib.suppress(ModelError):
                check_same_model_files(run, record, job.model)
        # A start writes where it stands before it writes what its job is.
        with contextlib.suppress(RunError):
            return read_status(run)
    return None


def check_not_at_work(status: Status) -> None:
    """ClusterError where somebody computes the run right now, outside of the cluster that was asked."""
    if status.state not in AT_WORK or not status.drivers:
        return
    where = f" on {status.host} (process {status.process})" if status.host else ""
    seen = duration(max(status.seen_seconds or 0.0, 0.0))
    raise ClusterError(
        f"{status.url}: is being computed already{where}, last sign of life {seen} ago, {_done(status)}; "
        f"tokenpair status {status.url} says where it stands. If that process was killed, submit again in "
        f"{ALIVE_SECONDS:.0f} s, and the run goes on"
    )


def going_on(status: Status) -> str:
    """A notice that the job goes on with an unfinished run."""
    why = {
        "stopped": f"stopped by {status.reason or 'a signal'}",
        "failed": f"ended by an error: {status.reason}",
        "incomplete": "ended with shards missing",
    }.get(status.state, "not finished, and nobody computes it")
    return f"going on with {status.url}, {_done(status)} ({why})"


def finished_lines(status: Status) -> list[str]:
    """What a user reads of a run that is finished."""
    return [f"already finished: {status.url}", *(status.totals.lines() if status.totals is not None else [])]


def _done(status: Status) -> str:
    if status.shards is None:
        return "no shard is done"
    return f"{status.done:,} of {counted(status.shards, 'shard')} done"
