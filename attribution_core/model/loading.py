"""Loading a model by name or folder, with errors that a user can act on."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
from sentence_transformers import MultiVectorEncoder, SentenceTransformer

from attribution_core.errors import ModelError
from attribution_core.model.checkpoint import LoadingReports, check_finite
from attribution_core.model.files import check_files
from attribution_core.model.hub import check_available, local_folder, place_of, why_not
from attribution_core.model.inspection import ModelFiles, refuse_by_description
from attribution_core.model.modules import AnyModel
from attribution_core.training.shift import ShiftedTransformer

# torch.load and transformers' from_pretrained are one for all threads, and both are replaced while a model loads.
_loading = threading.Lock()


def load_model(
    model: AnyModel | str | Path,
    *,
    device: str | None = None,
    trust_remote_code: bool = False,
    pickled_weights: bool = False,
) -> tuple[str, AnyModel]:
    """A model and its name, from a loaded model, a folder, or a name on the Hugging Face hub.

    What its files call a late-interaction model is loaded as one.

    Without ``pickled_weights`` weights load from safetensors only, because a pickled file can run code when it is
    opened; without ``trust_remote_code`` no code in the model's folder is run.

    Raises:
        ModelError: where there is no such model, it is not one of sentence-transformers, or its checkpoint does not
            hold the weights of the model that was built (see ``attribution_core.model.checkpoint``).
    """
    if not isinstance(model, (str, Path)):
        name = str(getattr(model.model_card_data, "base_model", None) or type(model).__name__)
        check_finite(name, model)
        return name, model
    name = str(model)
    local = local_folder(name) is not None
    if not local:
        check_available(name)
    place = place_of(name)
    if place != name or local:
        check_files(name, Path(place))
    refuse_by_description(name)
    arguments: dict[str, Any] = {"trust_remote_code": trust_remote_code, "device": device or _device()}
    if not pickled_weights:
        arguments["model_kwargs"] = {"use_safetensors": True}
    reports = LoadingReports()
    try:
        with _loading, reports.recording(), contextlib.nullcontext() if pickled_weights else _safetensors_only():
            loaded = _loaded(place, arguments)
    except Exception as error:
        raise ModelError(f"model {name} cannot be loaded: {_reason(error, name, local)}") from error
    reports.check(name, loaded)
    check_finite(name, loaded)
    return name, loaded


def _loaded(name: str, arguments: dict[str, Any]) -> AnyModel:
    """sentence-transformers' own loading, with tokenpair's module classes allowed beside its own.

    It imports no other class unless ``trust_remote_code`` is set, which would let the model's own files run as well.
    """
    allowed = {f"{one.__module__}.{one.__qualname__}": one for one in (ShiftedTransformer,)}
    kind = MultiVectorEncoder if ModelFiles(name).late else SentenceTransformer
    return kind._load_with_module_classes(name, allowed, **arguments)


@contextlib.contextmanager
def _safetensors_only() -> Iterator[None]:
    """Refuse pickled weights inside the block: modules above the transformer (Dense, say) would fall back to them."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise ModelError("weights that are not in safetensors format")

    load, torch.load = torch.load, refuse
    try:
        yield
    finally:
        torch.load = load


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _reason(error: Exception, name: str, local: bool) -> str:
    text = " ".join(str(error).split())
    lowered = text.lower()
    if "trust_remote_code" in lowered:
        return "it comes with code of its own; set trust_remote_code if you trust its authors"
    if "bitsandbytes" in lowered or "quantiz" in lowered or "quantis" in lowered:
        return "its weights are quantised; use the checkpoint that it was made from"
    if "safetensors" in lowered:
        return "its weights are not safetensors but pickled, which can run code; set pickled_weights if you trust them"
    if not local and any(
        sign in lowered
        for sign in ("offline", "couldn't connect", "connection", "not a local folder", "404", "not a valid")
    ):
        return why_not(name)
    return text[:300] or type(error).__name__
