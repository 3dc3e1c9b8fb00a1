"""``tokenpair train``: from a job file to a model folder, through kills, bad rows and wrong settings."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from labelled import labelled_pairs, write_csv
from s3_server import S3Server
from tiny_models import TinyModels
from typer.testing import CliRunner

from attribution_core.attribution import Attributor
from attribution_core.errors import TokenpairError
from attribution_core.model.loading import load_model
from attribution_core.model.modules import is_shifted
from attribution_core.training.recipe import LabelledPairs
from jobs.cli.main import app
from jobs.errors import JobError, RunError, SourceError
from jobs.storage.store import Store
from jobs.training.config import TrainConfig, load_training
from jobs.training.folders import files_below, publish_checkpoints
from jobs.training.run import Trained, run_training
from jobs.training.worse import is_worse

Job = dict[str, Any]


@pytest.fixture
def job(tiny: TinyModels, rng: random.Random, tmp_path: Path) -> Job:
    return {
        "model": str(tiny.folder("bert", normalize=True)),
        "train": str(write_csv(tmp_path / "train.csv", labelled_pairs(rng, 48))),
        "dev": str(write_csv(tmp_path / "dev.csv", labelled_pairs(rng, 30))),
        "scale": [0, 5],
        "output": str(tmp_path / "out"),
        "epochs": 2,
        "batch": 8,
        "learning_rate": 1e-3,
    }


def load(given: Job, **more: Any) -> TrainConfig:
    return load_training(None, given | more)


def weights(folder: str) -> list[Any]:
    return [value.detach().numpy() for value in load_model(Path(folder) / "model", device="cpu")[1].parameters()]


def checkpoints(out: Path) -> list[Path]:
    """The complete ones."""
    return list(out.glob("checkpoints/*/trainer_state.json"))


def training_with_a_checkpoint(job: Job, room: Path) -> subprocess.Popen[str]:
    """The command at work on the job, as soon as it has written a checkpoint."""
    file = room / "job.yaml"
    file.write_text(yaml.safe_dump(job))
    process = subprocess.Popen(
        [sys.executable, "-c", "from jobs.cli.main import main; main()", "train", str(file)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parent.parent,
        start_new_session=True,
    )
    until = time.monotonic() + 240
    while not checkpoints(room / "out") and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    return process


def test_a_job_ends_in_a_model_that_says_what_it_is(job: Job, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(job))
    done = CliRunner().invoke(app, ["train", str(file)])
    assert done.exit_code == 0, done.stderr
    assert "exact: its references embed to zero" in done.stdout
    assert "epoch 2: loss" in done.stderr
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["_SUCCESS", "job.yaml", "model"]
    card = (out / "model" / "README.md").read_text()
    ours = ("48 pairs of train.csv", "scores from 0 to 5", "2 epochs", "30 pairs of dev.csv")
    of_the_library = (
        "generated_from_trainer",
        "`num_train_epochs`: 2",
        "## Training Details",
        "trust_remote_code=True",
    )
    for words in (*ours, *of_the_library):
        assert words in card, words
    assert str(tmp_path) not in card
    with open(tmp_path / "train.csv", encoding="utf-8") as rows:
        assert not [row for row in csv.DictReader(rows) if row["sentence1"] in card], "a pair's text is in the card"
    assert "every reference embeds to zero" in " ".join(card.split())
    attributor = Attributor(str(out / "model"), tolerance=1e-4, sums_to="difference")
    pair = attributor.attribute("a red dog", "the dog is red and not a ball")
    assert abs(pair.total - pair.score) < 1e-3
    assert max(abs(pair.reference_a), abs(pair.reference_b), abs(pair.reference_ab)) <= 1e-6
    again = CliRunner().invoke(app, ["train", str(file), "--quiet"])
    assert again.exit_code == 0
    assert again.stdout.startswith("already finished")
    assert again.stderr == ""


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_model_made_worse_is_called_worse(job: Job, tmp_path: Path, rng: random.Random, keep: str) -> None:
    """Its own similarities are the dev labels, so nothing can be better than the model before."""
    own, contrary = labelled_pairs(rng, 30), labelled_pairs(rng, 48)
    _, model = load_model(job["model"], device="cpu")
    a, b = (model.encode(list(texts), normalize_embeddings=True) for texts in (own.a, own.b))
    dev = LabelledPairs(own.a, own.b, ((a * b).sum(1) + 1) / 2)
    train = LabelledPairs(contrary.a, contrary.b, np.arange(48) % 2)
    given = job | {"shift": False, "keep": keep, "dev": str(write_csv(tmp_path / "own.csv", dev))}
    given["train"] = str(write_csv(tmp_path / "contrary.csv", train))
    notes: list[str] = []
    lines = run_training(load(given), echo=notes.append).lines()
    assert any(line.startswith("WORSE    on the dev pairs than before training; check that scale") for line in lines)
    assert [note for note in notes if note.startswith("epoch 1") and "worse than before training" in note]
    card = (tmp_path / "out" / "model" / "README.md").read_text("utf-8")
    assert "**This model is worse on the dev pairs than before training**" in card
    assert run_training(load(given), quiet=True).lines()[3].startswith("WORSE"), "told again of a finished training"


@pytest.mark.parametrize(
    ("before", "after", "worse"),
    [
        (0.5, 0.4, True),
        (0.5, 0.5, False),
        (0.5, 0.6, False),
        (0.5, 0.49996, False),
        (None, 0.1, False),
        (0.5, None, False),
    ],
)
def test_worse_is_what_two_digits_show(before: float | None, after: float | None, worse: bool) -> None:
    assert is_worse(before, after) is worse


def test_an_earlier_epoch_that_was_better_is_named() -> None:
    trained = Trained("out", True, 3, "last", 9, 0.8, 3, 0.7, 1.0, 48, 30, best_epoch=1, best=0.85)
    assert (
        "WORSE    on the dev pairs than before training; keep: best takes epoch 1, which reached 85.00"
        in trained.lines()
    )
    old = Trained("out", True, 3, "best", 9, 0.8, 3, 0.9, 1.0, 48, 30)
    assert not any("WORSE" in line for line in old.lines())


def test_without_a_shift_the_model_stays_of_its_kind(job: Job) -> None:
    run_training(load(job, shift=False, dev=None), quiet=True)
    _, model = load_model(Path(job["output"]) / "model", device="cpu")
    assert not is_shifted(model)
    card = " ".join((Path(job["output"]) / "model" / "README.md").read_text().split())
    assert "tokenpair's attributions of a pair sum to its score" in card
    assert type(model[2]).__name__ == "Normalize"


def cut_after_a_checkpoint(job: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the training and stop it as Ctrl-C would, once its first epoch was saved."""

    def publish_and_stop(*args: Any) -> None:
        publish_checkpoints(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("jobs.training.work.publish_checkpoints", publish_and_stop)
        with pytest.raises(KeyboardInterrupt):
            run_training(job, quiet=True)


def goes_on_to_the_same_weights(job: TrainConfig, undisturbed: str) -> None:
    notes: list[str] = []
    run_training(job, echo=notes.append)
    assert "going on from the checkpoint" in notes
    assert not [note for note in notes if note.startswith(("before training", "epoch 1"))], "said again"
    assert [note for note in notes if note.startswith("epoch 2: loss")]
    run = Store.open(job.output, job.storage)
    assert not files_below(run, "checkpoints")
    with tempfile.TemporaryDirectory() as aside:
        for name in files_below(run, "model"):
            path = Path(aside) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(run.read(name))
        for one, other in zip(weights(aside), weights(undisturbed), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_same_command_goes_on_from_the_checkpoint(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_training(load(job, output=str(tmp_path / "undisturbed")), quiet=True)
    cut_after_a_checkpoint(load(job), monkeypatch)
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    moved = tmp_path / "moved"
    (tmp_path / "out").rename(moved)
    goes_on_to_the_same_weights(load(job, output=str(moved)), str(tmp_path / "undisturbed"))


def test_a_training_on_s3_goes_on_from_the_checkpoint(
    job: Job, tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On whatever machine: nothing of the first start is left there."""
    for name, value in s3.admin.items():
        monkeypatch.setenv(name, value)
    run_training(load(job, output=str(tmp_path / "undisturbed")), quiet=True)
    on_s3 = load(job, output=f"s3://{s3.bucket}/{tmp_path.name}/exact")
    cut_after_a_checkpoint(on_s3, monkeypatch)
    assert "checkpoints/checkpoint-6/trainer_state.json" in files_below(
        Store.open(on_s3.output, on_s3.storage), "checkpoints"
    )
    goes_on_to_the_same_weights(on_s3, str(tmp_path / "undisturbed"))


@pytest.mark.long
def test_the_same_command_goes_on_after_a_kill(job: Job, tmp_path: Path) -> None:
    """kill -9 at a random moment after the first checkpoint; the model is the one of an undisturbed run."""
    undisturbed = job | {"output": str(tmp_path / "undisturbed"), "epochs": 6}
    run_training(load(undisturbed), quiet=True)
    killed = job | {"epochs": 6, "checkpoint_minutes": 1e-6}
    process = training_with_a_checkpoint(killed, tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert checkpoints(tmp_path / "out"), "the run was over, or had not begun, when it was to be killed"
    notes: list[str] = []
    run_training(load(killed), echo=notes.append)
    assert "going on from the checkpoint" in notes
    for one, other in zip(weights(killed["output"]), weights(undisturbed["output"]), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_another_job_is_not_written_over(job: Job, tmp_path: Path, rng: random.Random) -> None:
    run_training(load(job, dev=None, epochs=1), quiet=True)
    with pytest.raises(RunError, match="seed: 0 there, 3 now"):
        run_training(load(job, dev=None, epochs=1, seed=3), quiet=True)
    (Path(job["output"]) / "_SUCCESS").unlink()
    write_csv(tmp_path / "train.csv", labelled_pairs(rng, 20))
    with pytest.raises(RunError, match="other pairs"):
        run_training(load(job, dev=None, epochs=1), quiet=True)
    assert run_training(load(job, dev=None, epochs=1), quiet=True, restart=True).pairs == 20
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("do not lose")
    with pytest.raises(RunError, match=r"thesis\.txt"):
        run_training(load(job, output=str(mine)), quiet=True)
    (Path(job["output"]) / "_SUCCESS").unlink()
    bad = Path(job["output"]) / "checkpoints" / "checkpoint-1" / "trainer_state.json"
    bad.parent.mkdir(parents=True)
    bad.write_text("{}")
    with pytest.raises(RunError, match=r"training cannot resume from it .*--restart starts again"):
        run_training(load(job, dev=None, epochs=1), quiet=True)
    (Path(job["output"]) / "checkpoint.pt").write_bytes(b"of a version that had a loop of its own")
    with pytest.raises(RunError, match="an earlier version of tokenpair wrote it"):
        run_training(load(job, dev=None, epochs=1), quiet=True)
    run_training(load(job, dev=None, epochs=1), quiet=True, restart=True)
    assert sorted(path.name for path in Path(job["output"]).iterdir()) == ["_SUCCESS", "job.yaml", "model"]


def test_a_restart_that_cannot_begin_leaves_the_model_there(job: Job, tmp_path: Path) -> None:
    """A mistyped file or model must not cost what an hour of training made."""
    run_training(load(job, dev=None, epochs=1), quiet=True)
    out = tmp_path / "out"
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for more, told in (
        ({"train": str(tmp_path / "trian.csv")}, "trian"),
        ({"model": str(tmp_path / "none")}, "no model folder"),
        ({"model": str(out / "model")}, "copy it first"),
    ):
        with pytest.raises(TokenpairError, match=told):
            run_training(load(job, dev=None, epochs=1, **more), quiet=True, restart=True)
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    (out / "thesis.txt").write_text("do not lose")
    with pytest.raises(RunError, match=r"thesis\.txt"):
        run_training(load(job, dev=None, epochs=1), quiet=True, restart=True)
    assert (out / "_SUCCESS").exists()


def test_a_restart_leaves_no_file_of_the_model_before(job: Job, tmp_path: Path) -> None:
    """Modules have folders of their own; one of an older architecture would stay beside the new ones."""
    run_training(load(job, dev=None, epochs=1), quiet=True)
    old = tmp_path / "out" / "model" / "7_Dense" / "deeper" / "model.safetensors"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    run_training(load(job, dev=None, epochs=1), quiet=True, restart=True)
    assert not old.exists()
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_bad_rows_are_left_out_or_stop_the_job(job: Job, tmp_path: Path) -> None:
    """A score outside the scale is a wrong scale, and is never silently scaled to above 1."""
    file = tmp_path / "train.csv"
    with open(file, "a", encoding="utf-8") as more:
        more.write("a dog,,3\na dog,a cat,many\na dog,a cat,7\na dog,a cat,nan\n")
    with pytest.raises(SourceError, match=r"4 rows of 52 cannot be used \(.*train\.csv:50"):
        run_training(load(job), quiet=True)
    notes: list[str] = []
    found = run_training(load(job, dev=None, epochs=1, max_rejects=0.1), echo=notes.append)
    assert found.pairs == 48
    assert any("left out 4 rows" in note for note in notes)


def test_a_dev_set_of_equal_scores_is_refused(job: Job, tmp_path: Path, rng: random.Random) -> None:
    """Nothing correlates with a constant."""
    pairs = labelled_pairs(rng, 5)
    dev = write_csv(tmp_path / "equal.csv", LabelledPairs(pairs.a, pairs.b, np.full(5, 0.4)))
    with pytest.raises(SourceError, match="dev: all scores are the same"):
        run_training(load(job, dev=str(dev)), quiet=True)


def test_any_source_of_attribution_jobs_will_do(job: Job, tmp_path: Path, rng: random.Random) -> None:
    pairs = labelled_pairs(rng, 24)
    with open(tmp_path / "more.jsonl", "w", encoding="utf-8") as file:
        for a, b, score in zip(pairs.a, pairs.b, pairs.similarity, strict=True):
            file.write(json.dumps({"sentence1": a, "sentence2": b, "score": float(score)}) + "\n")
    found = run_training(load(job, train=str(tmp_path / "more.jsonl"), scale=[0, 1], dev=None, epochs=1), quiet=True)
    assert found.pairs == 24
    headless = str(write_csv(tmp_path / "headless.csv", pairs, header=False))
    more = {"train": headless, "header": False, "dev": None, "epochs": 1, "output": str(tmp_path / "out2")}
    assert run_training(load(job, **more), quiet=True).pairs == 24


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"scale": None}, "scale: is missing; give the lowest and the highest possible score"),
        ({"scale": [5, 0]}, "allowed: the lowest score, then a higher one"),
        ({"keep": "best", "dev": None}, "keep: found 'best' without dev"),
        ({"epochs": 0}, "epochs: found 0; allowed: a whole number"),
        ({"loss": "triplet"}, "loss: found 'triplet'; allowed: cosine or dot"),
        ({"learnin_rate": 1}, "learnin_rate: is not a setting; did you mean learning_rate?"),
        ({"columns": {"scores": "x"}}, "columns.scores: is not a setting; did you mean score?"),
        ({"workers": {"count": 9}}, "workers.count: found 9; allowed with batch: 8: a whole number from 1 to 8"),
        ({"header": False, "columns": {"a": "x"}}, "columns.a: found 'x'; allowed: with header: false"),
    ],
)
def test_wrong_settings_are_told_in_one_line(job: Job, more: Job, told: str) -> None:
    given = {name: value for name, value in (job | more).items() if value is not None}
    with pytest.raises(JobError) as error:
        load_training(None, given)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_what_cannot_be_shifted_is_refused_with_the_reason(job: Job, tiny: TinyModels, tmp_path: Path) -> None:
    biased = str(tiny.folder("bert", dense=(8, "tanh")))
    with pytest.raises(TokenpairError, match="bias before its Tanh"):
        run_training(load(job, model=biased), quiet=True)
    with pytest.raises(TokenpairError, match="there is no model folder"):
        run_training(load(job, model=str(tmp_path / "none"), output=str(tmp_path / "out3")), quiet=True)


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_two_ray_workers_stop_at_a_signal(job: Job, tmp_path: Path, how: signal.Signals) -> None:
    # Would catch Ray Train's own handler, which leaves with success before anything was trained.
    job |= {"epochs": 40, "checkpoint_minutes": 1e-6, "workers": {"count": 2, "cpus": 1}}
    process = training_with_a_checkpoint(job, tmp_path)
    process.send_signal(how)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + how, errors
    assert "the same command goes on where it stopped" in errors
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    assert checkpoints(tmp_path / "out")


@pytest.mark.long
def test_two_ray_workers_train_the_model_of_one(job: Job, tmp_path: Path, rng: random.Random) -> None:
    """They share every batch and drop the same units, so only rounding tells the models apart."""
    # Among few pairs two that change places would already be half a point.
    job["dev"] = str(write_csv(tmp_path / "many.csv", labelled_pairs(rng, 400)))
    one = run_training(load(job, output=str(tmp_path / "one")), quiet=True)
    # Saved by the clock, at steps that the workers have to agree on.
    two = run_training(load(job, workers={"count": 2, "cpus": 1}, checkpoint_minutes=1e-3), quiet=True)
    assert two.workers == 2
    assert one.kept is not None
    assert two.kept == pytest.approx(one.kept, abs=5e-3)
    for found, wanted in zip(weights(job["output"]), weights(str(tmp_path / "one")), strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-2)
