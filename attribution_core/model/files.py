"""Checks the files of a model's folder before any library opens them: an error names the faulty file.

Only files that loading opens are checked. A pointer or a damaged file among a folder's other exports is no error.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from attribution_core.errors import ModelError
from attribution_core.model.inspection import ListedModule, ModelFiles

POINTER = b"version https://git-lfs.github.com/spec/"
# A pointer is three short lines.
POINTER_BYTES = 1024
OTHER_BACKENDS = {
    "*.onnx": "ONNX",
    "openvino_model*.xml": "OpenVINO",
    "tf_model.h5": "TensorFlow",
    "flax_model.msgpack": "Flax",
    "*.gguf": "GGUF",
    "*.mlmodel": "Core ML",
}
SAFETENSORS, PICKLED = ".safetensors", ".bin"
# Descriptions are small; a tokenizer's own file may be many megabytes, and its library checks it.
DESCRIPTION_BYTES = 1 << 20
READ_BESIDE_WEIGHTS = (".json", ".txt", ".model", ".spm")
# Modules that have weights for certain; without a list of modules there is one transformer.
WITH_WEIGHTS = ("Transformer", "CLIPModel", "StaticEmbedding", "Dense")


def check_files(name: str, folder: Path) -> None:
    """Check the files that loading the model ``name`` from ``folder`` opens.

    Raises:
        ModelError: naming the file, where it is a git-lfs pointer, damaged or cut short, or missing though an index
            names it; or saying that there are no weights, or those of other libraries alone.
    """
    for module in ModelFiles(folder).modules or [ListedModule("", "Transformer")]:
        place = folder / module.path
        files = sorted(path for path in _inside(place, whole=place != folder) if path.is_file())
        safe = [path for path in files if path.suffix == SAFETENSORS]
        pickled = [path for path in files if path.suffix == PICKLED]
        for path in [*(path for path in files if path.suffix in READ_BESIDE_WEIGHTS), *(safe or pickled)]:
            _check_no_pointer(name, folder, path)
        for path in files:
            if path.suffix == ".json" and path.stat().st_size <= DESCRIPTION_BYTES:
                _check_json(name, folder, path)
        for path in safe:
            _check_safetensors(name, folder, path)
        for path in files:
            if path.name.endswith(".index.json") and (SAFETENSORS in path.name or not safe):
                _check_index(name, folder, path)
        if not safe and not pickled and module.kind.rpartition(".")[2].endswith(WITH_WEIGHTS):
            _refuse_without_weights(name, folder, place)


def _inside(place: Path, *, whole: bool) -> list[Path]:
    """A module's files; those of the model's own folder are at its top, a Router has folders of its own."""
    if not place.is_dir():
        return []
    return list(place.rglob("*") if whole else place.iterdir())


def _check_no_pointer(name: str, folder: Path, path: Path) -> None:
    if path.stat().st_size > POINTER_BYTES:
        return
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise ModelError(
                f"model {name} cannot be loaded: its file {path.relative_to(folder)} is a git-lfs pointer, not the "
                "file itself; run `git lfs pull` in the folder, or download the model again"
            )


def _check_json(name: str, folder: Path, path: Path) -> None:
    try:
        json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise ModelError(
            f"model {name} cannot be loaded: its file {path.relative_to(folder)} is damaged or cut short (it is not "
            "JSON); download it again"
        ) from None


def _check_safetensors(name: str, folder: Path, path: Path) -> None:
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"model {name} cannot be loaded: its file {path.relative_to(folder)} is damaged or cut short "
            f"({path.stat().st_size:,} bytes; {' '.join(str(error).split())[:120]}); download it again"
        ) from None


def _check_index(name: str, folder: Path, path: Path) -> None:
    """Every file that an index of shards names must be there."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        index = json.loads(path.read_bytes())
        shards = index.get("weight_map", {}).values() if isinstance(index, dict) else ()
        for shard in sorted({str(one) for one in shards}):
            if not (path.parent / shard).is_file():
                raise ModelError(
                    f"model {name} cannot be loaded: {path.relative_to(folder)} names the file {shard}, which is not "
                    "there; the download is incomplete"
                )


def _refuse_without_weights(name: str, folder: Path, place: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    others = [kind for pattern, kind in OTHER_BACKENDS.items() if any(path.match(pattern) for path in files)]
    if others:
        raise ModelError(
            f"model {name} cannot be loaded: it holds {' and '.join(others)} files alone, which cannot be "
            "differentiated; add the weights for PyTorch (model.safetensors)"
        )
    where = "its folder" if place == folder else f"its folder {place.relative_to(folder)}"
    raise ModelError(
        f"model {name} cannot be loaded: {where} holds no weights (model.safetensors); the download is incomplete"
    )
