"""What is done to a run, at which moment, and how it may end. Every choice comes from the run's own random numbers."""

from __future__ import annotations

import contextlib
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from chaos.comparison import check_whole, check_without
from chaos.ground import LIMIT_SECONDS, Ground, chosen, processes_left, workers_alive
from chaos.job import PACE, SHARDS, Driver, HungError, Job, wait_until
from chaos.store import CuttingProxy

LEAVING_SECONDS = 30.0
OUTAGE_SECONDS = 20.0
STOPPED = "the same command goes on where it stopped"


@dataclass
class Run:
    """One disturbed run. A case fills in what it did (``how``), how it ended, and when the fault was over."""

    ground: Ground
    chance: random.Random
    name: str
    outage_seconds: float = OUTAGE_SECONDS
    how: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    over_at: float | None = None
    drivers: list[Driver] = field(default_factory=list)

    def job(self, store: str | None = None, **more: object) -> Job:
        """The job of this run, on disk or S3 as chance will have it."""
        store = store or self.chance.choice(["disk", "S3"] if self.ground.bucket else ["disk"])
        self.how.append(f"on {store}")
        return self.ground.job(self.name, store, **more)  # type: ignore[arg-type]

    def start(self, job: Job, *, own_ray: bool = False) -> Driver:
        """Start a driver, the first or another one."""
        driver = self.ground.driver(job, f"driver-{len(self.drivers) + 1}", own_ray=own_ray)
        self.drivers.append(driver)
        return driver

    def moment(self, job: Job, driver: Driver, early: float = 0.2) -> None:
        """Wait for a random moment: with the chance ``early`` while the run starts, else around one of its commits."""
        # Before that, Python reads the program, and what happens is Python's affair.
        wait_until(lambda: any(event.what == "driver" for event in job.diary()), driver, LIMIT_SECONDS)
        if self.chance.random() < early:
            seconds = self.chance.uniform(0, self.ground.seconds_to_first_commit)
            end = time.monotonic() + seconds
            wait_until(lambda: time.monotonic() > end, driver, LIMIT_SECONDS)
            self.how.append(f"{seconds:.1f} s after the start")
            return
        commits = self.chance.randint(0, SHARDS)
        wait_until(lambda: len(job.done()) >= commits, driver, LIMIT_SECONDS)
        time.sleep(self.chance.uniform(0, 2 * PACE["compute"]))
        self.how.append(f"after {len(job.done())} commits" if driver.running else "too late: it had finished")

    def finish(self, driver: Driver, *allowed: int, seconds: float = LIMIT_SECONDS) -> int:
        """Its exit code, which must be one of ``allowed``; what it said must be fit for a user."""
        code = driver.wait(seconds)
        self.ended.append(_ending(code))
        said = driver.text()
        assert "Traceback" not in said, f"a traceback reached the user: {said[-3000:]}"
        assert "this is a bug" not in said, said[-1000:]
        assert code in allowed, f"the driver ended with {code}, allowed is {allowed}: {said[-1500:]}"
        return code

    def rerun(self, job: Job, *, own_ray: bool = False) -> None:
        """The same command again, which must finish the run."""
        self.over_at = time.time()
        again = self.start(job, own_ray=own_ray)
        self.finish(again, 0)

    def whole(self, job: Job) -> None:
        """The output must be the undisturbed run's, and no worker left behind."""
        assert self.ground.undisturbed is not None
        check_whole(self.ground.contents(job), self.ground.undisturbed)
        left = processes_left(job)
        assert not left, f"workers {left} still run"

    def next_commit(self, job: Job) -> float | None:
        """Seconds from the fault's end to the next commit, None where there was nothing left to do."""
        if self.over_at is None:
            return None
        after = [event.at for event in job.done() if event.at > self.over_at]
        return after[0] - self.over_at if after else None


def worker_killed(run: Run) -> Job:
    """A worker's process ends with -9."""
    job = run.job()
    driver = run.start(job)
    run.moment(job, driver)
    if wait_until(lambda: bool(workers_alive(job)), driver, LIMIT_SECONDS):
        _kill(chosen(run.chance, workers_alive(job)))
    run.over_at = time.time()
    run.finish(driver, 0)
    run.whole(job)
    return job


