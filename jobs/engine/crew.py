"""The interface of workers and of the machines they run on, for the run loop; with Ray or in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from jobs.cluster.resources import WorkerResources
from jobs.config.sections import Workers
from jobs.engine.worker import ShardReport, Worker
from jobs.run.facts import WorkerFacts


@dataclass(frozen=True)
class Event:
    """A change of one worker, or of a shard that it had. ``machine`` says that its machine is lost too."""

    kind: Literal["placed", "started", "refused", "not_started", "done", "raised", "crashed"]
    worker: int
    shard: int | None = None
    report: ShardReport | None = None
    facts: WorkerFacts | None = None
    error: BaseException | None = None
    reason: str = ""
    machine: bool = False


class Crew(Protocol):
    """The workers of one start of a run, by their numbers."""

    wanted: int

    @property
    def ready(self) -> int:
        """Workers that have loaded their model."""

    @property
    def placed(self) -> int:
        """Workers that are on a machine, with their model or still without."""

    @property
    def waiting(self) -> int:
        """Workers for which no machine has room yet."""

    @property
    def exhausted(self) -> bool:
        """Whether no worker runs and none will be started any more."""

    def start_missing(self) -> None:
        """Start the workers that are wanted and missing."""

    def spare(self, idle: Callable[[int], bool]) -> list[int]:
        """Release workers beyond those wanted, if they are ``idle``; returns the numbers of those released."""

    def run(self, worker: int, shard: int) -> None:
        """Give ``shard`` to ``worker``."""

    def events(self, seconds: float) -> list[Event]:
        """The events since the last call; waits at most ``seconds`` for one."""

    def dismiss(self) -> None:
        """End every worker."""


class Machines(Protocol):
    """Where workers run: a Ray cluster, or this process. ``grows`` says whether machines may join."""

    @property
    def grows(self) -> bool:
        """Whether machines may join."""

    def asked(self, workers: Workers) -> Workers:
        """The workers that a job asks for, as far as they are available here."""

    def nodes(self) -> Sequence[Mapping[str, float]]:
        """What each machine has: CPU, GPU, memory in bytes."""

    def ceiling(self) -> Mapping[str, float] | None:
        """The resources that an autoscaler may reach; None where they are unknown."""

    def crew(
        self, resources: WorkerResources, arguments: Mapping[str, Any], worker_class: type[Worker], start: str
    ) -> Crew:
        """A crew without workers yet. ``arguments`` are those of ``worker_class`` but its log."""


def reason_of(error: BaseException) -> str:
    """The type of an error and the first line of its message."""
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
