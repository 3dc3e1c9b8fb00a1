"""Where a job's model is on this machine: a folder, or the description of a model of the hub in the cache."""

from __future__ import annotations

import os
from pathlib import Path

from attribution_core.errors import ModelError
from attribution_core.model.hub import cached_folder, check_available, local_folder


def model_folder(model: str) -> Path | None:
    """Return the folder with the model's description, None where only the workers will see it.

    Raises:
        ModelError: where this machine should have the model, and does not.
    """
    if _seen_by_workers_alone(model):
        return None
    folder = local_folder(model)
    if folder is None:
        folder = cached_folder(model)
        if folder is None and _offline():
            check_available(model)
    return folder


def folder_at_hand(model: str) -> Path | None:
    """Return :func:`model_folder`, but None where it raises: loading the model says what is wrong."""
    try:
        return model_folder(model)
    except ModelError:
        return None


def check_model(model: str) -> Path | None:
    """Return :func:`model_folder`, and ask the hub for a model that is not on this machine.

    Raises:
        ModelError: where the model cannot be had.
    """
    folder = model_folder(model)
    if folder is None and not _seen_by_workers_alone(model):
        check_available(model)
    return folder


def _seen_by_workers_alone(model: str) -> bool:
    return bool(os.environ.get("RAY_ADDRESS")) and not Path(model).expanduser().is_dir()


def _offline() -> bool:
    from huggingface_hub import constants  # tokenpair status imports this file, and is quicker without

    return bool(constants.HF_HUB_OFFLINE)
