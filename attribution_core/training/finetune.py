"""Fine-tuning an encoder on labelled pairs, by the paper's recipe, in steps that can be resumed anywhere.

One forward pass reads both texts of every pair of a batch, and what happens at a step is a function of the seed and the
step's number alone: a run that was killed goes on as if it had not been, and workers that share a batch among
them do together what one does alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from attribution_core.errors import SettingError
from attribution_core.training.dropout import shared_dropout

Loss = Literal["cosine", "dot"]
# Batches that are shuffled as one before their pairs are sorted by length: padding is then a few per cent.
BATCHES_TOGETHER = 64
READ_AT_ONCE = 256


@dataclass(frozen=True)
class LabelledPairs:
    """Pairs of texts and how similar they are, from 0 to 1."""

    a: Sequence[str]
    b: Sequence[str]
    similarity: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.a)


@dataclass(frozen=True)
class Recipe:
    """How a model is fine-tuned; the defaults are the paper's (EMNLP 2023, section 3).

    ``loss`` is the mean squared difference of the cosine (or the dot product) and the label; ``warmup`` the share of
    all steps over which the learning rate grows, after which it falls to 0 linearly; ``keep`` says whether the model is
    that of the epoch that was best on the dev set, or of the last one.
    """

    loss: Loss = "cosine"
    epochs: int = 5
    batch: int = 16
    learning_rate: float = 2e-5
    warmup: float = 0.1
    weight_decay: float = 0.01
    largest_gradient: float = 1.0
    keep: Literal["best", "last"] = "best"
    seed: int = 0


@dataclass(frozen=True)
class Epoch:
    """One pass over the training pairs; epoch 0 is the model before it. ``spearman`` is of the dev set, in [-1, 1]."""

    epoch: int
    loss: float | None
    spearman: float | None
    seconds: float


@dataclass
class State:
    """Where a fine-tuning stands."""

    step: int = 0
    loss: float = 0.0
    epochs: list[Epoch] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def best(self) -> Epoch | None:
        """The epoch that was best on the dev set so far; epoch 0 is not one."""
        told = [one for one in self.epochs if one.spearman is not None and one.epoch > 0]
        return max(told, key=lambda one: one.spearman or 0.0, default=None)


class FineTuner:
    """Fine-tunes ``model`` in place.

    ``rank`` and ``world`` say which share of every batch is this worker's; ``parallel`` then wraps the model so that
    gradients are averaged over the workers. Worker 0 alone evaluates.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        train: LabelledPairs,
        dev: LabelledPairs | None,
        recipe: Recipe,
        *,
        rank: int = 0,
        world: int = 1,
        parallel: Callable[[nn.Module], nn.Module] = lambda model: model,
    ) -> None:
        if recipe.keep == "best" and dev is None:
            raise SettingError("the best epoch can only be kept with a dev set; give one, or keep the last epoch")
        assert len(train) > 0
        self.model = model.float()
        self.train = train
        self.dev = dev
        self.recipe = recipe
        self.rank, self.world = rank, world
        self.parallel = parallel(model)
        self.state = State()
        self.optimizer = torch.optim.AdamW(_groups(model, recipe.weight_decay), lr=recipe.learning_rate, fused=True)
        self._best: dict[str, Tensor] | None = None
        self._lengths: NDArray[np.int64] | None = None
        self._batches: tuple[int, list[NDArray[np.int64]]] = (-1, [])
        self._losses: list[float] = []

    @property
    def steps_an_epoch(self) -> int:
        """Batches an epoch; the last may be smaller."""
        return math.ceil(len(self.train) / self.recipe.batch)

    @property
    def steps(self) -> int:
        """All steps."""
        return self.steps_an_epoch * self.recipe.epochs

    # Going on where a run stopped ---------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that going on needs, as tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self._best,
            "losses": list(self._losses),
            "state": asdict(self.state),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self._best = saved["best"]
        self._losses = list(saved["losses"])
        plain = saved["state"]
        self.state = State(**{**plain, "epochs": [Epoch(**one) for one in plain["epochs"]]})

    # The work -----------------------------------------------------------------------------------------------------

    def run(
        self,
        *,
        save: Callable[[FineTuner], None] = lambda tuner: None,
        save_seconds: float = math.inf,
        told: Callable[[FineTuner], None] = lambda tuner: None,
    ) -> State:
        """Train to the end, or from where the loaded state stopped; the model then has the weights to keep.

        ``save`` is called after every epoch and every ``save_seconds``, ``told`` after every step and epoch.
        """
        before, saved = time.monotonic(), time.monotonic()
        earlier = self.state.seconds
        if not self.state.epochs:
            self._end_epoch(0, None)
            told(self)
        while self.state.step < self.steps:
            self._losses.append(self._step(self.state.step))
            self.state.step += 1
            self.state.loss = self._losses[-1]
            self.state.seconds = earlier + time.monotonic() - before
            epoch, within = divmod(self.state.step, self.steps_an_epoch)
            if within == 0:
                self._end_epoch(epoch, float(np.mean(self._losses)))
                self._losses = []
            told(self)
            if within == 0 or time.monotonic() - saved >= save_seconds:
                self.state.seconds = earlier + time.monotonic() - before
                save(self)
                saved = time.monotonic()
        self.state.seconds = earlier + time.monotonic() - before
        if self._best is not None:
            self.model.load_state_dict(self._best)
        self.model.eval()
        return self.state

    def evaluate(self) -> float | None:
        """Spearman correlation of the model's similarities and the dev set's labels; None without a dev set."""
        return None if self.dev is None else spearman_on(self.model, self.dev, self.recipe.loss)

    def _end_epoch(self, epoch: int, loss: float | None) -> None:
        if self.rank != 0:
            self.state.epochs.append(Epoch(epoch, loss, None, self.state.seconds))
            return
        found = Epoch(epoch, loss, self.evaluate(), self.state.seconds)
        self.state.epochs.append(found)
        if self.recipe.keep == "best" and self.state.best == found:
            self._best = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}

    def _step(self, step: int) -> float:
        """One step on this worker's share of its batch; the loss of that share, as a part of the batch's mean."""
        rows = self._batch(step)
        self.model.train()
        torch.manual_seed(self.recipe.seed * 1_000_003 + step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * schedule(step, self.steps, self.recipe.warmup)
        # All of the batch is read, so that every worker pads to the same length and drops the same units.
        features = self._read([self.train.a[row] for row in rows] + [self.train.b[row] for row in rows])
        mine = torch.arange(self.rank, len(rows), self.world)
        idle = not len(mine)
        if idle:
            # Fewer pairs than workers: every worker takes part in the averaging, this one with gradients of 0.
            mine = torch.zeros(1, dtype=torch.long)
        part = _rows(features, torch.cat([mine, mine + len(rows)]), 2 * len(rows))
        label_P = torch.tensor(self.train.similarity[rows], dtype=torch.float32)[mine].to(self.model.device)
        with shared_dropout():
            embedding_RD = self.parallel(part)["sentence_embedding"]
        a_PD, b_PD = embedding_RD.chunk(2)
        score_P = F.cosine_similarity(a_PD, b_PD) if self.recipe.loss == "cosine" else (a_PD * b_PD).sum(1)
        # Gradients are averaged over workers: the share's sum over the mean share is the batch's mean in the end.
        loss = (score_P - label_P).square().sum() * self.world / len(rows)
        if idle:
            loss = loss * 0.0
        if not math.isfinite(float(loss.detach())):
            raise SettingError(
                f"the loss is not a number at step {step + 1}: training diverged; try a smaller learning_rate than "
                f"{self.recipe.learning_rate:g}"
            )
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.largest_gradient)
        self.optimizer.step()
        return float(loss.detach())

    def _read(self, texts: list[str]) -> dict[str, Any]:
        features: dict[str, Any] = self.model.preprocess(texts, prompt=prompt_of(self.model))
        return {name: v.to(self.model.device) if isinstance(v, Tensor) else v for name, v in features.items()}

    def _batch(self, step: int) -> NDArray[np.int64]:
        """The pairs of a step: shuffled anew every epoch, of like length within a batch."""
        epoch, within = divmod(step, self.steps_an_epoch)
        if self._lengths is None:
            self._lengths = self._measure()
        if self._batches[0] != epoch:
            self._batches = epoch, batches(self._lengths, self.recipe.batch, self.recipe.seed, epoch)
        return self._batches[1][within]

    def _measure(self) -> NDArray[np.int64]:
        """Tokens of each pair's longer and shorter text, [P, 2]."""
        sides = [_lengths(self.model, texts) for texts in (self.train.a, self.train.b)]
        return np.sort(np.stack(sides, axis=1))[:, ::-1]