def raylet_killed(run: Run) -> Job:
    """A node's raylet ends with -9, and with it its workers; at times it is the driver's own."""
    job = run.job()
    driver = run.start(job)
    run.moment(job, driver)
    node = run.chance.choice([0, 1, 1, 2, 2])
    try:
        run.how.append("the driver's own node" if node == 0 else "another node")
        run.ground.cluster.kill(node)
        run.over_at = time.time()
        # Without its own raylet a driver cannot go on; then it must say so, and the rerun finish.
        code = run.finish(driver, *((0, 1, 2) if node == 0 else (0,)))
    finally:
        run.ground.cluster.heal()
    if code:
        run.rerun(job)
    run.whole(job)
    return job


def driver_killed(run: Run) -> Job:
    """The driver ends with -9, and the same command is given again, at times while its workers still live."""
    job = run.job()
    driver = run.start(job)
    run.moment(job, driver)
    driver.kill(signal.SIGKILL)
    driver.wait(LEAVING_SECONDS)
    run.ended.append("killed")
    first = {event.process for event in job.diary() if event.what != "driver"}
    time.sleep(run.chance.choice([0, run.chance.uniform(0, 1), run.chance.uniform(1, 4)]))
    run.rerun(job)
    late = [event for event in job.done() if event.process in first and event.at > (run.over_at or 0)]
    if late:
        run.how.append(f"{len(late)} commits by the dead driver's workers during the rerun")
    run.whole(job)
    return job


def store_down(run: Run) -> Job:
    """The S3 server is away for a while: it does not answer, or it was ended and comes back."""
    assert run.ground.bucket is not None
    bucket = run.ground.bucket
    job = run.job("S3")
    driver = run.start(job)
    frozen = run.chance.random() < 0.5
    run.moment(job, driver)
    run.how.append("frozen" if frozen else "ended and started again")
    (bucket.freeze if frozen else bucket.kill)()
    try:
        time.sleep(run.outage_seconds)
    finally:
        (bucket.thaw if frozen else bucket.start)()
        run.over_at = time.time()
    # A run that finds no store when it begins says so at once.
    code = run.finish(driver, 0, *((2,) if not any(e.what == "ready" for e in job.diary()) else ()))
    if code:
        run.rerun(job)
    run.whole(job)
    return job


