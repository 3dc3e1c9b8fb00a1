"""A model from elsewhere runs no code: none that it brings along, and none by weights that are pickled."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import TinyModels
from typer.testing import CliRunner

from attribution_core.attribution import Attributor
from attribution_core.errors import ModelError
from attribution_core.model.loading import load_model
from jobs.cli import main as cli
from jobs.config.job import load_job


class Trap:
    """What a pickle can do when it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.mark,)


@pytest.fixture
def copied(tiny: TinyModels, tmp_path: Path) -> Path:
    """A model of a transformer, pooling and a Dense layer, to be tampered with."""
    return Path(shutil.copytree(tiny.folder("bert", dense=(8, "tanh")), tmp_path / "model"))


def pickled(folder: Path) -> None:
    """Put the weights of a module into a pickle in place of safetensors."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")


@pytest.mark.parametrize("module", ["", "2_Dense"])
def test_pickled_weights_are_opened_only_when_asked_for(copied: Path, module: str) -> None:
    """A Dense layer above the transformer reads pickles by itself, whatever is asked of the transformer."""
    expected = load_model(copied, device="cpu")[1].encode("some words")
    pickled(copied / module)
    for trust in (False, True):
        with pytest.raises(ModelError, match="pickled"):
            load_model(copied, device="cpu", trust_remote_code=trust)
    found = load_model(copied, device="cpu", pickled_weights=True)[1].encode("some words")
    assert abs(found - expected).max() < 1e-6
    assert torch.load.__module__ == "torch.serialization"


@pytest.mark.parametrize("module", ["", "2_Dense"])
def test_a_pickle_that_is_a_trap_does_not_go_off(copied: Path, tmp_path: Path, module: str) -> None:
    pickled(copied / module)
    mark = tmp_path / "HACKED"
    torch.save({"weight": Trap(mark)}, copied / module / "pytorch_model.bin")
    for asked in (False, True):
        # Also when asked for: torch reads tensors alone from it.
        with pytest.raises(ModelError):
            load_model(copied, device="cpu", pickled_weights=asked)
        assert not mark.exists()


def test_code_in_a_model_folder_is_not_run(copied: Path, tmp_path: Path) -> None:
    """modules.json may name a class in a file beside it."""
    mark = tmp_path / "HACKED"
    (copied / "evil.py").write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nclass Evil: ...\n")
    modules = json.loads((copied / "modules.json").read_text())
    for kind in ("evil.Evil", "os.system", "subprocess.Popen"):
        modules[1]["type"] = kind
        (copied / "modules.json").write_text(json.dumps(modules))
        with pytest.raises(ModelError):
            Attributor(str(copied))
        assert not mark.exists()


def test_a_job_asks_for_neither_unless_it_says_so(tmp_path: Path, copied: Path) -> None:
    least = {"model": "m", "input": "i.csv", "output": "o"}
    assert load_job(None, least).trust_remote_code is False
    assert load_job(None, least).pickled_weights is False
    assert load_job(None, least | {"pickled_weights": True}).identity() != load_job(None, least).identity()
    pickled(copied)
    result = CliRunner().invoke(cli.app, ["explain", "a", "b", "--model", str(copied)])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "set --pickled-weights if you trust them" in result.stderr
    assert (
        CliRunner().invoke(cli.app, ["explain", "a", "b", "--model", str(copied), "--pickled-weights"]).exit_code == 0
    )
