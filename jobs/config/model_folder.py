"""Finds the folder of a job's model on this machine, a local folder or the hub's cache, and reads what kind it is."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from attribution_core.errors import ModelError
from attribution_core.model.hub import cached_folder, check_available, local_folder
from attribution_core.model.inspection import ModelFiles

LATE = "is a late-interaction model, which has a vector for each token"


def model_folder(model: str) -> Path | None:
    """Return the folder with the model's configuration files, None if it is not on this machine.

    Raises ModelError if the model must be on this machine, because the hub cannot be reached, and is not.
    """
    if _only_on_cluster(model):
        return None
    folder = local_folder(model)
    if folder is None:
        folder = cached_folder(model)
        if folder is None and _offline():
            check_available(model)
    return folder


def folder_at_hand(model: str) -> Path | None:
    """Return :func:`model_folder`, or None if it raises; the error is reported when the model is loaded."""
    try:
        return model_folder(model)
    except ModelError:
        return None


def is_late(model: str) -> bool | None:
    """Return whether the model scores by late interaction (MaxSim), None where its description cannot be read.

    The description is read wherever it is: a run that is resumed after its model was downloaded has the same defaults.
    """
    try:
        folder = local_folder(model)
        if folder is None:
            folder = cached_folder(model)
        return _late_on_hub(model) if folder is None else ModelFiles(folder).late
    except (ModelError, OSError, RuntimeError):  # the last two: names that no path can have
        return None


@lru_cache(maxsize=64)
def _late_on_hub(model: str) -> bool:
    check_available(model)
    return ModelFiles(model).late


def check_one_vector(model: str, needed: str) -> None:
    """Raise ModelError for a late-interaction model; ``needed`` is the part of the message that says why."""
    if is_late(model):
        raise ModelError(f"model {model} {LATE}, and {needed}")


def check_model(model: str) -> Path | None:
    """Return :func:`model_folder` after a check that the hub has a model that is not on this machine.

    Raises ModelError if the model is available nowhere.
    """
    folder = model_folder(model)
    if folder is None and not _only_on_cluster(model):
        check_available(model)
    return folder


def _only_on_cluster(model: str) -> bool:
    # The workers of another machine load the model, so this one need not have it.
    return bool(os.environ.get("RAY_ADDRESS")) and not Path(model).expanduser().is_dir()


def _offline() -> bool:
    from huggingface_hub import constants  # `tokenpair status` would start slower

    return bool(constants.HF_HUB_OFFLINE)
