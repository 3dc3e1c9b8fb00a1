"""Decides where a run computes: in this process where the job is small, else in Ray workers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jobs.cluster.environment import connected_here
from jobs.config.sections import Workers
from jobs.engine.crew import Machines
from jobs.engine.local_crew import ThisProcess, usable_cores
from jobs.engine.signals import starting_ray, stoppable
from jobs.plan.estimate import REACHED_ON_CPU, measured_rate
from jobs.plan.work import expected_nodes, is_static, layer_sizes, total_flops

if TYPE_CHECKING:
    from jobs.config.job import JobConfig
    from jobs.run.manifest import Plan

# A job of less work than this starts no Ray, whose start takes some 10 seconds and a copy of the model a worker.
SMALL_SECONDS = 60.0
# Beside the matrix products: reading, tokenising, grouping, top-k and writing of one pair.
SECONDS_A_PAIR = 0.002
# No core is faster: a job that is large even then is large without measuring, which would import torch.
FASTEST_CORE = 2e11


def in_this_process(job: JobConfig, plan: Plan) -> bool:
    """Whether ``job`` runs in this process: as ``workers.ray`` says, else where it is small and nothing asks for Ray.

    RAY_ADDRESS, a Ray that runs in this process, and every other setting of ``workers`` ask for Ray.
    """
    if job.workers.ray is not None:
        return not job.workers.ray
    if os.environ.get("RAY_ADDRESS") or job.workers != Workers() or connected_here():
        return False
    return _small(job, plan)


def _small(job: JobConfig, plan: Plan) -> bool:
    seconds = SECONDS_A_PAIR * plan.pairs
    if seconds > SMALL_SECONDS:
        return False
    sizes = layer_sizes(job)
    if sizes is None:
        # A model without layers costs nothing beside its pairs; one whose files are not here yet may be of any size.
        return is_static(job)
    nodes, _ = expected_nodes(job, sizes)
    work = total_flops(sizes, plan.work, nodes)
    if work / (usable_cores() * FASTEST_CORE) > SMALL_SECONDS:
        return False
    rate, _ = measured_rate(sizes.d, seconds=0.1)
    return seconds + work / (rate * REACHED_ON_CPU) <= SMALL_SECONDS


@contextlib.contextmanager
def machines(local: bool) -> Iterator[Machines]:
    """This process, or the Ray cluster, for the time of the block."""
    if local:
        yield ThisProcess()
        return
    # Ray's client takes a second to import.
    from jobs.engine.ray_crew import connected

    with starting_ray(), connected() as cluster, stoppable():
        yield cluster
