"""Which worker takes which shard next, and when a shard is given up: policy without Ray, threads or clocks.

Each kind of failure has its own limit, because the causes differ: an exception comes from the shard, a crash may come
from something else in the same process, a machine is hardly ever lost because of a shard, and a worker that cannot
start has seen no shard at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

EXCEPTIONS = 3
CRASHES = 4
FAILED_STARTS = 4
# A shard that lost so many machines is taken for what took them.
MACHINES = 12
# One shard computing, one being written and one read; more would only wait, and be lost in a crash.
IN_FLIGHT = 3
# Shards that must be unassigned, for each worker there, before one is handed out ahead of need, by what the worker has
# already: towards the end the worker that is done first takes the next.
WAITING_A_WORKER = {0: 0, 1: 2, 2: 4}


@dataclass
class Schedule:
    """The shards still to do, in flight, done and given up.

    A crash while several shards were in flight suspects them all. A suspect is run alone, after the others; only
    a crash that it had alone counts against it. Shards of a lost machine are no suspects and come next.
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
        self._machines: dict[int, int] = {}

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

    def running(self) -> list[int]:
        """Every shard that some worker has."""
        return sorted(shard for shards in self._in_flight.values() for shard in shards)

    def leave(self, worker: Hashable) -> None:
        """A worker without a shard is no longer there."""
        assert not self._in_flight.get(worker), "it has a shard"
        self._in_flight.pop(worker, None)
        self._alone.discard(worker)

    def assign(self, expected: int = 0) -> tuple[Hashable, int] | None:
        """The next shard and the worker that takes it, or None while every worker has enough.

        ``expected`` counts the workers that are ready or will be soon.
        """
        open_to_more = [w for w, shards in self._in_flight.items() if len(shards) < IN_FLIGHT and w not in self._alone]
        if not open_to_more:
            return None
        worker = min(open_to_more, key=lambda w: len(self._in_flight[w]))
        has = len(self._in_flight[worker])
        if self.unassigned < WAITING_A_WORKER[has] * max(expected, len(self._in_flight)):
            return None
        if self._waiting:
            shard = self._waiting.popleft()
        elif self._suspects and not has:
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

    def crashed(self, worker: Hashable, reason: str, *, with_machine: bool = False) -> None:
        """``worker`` is gone with the shards it had in flight, and with its whole machine perhaps."""
        lost = self._in_flight.pop(worker, [])
        self._alone.discard(worker)
        again: list[int] = []
        for shard in lost:
            if with_machine:
                self._machines[shard] = self._machines.get(shard, 0) + 1
            elif len(lost) == 1:
                self._crashes[shard] = self._crashes.get(shard, 0) + 1
            if self._crashes.get(shard, 0) >= CRASHES:
                self.failed[shard] = f"its worker died {CRASHES} times: {reason}"
            elif self._machines.get(shard, 0) >= MACHINES:
                self.failed[shard] = f"it lost {MACHINES} machines: {reason}"
            else:
                again.append(shard)
        self.retries += len(again)
        if with_machine:
            self._waiting.extendleft(reversed(again))
        else:
            self._suspects.extend(again)

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
