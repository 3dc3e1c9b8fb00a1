"""Ray actors around workers: starting Ray quietly on loopback, keeping a crew alive, telling what became of a shard."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from attribution_core.errors import ModelError, SettingError
from jobs.ray_session import ray_session
from jobs.schedule import FAILED_STARTS, Staffing
from jobs.worker import ShardReport, Worker, WorkerFacts

ACTOR_THREADS = 3
# Doubled with every failure in a row.
PAUSE_SECONDS = 1.0


@contextlib.contextmanager
def connected() -> Iterator[dict[str, float]]:
    """Ray for the time of the block, and the resources it has: the cluster of RAY_ADDRESS, or one of its own.

    A Ray that runs in this process already is used and left running.
    """
    with ray_session():
        import ray

        _silence_reports()
        yield ray.cluster_resources()


@dataclass(frozen=True)
class Event:
    """Something that became of a worker or of a shard it had."""

    kind: Literal["started", "refused", "not_started", "done", "raised", "crashed"]
    worker: int
    shard: int | None = None
    report: ShardReport | None = None
    facts: WorkerFacts | None = None
    error: BaseException | None = None
    reason: str = ""


@dataclass
class Crew:
    """Workers as Ray actors. One that dies is replaced, until several in a row could not be started.

    ``arguments`` are those of ``worker_class``.
    """

    staffing: Staffing
    arguments: tuple[Any, ...]
    worker_class: type[Worker] = Worker
    wanted: int = 0
    failed_starts: int = 0
    _actors: dict[int, Any] = field(default_factory=dict)
    _ready: set[int] = field(default_factory=set)
    _pending: dict[Any, tuple[int, int | None]] = field(default_factory=dict)
    _hired: int = 0
    _not_before: float = 0.0

    @property
    def ready(self) -> int:
        """Workers that have their model."""
        return len(self._ready)

    @property
    def exhausted(self) -> bool:
        """No worker is left and none will be started any more."""
        return not self._actors and self.failed_starts >= FAILED_STARTS

    def hire(self) -> None:
        """Start as many workers as are wanted and missing, after a pause that grows with failures in a row."""
        while (
            len(self._actors) < self.wanted
            and self.failed_starts < FAILED_STARTS
            and time.monotonic() >= self._not_before
        ):
            self._hire_one()

    def run(self, worker: int, shard: int) -> None:
        """Give ``shard`` to ``worker``."""
        self._pending[self._actors[worker].run_shard.remote(shard)] = (worker, shard)

    def events(self, seconds: float) -> list[Event]:
        """What happened, waiting at most ``seconds`` for something to."""
        import ray

        if not self._pending:
            time.sleep(seconds if self._not_before > time.monotonic() else 0)
            return []
        ready, _ = ray.wait(list(self._pending), num_returns=1, timeout=seconds)
        return [event for reference in ready for event in self._settle(reference)]

    def dismiss(self) -> None:
        """End every worker."""
        for worker in list(self._actors):
            self._kill(worker)
        self._pending.clear()

    def _hire_one(self) -> None:
        import ray

        worker = self._hired = self._hired + 1
        actor = (
            ray.remote(self.worker_class)
            .options(
                num_cpus=self.staffing.cpus,
                num_gpus=self.staffing.gpus,
                max_restarts=0,
                max_task_retries=0,
                max_concurrency=ACTOR_THREADS,
            )
            .remote(*self.arguments)
        )
        self._actors[worker] = actor
        self._pending[actor.load.remote()] = (worker, None)

    def _settle(self, reference: Any) -> list[Event]:
        import ray

        worker, shard = self._pending.pop(reference)
        try:
            result = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            return [self._raised(worker, shard, error)]
        except ray.exceptions.RayError as error:
            return self._crashed(worker, shard, error)
        if shard is not None:
            return [Event("done", worker, shard, report=result)]
        self._ready.add(worker)
        self.failed_starts = 0
        return [Event("started", worker, facts=result)]

    def _raised(self, worker: int, shard: int | None, error: Any) -> Event:
        cause = error.cause if isinstance(error.cause, BaseException) else error
        reason = f"{type(cause).__name__}: {_first_line(cause)}"
        if shard is not None:
            return Event("raised", worker, shard, error=cause, reason=reason)
        self._kill(worker)
        if isinstance(cause, (ModelError, SettingError)):
            return Event("refused", worker, error=cause, reason=reason)
        return self._not_started(worker, reason)

    def _crashed(self, worker: int, shard: int | None, error: BaseException) -> list[Event]:
        import ray

        # What it had finished before it died is done all the same.
        events: list[Event] = []
        for reference, (other, its) in list(self._pending.items()):
            if other == worker:
                del self._pending[reference]
                with contextlib.suppress(ray.exceptions.RayError):
                    events.append(Event("done", worker, its, report=ray.get(reference, timeout=5)))
        started = worker in self._ready
        self._kill(worker)
        reason = _death(error)
        if not started:
            return [self._not_started(worker, reason)]
        return [*events, Event("crashed", worker, shard, reason=reason)]

    def _not_started(self, worker: int, reason: str) -> Event:
        self.failed_starts += 1
        self._not_before = time.monotonic() + PAUSE_SECONDS * 2 ** (self.failed_starts - 1)
        return Event("not_started", worker, reason=reason)

    def _kill(self, worker: int) -> None:
        import ray

        actor = self._actors.pop(worker, None)
        self._ready.discard(worker)
        if actor is not None:
            with contextlib.suppress(Exception):
                ray.kill(actor, no_restart=True)


def _death(error: BaseException) -> str:
    """Why an actor died, from Ray's long account of it."""
    text = str(error)
    if "OutOfMemory" in type(error).__name__ or "memory monitor" in text.lower():
        return "it was ended because the machine ran out of memory"
    if "node died" in text.lower():
        return "its machine was lost"
    if "creation task" in text:
        return text.strip().splitlines()[-1].strip()[:300]
    return "its process ended unexpectedly (killed, out of memory, or a crash in native code)"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _silence_reports() -> None:
    """Ray prints the death of a worker on the driver's terminal, whatever is asked of it; tokenpair tells it itself."""
    import ray._private.worker as driver

    if hasattr(driver, "print_to_stdstream"):
        driver.print_to_stdstream = lambda *_, **__: None
