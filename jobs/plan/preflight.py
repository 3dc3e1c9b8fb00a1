"""What can be told of a job before its input is read: no such model, no such layer, no such GPU."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from attribution_core.errors import ModelError, SettingError
from jobs.cluster.resources import worker_resources
from jobs.config.model_folder import check_model

if TYPE_CHECKING:
    from jobs.config.job import JobConfig

# Where the families that can be attributed keep their number of layers.
LAYER_COUNTS = ("num_hidden_layers", "n_layers", "num_layers")


def check_before_planning(job: JobConfig) -> None:
    """ModelError or JobError for what would end the run once it is planned, where that shows without loading a model.

    On a cluster only its workers can tell most of it, and they do.
    """
    folder = check_model(job.model)
    if folder is not None:
        _check_layer(job.layer, folder)
        _check_reference(job, folder)
    if job.workers.gpus:
        resources = _resources()
        if resources is not None:
            # To a Ray that runs already others may bring machines.
            grows = "ray" in sys.modules and sys.modules["ray"].is_initialized()
            worker_resources(job.workers, [resources], job.workers.count or 1, job.memory_bytes or 0, grows=grows)


def _check_layer(layer: int, folder: Path) -> None:
    count = _layer_count(folder)
    if count is not None and not -count <= layer < count:
        raise ModelError(
            f"layer {layer} does not exist: the model has {count} layers, so layer is {-count} … {count - 1}"
        )


def _check_reference(job: JobConfig, folder: Path) -> None:
    """A word as reference must be one token; whether it is a known one, whoever loads the model says."""
    from jobs.plan.text_lengths import tokenizer_of

    if job.reference in ("pad", "unk", "mask"):
        return
    tokenizer = tokenizer_of(folder, "document" if job.mode == "retrieval" else "text")
    if tokenizer is None:
        return
    # Where a space is part of a token, the word in a sentence is another token than the word that begins a text.
    readings = [tokenizer.encode(text, add_special_tokens=False).ids for text in (job.reference, f" {job.reference}")]
    lengths = [len(ids) for ids in readings] if job.reference.strip() else [0]
    if 1 not in lengths:
        what = f"{lengths[0]} tokens of this model" if lengths[0] else "no token of this model"
        raise SettingError(
            f"reference {job.reference!r} is {what}; needed is one: 'pad', 'unk', 'mask' or a word of one token"
        )


def _layer_count(folder: Path) -> int | None:
    """The number of layers that the description of the model's first module gives; None where it gives none."""
    modules = _json(folder / "modules.json")
    first = modules[0] if isinstance(modules, list) and modules else {}
    path = first.get("path") if isinstance(first, dict) else None
    config = _json(folder / (path if isinstance(path, str) else "") / "config.json")
    counts = [config.get(name) for name in LAYER_COUNTS] if isinstance(config, dict) else []
    return next((count for count in counts if type(count) is int and count > 0), None)


def _json(path: Path) -> object:
    # What is wrong with a file is for the library to say that reads it in earnest.
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _resources() -> dict[str, float] | None:
    """What Ray would find on this machine, without starting it; None where that cannot be known."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        found: dict[str, float] = ray.cluster_resources()
        return found
    if os.environ.get("RAY_ADDRESS"):
        return None
    try:
        from ray._private.accelerators import get_accelerator_manager_for_resource

        manager = get_accelerator_manager_for_resource("GPU")
        count = manager.get_current_node_num_accelerators() if manager is not None else 0
        visible = manager.get_current_process_visible_accelerator_ids() if manager is not None else None
    except Exception:
        return None
    # Ray's own parts may change: then its word is awaited, as for everything else that it has to say.
    cores = os.cpu_count() or 1
    return {"CPU": float(cores), "GPU": float(count if visible is None else min(count, len(visible)))}
