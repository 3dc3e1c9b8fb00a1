"""Fine-tuning an encoder on labelled pairs by the paper's recipe, with the trainer of sentence-transformers.

The trainer provides the loop, the optimiser, the schedule and the checkpoints. This module adds the rest of the recipe:
the loss over shared dropout, batches of texts of like length, workers that share every batch, and checkpoints by the
clock. What happens at a step is a function of the seed and the step's number alone. So a run that was killed goes on as
if it had not been, and workers that share a batch do together what one does alone.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.losses.merged_forward import embed_columns
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_utils import sort_checkpoints

from attribution_core.errors import SettingError
from attribution_core.training.dropout import shared_dropout
from attribution_core.training.recipe import Epoch, LabelledPairs, Loss, Recipe, TrainingState, check_libraries
from attribution_core.training.references import is_per_row

# Batches that are shuffled as one before their pairs are sorted by length: padding is then a few per cent.
BATCHES_TOGETHER = 64
READ_AT_ONCE = 256
# The file of a checkpoint that the trainer writes last: a checkpoint that has it is complete.
STATE_FILE = "trainer_state.json"
SECONDS_BETWEEN_REPORTS = 2.0


class PairLoss(nn.Module):
    """The mean squared difference of similarities and labels, and of it the share of one of ``world`` workers.

    Every worker gets the whole batch, so that all pad to the same length and drop the same units, and embeds each
    ``world``-th pair from ``rank`` on.
    """

    def __init__(self, model: SentenceTransformer, similarity: Loss, rank: int, world: int) -> None:
        super().__init__()
        self.model = model
        self.similarity = similarity
        self.rank, self.world = rank, world

    def forward(self, features: Sequence[dict[str, Any]], labels: Tensor) -> Tensor:
        """The loss of a batch; ``features`` are those of the first texts and those of the second, ``labels`` [P]."""
        p = len(labels)
        mine = torch.arange(self.rank, p, self.world, device=labels.device)
        idle = not len(mine)
        if idle:
            # Fewer pairs than workers: every worker takes part in the averaging, this one with gradients of 0.
            mine = mine.new_zeros(1)
        shares = [{n: v[mine] if is_per_row(v, p) else v for n, v in side.items()} for side in features]
        with shared_dropout():
            a_Pd, b_Pd = embed_columns(self.model, shares, separate_first=False)
        score_P = F.cosine_similarity(a_Pd, b_Pd) if self.similarity == "cosine" else (a_Pd * b_Pd).sum(1)
        # Gradients are averaged over workers: the share's sum over the mean share is the batch's mean in the end.
        share = 0.0 if idle else self.world / p
        return (score_P - labels[mine]).square().sum() * share


class LikeLengths(DefaultBatchSampler):
    """Row numbers of the batches of one epoch; every row once, in another order each epoch, of like length in a batch.

    ``length_P2`` has the tokens of each pair's longer and shorter text.
    """

    def __init__(self, length_P2: NDArray[np.int64], batch_size: int, seed: int) -> None:
        super().__init__(length_P2, batch_size=batch_size, drop_last=False, seed=seed)
        self.length_P2 = length_P2

    def __len__(self) -> int:
        return math.ceil(len(self.length_P2) / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        draw = np.random.default_rng([self.seed, self.epoch])
        order = draw.permutation(len(self.length_P2))
        batches: list[list[int]] = []
        for low in range(0, len(order), self.batch_size * BATCHES_TOGETHER):
            some = order[low : low + self.batch_size * BATCHES_TOGETHER]
            some = some[np.lexsort((self.length_P2[some, 1], self.length_P2[some, 0]))]
            batches += [some[at : at + self.batch_size].tolist() for at in range(0, len(some), self.batch_size)]
        return iter([batches[at] for at in draw.permutation(len(batches))])


class PairTrainer(SentenceTransformerTrainer):
    """Fine-tunes ``model`` in place, and resumes from the newest complete checkpoint in ``folder``.

    ``rank`` and ``world`` say which share of every batch is this worker's. Checkpoints are written after every epoch
    and every ``save_seconds``; ``saved`` is called after each. ``report`` gets the state after every epoch and every
    ``SECONDS_BETWEEN_REPORTS``.

    Raises:
        SettingError: where a library is missing, or the best epoch is to be kept without a dev set.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        train: LabelledPairs,
        dev: LabelledPairs | None,
        recipe: Recipe,
        folder: Path,
        *,
        rank: int = 0,
        world: int = 1,
        save_seconds: float = math.inf,
        report: Callable[[TrainingState], None] = lambda state: None,
        saved: Callable[[], None] = lambda: None,
    ) -> None:
        check_libraries()
        if recipe.keep == "best" and dev is None:
            raise SettingError("the best epoch can only be kept with a dev set; give one, or keep the last epoch")
        # An optional library, checked above.
        from datasets import Dataset

        assert len(train) > 0
        self.recipe = recipe
        self.has_dev = dev is not None
        self.checkpoint = last_checkpoint(folder)
        self.steps_an_epoch = math.ceil(len(train) / recipe.batch)
        self.loss_now = 0.0
        self.metric = f"eval_spearman_{recipe.loss}"
        self.save_seconds = save_seconds
        self.report, self.saved = report, saved
        self.clock = _Clock(self)
        model = model.float()
        super().__init__(
            model=model,
            args=self._arguments(model, folder),
            train_dataset=Dataset.from_dict(
                {"sentence1": list(train.a), "sentence2": list(train.b), "score": train.similarity}
            ),
            loss=PairLoss(model, recipe.loss, rank, world),
            evaluator=None if dev is None else evaluator_of(dev, recipe.loss),
            callbacks=[self.clock],
        )
        self.remove_callback(PrinterCallback)
        lengths = [_lengths(model, texts) for texts in (train.a, train.b)]
        self.batches = LikeLengths(np.sort(np.stack(lengths, axis=1))[:, ::-1], recipe.batch, recipe.seed)

    def _arguments(self, model: SentenceTransformer, folder: Path) -> SentenceTransformerTrainingArguments:
        recipe = self.recipe
        arguments = SentenceTransformerTrainingArguments(
            output_dir=str(folder),
            num_train_epochs=recipe.epochs,
            per_device_train_batch_size=recipe.batch,
            learning_rate=recipe.learning_rate,
            warmup_steps=math.ceil(self.steps_an_epoch * recipe.epochs * recipe.warmup),
            weight_decay=recipe.weight_decay,
            max_grad_norm=recipe.largest_gradient,
            seed=recipe.seed,
            prompts=prompt_of(model),
            logging_strategy="epoch",
            save_strategy="epoch",
            # The newest, the one before (the newest may be half written) and the best.
            save_total_limit=2,
            eval_strategy="epoch" if self.has_dev else "no",
            eval_on_start=self.has_dev and self.checkpoint is None,
            metric_for_best_model=self.metric if recipe.keep == "best" else None,
            use_cpu=model.device.type == "cpu",
            # Parts such as an unused pooler get no gradient.
            ddp_find_unused_parameters=True,
            report_to="none",
            disable_tqdm=True,
        )
        # One worker uses one device; the trainer would split a batch over all GPUs that it sees, by torch's old way.
        arguments._n_gpu = min(arguments.n_gpu, 1)
        return arguments

    def run(self) -> TrainingState:
        """Train to the end; the model then has the weights to keep.

        Raises:
            SettingError: where the loss is no number, or the dev set's correlation is none after every epoch.
        """
        self.train(resume_from_checkpoint=None if self.checkpoint is None else str(self.checkpoint))
        # The other workers' weights are not saved, and their machines may not have the checkpoint.
        if self.recipe.keep == "best" and self.is_world_process_zero():
            best = self.state.best_global_step
            if best is None:
                raise SettingError("after every epoch all pairs of the dev set were equally similar: training diverged")
            self.model.model_card_data.set_best_model_step(best)
            self._load_from_checkpoint(f"{self.args.output_dir}/checkpoint-{best}")
        self.model.eval()
        return self.progress

    @property
    def progress(self) -> TrainingState:
        """The progress of the training."""
        return TrainingState(
            step=self.state.global_step,
            steps=self.steps_an_epoch * self.recipe.epochs,
            batch=self.recipe.batch,
            loss=self.loss_now,
            seconds=self.clock.seconds,
            steps_now=self.state.global_step - self.clock.first_step,
            epochs=tuple(self._epochs()),
        )

    def _epochs(self) -> Iterator[Epoch]:
        """The epochs that ended, as they were logged: a mean loss since the entry before, and the dev set's metric."""
        losses: list[float] = []
        last = 0
        loss: float | None = None
        for entry in self.state.log_history:
            step = int(entry["step"])
            epoch, within = divmod(step, self.steps_an_epoch)
            if "loss" in entry:
                losses += [entry["loss"]] * (step - last)
                last = step
                if within == 0:
                    loss, losses = float(np.mean(losses)), []
            if within == 0 and (self.metric in entry if self.has_dev else "loss" in entry):
                yield Epoch(epoch, loss, entry.get(self.metric), entry["seconds"])

    # What the trainer asks of its class ------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Whole batches for every worker: :class:`PairLoss` computes the worker's share."""
        # An optional library, checked when the trainer was made.
        from accelerate.data_loader import prepare_data_loader

        loader: Any = DataLoader(
            cast(Any, self.train_dataset), batch_sampler=self.batches, collate_fn=self.data_collator
        )
        return prepare_data_loader(loader, self.args.device, num_processes=1, process_index=0, put_on_device=True)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Linear warm-up, then linear decay to 0; the library's own takes the first step at a rate of 0."""
        rising = self.args.get_warmup_steps(num_training_steps)
        falling = max(1, num_training_steps - rising)
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            cast(torch.optim.Optimizer, optimizer or self.optimizer),
            lambda step: min((step + 1) / max(1, rising), (num_training_steps - step) / falling),
        )
        return self.lr_scheduler

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """The loss of a step.

        Raises:
            SettingError: where it is no number.
        """
        loss: Any = super().compute_loss(*args, **kwargs)
        self.loss_now = float(loss.detach())
        if not math.isfinite(self.loss_now):
            raise SettingError(
                f"the loss is not a number at step {self.state.global_step + 1}: training diverged; try a smaller "
                f"learning_rate than {self.recipe.learning_rate:g}"
            )
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the time to every entry of the log."""
        super().log(logs | {"seconds": self.clock.seconds}, start_time)


class _Clock(TrainerCallback):
    """Seeds every step, saves by the clock and reports the state."""

    def __init__(self, trainer: PairTrainer) -> None:
        self.trainer = trainer
        self.first_step = 0
        self._earlier = 0.0
        self._began: float | None = None
        self._saved_at = self._reported_at = 0.0

    @property
    def began(self) -> bool:
        """Whether the first step came, before which the checkpoint, if any, was read."""
        return self._began is not None

    @property
    def seconds(self) -> float:
        """Seconds since the first step, those of earlier starts included."""
        return self._earlier + (0.0 if self._began is None else time.monotonic() - self._began)

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.first_step = state.global_step
        self._earlier = state.log_history[-1]["seconds"] if state.log_history else 0.0
        self._report()

    def on_step_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._began is None:
            self._began = self._saved_at = time.monotonic()
        torch.manual_seed(self.trainer.recipe.seed * 1_000_003 + state.global_step)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # An optional library, checked when the trainer was made.
        from accelerate.utils import broadcast_object_list

        # The end of an epoch saves by itself, after the dev set was measured.
        # The first worker decides, because all take part in a save.
        due = broadcast_object_list([time.monotonic() - self._saved_at >= self.trainer.save_seconds])[0]
        if due and state.global_step % self.trainer.steps_an_epoch:
            # With the mean loss so far, which a checkpoint does not have otherwise.
            control.should_log = control.should_save = True
        if time.monotonic() - self._reported_at >= SECONDS_BETWEEN_REPORTS:
            self._report()

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._report()

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._saved_at = time.monotonic()
        self.trainer.saved()

    def _report(self) -> None:
        self._reported_at = time.monotonic()
        self.trainer.report(self.trainer.progress)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint in a folder; a process that was killed may have left one that is not."""
    for name in reversed(sort_checkpoints(str(folder)) if folder.is_dir() else []):
        with suppress(OSError, ValueError):
            json.loads((Path(name) / STATE_FILE).read_text("utf-8"))
            return Path(name)
    return None


def evaluator_of(pairs: LabelledPairs, similarity: Loss) -> EmbeddingSimilarityEvaluator:
    """The evaluator of the Spearman correlation of a model's similarities and labels."""
    labels = pairs.similarity.tolist()
    return EmbeddingSimilarityEvaluator(
        list(pairs.a), list(pairs.b), labels, batch_size=64, main_similarity=similarity, write_csv=False
    )


def prompt_of(model: SentenceTransformer) -> str | None:
    """The prompt that ``model.encode`` puts before a text, so that training reads what is read later."""
    return (model.prompts.get(model.default_prompt_name) or None) if model.default_prompt_name is not None else None


def _lengths(model: SentenceTransformer, texts: Sequence[str]) -> NDArray[np.int64]:
    """Tokens of each text."""
    lengths: list[int] = []
    for low in range(0, len(texts), READ_AT_ONCE):
        read = model.preprocess(list(texts[low : low + READ_AT_ONCE]))
        lengths += read["attention_mask"].sum(1).tolist()
    return np.array(lengths, np.int64)
