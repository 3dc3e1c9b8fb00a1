"""What the runs of one batch stand on: material, cluster, bucket, and the output of an undisturbed run."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.cluster import LocalCluster
from chaos.comparison import Contents, contents
from chaos.job import Driver, Job, Material, environment
from chaos.store import Bucket
from jobs.config.job import parse_job

# How long one start of a driver may take, its disturbance included; longer where the undisturbed run took long too.
LIMIT_SECONDS = 150.0
LIMIT_TIMES = 5
PROCESSES_END_SECONDS = 20.0
# To the first commit of a run that nobody timed.
ASSUMED_SECONDS = 12.0


@dataclass
class Ground:
    """Shared by the runs of a batch; each takes a job in a folder of its own."""

    folder: Path
    material: Material
    cluster: LocalCluster
    bucket: Bucket | None
    keys: dict[str, str]
    undisturbed: Contents | None = None
    undisturbed_seconds: float = 0.0
    seconds_to_first_commit: float = 0.0
    _jobs: int = field(default=0)

    @staticmethod
    @contextlib.contextmanager
    def laid(folder: Path, *, with_bucket: bool = True, timed: bool = True) -> Iterator[Ground]:
        """Start everything in ``folder``, run the job once undisturbed, and end everything afterwards."""
        with contextlib.ExitStack() as ends:
            material = Material.make(folder / "material")
            bucket = None
            if with_bucket:
                bucket = Bucket(folder / "bucket")
                ends.callback(bucket.end)
            # Raylets hand their environment on to the workers, who need the keys.
            keys = {k: v for k, v in bucket.keys.items() if k != "AWS_ENDPOINT_URL"} if bucket else {}
            cluster = LocalCluster(environment(keys))
            ends.callback(cluster.end)
            ground = Ground(folder, material, cluster, bucket, keys)
            ground._run_undisturbed() if timed else ground._compute_undisturbed()
            assert ground.undisturbed is not None
            assert len(ground.undisturbed.rows["attributions"]) > 80, "the undisturbed run wrote too little"
            yield ground

    def job(self, name: str, store: str, *, endpoint: str = "", output: Path | None = None, **pace: Any) -> Job:
        """A new job whose output is on ``store``: disk or S3."""
        self._jobs += 1
        folder = self.folder / f"{self._jobs:03d}-{name}"
        folder.mkdir()
        keywords = {"pace": pace} if pace else {}
        if store == "disk":
            return Job(folder, self.material, str(output or folder / "run"), **keywords)
        assert self.bucket is not None
        storage = {"endpoint_url": endpoint or self.bucket.endpoint}
        return Job(folder, self.material, self.bucket.url(folder.name), storage, **keywords)

    def driver(self, job: Job, name: str, *, own_ray: bool = False) -> Driver:
        """Start ``tokenpair run`` on ``job``, on the cluster or on a Ray of its own."""
        address = {} if own_ray else {"RAY_ADDRESS": self.cluster.address, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        # A token of some other cluster, as a user may have one: this cluster wants none.
        address |= {"RAY_AUTH_TOKEN": "another cluster's"}
        return Driver(job, environment({**self.keys, **address}), name)

    def orphan(self, job: Job, seed: str) -> Driver:
        """Start a worker that no driver has any more."""
        return Driver(job, environment(self.keys), "orphan", "chaos.orphan", str(job.file), seed)

    def contents(self, job: Job) -> Contents:
        """What lies in the run directory of ``job``."""
        if job.output.startswith("s3://"):
            assert self.bucket is not None
            with _variables(self.keys):
                return contents(job.output, {"endpoint_url": self.bucket.endpoint})
        return contents(job.output, folder=Path(job.output))

    @property
    def limit(self) -> float:
        """Seconds after which a driver is taken to hang."""
        return max(LIMIT_SECONDS, LIMIT_TIMES * self.undisturbed_seconds)

    def _run_undisturbed(self) -> None:
        job = self.job("undisturbed", "disk")
        driver = self.driver(job, "driver")
        try:
            code = driver.wait(4 * LIMIT_SECONDS)
        finally:
            driver.end()
        self.undisturbed_seconds = time.time() - driver.began
        assert code == 0, f"the undisturbed run ended with {code}: {driver.text()}"
        self.seconds_to_first_commit = job.done()[0].at - driver.began
        self.undisturbed = self.contents(job)

    def _compute_undisturbed(self) -> None:
        """The same output without Ray, driver or pauses, for batches too small to time a run for them."""
        from jobs.engine.worker import Worker
        from jobs.plan.plan import make_plan
        from jobs.storage.store import Store

        job = self.job("undisturbed", "disk")
        run = Store.open(job.output)
        plan = make_plan(parse_job(job.settings()), run)
        worker = Worker(job.settings(), run.url, 1, "cpu")
        worker.load()
        for shard in plan.shards:
            worker.run_shard(shard.index)
        self.seconds_to_first_commit = ASSUMED_SECONDS
        self.undisturbed = self.contents(job)


def processes_left(job: Job) -> list[int]:
    """Workers of ``job`` that still run after a while."""
    end = time.monotonic() + PROCESSES_END_SECONDS
    left = {event.process for event in job.diary() if event.what != "driver"}
    while left and time.monotonic() < end:
        left = {process for process in left if _is_worker(process)}
        time.sleep(0.1)
    return sorted(left)


def workers_alive(job: Job) -> list[int]:
    """Workers of ``job`` that run now, those that are still loading included."""
    return [process for process in {event.process for event in job.diary()} if _is_worker(process)]


def chosen(chance: random.Random, among: list[int]) -> int:
    """One of them."""
    return chance.choice(sorted(among))


def _is_worker(process: int) -> bool:
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        return state != "Z" and b"ray::" in Path(f"/proc/{process}/cmdline").read_bytes()
    return False


@contextlib.contextmanager
def _variables(given: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
