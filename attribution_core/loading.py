"""Loading a model by name or folder, with errors that a user can act on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from attribution_core.errors import ModelError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def load_model(
    model: SentenceTransformer | str | Path, *, device: str | None = None, trust_remote_code: bool = False
) -> tuple[str, SentenceTransformer]:
    """A model and its name, from a loaded model, a folder, or a name on the Hugging Face hub.

    Weights load from safetensors only, because a pickled file can run code when it is opened.

    Raises:
        ModelError: where there is no such model, or it is not one of sentence-transformers.
    """
    if not isinstance(model, (str, Path)):
        return str(getattr(model.model_card_data, "base_model", None) or type(model).__name__), model
    name = str(model)
    folder = Path(name).expanduser()
    looks_local = folder.is_absolute() or name.startswith(".") or folder.is_dir()
    if looks_local and not folder.is_dir():
        raise ModelError(f"there is no model folder {name}")
    if looks_local and not ((folder / "modules.json").is_file() or (folder / "config.json").is_file()):
        raise ModelError(f"folder {name} holds no model: neither modules.json nor config.json is there")
    arguments: dict[str, Any] = {"trust_remote_code": trust_remote_code, "device": device or _device()}
    if not trust_remote_code:
        arguments["model_kwargs"] = {"use_safetensors": True}
    try:
        return name, _loaded(str(folder) if looks_local else name, arguments)
    except Exception as error:
        raise ModelError(f"model {name} cannot be loaded: {_reason(error, name)}") from error


def _loaded(name: str, arguments: dict[str, Any]) -> SentenceTransformer:
    """sentence-transformers' own loading, with tokenpair's module classes allowed beside its own.

    It imports no other class unless ``trust_remote_code`` is set, which would let the model's own files run as well.
    """
    from sentence_transformers import SentenceTransformer

    from attribution_core.training.shift import ShiftedTransformer

    allowed = {f"{one.__module__}.{one.__qualname__}": one for one in (ShiftedTransformer,)}
    return SentenceTransformer._load_with_module_classes(name, allowed, **arguments)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _reason(error: Exception, name: str) -> str:
    text = " ".join(str(error).split())
    lowered = text.lower()
    if "trust_remote_code" in lowered:
        return "it brings code of its own; set trust_remote_code if you trust its authors"
    if "safetensors" in lowered:
        return "its weights are not in safetensors format (pickled weights can run code and are refused)"
    if any(
        sign in lowered
        for sign in ("offline", "couldn't connect", "connection", "not a local folder", "404", "not a valid")
    ):
        return f"there is neither a folder nor a reachable model of the hub named {name!r}"
    return text[:300] or type(error).__name__
