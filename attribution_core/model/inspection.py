"""What the files beside a model's weights say of it, before any weight is read.

sentence-transformers loads a saved sparse encoder or cross-encoder as an ordinary model all the same: it takes the
transformer out and puts mean pooling on top. Attributions of that would be of a model that nobody trained.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from attribution_core.errors import ModelError
from attribution_core.model.hub import place_of

SETTINGS, MODULES, CONFIG = "config_sentence_transformers.json", "modules.json", "config.json"
KINDS = {
    "SparseEncoder": "it is a sparse encoder, whose embedding keeps the largest values alone: that is not smooth, so "
    "no path integral exists",
    "CrossEncoder": "it is a cross-encoder, which reads both texts at once: there are no two embeddings whose product "
    "could be split into pairs of tokens",
    "MultiVectorEncoder": "it has an embedding for every token and scores by a sum of maxima: that is not a product of "
    "two embeddings (its token similarities can be looked at as they are)",
}


def refuse_by_description(name: str) -> None:
    """Refuse a model whose own files say that it cannot be attributed; ``name`` is a folder or a name on the hub.

    Raises:
        ModelError: with the reason.
    """
    kind = str(_description(name, SETTINGS).get("model_type") or "")
    modules = _description(name, MODULES)
    config = _description(name, CONFIG)
    architectures = config.get("architectures")
    first = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    if not modules and first.endswith("ForSequenceClassification"):
        kind = "CrossEncoder"
    if kind in KINDS:
        raise ModelError(f"model {name} cannot be attributed: {KINDS[kind]}")
    paths = [str(one.get("path") or "") for one in modules.get("modules", []) if isinstance(one, dict)]
    for one in (config, *(_description(name, f"{path}/{CONFIG}") for path in paths[:1] if path)):
        if one.get("quantization_config"):
            raise ModelError(
                f"model {name} cannot be attributed: its weights are quantised, so they have no float copy to "
                "differentiate; use the checkpoint that it was made from"
            )


def saved_by_sentence_transformers(name: str) -> bool:
    """Whether the model lists its modules; where it does not, sentence-transformers puts pooling of its own on top."""
    return bool(_description(name, MODULES))


def _description(name: str, file: str) -> dict[str, Any]:
    """One JSON file of a model as a dict (a list under ``modules``); empty where it has none that can be read."""
    from sentence_transformers.util import load_file_path

    with contextlib.suppress(OSError, ValueError, RecursionError):
        path = load_file_path(place_of(name), file)
        if path is not None:
            found = json.loads(Path(path).read_bytes())
            return found if isinstance(found, dict) else {"modules": found}
    return {}
