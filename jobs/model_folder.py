"""Where a job's model is on this machine: a folder, or the description of a model of the hub in the cache."""

from __future__ import annotations

import os
import re
from pathlib import Path

from attribution_core.errors import ModelError

DESCRIPTIONS = ("modules.json", "config.json")
HUB_NAME = r"[\w.-]+(/[\w.-]+)?"


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
    return _cached(model)


def _cached(name: str) -> Path | None:
    """The cached description of a model of the hub; ModelError where neither cache nor hub can have it."""
    unknown = ModelError(
        f"model {name} cannot be loaded: there is neither a folder nor a reachable model of the hub named {name!r}"
    )
    if re.fullmatch(HUB_NAME, name, re.ASCII) is None:
        raise unknown
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    # sentence-transformers takes its own models without their owner.
    for owner in ("", "sentence-transformers/"):
        for file in DESCRIPTIONS if owner == "" or "/" not in name else ():
            try:
                found = try_to_load_from_cache(owner + name, file)
            except HFValidationError:
                raise unknown from None
            if isinstance(found, str):
                return Path(found).parent
    # Online the hub is asked by whoever loads the model: without an answer it is asked for half a minute.
    if constants.HF_HUB_OFFLINE:
        raise unknown
    return None
