"""Where a job's model is on this machine: a folder, or the description of a model of the hub in the cache."""

from __future__ import annotations

import os
from pathlib import Path

from attribution_core.errors import ModelError
from attribution_core.model.hub import DESCRIPTIONS, cached_folder, check_available


def model_folder(model: str) -> Path | None:
    """The folder with the model's description, None where only the workers will see it."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not any((folder / name).is_file() for name in DESCRIPTIONS):
            raise ModelError(f"folder {model} holds no model: neither modules.json nor config.json is there")
        return folder
    if os.environ.get("RAY_ADDRESS"):
        return None
    if folder.is_absolute() or model.startswith((".", "~")):
        raise ModelError(f"there is no model folder {model}")
    from huggingface_hub import constants

    found = cached_folder(model)
    if found is None and constants.HF_HUB_OFFLINE:
        check_available(model)
    return found


def folder_at_hand(model: str) -> Path | None:
    """:func:`model_folder`, but None where it is wrong: whoever loads the model says what is wrong with it."""
    try:
        return model_folder(model)
    except ModelError:
        return None


def check_model(model: str) -> Path | None:
    """:func:`model_folder`; ModelError too where the hub is to have the model, and does not have it or not answer."""
    folder = model_folder(model)
    if folder is None and not os.environ.get("RAY_ADDRESS"):
        check_available(model)
    return folder
