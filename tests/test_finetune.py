"""Fine-tuning: what a step is, that runs can be cut anywhere, and that training helps."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from labelled import labelled_pairs
from scipy.stats import spearmanr
from tiny_models import TinyModels

from attribution_core.errors import SettingError
from attribution_core.training.finetune import FineTuner, LabelledPairs, Recipe, batches, schedule, spearman
from attribution_core.training.shift import shift_model

RECIPE = Recipe(epochs=2, batch=8, learning_rate=1e-3, keep="last")


def weights(model: Any) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in model.parameters()])


@pytest.mark.parametrize("shift", [True, False])
def test_training_raises_the_correlation_and_keeps_the_best_epoch(
    tiny: TinyModels, rng: random.Random, shift: bool
) -> None:
    base = tiny.load("bert", normalize=True)
    model = shift_model(base) if shift else base
    # A random model learns little that holds for other pairs, so the dev set is some of the same. Words in common,
    # which it goes by before it has learnt anything, make a pair unlike here.
    train = labelled_pairs(rng, 160)
    train = replace(train, similarity=1.0 - train.similarity)
    dev = LabelledPairs(train.a[:60], train.b[:60], train.similarity[:60])
    recipe = replace(RECIPE, epochs=8, learning_rate=5e-3, keep="best", seed=rng.randrange(99))
    tuner = FineTuner(model, train, dev, recipe)
    state = tuner.run()
    assert [one.epoch for one in state.epochs] == list(range(9))
    assert state.best is not None
    assert state.best.spearman > state.epochs[0].spearman
    assert tuner.evaluate() == pytest.approx(state.best.spearman, abs=1e-9), "the model is not that of the best epoch"


def test_a_run_cut_at_any_step_ends_as_an_undisturbed_one(tiny: TinyModels, rng: random.Random) -> None:
    """The order of batches, dropout, the optimiser and the learning rate all go on where they were."""
    train = labelled_pairs(rng, 40)
    base = shift_model(tiny.load("bert"))
    whole = FineTuner(copy.deepcopy(base), train, None, RECIPE)
    whole.run()
    cut = rng.randrange(1, whole.steps)

    class KilledError(Exception):
        pass

    kept: dict[str, Any] = {}

    def kill(tuner: FineTuner) -> None:
        if tuner.state.step == cut:
            kept.update(copy.deepcopy(tuner.state_dict()))
            raise KilledError

    first = FineTuner(copy.deepcopy(base), train, None, RECIPE)
    with pytest.raises(KilledError):
        first.run(told=kill)
    torch.manual_seed(rng.randrange(999))  # whatever the new process drew
    second = FineTuner(copy.deepcopy(base), train, None, RECIPE)
    second.load_state_dict(kept)
    second.run()
    assert torch.equal(weights(second.model), weights(whole.model))
    assert [one.loss for one in second.state.epochs] == [one.loss for one in whole.state.epochs]


@pytest.mark.parametrize("pairs", [7, 2])
def test_workers_that_share_a_batch_make_the_step_of_one(tiny: TinyModels, rng: random.Random, pairs: int) -> None:
    """Each takes a share, also of an odd batch, or of one with fewer pairs than workers; the mean of their gradients is
    that of the whole, dropout included."""
    train = labelled_pairs(rng, pairs)
    base = shift_model(tiny.load("bert"))

    def gradients(rank: int, world: int) -> torch.Tensor:
        recipe = replace(RECIPE, batch=7, epochs=1, largest_gradient=float("inf"))
        tuner = FineTuner(copy.deepcopy(base), train, None, recipe, rank=rank, world=world)
        tuner._step(0)
        return torch.cat([p.grad.flatten() for p in tuner.model.parameters() if p.grad is not None])

    whole = gradients(0, 1)
    shares = torch.stack([gradients(rank, 3) for rank in range(3)]).mean(0)
    torch.testing.assert_close(shares, whole, atol=1e-4 * float(whole.abs().max()), rtol=1e-3)


def test_epochs_take_every_pair_once_in_another_order(rng: random.Random) -> None:
    lengths = np.array([[rng.randint(5, 60), 5] for _ in range(rng.randrange(50, 3000))])
    first, second = (batches(lengths, 16, 3, epoch) for epoch in (0, 1))
    for one in (first, second):
        assert sorted(np.concatenate(one)) == list(range(len(lengths)))
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(first, second, strict=True))
    again = batches(lengths, 16, 3, 0)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))


def test_batches_hold_texts_of_like_length(rng: random.Random) -> None:
    lengths = np.array([[rng.randint(5, 60)] * 2 for _ in range(2048)])
    padded = sum(len(rows) * lengths[rows, 0].max() for rows in batches(lengths, 16, 0, 0))
    assert padded < 1.05 * lengths[:, 0].sum()


def test_learning_rate_rises_then_falls_to_zero() -> None:
    rates = [schedule(step, 100, 0.1) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert rates[10] == 1.0
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[100] == 0.0
    assert schedule(0, 10, 0.0) == 1.0


def test_spearman_is_scipys(rng: random.Random) -> None:
    draw = np.random.default_rng(rng.randrange(1 << 16))
    x, y = draw.normal(size=200), draw.integers(0, 6, 200).astype(float)
    assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert spearman(x, np.ones(200)) == 0.0


def test_the_dot_loss_learns_dot_products(tiny: TinyModels, rng: random.Random) -> None:
    """Embeddings grow or shrink to it; under cosine their length would not matter."""
    model = shift_model(tiny.load("bert"))
    train = labelled_pairs(rng, 64)

    def mean_square() -> float:
        a, b = (torch.tensor(model.encode(list(side))) for side in (train.a, train.b))
        return float(((a * b).sum(1) - torch.tensor(train.similarity)).square().mean())

    before = mean_square()
    FineTuner(model, train, None, replace(RECIPE, loss="dot", epochs=16)).run()
    assert mean_square() < 0.8 * before


def test_the_best_epoch_needs_a_dev_set(tiny: TinyModels) -> None:
    with pytest.raises(SettingError, match="dev set"):
        FineTuner(tiny.load("bert"), LabelledPairs(["a"], ["b"], np.ones(1)), None, Recipe())


def test_training_that_diverges_is_told(tiny: TinyModels, rng: random.Random) -> None:
    """Would catch a model without a number in it that is saved as trained."""
    model = tiny.load("bert")
    tuner = FineTuner(model, labelled_pairs(rng, 8), None, Recipe(keep="last", batch=4, epochs=2, learning_rate=0.5))

    def spoil(_: FineTuner) -> None:
        next(model.parameters()).data.fill_(float("nan"))

    with pytest.raises(SettingError, match=r"step 2: training diverged; try a smaller learning_rate than 0\.5"):
        tuner.run(told=lambda one: spoil(one) if one.state.step == 1 else None)
