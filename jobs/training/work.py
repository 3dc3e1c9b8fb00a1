"""What one worker of a training job does: the model, its steps, and checkpoints that the next start goes on from.

torch is imported inside, after the environment that it reads is set; the driver of several workers needs none of it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attribution_core.errors import TokenpairError
from attribution_core.training.recipe import Epoch, Recipe, TrainingState
from jobs.cluster.environment import quiet_libraries
from jobs.config.model_folder import LATE
from jobs.errors import RunError, StoreError
from jobs.storage.store import Store
from jobs.training.card import describe_training, model_card
from jobs.training.config import TrainConfig
from jobs.training.folders import checkpoint_folder, copy_folder, publish_checkpoints
from jobs.training.pairs import Labelled

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from attribution_core.training.finetune import PairTrainer

PROGRESS = "progress.json"
ONE_VECTOR = "training needs one vector for each text"
MODEL = "model"


@dataclass(frozen=True)
class Task:
    """A training job with its pairs read; the input of every worker."""

    job: TrainConfig
    train: Labelled
    dev: Labelled | None


def write_progress(run: Store, state: TrainingState) -> None:
    """Write the progress of the first worker, for the process that started it."""
    run.replace(PROGRESS, json.dumps(asdict(state)).encode())


def read_progress(run: Store) -> TrainingState | None:
    """The progress that the first worker last wrote; None before that."""
    with suppress(StoreError, ValueError, TypeError, KeyError):
        if run.exists(PROGRESS):
            plain = json.loads(run.read(PROGRESS))
            return TrainingState(**plain | {"epochs": tuple(Epoch(**one) for one in plain["epochs"])})
    return None


def prepare(job: TrainConfig) -> SentenceTransformer:
    """The model that is fine-tuned: loaded, with the job's prompt, and shifted where the job says so.

    Raises:
        ModelError: where it cannot be loaded, attributed or shifted, with the reason.
    """
    from sentence_transformers import SentenceTransformer

    from attribution_core.errors import ModelError
    from attribution_core.model.loading import load_model
    from attribution_core.model.modules import cut_modules
    from attribution_core.training.shift import shift_model

    device = "cpu" if job.workers.gpus == 0 else None
    _, model = load_model(job.model, device=device, trust_remote_code=job.trust_remote_code)
    if not isinstance(model, SentenceTransformer):
        # A driver without the model does not know its kind.
        raise ModelError(f"model {job.model} {LATE}, and {ONE_VECTOR}")
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
    report: Callable[[TrainingState], None],
    *,
    rank: int = 0,
    world: int = 1,
    prepared: Callable[[PairTrainer], PairTrainer] = lambda trainer: trainer,
) -> TrainingState:
    """Train from where the job's checkpoint stopped to the end; worker 0 writes checkpoints and the model.

    Raises:
        TokenpairError: for errors that the user can correct.
    """
    quiet_libraries()
    import torch

    from attribution_core.training.finetune import PairTrainer

    job = task.job
    if job.workers.cpus is not None:
        torch.set_num_threads(job.workers.cpus)
    run = Store.open(job.output, job.storage)
    same = ("loss", "epochs", "batch", "learning_rate", "warmup", "weight_decay", "seed")
    recipe = Recipe(keep=job.kept, **{name: getattr(job, name) for name in same})
    model = prepare(job)
    describe_training(job, model, task.train)
    with checkpoint_folder(run) as folder:
        trainer = PairTrainer(
            model,
            task.train,
            task.dev,
            recipe,
            folder,
            rank=rank,
            world=world,
            save_seconds=60 * job.checkpoint_minutes,
            # Worker 0 speaks for all, and writes.
            report=report if rank == 0 else lambda state: None,
            saved=lambda: publish_checkpoints(run, folder) if rank == 0 else None,
        )
        try:
            state = prepared(trainer).run()
        except (TokenpairError, MemoryError):
            raise
        except Exception as error:
            if trainer.checkpoint is None or trainer.clock.began:
                raise
            raise RunError(
                f"{trainer.checkpoint}: training cannot resume from it ({type(error).__name__}); --restart starts again"
            ) from None
    if rank == 0:
        _save_model(model, run, model_card(job, model, task.train, task.dev, state))
    return state


def _save_model(model: SentenceTransformer, run: Store, card: str) -> None:
    with tempfile.TemporaryDirectory() as aside:
        model.save(aside, create_model_card=False)
        (Path(aside) / "README.md").write_text(card, "utf-8")
        copy_folder(run, Path(aside), MODEL)
