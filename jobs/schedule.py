"""Which worker takes which shard next, and when a shard is given up: policy without Ray, threads or clocks.

Three budgets are kept apart, because their causes are: an exception is the shard's own, a crash may be that of
whatever else ran in the same process, and a worker that cannot start has seen no shard at all.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from jobs.config import Workers
from jobs.errors import JobError

EXCEPTIONS = 3
CRASHES = 4
FAILED_STARTS = 4
# One shard computing while another is read or written; a third would only wait, and be lost in a crash.
IN_FLIGHT = 2
# What a worker takes beside the budget of its computation: the interpreter, torch, and a small model.
WORKER_OVERHEAD = 1 << 30
# From here on a second core a worker is worth more than a second copy of the model.
MANY_CORES = 8


@dataclass
class Schedule:
    """The shards still to do, in flight, done and given up.

    A crash while several shards were in flight suspects them all. A suspect is run alone, after the others; only
    a crash that it had alone counts against it.
    """

    shards: Iterable[int]
    failed: dict[int, str] = field(default_factory=dict)
    retries: int = 0

    def __post_init__(self) -> None:
        self._waiting = deque(self.shards)
        self._suspects: deque[int] = deque()
        self._in_flight: dict[Hashable, list[int]] = {}
        self._alone: set[Hashable] = set()
        self._exceptions: dict[int, int] = {}
        self._crashes: dict[int, int] = {}

    @property
    def finished(self) -> bool:
        """Whether no shard waits or is in flight."""
        return not self._waiting and not self._suspects and not any(self._in_flight.values())

    @property
    def unassigned(self) -> int:
        """Shards that no worker has."""
        return len(self._waiting) + len(self._suspects)

    def in_flight(self, worker: Hashable) -> list[int]:
        """The shards that ``worker`` has, oldest first."""
        return list(self._in_flight.get(worker, []))

    def join(self, worker: Hashable) -> None:
        """A worker is ready for shards."""
        self._in_flight.setdefault(worker, [])

    def assign(self, expected: int = 0) -> tuple[Hashable, int] | None:
        """The next shard and the worker that takes it, or None while every worker has enough.

        ``expected`` workers are meant to be there: as many shards as workers are still starting are left for them,
        before anybody takes one ahead of need.
        """
        open_to_more = [w for w, shards in self._in_flight.items() if len(shards) < IN_FLIGHT and w not in self._alone]
        if not open_to_more:
            return None
        worker = min(open_to_more, key=lambda w: len(self._in_flight[w]))
        if self._in_flight[worker] and self.unassigned <= expected - len(self._in_flight):
            return None
        if self._waiting:
            shard = self._waiting.popleft()
        elif self._suspects and not self._in_flight[worker]:
            shard = self._suspects.popleft()
            self._alone.add(worker)
        else:
            return None
        self._in_flight[worker].append(shard)
        return worker, shard

    def done(self, worker: Hashable, shard: int) -> None:
        """``worker`` committed ``shard``."""
        self._release(worker, shard)

    def raised(self, worker: Hashable, shard: int, reason: str) -> None:
        """``shard`` raised an exception in a worker that lives on."""
        self._release(worker, shard)
        self._exceptions[shard] = self._exceptions.get(shard, 0) + 1
        if self._exceptions[shard] >= EXCEPTIONS:
            self.failed[shard] = f"{reason} ({EXCEPTIONS} times)"
        else:
            self.retries += 1
            self._waiting.append(shard)

    def crashed(self, worker: Hashable, reason: str) -> None:
        """``worker`` is gone with the shards it had in flight."""
        lost = self._in_flight.pop(worker, [])
        self._alone.discard(worker)
        for shard in lost:
            if len(lost) == 1:
                self._crashes[shard] = self._crashes.get(shard, 0) + 1
            if self._crashes.get(shard, 0) >= CRASHES:
                self.failed[shard] = f"its worker died {CRASHES} times: {reason}"
            else:
                self.retries += 1
                self._suspects.append(shard)

    def give_up(self, reason: str) -> None:
        """No worker is left: every shard that is not done fails for ``reason``."""
        lost = [shard for shards in self._in_flight.values() for shard in shards]
        for shard in sorted([*self._waiting, *self._suspects, *lost]):
            self.failed[shard] = reason
        self._waiting.clear()
        self._suspects.clear()
        self._in_flight.clear()

    def _release(self, worker: Hashable, shard: int) -> None:
        self._in_flight[worker].remove(shard)
        self._alone.discard(worker)


@dataclass(frozen=True)
class Staffing:
    """How many workers run, and what each asks of Ray. ``threads`` is what each computes with."""

    count: int
    cpus: float
    gpus: float
    threads: int


def staffing(asked: Workers, resources: dict[str, float], shards: int, memory: int) -> Staffing:
    """Workers for ``shards`` on what Ray says is there (``CPU``, ``GPU``, ``memory`` in bytes).

    One worker a GPU where there are GPUs; else workers of one or two cores, as many as memory allows, so that all
    cores are used. ``memory`` is the budget of one worker's computation in bytes (0: a share of what there is). Raises
    JobError when more is asked for than there is.
    """
    cores = max(int(resources.get("CPU", 1)), 1)
    gpus = float(resources.get("GPU", 0))
    if gpus > 0 and asked.gpus != 0:
        return _on_gpus(asked, cores, gpus, shards)
    if asked.gpus:
        raise JobError(f"workers.gpus: found {asked.gpus:g}; allowed: 0 or null, because Ray sees no GPU here")
    per_worker = asked.cpus or (1 if cores <= MANY_CORES else 2)
    room = (
        int(resources.get("memory", math.inf) * 0.8 // (memory + WORKER_OVERHEAD)) if "memory" in resources else cores
    )
    count = asked.count or max(min(cores // per_worker, room), 1)
    count = max(min(count, shards), 1)
    threads = asked.cpus or max(cores // count, 1)
    return Staffing(count, _share(threads, cores, count), 0.0, threads)


def _on_gpus(asked: Workers, cores: int, gpus: float, shards: int) -> Staffing:
    each = asked.gpus or 1.0
    fits = int(gpus // each) if each >= 1 else int(gpus) * int(1 / each)
    if fits < (asked.count or 1):
        raise JobError(f"workers: {asked.count or 1} with {each:g} GPU each asked for; Ray sees {gpus:g} GPU here")
    count = max(min(asked.count or fits, shards), 1)
    threads = asked.cpus or max(min(cores // count, 8), 1)
    return Staffing(count, _share(threads, cores, count), each, threads)


def _share(threads: int, cores: int, count: int) -> float:
    """Cores to ask Ray for: ``threads``, or a fair share where more threads than cores were asked for."""
    if threads * count <= cores:
        return float(threads)
    share = cores / count
    return float(int(share)) if share >= 1 else math.floor(share * 10_000) / 10_000
