"""One worker in this process, without Ray: for small jobs, where starting Ray would take longer than the work."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from attribution_core.errors import ModelError, SettingError
from jobs.cluster.environment import set_environment
from jobs.cluster.resources import WorkerResources
from jobs.config.sections import Workers
from jobs.engine.crew import Event, reason_of
from jobs.engine.scheduler import FAILED_STARTS
from jobs.engine.worker import Worker
from jobs.run.event_log import worker_log

PAUSE_SECONDS = 1.0


@dataclass(frozen=True)
class ThisProcess:
    """This machine, for one worker that has all of its cores and its first GPU."""

    grows: bool = False

    def asked(self, workers: Workers) -> Workers:
        """One worker, whatever the number of cores."""
        return workers.model_copy(update={"count": 1, "min": None, "max": None})

    def nodes(self) -> Sequence[Mapping[str, float]]:
        """What this machine has."""
        # Read by torch and its kin when they are imported.
        set_environment()
        # Heavy, and the worker needs it next in any case.
        import torch

        return [{"CPU": float(usable_cores()), "GPU": float(torch.cuda.device_count() > 0)}]

    def ceiling(self) -> None:
        """No machine joins this one."""

    def crew(
        self, resources: WorkerResources, arguments: Mapping[str, Any], worker_class: type[Worker], start: str
    ) -> LocalCrew:
        """A crew of one worker, which is not started yet."""
        return LocalCrew(arguments, worker_class, start)


def usable_cores() -> int:
    """The cores that this process may use; OMP_NUM_THREADS limits them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(limit)) if limit.isdigit() and int(limit) else cores


@dataclass
class LocalCrew:
    """The worker's calls run in threads of this process, as many at once as an actor has.

    The threads are daemons: a program that is stopped does not wait for them. What they write is committed whole or
    not at all.
    """

    arguments: Mapping[str, Any]
    worker_class: type[Worker]
    start: str
    wanted: int = 0
    failed_starts: int = 0
    _worker: Worker | None = None
    _number: int = 0
    _ready: bool = False
    _not_before: float = 0.0
    _events: queue.SimpleQueue[Event] = field(default_factory=queue.SimpleQueue)

    @property
    def ready(self) -> int:
        """1 once the worker has loaded its model."""
        return int(self._ready)

    @property
    def placed(self) -> int:
        """1 once the worker is started."""
        return int(self._worker is not None)

    @property
    def waiting(self) -> int:
        """A worker in this process waits for no machine."""
        return 0

    @property
    def exhausted(self) -> bool:
        """Whether the worker failed to start too often."""
        return self._worker is None and self.failed_starts >= FAILED_STARTS

    def start_missing(self) -> None:
        """Start the worker, after a pause that grows with failures in a row."""
        if self._worker is None and not self.exhausted and time.monotonic() >= self._not_before:
            self._number += 1
            self._worker = self.worker_class(**self.arguments, log=worker_log(self.start, self._number))
            self._in_thread(self._load, self._number, self._worker)

    def spare(self, idle: Callable[[int], bool]) -> list[int]:
        """The one worker stays to the end."""
        return []

    def run(self, worker: int, shard: int) -> None:
        """Give ``shard`` to the worker."""
        self._in_thread(self._run, worker, shard)

    def events(self, seconds: float) -> list[Event]:
        """The events since the last call; waits at most ``seconds`` for one."""
        try:
            events = [self._events.get(timeout=seconds)]
        except queue.Empty:
            return []
        while not self._events.empty():
            events.append(self._events.get())
        for event in events:
            if event.kind == "started":
                self._ready = True
                self.failed_starts = 0
            elif event.kind in ("not_started", "refused"):
                self._worker = None
                self.failed_starts += 1
                self._not_before = time.monotonic() + PAUSE_SECONDS * 2 ** (self.failed_starts - 1)
        return events

    def dismiss(self) -> None:
        """Forget the worker."""
        if self._worker is not None:
            self._worker.close()
        self._worker = None
        self._ready = False

    def _load(self, number: int, worker: Worker) -> None:
        try:
            self._events.put(Event("started", number, facts=worker.load()))
        except (ModelError, SettingError) as error:
            self._events.put(Event("refused", number, error=error, reason=reason_of(error)))
        except BaseException as error:
            self._events.put(Event("not_started", number, error=error, reason=reason_of(error)))

    def _run(self, number: int, shard: int) -> None:
        assert self._worker is not None
        try:
            self._events.put(Event("done", number, shard, report=self._worker.run_shard(shard)))
        except BaseException as error:
            self._events.put(Event("raised", number, shard, error=error, reason=reason_of(error)))

    def _in_thread(self, call: Callable[..., None], *arguments: Any) -> None:
        threading.Thread(target=call, args=arguments, name=f"worker-{call.__name__}", daemon=True).start()
