"""Checks for an existing run in a job's run directory, as far as the submitting machine can read it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from attribution_core.errors import ModelError
from jobs.errors import ClusterError, RunError, SourceError, StoreError
from jobs.progress import counted, duration
from jobs.run.record import check_same_inputs, check_same_job, check_same_model_files, read_record
from jobs.run.status import ALIVE_SECONDS, AT_WORK, Status, read_status
from jobs.sources import input_files
from jobs.storage.store import Store

if TYPE_CHECKING:
    from jobs.config.job import JobConfig


def read_existing_run(job: JobConfig, *, restart: bool = False) -> Status | None:
    """Return the status of the run in the job's run directory; None if there is none or this machine cannot read it.

    Raises RunError if the run belongs to another job, was planned from other input, or was begun with other files of
    the model; ``restart``, which discards that run, skips these checks.
    """
    # The cluster may have credentials and folders that this machine lacks: then the check on the cluster decides.
    with contextlib.suppress(StoreError):
        run = Store.open(job.output, job.storage)
        record = None if restart else read_record(run)
        if record is not None:
            check_same_job(run, record, job)
            with contextlib.suppress(SourceError, StoreError):
                check_same_inputs(run, record, input_files(job))
            with contextlib.suppress(ModelError):
                check_same_model_files(run, record, job.model)
        # A run writes its state before it writes job.yaml, so the status may exist without a record.
        with contextlib.suppress(RunError):
            return read_status(run)
    return None


def check_not_running(status: Status) -> None:
    """Raise ClusterError if a driver computes the run right now, outside of this cluster."""
    if status.state not in AT_WORK or not status.drivers:
        return
    where = f" on {status.host} (process {status.process})" if status.host else ""
    seen = duration(max(status.seen_seconds or 0.0, 0.0))
    raise ClusterError(
        f"{status.url}: is being computed already{where}, last sign of life {seen} ago, {_done(status)}; "
        f"tokenpair status {status.url} shows its progress. If that process was killed, submit again in "
        f"{ALIVE_SECONDS:.0f} s to resume the run"
    )


def resume_notice(status: Status) -> str:
    """Return a notice that the job resumes an unfinished run."""
    why = {
        "stopped": f"stopped by {status.reason or 'a signal'}",
        "failed": f"ended by an error: {status.reason}",
        "incomplete": "ended with shards missing",
    }.get(status.state, "not finished, and no driver computes it")
    return f"going on with {status.url}, {_done(status)} ({why})"


def finished_lines(status: Status) -> list[str]:
    """Return the lines about a run that was finished before."""
    return [f"already finished: {status.url}", *(status.totals.lines() if status.totals is not None else [])]


def _done(status: Status) -> str:
    if status.shards is None:
        return "no shard is done"
    return f"{status.done:,} of {counted(status.shards, 'shard')} done"
