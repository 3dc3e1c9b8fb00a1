"""Workers as Ray actors: a Ray session, the machines of its cluster, and a crew that replaces workers that die.

Ray is imported inside: it reads its environment at that moment, and the session sets it first.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from attribution_core.errors import ModelError, SettingError
from jobs.cluster.checks import gpus_to_come
from jobs.cluster.ray_internals import most_resources, silence_death_reports
from jobs.cluster.resources import WorkerResources
from jobs.cluster.session import ray_session
from jobs.config.sections import Workers
from jobs.engine.crew import Event, reason_of
from jobs.engine.scheduler import FAILED_STARTS, IN_FLIGHT
from jobs.engine.worker import Worker
from jobs.run.event_log import worker_log

ACTOR_THREADS = IN_FLIGHT
Call = Literal["greet", "load", "run"]
# Doubled with every failure in a row.
PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 300.0


@contextlib.contextmanager
def connected() -> Iterator[Cluster]:
    """Ray for the time of the block, and the machines it has: the cluster of RAY_ADDRESS, or one of its own.

    A Ray that runs in this process already is used and left running.
    """
    with ray_session() as grows:
        silence_death_reports()
        yield Cluster(grows=grows)


@dataclass(frozen=True)
class Cluster:
    """The machines of the Ray that is connected; ``grows`` says whether others may join them."""

    grows: bool

    def asked(self, workers: Workers) -> Workers:
        """As the job says."""
        return workers

    def nodes(self) -> list[dict[str, float]]:
        """What each machine has."""
        import ray

        return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]

    def ceiling(self) -> dict[str, float] | None:
        """The most that the autoscaler may start, by its own configuration or by what `ray up` left on the head."""
        if not self.grows:
            return None
        most = most_resources()
        if most is not None:
            return most
        gpus = gpus_to_come()
        return {"GPU": gpus} if gpus else None

    def crew(
        self, resources: WorkerResources, arguments: Mapping[str, Any], worker_class: type[Worker], start: str
    ) -> RayCrew:
        """A crew of Ray actors, none of them started yet."""
        return RayCrew(resources, arguments, worker_class, start)


@dataclass
class RayCrew:
    """Workers as Ray actors. One that dies is replaced, until several in a row could not be started and none is left.

    ``arguments`` are those of ``worker_class`` but its log, which ``start`` is part of. An actor for
    which no machine has room waits in Ray's queue. That is also how more machines are asked for: Ray's autoscaler looks
    at the queue, and what waits there goes with the driver. (``ray.autoscaler.sdk.request_resources`` is one request a
    cluster: it would override another job's, and outlive the driver.)
    """

    resources: WorkerResources
    arguments: Mapping[str, Any]
    worker_class: type[Worker]
    start: str
    wanted: int = 0
    failed_starts: int = 0
    _actors: dict[int, Any] = field(default_factory=dict)
    _placed: set[int] = field(default_factory=set)
    _ready: set[int] = field(default_factory=set)
    _pending: dict[Any, tuple[int, Call, int | None]] = field(default_factory=dict)
    _ever_ready: bool = False
    _started: int = 0
    _not_before: float = 0.0

    @property
    def ready(self) -> int:
        """Workers that have their model."""
        return len(self._ready)

    @property
    def placed(self) -> int:
        """Workers that are on a machine, with their model or still without."""
        return len(self._placed)

    @property
    def waiting(self) -> int:
        """Workers for which no machine has room yet."""
        return len(self._actors) - len(self._placed)

    @property
    def exhausted(self) -> bool:
        """No worker is left that runs, and none will be started any more."""
        return not self._placed and self.failed_starts >= FAILED_STARTS

    def start_missing(self) -> None:
        """Start as many workers as are wanted and missing, after a pause that grows with failures in a row."""
        while len(self._actors) < self.wanted and time.monotonic() >= self._not_before and not self.exhausted:
            self._start_one()

    def spare(self, idle: Callable[[int], bool]) -> list[int]:
        """Release workers beyond those wanted: those without a machine first, then those that are ``idle``."""
        surplus = len(self._actors) - self.wanted
        order = [*(w for w in self._actors if w not in self._placed), *(w for w in self._ready if idle(w))]
        gone = order[: max(surplus, 0)]
        for worker in gone:
            self._forget(worker)
            self._kill(worker)
        return gone

    def run(self, worker: int, shard: int) -> None:
        """Give ``shard`` to ``worker``."""
        self._pending[self._actors[worker].run_shard.remote(shard)] = (worker, "run", shard)

    def events(self, seconds: float) -> list[Event]:
        """The events since the last call; waits at most ``seconds`` for one."""
        import ray

        if not self._pending:
            time.sleep(seconds)
            return []
        ready, _ = ray.wait(list(self._pending), num_returns=1, timeout=seconds)
        return [event for reference in ready for event in self._settle(reference)]

    def dismiss(self) -> None:
        """End every worker."""
        for worker in list(self._actors):
            self._kill(worker)
        self._pending.clear()

    def _start_one(self) -> None:
        import ray

        worker = self._started = self._started + 1
        actor = (
            ray.remote(self.worker_class)
            .options(
                num_cpus=self.resources.cpus,
                num_gpus=self.resources.gpus,
                max_restarts=0,
                max_task_retries=0,
                max_concurrency=ACTOR_THREADS,
            )
            .remote(**self.arguments, log=worker_log(self.start, worker))
        )
        self._actors[worker] = actor
        self._pending[actor.greet.remote()] = (worker, "greet", None)
        self._pending[actor.load.remote()] = (worker, "load", None)

    def _settle(self, reference: Any) -> list[Event]:
        import ray

        # Another reference of the same worker may have reported its death already.
        if reference not in self._pending:
            return []
        worker, call, shard = self._pending.pop(reference)
        try:
            result = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            return [self._raised(worker, shard, error)]
        except ray.exceptions.RayError as error:
            return self._crashed(worker, shard, error)
        if call == "greet":
            self._placed.add(worker)
            return [Event("placed", worker)]
        if shard is not None:
            return [Event("done", worker, shard, report=result)]
        self._placed.add(worker)
        self._ready.add(worker)
        self._ever_ready = True
        self.failed_starts = 0
        return [Event("started", worker, facts=result)]

    def _raised(self, worker: int, shard: int | None, error: Any) -> Event:
        cause = error.cause if isinstance(error.cause, BaseException) else error
        reason = reason_of(cause)
        if shard is not None:
            return Event("raised", worker, shard, error=cause, reason=reason)
        self._forget(worker)
        self._kill(worker)
        # Once a worker has the model the job is right, and it is this machine or the hub that is not.
        if isinstance(cause, (ModelError, SettingError)) and not self._ever_ready:
            return Event("refused", worker, error=cause, reason=reason)
        return self._not_started(worker, reason)

    def _crashed(self, worker: int, shard: int | None, error: BaseException) -> list[Event]:
        import ray

        # A shard that it finished before it died counts as done.
        events: list[Event] = []
        for reference, (other, call, its) in list(self._pending.items()):
            if other == worker:
                del self._pending[reference]
                if call == "run":
                    with contextlib.suppress(ray.exceptions.RayError):
                        events.append(Event("done", worker, its, report=ray.get(reference, timeout=5)))
        started = worker in self._ready
        self._kill(worker)
        reason, machine = _death(error)
        if not started:
            return [self._not_started(worker, reason, machine=machine)]
        return [*events, Event("crashed", worker, shard, reason=reason, machine=machine)]

    def _not_started(self, worker: int, reason: str, *, machine: bool = False) -> Event:
        # A machine that is lost says nothing of whether workers can start.
        if not machine:
            self.failed_starts += 1
            pause = min(PAUSE_SECONDS * 2 ** (self.failed_starts - 1), LONGEST_PAUSE_SECONDS)
            self._not_before = time.monotonic() + pause
        return Event("not_started", worker, reason=reason, machine=machine)

    def _forget(self, worker: int) -> None:
        self._pending = {ref: what for ref, what in self._pending.items() if what[0] != worker}

    def _kill(self, worker: int) -> None:
        import ray

        actor = self._actors.pop(worker, None)
        self._ready.discard(worker)
        self._placed.discard(worker)
        if actor is not None:
            with contextlib.suppress(Exception):
                ray.kill(actor, no_restart=True)


def _death(error: BaseException) -> tuple[str, bool]:
    """Why an actor died, from Ray's long error message, and whether its machine was lost."""
    text = str(error)
    if "OutOfMemory" in type(error).__name__ or "memory monitor" in text.lower():
        return "it was ended because the machine ran out of memory", False
    if "node died" in text.lower() or "node has died" in text.lower() or "node was" in text.lower():
        return "its machine was lost", True
    if "creation task" in text:
        return text.strip().splitlines()[-1].strip()[:300], False
    return "its process ended unexpectedly (killed, out of memory, or a crash in native code)", False
