"""Decides how many workers run and which resources each requests, from the resources of the machines.

The number of workers is between ``min`` and ``max``. Without ``max`` it is the number that the machines have room for
at the moment, so machines that join are used. With ``max`` it is ``max``: workers without room wait in Ray's queue,
and Ray's autoscaler starts machines for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jobs.config.job import Workers
from jobs.errors import JobError

Node = Mapping[str, float]  # the resources of a machine: CPU, GPU, memory in bytes

# Bytes of a worker beside the memory budget of its computation: the interpreter, torch, and a small model.
WORKER_OVERHEAD = 1 << 30
MEMORY_SHARE = 0.8
# On machines with more cores, a second core for a worker is worth more than a second copy of the model.
MANY_CORES = 8
MOST_GPU_THREADS = 8
# Threads of a GPU worker whose machine has not joined yet.
UNSEEN_GPU_THREADS = 4
FINEST_SHARE = 10_000


@dataclass(frozen=True)
class WorkerResources:
    """The resources that each worker requests, and the number of workers.

    ``least`` and ``most`` bound the number; ``most`` is None for as many as there is room for. ``threads`` is the
    number of compute threads of a worker, ``memory`` the bytes that it uses (0: unknown or on a GPU).
    """

    least: int
    most: int | None
    cpus: float
    gpus: float
    threads: int
    memory: int = 0

    def room(self, nodes: Sequence[Node]) -> int:
        """Return the number of workers that the machines have room for, without regard to other processes."""
        return sum(_fits(node, self.cpus, self.gpus, self.memory) for node in nodes)

    def wanted(self, nodes: Sequence[Node], shards: int) -> int:
        """Return the number of workers for this number of unfinished shards."""
        most = self.most if self.most is not None else max(self.room(nodes), self.least)
        return max(min(most, shards), 1)

    def asks(self) -> str:
        """Return the requested resources of a worker in words, such as "2 CPU and 1 GPU"."""
        amounts = [f"{amount:g} {name}" for amount, name in ((self.cpus, "CPU"), (self.gpus, "GPU")) if amount]
        return " and ".join(amounts) or "nothing"


def worker_resources(
    asked: Workers,
    nodes: Sequence[Node],
    shards: int,
    memory: int,
    *,
    grows: bool = False,
    ceiling: Mapping[str, float] | None = None,
) -> WorkerResources:
    """Return the resources of the workers for a number of ``shards`` on ``nodes``.

    One worker for each GPU if there are GPUs; else workers of one or two cores, as many as memory allows, so that all
    cores are used. ``nodes`` has the resources of each machine (``CPU``, ``GPU``, ``memory`` in bytes). ``memory`` is
    the memory budget of one worker's computation in bytes (0: a share of the machine's). ``grows`` is whether
    machines may join, ``ceiling`` the resources of the cluster with all machines of its autoscaler (None: unknown).
    Raises JobError if the job asks for more than there is and will be.
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
    """Return the number of workers at the start of the run."""
    count = asked.count or max(min(room, asked.max or room), asked.min or 1)
    return max(min(count, shards), 1)


def _on_cpus(asked: Workers, nodes: Sequence[Node], shards: int, memory: int, grows: bool) -> WorkerResources:
    cores = [max(int(node.get("CPU", 0)), 1) for node in nodes] or [1]
    each = asked.cpus or (1 if max(cores) <= MANY_CORES else 2)
    needed = memory + WORKER_OVERHEAD
    room = sum(_fits(node, each, 0.0, needed) for node in nodes)
    start = _start(asked, room, shards)
    # If machines may join, workers without room wait for them instead of sharing cores.
    at_once = max(min(start, room), 1) if grows else start
    threads = asked.cpus or _threads(cores, at_once)
    return WorkerResources(start, start, _share(threads, cores, at_once), 0.0, threads, needed)


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
    at_once = min(start, fits)
    threads = asked.cpus or min(_threads(cores, at_once), MOST_GPU_THREADS)
    return WorkerResources(start, start, _share(threads, cores, at_once), each, threads)


def _fits(node: Node, cpus: float, gpus: float, memory: int) -> int:
    """Return the number of workers with these resources that a machine has room for."""
    rooms: list[float] = []
    if cpus:
        rooms.append(math.floor(node.get("CPU", 0.0) / cpus + 1e-6))
    if gpus:
        on_node = node.get("GPU", 0.0)
        # A fraction is of one GPU: the rests of two GPUs do not add up to room for another worker.
        rooms.append(on_node // gpus if gpus >= 1 else int(on_node) * int(1 / gpus + 1e-6))
    if memory and "memory" in node:
        rooms.append(node["memory"] * MEMORY_SHARE // memory)
    return int(min(rooms, default=0))


def _threads(cores: Sequence[int], count: int) -> int:
    """Return the largest number of threads, at least 1, with which no two of ``count`` workers share a core."""
    threads = max(min(sum(cores) // count, max(cores)), 1)
    while threads > 1 and sum(own // threads for own in cores) < count:
        threads -= 1
    return threads


def _share(threads: int, cores: Sequence[int], count: int) -> float:
    """Return the number of cores to request from Ray for a worker.

    It is ``threads``, or an equal share of the cores if ``count`` workers need more threads than there are cores.
    """
    if sum(own // threads for own in cores) >= count:
        return float(threads)
    smallest = min(cores)
    for parts in range(1, FINEST_SHARE):
        share = smallest / parts
        share = float(int(share)) if share >= 1 else math.floor(share * FINEST_SHARE) / FINEST_SHARE
        if share <= threads and sum(math.floor(own / share + 1e-9) for own in cores) >= count:
            return share
    return 1 / FINEST_SHARE
