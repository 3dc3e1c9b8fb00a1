"""Calibrations of earlier processes in the user's cache: computing one takes seconds of forward passes.

A calibration only proposes nodes; whether they are enough is measured on every text. So a file that is damaged, or that
another program wrote, can cost time but no accuracy.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from attribution_core.quadrature.calibration import CalibratedMesh
from attribution_core.quadrature.rules import MESH_DEGREE, Mesh

# Part of every key: to be raised when the same sample would give another calibration.
VERSION = 2
MOST_FILES = 200
MOST_BYTES = 1 << 20
MOST_NODES = 1 << 16
OFF = ("", "0", "off", "none")


def cache_folder() -> Path | None:
    """Return the folder of calibrations: $TOKENPAIR_CACHE, else one in the user's cache; None where that is "off"."""
    named = os.environ.get("TOKENPAIR_CACHE")
    if named is not None:
        return None if named.strip().lower() in OFF else Path(named).expanduser() / "calibrations"
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    with contextlib.suppress(RuntimeError):  # no home
        return Path(home).expanduser() / "tokenpair" / "calibrations"
    return None


def cached_calibration(facts: Iterable[Any], learn: Callable[[], CalibratedMesh]) -> CalibratedMesh:
    """Return the calibration of the model and setting that ``facts`` identify; it is learned where none is cached."""
    folder = cache_folder()
    if folder is None:
        return learn()
    file = folder / f"{hashlib.sha256(repr((VERSION, *facts)).encode()).hexdigest()[:32]}.json"
    calibration = _read(file)
    if calibration is None:
        calibration = learn()
        _write(file, calibration)
    return calibration


def _read(file: Path) -> CalibratedMesh | None:
    try:
        if file.stat().st_size > MOST_BYTES:
            return None
        held = json.loads(file.read_bytes())
        mesh = Mesh(tuple(_number(one, -50.0, 50.0) for one in held["log_density"]))
        fitted = {
            _count(count): (
                np.array([_number(one, 0.0, 1.0) for one in alpha]),
                np.array([_number(one, -1e3, 1e3) for one in weight]),
            )
            for count, alpha, weight in held["fitted"]
        }
        needed, by_queries = (
            tuple((int(tokens), _count(count)) for tokens, count in held[name])
            for name in ("needed", "needed_by_queries")
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    whole = all(len(alpha) == len(weight) == count for count, (alpha, weight) in fitted.items())
    if not whole or len(mesh.log_density) != MESH_DEGREE + 1 or any(tokens < 1 for tokens, _ in needed + by_queries):
        return None
    return CalibratedMesh(mesh, fitted, needed, by_queries)


def _number(value: Any, least: float, most: float) -> float:
    number = float(value)
    if not least <= number <= most:  # as it is for NaN
        raise ValueError(value)
    return number


def _count(value: Any) -> int:
    count = int(value)
    if not 1 <= count <= MOST_NODES:
        raise ValueError(value)
    return count


def _write(file: Path, calibration: CalibratedMesh) -> None:
    """Write a calibration, whole or not at all; a folder that cannot be written is no reason to fail."""
    held = {
        "log_density": calibration.mesh.log_density,
        "fitted": [[count, alpha.tolist(), weight.tolist()] for count, (alpha, weight) in calibration.fitted.items()],
        "needed": calibration.needed,
        "needed_by_queries": calibration.needed_by_queries,
    }
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                json.dump(held, out)
            os.replace(name, file)
        except BaseException:
            os.unlink(name)
            raise
        _remove_oldest(file.parent)


def _remove_oldest(folder: Path) -> None:
    files = sorted(folder.glob("*.json"), key=lambda one: one.stat().st_mtime)
    for file in files[:-MOST_FILES]:
        file.unlink(missing_ok=True)
