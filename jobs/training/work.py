"""What one worker of a training job does: the model, its steps, and a checkpoint that the next start goes on from."""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.cluster.environment import quiet_libraries
from jobs.errors import RunError, StoreError
from jobs.progress import duration
from jobs.storage.store import Store
from jobs.training.card import model_card
from jobs.training.config import TrainConfig
from jobs.training.pairs import Labelled

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from attribution_core.training.finetune import FineTuner, LabelledPairs, State

CHECKPOINT = "checkpoint.pt"
PROGRESS = "progress.json"
MODEL = "model"
SECONDS_BETWEEN_REPORTS = 2.0


@dataclass(frozen=True)
class Task:
    """A training job with its pairs read; what every worker is given."""

    job: TrainConfig
    train: Labelled
    dev: Labelled | None
    digest: str


@dataclass(frozen=True)
class Standing:
    """Where a training stands; ``epochs`` are those that ended, the first being the model as it was."""

    step: int
    steps: int
    batch: int
    loss: float
    seconds: float
    steps_now: int
    epochs: tuple[dict[str, Any], ...]

    @property
    def pairs(self) -> int:
        """Pairs that were gone through, each once an epoch."""
        return self.step * self.batch

    @property
    def all_pairs(self) -> int:
        """Those of all epochs."""
        return self.steps * self.batch

    def line(self) -> str:
        """As one plain line."""
        words = [f"step {self.step:,}/{self.steps:,}"]
        if self.step:
            words.append(f"loss {self.loss:.4f}")
        if self.steps_now and self.step < self.steps:
            words.append(f"{duration(self.seconds / self.step * (self.steps - self.step))} left")
        return ", ".join(words)


def read_standing(run: Store) -> Standing | None:
    """What the first worker last said; None before it did."""
    with suppress(StoreError, ValueError, TypeError, KeyError):
        if run.exists(PROGRESS):
            plain = json.loads(run.read(PROGRESS))
            return Standing(**plain | {"epochs": tuple(plain["epochs"])})
    return None


def prepare(job: TrainConfig) -> SentenceTransformer:
    """The model that is fine-tuned: loaded, with the job's prompt, and shifted where the job says so.

    Raises:
        ModelError: where it cannot be loaded, attributed or shifted, with the reason.
    """
    from attribution_core.model.loading import load_model
    from attribution_core.model.modules import cut_modules
    from attribution_core.training.shift import shift_model

    _, model = load_model(job.model, trust_remote_code=job.trust_remote_code)
    cut_modules(model, "text", job.loss)  # what cannot be attributed is not worth an hour of training
    if job.prompt is not None:
        known = job.prompt in model.prompts
        name = job.prompt if known else "training"
        if not known:
            model.prompts[name] = job.prompt
        model.default_prompt_name = name
    model = shift_model(model) if job.shift else model
    model.similarity_fn_name = job.loss
    return model


def work(
    task: Task,
    told: Callable[[Standing], None],
    *,
    rank: int = 0,
    world: int = 1,
    parallel: Callable[[Any], Any] = lambda model: model,
) -> State:
    """Train from where the job's checkpoint stopped to the end; worker 0 writes checkpoints and the model.

    Raises:
        TokenpairError: for what the user can mend.
    """
    quiet_libraries()
    import torch

    from attribution_core.training.finetune import FineTuner, Recipe

    job = task.job
    if job.workers.cpus is not None:
        torch.set_num_threads(job.workers.cpus)
    run = Store.open(job.output, job.storage)
    recipe = Recipe(
        loss=job.loss,
        epochs=job.epochs,
        batch=job.batch,
        learning_rate=job.learning_rate,
        warmup=job.warmup,
        weight_decay=job.weight_decay,
        keep=job.kept,
        seed=job.seed,
    )
    dev = None if task.dev is None else _pairs(task.dev)
    tuner = FineTuner(prepare(job), _pairs(task.train), dev, recipe, rank=rank, world=world, parallel=parallel)
    _resume(tuner, run, task.digest)
    began, last = tuner.state.step, 0.0

    def tell(tuner: FineTuner) -> None:
        nonlocal last
        ended = tuner.state.step % tuner.steps_an_epoch == 0
        if rank == 0 and (ended or time.monotonic() - last >= SECONDS_BETWEEN_REPORTS):
            last = time.monotonic()
            told(_standing(tuner, began))

    def save(tuner: FineTuner) -> None:
        if rank == 0:
            buffer = io.BytesIO()
            torch.save(tuner.state_dict() | {"digest": task.digest}, buffer)
            run.replace(CHECKPOINT, buffer.getvalue())

    state = tuner.run(save=save, save_seconds=60 * job.checkpoint_minutes, told=tell)
    if rank == 0:
        _save_model(tuner.model, run, model_card(job, tuner.model, task.train, task.dev, state))
    return state


def _standing(tuner: FineTuner, began: int) -> Standing:
    state = tuner.state
    return Standing(
        step=state.step,
        steps=tuner.steps,
        batch=tuner.recipe.batch,
        loss=state.loss,
        seconds=state.seconds,
        steps_now=state.step - began,
        epochs=tuple(asdict(one) for one in state.epochs),
    )


def _pairs(read: Labelled) -> LabelledPairs:
    from attribution_core.training.finetune import LabelledPairs

    return LabelledPairs(read.a, read.b, read.similarity)


def _resume(tuner: FineTuner, run: Store, digest: str) -> None:
    """Go on from the checkpoint where there is one."""
    import torch

    if not run.exists(CHECKPOINT):
        return
    try:
        saved = torch.load(io.BytesIO(run.read(CHECKPOINT)), map_location="cpu", weights_only=True)
        same = saved.pop("digest") == digest
        if same:
            tuner.load_state_dict(saved)
    except (StoreError, MemoryError):
        raise
    except Exception as error:
        raise RunError(
            f"{run.url}/{CHECKPOINT}: cannot be gone on from ({type(error).__name__}); --restart begins anew"
        ) from None
    if not same:
        raise RunError(f"{run.url}/{CHECKPOINT}: was made with other training pairs; --restart begins anew")


def _save_model(model: SentenceTransformer, run: Store, card: str) -> None:
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside)
        model.save(str(folder), create_model_card=False)
        (folder / "README.md").write_text(card, "utf-8")
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                run.replace(f"{MODEL}/{path.relative_to(folder).as_posix()}", path.read_bytes())
