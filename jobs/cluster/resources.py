"""How many workers run and what each asks of Ray: policy without Ray, from what the machines say they have.

Between ``min`` and ``max`` workers are wanted. Without ``max`` it is as many as there is room for at the moment, so
machines that join are used; with ``max`` it is that many, and those without room wait in Ray's queue, which is what its
autoscaler brings machines for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jobs.config.job import Workers
from jobs.errors import JobError

Node = Mapping[str, float]  # what a machine has: CPU, GPU, memory in bytes

# What a worker takes beside the budget of its computation: the interpreter, torch, and a small model.
WORKER_OVERHEAD = 1 << 30
MEMORY_SHARE = 0.8
# From here on a second core a worker is worth more than a second copy of the model.
MANY_CORES = 8
MOST_GPU_THREADS = 8
# For a machine that is not there yet.
UNSEEN_GPU_THREADS = 4
FINEST_SHARE = 10_000


@dataclass(frozen=True)
class WorkerResources:
    """What each worker asks of Ray, and how many there are at the ``least`` and the ``most`` (None: room for).

    ``threads`` is what each computes with, ``memory`` the bytes it takes of a machine (0: unknown or on a GPU).
    """

    least: int
    most: int | None
    cpus: float
    gpus: float
    threads: int
    memory: int = 0

    def room(self, nodes: Sequence[Node]) -> int:
        """How many workers the machines have room for, whatever else runs on them."""
        return sum(_fits(node, self.cpus, self.gpus, self.memory) for node in nodes)

    def wanted(self, nodes: Sequence[Node], shards: int) -> int:
        """How many workers there should be for so many unfinished shards."""
        most = self.most if self.most is not None else max(self.room(nodes), self.least)
        return max(min(most, shards), 1)

    def asks(self) -> str:
        """What a worker asks for, as a user reads it."""
        found = [f"{amount:g} {name}" for amount, name in ((self.cpus, "CPU"), (self.gpus, "GPU")) if amount]
        return " and ".join(found) or "nothing"


def worker_resources(
    asked: Workers,
    nodes: Sequence[Node],
    shards: int,
    memory: int,
    *,
    grows: bool = False,
    ceiling: Mapping[str, float] | None = None,
) -> WorkerResources:
    """Workers for ``shards`` on ``nodes``, what Ray says is there (``CPU``, ``GPU``, ``memory`` in bytes).

    One worker a GPU where there are GPUs; else workers of one or two cores, as many as memory allows, so that all
    cores are used. ``memory`` is the budget of one worker's computation in bytes (0: a share of what there is).
    ``grows`` says that machines may join, ``ceiling`` what an autoscaler may bring in all (None: nobody knows). Raises
    JobError when more is asked for than there is and will be.
    """
    nodes = [node for node in nodes if node.get("CPU", 0) > 0 or node.get("GPU", 0) > 0]
    gpus = sum(node.get("GPU", 0.0) for node in nodes)
    awaited = grows and (asked.min is not None or asked.max is not None or (ceiling or {}).get("GPU", 0) > gpus)
    if asked.gpus != 0 and (gpus > 0 or (awaited and (asked.gpus or (ceiling or {}).get("GPU", 0)))):
        shape = _on_gpus(asked, nodes, gpus, shards, awaited)
    elif asked.gpus:
        joins = "; with workers.max the run waits for machines that join" if grows else ""
        raise JobError(f"workers.gpus: found {asked.gpus:g}; allowed: 0 or null, because Ray sees no GPU here{joins}")
    else:
        shape = _on_cpus(asked, nodes, shards, memory, grows)
    if grows and asked.count is None:
        return replace(shape, least=asked.min or 1, most=asked.max)
    return shape


def _start(asked: Workers, room: int, shards: int) -> int:
    """How many workers there are to begin with."""
    count = asked.count or max(min(room, asked.max or room), asked.min or 1)
    return max(min(count, shards), 1)


def _on_cpus(asked: Workers, nodes: Sequence[Node], shards: int, memory: int, grows: bool) -> WorkerResources:
    cores = [max(int(node.get("CPU", 0)), 1) for node in nodes] or [1]
    each = asked.cpus or (1 if max(cores) <= MANY_CORES else 2)
    takes = memory + WORKER_OVERHEAD
    room = sum(_fits(node, each, 0.0, takes) for node in nodes)
    start = _start(asked, room, shards)
    # Where machines may join, those that there is no room for wait for them in place of sharing cores.
    there = max(min(start, room), 1) if grows else start
    threads = asked.cpus or _threads(cores, there)
    return WorkerResources(start, start, _share(threads, cores, there), 0.0, threads, takes)


def _on_gpus(asked: Workers, nodes: Sequence[Node], gpus: float, shards: int, awaited: bool) -> WorkerResources:
    each = asked.gpus or 1.0
    with_gpus = [node for node in nodes if node.get("GPU", 0) > 0]
    fits = sum(_fits(node, 0.0, each, 0) for node in with_gpus)
    least = asked.count or asked.min or 1
    if fits < least and not awaited:
        raise JobError(f"workers: {least} with {each:g} GPU each asked for; Ray sees {gpus:g} GPU here")
    start = _start(asked, fits, shards)
    if not fits:
        return WorkerResources(start, start, float(asked.cpus or 1), each, asked.cpus or UNSEEN_GPU_THREADS)
    cores = [max(int(node.get("CPU", 0)), 1) for node in with_gpus]
    there = min(start, fits)
    threads = asked.cpus or min(_threads(cores, there), MOST_GPU_THREADS)
    return WorkerResources(start, start, _share(threads, cores, there), each, threads)


def _fits(node: Node, cpus: float, gpus: float, memory: int) -> int:
    """How many workers of a kind a machine has room for."""
    rooms: list[float] = []
    if cpus:
        rooms.append(math.floor(node.get("CPU", 0.0) / cpus + 1e-6))
    if gpus:
        there = node.get("GPU", 0.0)
        # A fraction is of one GPU: what is left over of two does not add up to another.
        rooms.append(there // gpus if gpus >= 1 else int(there) * int(1 / gpus + 1e-6))
    if memory and "memory" in node:
        rooms.append(node["memory"] * MEMORY_SHARE // memory)
    return int(min(rooms, default=0))


def _threads(cores: Sequence[int], count: int) -> int:
    """The most threads with which ``count`` workers have cores of their own, one at least."""
    threads = max(min(sum(cores) // count, max(cores)), 1)
    while threads > 1 and sum(own // threads for own in cores) < count:
        threads -= 1
    return threads


def _share(threads: int, cores: Sequence[int], count: int) -> float:
    """Cores to ask Ray for: ``threads``, or a fair share where more threads than cores were asked for."""
    if sum(own // threads for own in cores) >= count:
        return float(threads)
    smallest = min(cores)
    for parts in range(1, FINEST_SHARE):
        share = smallest / parts
        share = float(int(share)) if share >= 1 else math.floor(share * FINEST_SHARE) / FINEST_SHARE
        if share <= threads and sum(math.floor(own / share + 1e-9) for own in cores) >= count:
            return share
    return 1 / FINEST_SHARE
