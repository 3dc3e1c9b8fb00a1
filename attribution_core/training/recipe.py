"""The recipe of a fine-tuning, its pairs, and the results of each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from attribution_core.errors import SettingError

Loss = Literal["cosine", "dot"]


@dataclass
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
    """One pass over the training pairs; epoch 0 is the model before it.

    ``loss`` is the mean over the epoch's steps, ``spearman`` is of the dev set, in [-1, 1]; each is None where it was
    not measured. ``seconds`` count from the start of the training.
    """

    epoch: int
    loss: float | None
    spearman: float | None
    seconds: float


@dataclass(frozen=True)
class TrainingState:
    """The progress of a training. ``step`` counts those of earlier starts too, ``steps_now`` those of this one alone.

    ``loss`` is that of the last step; ``epochs`` are those that ended, the first being the model as it was.
    """

    step: int
    steps: int
    batch: int
    loss: float
    seconds: float
    steps_now: int
    epochs: tuple[Epoch, ...]

    @property
    def before(self) -> float | None:
        """Spearman correlation of the model before training; None without a dev set."""
        return next((one.spearman for one in self.epochs if one.epoch == 0), None)

    @property
    def best(self) -> Epoch | None:
        """The epoch that was best on the dev set so far; epoch 0 is not one."""
        measured = [one for one in self.epochs if one.spearman is not None and one.epoch > 0]
        return max(measured, key=lambda one: one.spearman or 0.0, default=None)


def check_libraries() -> None:
    """SettingError where a library is missing that only training needs."""
    if any(find_spec(name) is None for name in ("accelerate", "datasets")):
        raise SettingError("training needs accelerate and datasets: pip install 'tokenpair[train]'")
