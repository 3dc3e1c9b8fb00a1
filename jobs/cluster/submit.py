"""Submits a job to a running Ray cluster, after a check of the cluster, and at most once at a time.

The id of the job on the cluster consists of its run directory's name and hash and the number of the start. So the job
can be found by its run directory, and a second one is not started while it runs.
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
from jobs.cluster.existing_run import check_not_running, read_existing_run, resume_notice
from jobs.cluster.probe import MARK
from jobs.cluster.shipment import expected, marked_output, pack, runtime_env, version
from jobs.config.job import JobConfig, absolute, load_job
from jobs.errors import ClusterError
from jobs.run.status import Status

PREFIX = "tokenpair"
CHECK_SECONDS = 900.0
JOB_DIGEST = "tokenpair_job"
RUN_DIRECTORY = "tokenpair_run"
# Ray kills a job that does not end within some seconds after it was asked to stop.
STOP_WAIT_SECONDS = 90.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Submitted:
    """The result of a submission. ``started`` is false if the job was running already.

    ``finished`` is the status of the run if it was finished before; then there is no job and ``id`` is "".
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

    ``restart`` discards an existing run, ``install`` lets the cluster install tokenpair's requirements, and
    ``python`` is the cluster's Python. Raises ClusterError, with one line for each problem of the cluster, or if the
    run is being computed elsewhere; RunError if the run directory belongs to another job. Nothing is started then.
    """
    _check_python(python)
    if Path(job.model).is_absolute() and not Path(job.model).is_dir():
        raise ModelError(f"there is no model folder {job.model}")
    name = job_name(job.output)
    before = cluster.jobs(name)
    running = _running(before, job)
    if running is not None:
        return Submitted(running.id, started=False)
    existing = read_existing_run(job, restart=restart)
    if existing is not None:
        check_not_running(existing)
        if existing.state == "finished" and not restart:
            return Submitted("", started=False, finished=existing)
        if not restart:
            say(f"note: {resume_notice(existing)}")
    with tempfile.TemporaryDirectory(prefix="tokenpair-submit-") as folder, marked_output(job) as mark:
        pack(Path(folder), job, expected(job, mark))
        environment = runtime_env(Path(folder), install=install)
        for notice in _checked(cluster, name, environment, python, say):
            say(f"note: {notice}")
        words = [python, "-m", "jobs", "run", "job.yaml", *(["--restart"] if restart else [])]
        metadata = {JOB_DIGEST: _digest(job), RUN_DIRECTORY: job.output, "tokenpair_version": version()}
        id = f"{name}-{_last_number(before) + 1}"
        if cluster.submit(id, " ".join(words), environment, metadata):
            return Submitted(id, started=True)
    # Another process submitted a job with this id in the meantime.
    running = _running(cluster.jobs(name), job)
    if running is None:
        raise ClusterError(f"another job {id} was started and has ended meanwhile; submit again")
    return Submitted(running.id, started=False)


def job_name(output: str) -> str:
    """Return the part of a job's id that identifies its run directory."""
    place = output.rstrip("/")
    slug = re.sub(r"[^a-z0-9]+", "-", place.rpartition("/")[2].lower()).strip("-")[:24]
    digest = hashlib.sha256(place.encode()).hexdigest()[:10]
    return "-".join(part for part in (PREFIX, slug, digest) if part)


def find_job(cluster: Cluster, what: str) -> ClusterJob:
    """Return the latest job with an id, a run directory or a job file; raises ClusterError if there is none."""
    jobs: list[ClusterJob] = []
    if re.fullmatch(rf"{PREFIX}-[\w-]+", what):
        jobs = cluster.jobs(what)
    where = what
    if not jobs:
        path = Path(what).expanduser()
        is_file = path.suffix in (".yaml", ".yml") and not what.startswith("s3://")
        where = load_job(path).output if is_file else absolute(what).rstrip("/")
        jobs = cluster.jobs(job_name(where))
    if not jobs:
        raise ClusterError(f"{where}: no job of tokenpair with this id or run directory is known to {cluster.place}")
    return jobs[-1]


def _running(jobs: list[ClusterJob], job: JobConfig) -> ClusterJob | None:
    """Return the job that is not ended, or None; raises ClusterError if it has other settings than ``job``."""
    running = next((other for other in jobs if not other.ended), None)
    if running is not None and running.metadata.get(JOB_DIGEST) != _digest(job):
        raise ClusterError(
            f"{job.output}: another job writes to this run directory, {running.id}; choose another output, "
            f"or tokenpair stop {running.id}"
        )
    return running


def _digest(job: JobConfig) -> str:
    return hashlib.sha256(json.dumps(job.identity(), sort_keys=True).encode()).hexdigest()[:16]


def _last_number(jobs: list[ClusterJob]) -> int:
    """Return the number at the end of the latest job's id, 0 if there is no job."""
    numbers = (job.id.rpartition("-")[2] for job in jobs)
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def _checked(cluster: Cluster, name: str, environment: dict[str, Any], python: str, say: Say) -> list[str]:
    """Run the check on the cluster and return its notices; raises ClusterError with one line for each problem."""
    say(f"checking the cluster at {cluster.place} (Ray {cluster.ray_version}) …")
    id = f"{name}-check-{hashlib.sha256(str(environment).encode()).hexdigest()[:10]}"
    cluster.submit(id, f"{python} -m jobs.cluster.probe", environment, {})
    try:
        done = cluster.wait(id, CHECK_SECONDS)
        if not done.ended:
            raise ClusterError(f"the cluster did not finish the check within {CHECK_SECONDS:.0f} s ({done.status})")
        report = _report(cluster.logs(id), done, python)
    finally:
        # Also after Ctrl-C.
        if not cluster.job(id).ended:
            cluster.stop(id, seconds=10)
        cluster.forget(id)
    if report["errors"]:
        raise ClusterError("\n".join(report["errors"]))
    return list(report["notes"])


def _report(log: str, done: ClusterJob, python: str) -> dict[str, list[str]]:
    line = next((line for line in reversed(log.splitlines()) if line.startswith(MARK)), None)
    if line is not None:
        report = json.loads(line.removeprefix(MARK))
        return {name: [" ".join(str(text).split()) for text in report[name]] for name in ("errors", "notes")}
    if done.code == 127:
        raise ClusterError(f"the cluster's machines have no `{python}` on the path of Ray: name one with --python")
    said = [line.strip() for line in (done.message or log).splitlines() if line.strip()]
    raise ClusterError(f"the check did not run on the cluster: {said[-1][:300] if said else done.status}")


def _check_python(python: str) -> None:
    # It becomes part of a shell command on the cluster.
    if re.fullmatch(r"[\w./+-]+", python) is None:
        raise ClusterError(f"--python: found {python!r}; allowed: a program's name or path on the cluster")
