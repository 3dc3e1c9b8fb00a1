"""Submitting a job to a running Ray cluster: once while it runs, with its own exit code, after a check of the cluster.

A job's id there is made from its run directory and the number of the attempt, so that whoever knows the run directory
finds the job, and nobody starts a second one beside it.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attribution_core.errors import ModelError
from jobs.cluster.client import Cluster, ClusterJob
from jobs.cluster.probe import MARK
from jobs.cluster.shipment import expected, marked_output, packed, runtime_env, version
from jobs.cluster.standing import check_not_at_work, going_on, present_run
from jobs.config.job import JobConfig, absolute, load_job
from jobs.errors import ClusterError
from jobs.run.status import Status

PREFIX = "tokenpair"
CHECK_SECONDS = 900.0
JOB_DIGEST = "tokenpair_job"
RUN_DIRECTORY = "tokenpair_run"
# Ray stops what is left of a job some seconds after it was asked to.
STOP_WAIT_SECONDS = 90.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Submitted:
    """What became of a submission. ``started`` is false where the job was running already.

    ``finished`` is the run where it was finished before; then there is no job and ``id`` is empty.
    """

    id: str
    started: bool
    finished: Status | None = None


def submit(
    job: JobConfig,
    cluster: Cluster,
    say: Say,
    *,
    restart: bool = False,
    install: bool = False,
    python: str = "python",
) -> Submitted:
    """Check the cluster and start ``job`` on it, unless it runs already or its run is finished; ``say`` gets notices.

    Raises ClusterError, in a line each, for everything that the cluster lacks, and for a run that is being computed
    elsewhere; RunError for a run directory that holds another job. Then nothing was started.
    """
    _check_python(python)
    if Path(job.model).is_absolute() and not Path(job.model).is_dir():
        raise ModelError(f"there is no model folder {job.model}")
    name = job_name(job.output)
    before = cluster.jobs(name)
    running = _running(before, job)
    if running is not None:
        return Submitted(running.id, started=False)
    present = present_run(job, restart=restart)
    if present is not None:
        check_not_at_work(present)
        if present.state == "finished" and not restart:
            return Submitted("", started=False, finished=present)
        if not restart:
            say(f"note: {going_on(present)}")
    with tempfile.TemporaryDirectory(prefix="tokenpair-submit-") as folder, marked_output(job) as mark:
        packed(Path(folder), job, expected(job, mark))
        environment = runtime_env(Path(folder), install=install)
        for notice in _checked(cluster, name, environment, python, say):
            say(f"note: {notice}")
        words = [python, "-m", "jobs", "run", "job.yaml", *(["--restart"] if restart else [])]
        metadata = {JOB_DIGEST: _digest(job), RUN_DIRECTORY: job.output, "tokenpair_version": version()}
        id = f"{name}-{_attempt(before) + 1}"
        if cluster.submit(id, " ".join(words), environment, metadata):
            return Submitted(id, started=True)
    # Somebody else took this number in the meantime.
    running = _running(cluster.jobs(name), job)
    if running is None:
        raise ClusterError(f"another job {id} was started and has ended meanwhile; submit again")
    return Submitted(running.id, started=False)


def job_name(output: str) -> str:
    """The part of a job's id that stands for its run directory."""
    place = output.rstrip("/")
    slug = re.sub(r"[^a-z0-9]+", "-", place.rpartition("/")[2].lower()).strip("-")[:24]
    digest = hashlib.sha256(place.encode()).hexdigest()[:10]
    return "-".join(part for part in (PREFIX, slug, digest) if part)


def find_job(cluster: Cluster, what: str) -> ClusterJob:
    """The last attempt of a job's id, run directory or job file; ClusterError where there is none."""
    found: list[ClusterJob] = []
    if re.fullmatch(rf"{PREFIX}-[\w-]+", what):
        found = cluster.jobs(what)
    where = what
    if not found:
        path = Path(what).expanduser()
        is_file = path.suffix in (".yaml", ".yml") and not what.startswith("s3://")
        where = load_job(path).output if is_file else absolute(what).rstrip("/")
        found = cluster.jobs(job_name(where))
    if not found:
        raise ClusterError(f"{where}: no job of tokenpair with this id or run directory is known to {cluster.place}")
    return found[-1]


def _running(jobs: list[ClusterJob], job: JobConfig) -> ClusterJob | None:
    running = next((one for one in jobs if not one.ended), None)
    if running is not None and running.metadata.get(JOB_DIGEST) != _digest(job):
        raise ClusterError(
            f"{job.output}: another job writes to this run directory, {running.id}; choose another output, "
            f"or tokenpair stop {running.id}"
        )
    return running


def _digest(job: JobConfig) -> str:
    return hashlib.sha256(json.dumps(job.identity(), sort_keys=True).encode()).hexdigest()[:16]


def _attempt(jobs: list[ClusterJob]) -> int:
    """The number of the last attempt, 0 where there was none."""
    numbers = (one.id.rpartition("-")[2] for one in jobs)
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def _checked(cluster: Cluster, name: str, environment: dict[str, Any], python: str, say: Say) -> list[str]:
    """Run the check on the cluster; its notes, or ClusterError with what is wrong, a line each."""
    say(f"checking the cluster at {cluster.place} (Ray {cluster.ray_version}) …")
    id = f"{name}-check-{hashlib.sha256(str(environment).encode()).hexdigest()[:10]}"
    cluster.submit(id, f"{python} -m jobs.cluster.probe", environment, {})
    try:
        done = cluster.wait(id, CHECK_SECONDS)
        if not done.ended:
            raise ClusterError(f"the cluster did not get to the check within {CHECK_SECONDS:.0f} s ({done.status})")
        report = _report(cluster.logs(id), done, python)
    finally:
        # Also where the user has lost patience.
        if not cluster.job(id).ended:
            cluster.stop(id, seconds=10)
        cluster.forget(id)
    if report["errors"]:
        raise ClusterError("\n".join(report["errors"]))
    return list(report["notes"])


def _report(log: str, done: ClusterJob, python: str) -> dict[str, list[str]]:
    line = next((line for line in reversed(log.splitlines()) if line.startswith(MARK)), None)
    if line is not None:
        found = json.loads(line.removeprefix(MARK))
        return {name: [" ".join(str(one).split()) for one in found[name]] for name in ("errors", "notes")}
    if done.code == 127:
        raise ClusterError(f"the cluster's machines have no `{python}` on the path of Ray: name one with --python")
    said = [line.strip() for line in (done.message or log).splitlines() if line.strip()]
    raise ClusterError(f"the check did not run on the cluster: {said[-1][:300] if said else done.status}")


def _check_python(python: str) -> None:
    # It becomes part of a shell's command line there.
    if re.fullmatch(r"[\w./+-]+", python) is None:
        raise ClusterError(f"--python: found {python!r}; allowed: a program's name or path on the cluster")
