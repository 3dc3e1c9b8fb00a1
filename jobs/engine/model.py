"""The Attributor that a job file asks for, with this process's share of the device's memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jobs.plan.text_lengths import ROLES

if TYPE_CHECKING:
    from attribution_core.attribution import Attributor
    from jobs.config.job import JobConfig


def make_attributor(job: JobConfig, device: str | None = None, threads: int = 1) -> Attributor:
    """The Attributor that ``job`` asks for, for a worker of so many threads."""
    from attribution_core.attribution import Attributor

    memory: float | None = job.memory_bytes
    if job.memory_share is not None:
        memory = worker_share(job.memory_share, job.workers.gpus, device, threads)
    assert memory is not None, "a job's memory is bytes or a share"
    roles = ROLES[job.mode]
    return Attributor(
        job.model,
        layer=job.layer,
        similarity=job.similarity,
        groups={role: job.unit(role) for role in roles} if len(roles) == 2 else job.unit("text"),
        mode=job.mode,
        quadrature=job.quadrature.rule,
        tolerance=job.quadrature.tolerance,
        nodes=job.quadrature.nodes,
        max_nodes=job.quadrature.max_nodes,
        sums_to=job.sums_to,
        level=job.level,
        reference=job.reference,
        memory=memory,
        device=device,
        precision=job.precision,
        prompt_a=job.prompts.query if job.mode == "retrieval" else job.prompts.text,
        prompt_b=job.prompts.document if job.mode == "retrieval" else job.prompts.text,
        trust_remote_code=job.trust_remote_code,
        pickled_weights=job.pickled_weights,
    )


def worker_share(share: float, gpus: float | None, device: str | None, threads: int) -> float:
    """The share of a device's memory that is one worker's, where ``share`` is for all that are on it."""
    if device == "cpu":
        return share * min(1.0, threads / (os.cpu_count() or 1))
    return share * min(1.0, gpus or 1.0)
