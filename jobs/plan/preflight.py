"""Checks of a job before its input is read, in seconds and without torch: its model, layer, reference and GPUs."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from attribution_core.model.inspection import LATE_SIMILARITIES, LAYER_COUNTS, ModelFiles, first_layer_above
from attribution_core.text.reference import NAMED, one_token
from jobs.cluster.environment import connected_here
from jobs.cluster.ray_internals import gpus_here
from jobs.cluster.resources import worker_resources
from jobs.config.model_folder import LATE, check_model
from jobs.errors import JobError

if TYPE_CHECKING:
    from jobs.config.job import JobConfig


def check_before_planning(job: JobConfig) -> None:
    """Raise ModelError or JobError for faults that would end the run after planning, if no model is needed to see them.

    On a cluster only its workers can check most of this, and they do.
    """
    folder = check_model(job.model)
    if folder is not None:
        files, role = ModelFiles(folder), "document" if job.mode == "retrieval" else "text"
        if files.late:
            refuse_late(job)
        _check_similarity(job, late=files.late)
        _check_layer(job.layer, files, role)
        _check_reference(job, files, role)
    if job.workers.gpus:
        resources = _resources()
        if resources is not None:
            # Machines may still join a Ray that runs already.
            grows = connected_here()
            worker_resources(job.workers, [resources], job.workers.count or 1, job.memory_bytes or 0, grows=grows)


def refuse_late(job: JobConfig) -> None:
    """Raise JobError if the job of a late-interaction model asks for what needs one vector a text."""
    if job.task == "index":
        raise JobError(f"model: {job.model} {LATE}, and an index needs one for each text; tokenpair run explains a log")
    if job.index is not None:
        raise JobError(f"index: {job.model} {LATE}, and an index has one for each text; leave the index out")
    if job.sums_to == "centred":
        raise JobError(
            f"sums_to: found 'centred', which needs one vector a text; {job.model} {LATE}; allowed: score, difference"
        )


def _check_similarity(job: JobConfig, *, late: bool) -> None:
    own = LATE_SIMILARITIES if late else ("cosine", "dot")
    if job.similarity is not None and job.similarity not in own:
        raise JobError(f"similarity: found {job.similarity!r}; allowed for {job.model}: {' or '.join(own)}")


def _check_layer(layer: int, files: ModelFiles, role: str) -> None:
    count = files.size(role, LAYER_COUNTS)
    if count is not None:
        first_layer_above(layer, count)


def _check_reference(job: JobConfig, files: ModelFiles, role: str) -> None:
    """A word as reference must be one token; loading the model says whether it is a known one."""
    tokenizer = files.tokenizer(role) if job.reference not in NAMED else None
    if tokenizer is not None:
        one_token(job.reference, lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids))


def _resources() -> dict[str, float] | None:
    """What Ray would find on this machine, without starting it; None where that cannot be known."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        resources: dict[str, float] = ray.cluster_resources()
        return resources
    if os.environ.get("RAY_ADDRESS"):
        return None
    gpus = gpus_here()
    return None if gpus is None else {"CPU": float(os.cpu_count() or 1), "GPU": gpus}