def put_cut(run: Run) -> Job:
    """The S3 server ends with -9 in the middle of a PUT of a part, or its answer to one is lost."""
    assert run.ground.bucket is not None
    bucket = run.ground.bucket
    answer_lost = run.chance.random() < 0.3
    which = run.chance.randint(1, SHARDS // 2)
    run.how.append(f"the {'answer to ' if answer_lost else ''}PUT number {which}")
    proxy = CuttingProxy(
        bucket.endpoint, which, body_whole=answer_lost, cut=(lambda: None) if answer_lost else bucket.kill
    )
    try:
        job = run.job("S3", endpoint=proxy.endpoint)
        driver = run.start(job)
        happened = wait_until(proxy.happened.is_set, driver, LIMIT_SECONDS)
        assert happened, f"no PUT was cut: {driver.text()[-500:]}"
        if not answer_lost:
            time.sleep(run.chance.uniform(0.5, 5))
            bucket.start()
        run.over_at = time.time()
        run.finish(driver, 0)
    finally:
        proxy.end()
    run.whole(job)
    return job


def out_of_memory(run: Run) -> Job:
    """A worker runs out of memory: its process is ended, or the system or torch gives it no more."""
    job = run.job()
    fault = run.chance.choice(["ended-for-memory", "no-more-memory", "torch-out-of-memory"])
    run.how.append(fault)
    driver = run.start(job)
    run.moment(job, driver)
    job.fault(fault)
    if not wait_until(lambda: any(event.what == "fault" for event in job.diary()), driver, LIMIT_SECONDS):
        run.how.append("which no shard was left for")
    run.over_at = time.time()
    run.finish(driver, 0)
    run.whole(job)
    return job


def deadly_shard(run: Run) -> Job:
    """A text ends every process that computes it: its shard is named, the rest is there; without it all is."""
    deadly = run.chance.choice(run.ground.material.texts)
    job = run.job(deadly=deadly, **PACE)
    driver = run.start(job)
    run.finish(driver, 1)
    assert run.ground.undisturbed is not None
    faults = {event.shard for event in job.diary() if event.what == "fault"}
    assert len(faults) == 1, f"the text was in shards {faults}"
    named = re.findall(r"MISSING +shard (\d+): .*died", driver.text())
    assert named == [str(shard) for shard in faults], f"named are {named}, deadly was {faults}"
    expected = run.ground.undisturbed.rows["attributions"]
    missing = set(expected) - set(run.ground.contents(job).rows["attributions"])
    assert any(deadly_row(run, key) == deadly for key in missing), "the deadly pair is there"
    assert len(missing) <= 12, f"{len(missing)} pairs are missing for one shard"
    check_without(run.ground.contents(job), run.ground.undisturbed, missing)
    (job.room / "settings.json").write_text("{}")
    run.rerun(job)
    run.whole(job)
    return job


def deadly_row(run: Run, key: str) -> str:
    """The first text of a pair of the undisturbed run."""
    assert run.ground.undisturbed is not None
    row = run.ground.undisturbed.rows["attributions"][key]
    return str(run.ground.undisturbed.rows["texts"][row["text_a_id"]]["text"])


def disk_full(run: Run) -> Job:
    """The disk of the run directory is full before the run is done, and larger for the rerun."""
    with _small_disk(run.ground.folder / f"disk-{time.monotonic_ns()}") as (place, resize):
        size = run.chance.randint(64, 320)
        run.how.append(f"{size} KiB")
        resize(size)
        job = run.job("disk", output=place / "run")
        driver = run.start(job)
        code = run.finish(driver, 1, 2)
        said = driver.text()
        assert "no space left on device" in said, said[-1000:]
        assert code == 2 or "MISSING" in said, said[-1000:]
        resize(64 << 10)
        run.rerun(job)
        run.whole(job)
        return job


def stopped(run: Run) -> Job:
    """SIGINT or SIGTERM: the driver leaves within half a minute and says how to go on."""
    own_ray = run.chance.random() < 0.4
    number = run.chance.choice([signal.SIGINT, signal.SIGTERM])
    # Ctrl-C goes to everything that the terminal's foreground job has started.
    group = number == signal.SIGINT and run.chance.random() < 0.5
    run.how.append(f"{number.name}{' to its process group' if group else ''}{', a Ray of its own' if own_ray else ''}")
    job = run.job(None if not own_ray else "disk")
    driver = run.start(job, own_ray=own_ray)
    run.moment(job, driver, early=0.5)
    driver.kill(number, group=group)
    code = run.finish(driver, 0, 128 + number, seconds=LEAVING_SECONDS)
    assert code == 0 or STOPPED in driver.text(), driver.text()[-1000:]
    left = processes_left(job)
    assert not left, f"workers {left} still run"
    run.rerun(job, own_ray=own_ray)
    run.whole(job)
    return job


def two_drivers(run: Run) -> Job:
    """Two drivers start on one run directory, within two seconds of each other; one of them may be refused."""
    job = run.job()
    first = run.start(job)
    time.sleep(run.chance.choice([0, run.chance.uniform(0, 2)]))
    second = run.start(job)
    run.over_at = time.time()
    codes = [run.finish(driver, 0, 2) for driver in (first, second)]
    assert 0 in codes, "neither of two drivers finished"
    run.whole(job)
    return job


@dataclass(frozen=True)
class Case:
    """A case by its name in the table, and how many of fifty runs are its."""

    title: str
    act: Callable[[Run], Job]
    of_fifty: int
    needs_bucket: bool = False


CASES = (
    Case("worker killed (-9)", worker_killed, 7),
    Case("raylet killed (-9)", raylet_killed, 6),
    Case("driver killed (-9), run again", driver_killed, 7),
    Case("S3 server away for 20 s", store_down, 5, needs_bucket=True),
    Case("S3 server killed in the middle of a PUT", put_cut, 4, needs_bucket=True),
    Case("worker out of memory", out_of_memory, 5),
    Case("a text that always kills its process", deadly_shard, 3),
    Case("disk full, run again", disk_full, 3),
    Case("SIGINT or SIGTERM, run again", stopped, 6),
    Case("two drivers at once", two_drivers, 4),
)


def _ending(code: int) -> str:
    return f"exit {code}" if code >= 0 else signal.Signals(-code).name


def _kill(process: int) -> None:
    import os

    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


@contextlib.contextmanager
def _small_disk(place: Path) -> Iterator[tuple[Path, Callable[[int], None]]]:
    """A file system in memory of so many KiB. Mounting takes root; without it the case cannot be tried."""
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True).returncode:
        raise NotPossibleError("mounting a small file system takes root")

    def resize(size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}k", str(place)], check=True, capture_output=True)

    try:
        yield place, resize
    finally:
        subprocess.run(["umount", "--lazy", str(place)], capture_output=True)


class NotPossibleError(Exception):
    """This machine or user does not allow the case."""


__all__ = ["CASES", "Case", "HungError", "NotPossibleError", "Run"]
