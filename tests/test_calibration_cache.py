"""Calibrations kept for the next process: the same numbers, never another model's, and never a reason to fail."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_models import TinyModels

from attribution_core import Attributor
from attribution_core import contributions as contributions_module
from attribution_core.quadrature.cache import MOST_FILES, cache_folder, cached_calibration
from attribution_core.quadrature.calibration import CalibratedMesh, calibrate

PAIR = "A cat sat on the mat.", "The dog lay on a rug."


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("TOKENPAIR_CACHE", str(tmp_path))
    return tmp_path / "calibrations"


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for every calibration that is learned."""
    times: list[int] = []

    def watched(path: np.ndarray, *rest: object) -> CalibratedMesh:  # type: ignore[type-arg]
        times.append(len(path))
        return calibrate(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(contributions_module, "calibrate", watched)
    return times


def test_what_one_process_learned_the_next_one_knows(cache: Path, learned: list[int], tiny: TinyModels) -> None:
    folder = tiny.folder("bert")
    first, second = (Attributor(folder).attribute(*PAIR) for _ in range(2))
    assert len(learned) == 1
    assert (first.matrix == second.matrix).all()
    assert (first.a.nodes, first.b.nodes) == (second.a.nodes, second.b.nodes)
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    "other",
    [{"layer": 0}, {"tolerance": 1e-2}, {"max_nodes": 64}, {"dtype": "float64"}, {"similarity": "dot"}],
    ids=str,
)
def test_another_setting_is_learned_anew(
    cache: Path, learned: list[int], tiny: TinyModels, other: dict[str, object]
) -> None:
    folder = tiny.folder("bert")
    for settings in ({}, other, {}, other):
        Attributor(folder, **settings).attribute(*PAIR)  # type: ignore[arg-type]
    assert len(learned) == 2


def test_other_weights_are_learned_anew(cache: Path, learned: list[int], tiny: TinyModels) -> None:
    for seed in (0, 1):
        Attributor(tiny.folder("bert", seed=seed)).attribute(*PAIR)
    assert len(learned) == 2


def _kept(cache: Path) -> Path:
    return next(iter(cache.glob("*.json")))


@pytest.mark.parametrize(
    "damage",
    [
        lambda held: b"",
        lambda held: b"[" * 100_000,
        lambda held: b"\xff" + json.dumps(held).encode(),
        lambda held: json.dumps({**held, "log_density": [float("nan")] * 15}).encode(),
        lambda held: json.dumps({**held, "log_density": [1e9] * 15}).encode(),
        lambda held: json.dumps({**held, "fitted": [[3, [0.5], [1.0]]]}).encode(),
        lambda held: json.dumps({**held, "fitted": [[1, [7.0], [1.0]]]}).encode(),
        lambda held: json.dumps({**held, "needed": [[-4, 3]]}).encode(),
        lambda held: json.dumps([held]).encode(),
    ],
)
def test_a_damaged_file_is_learned_anew(cache: Path, learned: list[int], tiny: TinyModels, damage) -> None:  # type: ignore[no-untyped-def]
    folder = tiny.folder("bert")
    first = Attributor(folder).attribute(*PAIR)
    file = _kept(cache)
    whole = file.read_bytes()
    file.write_bytes(damage(json.loads(whole)))
    second = Attributor(folder).attribute(*PAIR)
    assert len(learned) == 2
    assert (first.matrix == second.matrix).all()
    assert file.read_bytes() == whole


def test_a_wrong_calibration_costs_nodes_and_no_accuracy(cache: Path, tiny: TinyModels) -> None:
    # Would catch a first count, or a fitted rule, that is trusted unseen.
    folder = tiny.folder("bert")
    Attributor(folder, layer=0).attribute(*PAIR)
    file = _kept(cache)
    held = json.loads(file.read_bytes())
    held["fitted"] = [[3, [0.1, 0.2, 0.3], [1.0, 1.0, -1.0]]]
    held["needed"] = [[1, 3]]
    file.write_text(json.dumps(held))
    pair = Attributor(folder, layer=0).attribute(*PAIR)
    assert max(pair.a.residual, pair.b.residual) <= 2e-3


def test_a_folder_that_cannot_be_made_is_no_reason_to_fail(
    tmp_path: Path, learned: list[int], tiny: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TOKENPAIR_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        Attributor(tiny.folder("bert")).attribute(*PAIR)
    assert len(learned) == 2


def test_the_cache_is_the_users_own_or_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKENPAIR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "tokenpair" / "calibrations"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "tokenpair" / "calibrations"
    for off in ("off", "0", ""):
        monkeypatch.setenv("TOKENPAIR_CACHE", off)
        assert cache_folder() is None


def test_the_oldest_are_forgotten(cache: Path) -> None:
    def learn() -> CalibratedMesh:
        return CalibratedMesh()

    for at in range(MOST_FILES + 3):
        cached_calibration([at], learn)
    assert len(list(cache.iterdir())) == MOST_FILES
