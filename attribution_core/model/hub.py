"""Models of the Hugging Face hub by their names: in the local cache, available for download, or neither.

The hub's library is imported inside: ``tokenpair status`` imports this file, and starts sooner without.
"""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path

from attribution_core.errors import ModelError

# Every saved model has one of them.
DESCRIPTIONS = ("modules.json", "config.json")
HUB_NAME = r"[\w.-]+(/[\w.-]+)?"
# sentence-transformers takes its own models without their owner.
OWNERS = ("", "sentence-transformers/")
ANSWER_SECONDS = 10.0
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
NO_ANSWER = {"TransportError", "ConnectionError", "Timeout", "TimeoutException"}


def local_folder(name: str) -> Path | None:
    """Return the folder that ``name`` stands for on this machine; None where it is a name on the hub.

    Raises:
        ModelError: where there is no such folder, or it holds no model.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not any((folder / file).is_file() for file in DESCRIPTIONS):
            raise ModelError(f"folder {name} holds no model: neither modules.json nor config.json is there")
        return folder
    if folder.is_absolute() or name.startswith((".", "~")):
        raise ModelError(f"there is no model folder {name}")
    return None


def cached_folder(name: str) -> Path | None:
    """The folder of a model of the hub in the local cache, as far as it was downloaded; None where it was not.

    Raises:
        ModelError: where the hub can have no model of that name.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for one in _full_names(name):
        for file in DESCRIPTIONS:
            try:
                path = try_to_load_from_cache(one, file)
            except HFValidationError:
                raise _no_name(name) from None
            if isinstance(path, str):
                return Path(path).parent
    return None


def check_available(name: str) -> None:
    """Ask the hub once, with a short time-out, for a model that is not in the local cache.

    Without this check the libraries that load a model retry for minutes, and then give an unspecific error.

    Raises:
        ModelError: in one line, where the model is not in the cache and cannot be downloaded.
    """
    if cached_folder(name) is None and (reason := _unavailable(name)):
        raise ModelError(f"model {name} cannot be loaded: {reason}")


def place_of(name: str) -> str:
    """Where the libraries should look for a model: its name, or its folder where that is on this machine.

    That is the folder in the cache where the hub does not answer: with its name the libraries would retry for minutes.
    """
    from huggingface_hub import constants

    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder)
    if constants.HF_HUB_OFFLINE or re.fullmatch(HUB_NAME, name, re.ASCII) is None:
        return name
    cached = cached_folder(name)
    return str(cached) if cached is not None and _asked(name) == "silent" else name


def why_not(name: str) -> str:
    """Why a model of the hub could not be loaded, where files are missing, as part of a sentence."""
    try:
        cached = cached_folder(name)
    except ModelError:
        return f"there is neither a folder nor a model of the hub named {name!r}"
    if cached is None:
        return _unavailable(name) or f"its files could not be downloaded from {_endpoint()}; try again"
    if offline := _offline():
        return f"only a part of it is in the local cache ({cached}), and {offline}"
    return (
        f"only a part of it is in the local cache ({cached}), and the rest could not be downloaded from {_endpoint()}"
    )


def _unavailable(name: str) -> str:
    """Why a model that is not in the cache cannot be downloaded; "" where the hub has it, or may have it."""
    place = f"there is no folder of that name, it is not in the local cache ({_cache()})"
    if offline := _offline():
        return f"{place}, and {offline}"
    answer = _asked(name)
    if answer == "silent":
        return f"{place}, and {_endpoint()} does not answer: check the network, or give a folder"
    if answer == "unknown":
        return (
            f"there is no folder of that name, and {_endpoint()} has no such model, or shows it only with "
            "HF_TOKEN: check the name"
        )
    return ""


@functools.lru_cache(maxsize=64)
def _asked(name: str) -> str:
    """The hub's answer about a model: "there", "unknown" or "silent"."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    for one in _full_names(name):
        try:
            HfApi().model_info(one, timeout=ANSWER_SECONDS)
        except RepositoryNotFoundError:
            continue
        except HfHubHTTPError:
            return "there"  # it answered: loading the model says more
        except Exception as error:  # of the HTTP library, which differs between versions of the hub's
            return "silent" if NO_ANSWER & {kind.__name__ for kind in type(error).__mro__} else "there"
        return "there"
    return "unknown"


def _full_names(name: str) -> list[str]:
    if re.fullmatch(HUB_NAME, name, re.ASCII) is None:
        raise _no_name(name)
    return [owner + name for owner in (OWNERS if "/" not in name else OWNERS[:1])]


def _no_name(name: str) -> ModelError:
    return ModelError(f"model {name} cannot be loaded: there is neither a folder nor a model of the hub named {name!r}")


def _offline() -> str:
    """The sentence about the variable that forbids downloads, "" where none does."""
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE:
        return ""
    named = next((one for one in OFFLINE_VARIABLES if os.environ.get(one)), OFFLINE_VARIABLES[0])
    return f"{named}={os.environ.get(named, '1')} forbids downloading it: set {named}=0, or give a folder"


def _cache() -> str:
    from huggingface_hub import constants

    return str(constants.HF_HUB_CACHE)


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)