def batches(length_P2: NDArray[np.int64], size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Row numbers of the batches of one epoch, in their order; every row once."""
    draw = np.random.default_rng([seed, epoch])
    order = draw.permutation(len(length_P2))
    found: list[NDArray[np.int64]] = []
    for low in range(0, len(order), size * BATCHES_TOGETHER):
        some = order[low : low + size * BATCHES_TOGETHER]
        some = some[np.lexsort((length_P2[some, 1], length_P2[some, 0]))]
        found += [some[at : at + size] for at in range(0, len(some), size)]
    return [found[at] for at in draw.permutation(len(found))]


def schedule(step: int, steps: int, warmup: float) -> float:
    """The share of the learning rate at a step: linear warm-up, then linear decay to 0."""
    rising = math.ceil(steps * warmup)
    return (step + 1) / rising if step < rising else max(0.0, (steps - step) / max(1, steps - rising))


def prompt_of(model: SentenceTransformer) -> str | None:
    """The prompt that ``model.encode`` puts before a text, so that training reads what is read later."""
    return (model.prompts.get(model.default_prompt_name) or None) if model.default_prompt_name is not None else None


@torch.no_grad()
def spearman_on(model: SentenceTransformer, pairs: LabelledPairs, similarity: Loss = "cosine") -> float:
    """Spearman rank correlation of a model's similarities with labels, in [-1, 1]."""
    training = model.training
    model.eval()
    distinct = list(dict.fromkeys([*pairs.a, *pairs.b]))
    place = {text: at for at, text in enumerate(distinct)}
    embedding_BD = model.encode(distinct, batch_size=64, convert_to_tensor=True, show_progress_bar=False).float()
    a_PD = embedding_BD[[place[text] for text in pairs.a]]
    b_PD = embedding_BD[[place[text] for text in pairs.b]]
    score_P = F.cosine_similarity(a_PD, b_PD) if similarity == "cosine" else (a_PD * b_PD).sum(1)
    model.train(training)
    return spearman(score_P.cpu().double().numpy(), pairs.similarity)


def spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Pearson's correlation of ranks, ties sharing their mean rank; 0 where one side is constant."""
    of_x, of_y = _ranks(x), _ranks(y)
    if min(of_x.std(), of_y.std()) == 0.0:
        return 0.0
    return float(np.corrcoef(of_x, of_y)[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, of_value, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[of_value]


def _lengths(model: SentenceTransformer, texts: Sequence[str]) -> NDArray[np.int64]:
    found: list[int] = []
    for low in range(0, len(texts), READ_AT_ONCE):
        read = model.preprocess(list(texts[low : low + READ_AT_ONCE]))
        found += read["attention_mask"].sum(1).tolist()
    return np.array(found, np.int64)


def _rows(features: dict[str, Any], index: Tensor, b: int) -> dict[str, Any]:
    """Some rows of a batch's features."""
    return {
        name: value[index.to(value.device)] if isinstance(value, Tensor) and value.ndim and len(value) == b else value
        for name, value in features.items()
    }


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights decay, biases and normalisations do not."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
