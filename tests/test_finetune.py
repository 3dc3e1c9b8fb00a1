"""Fine-tuning: what a step is, that trainings can be cut anywhere, and that they help."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from labelled import labelled_pairs
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.sampler import DefaultBatchSampler
from tiny_models import TinyModels
from torch.nn import functional as F

from attribution_core.errors import SettingError
from attribution_core.training import finetune
from attribution_core.training import recipe as recipe_module
from attribution_core.training.finetune import LikeLengths, PairTrainer, evaluator_of
from attribution_core.training.recipe import LabelledPairs, Recipe
from attribution_core.training.shift import shift_model

RECIPE = Recipe(epochs=2, batch=8, learning_rate=1e-3, keep="last")
Make = Callable[..., PairTrainer]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A trainer with a folder of its own, or of the name that is given, which reports every step."""
    monkeypatch.setattr(finetune, "SECONDS_BETWEEN_REPORTS", 0.0)
    made = 0

    def trainer(*args: Any, folder: str = "", **kwargs: Any) -> PairTrainer:
        nonlocal made
        made += 1
        return PairTrainer(*args, tmp_path / (folder or f"checkpoints{made}"), **kwargs)

    return trainer


def weights(model: Any) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in model.parameters()])


@pytest.mark.parametrize("shift", [True, False])
def test_training_raises_the_correlation_and_keeps_the_best_epoch(
    tiny: TinyModels, rng: random.Random, make: Make, shift: bool
) -> None:
    base = tiny.load("bert", normalize=True)
    model = shift_model(base) if shift else base
    # A random model learns little that holds for other pairs, so the dev set is some of the same. Words in common,
    # which it goes by before it has learnt anything, make a pair unlike here.
    train = labelled_pairs(rng, 160)
    train = replace(train, similarity=1.0 - train.similarity)
    dev = LabelledPairs(train.a[:60], train.b[:60], train.similarity[:60])
    recipe = replace(RECIPE, epochs=5, learning_rate=5e-3, keep="best", seed=rng.randrange(99))
    state = make(model, train, dev, recipe).run()
    assert [one.epoch for one in state.epochs] == list(range(6))
    assert state.best is not None
    assert state.before is not None
    assert state.best.spearman == max(one.spearman for one in state.epochs[1:] if one.spearman is not None)
    assert state.best.spearman > state.before
    kept = evaluator_of(dev, "cosine")(model)["spearman_cosine"]
    assert kept == pytest.approx(state.best.spearman, abs=1e-9), "the model is not that of the best epoch"


def test_a_step_follows_the_recipe(tiny: TinyModels, rng: random.Random, make: Make) -> None:
    """The loss is the mean square of cosine less label; gradients are clipped, and AdamW's rate warms up and falls."""
    train = labelled_pairs(rng, 24)
    base = tiny.load("bert")
    base.eval()
    losses: dict[int, float] = {}
    recipe = replace(RECIPE, epochs=5, warmup=0.2)
    trainer = make(base, train, None, recipe, report=lambda state: losses.setdefault(state.step, state.loss))
    first = next(iter(trainer.batches))
    a, b = (torch.tensor(base.encode([texts[row] for row in first])) for texts in (train.a, train.b))
    wanted = float((F.cosine_similarity(a, b) - torch.tensor(train.similarity[first])).square().mean())
    for module in base.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    rates: list[float] = []
    optimizer = trainer.create_optimizer()
    step = optimizer.step
    optimizer.step = lambda *args, **kwargs: (rates.append(optimizer.param_groups[0]["lr"]), step(*args, **kwargs))[1]
    trainer.run()
    assert losses[1] == pytest.approx(wanted, rel=1e-4)
    rising, all_steps = 3, 15
    assert rates == pytest.approx(
        [1e-3 * min((k + 1) / rising, (all_steps - k) / (all_steps - rising)) for k in range(all_steps)]
    )
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0, 0.01]


def test_a_training_cut_at_any_step_ends_as_an_undisturbed_one(
    tiny: TinyModels, rng: random.Random, make: Make
) -> None:
    """The order of batches, dropout, the optimiser and the learning rate all go on where they were."""
    train = labelled_pairs(rng, 40)
    base = shift_model(tiny.load("bert"))
    whole = make(copy.deepcopy(base), train, None, RECIPE)
    whole_state = whole.run()
    cut = rng.randrange(2, whole_state.steps)

    class KilledError(Exception):
        pass

    def kill(state: Any) -> None:
        if state.step == cut:
            raise KilledError

    # Saved after every step, and killed before the one at the cut is.
    with pytest.raises(KilledError):
        make(copy.deepcopy(base), train, None, RECIPE, folder="cut", save_seconds=0.0, report=kill).run()
    torch.manual_seed(rng.randrange(999))  # whatever the new process drew
    second = make(copy.deepcopy(base), train, None, RECIPE, folder="cut")
    assert second.checkpoint is not None
    assert second.checkpoint.name == f"checkpoint-{cut - 1}"
    state = second.run()
    assert torch.equal(weights(second.model), weights(whole.model))
    assert [one.loss for one in state.epochs] == pytest.approx([one.loss for one in whole_state.epochs], rel=1e-6)
    assert state.steps_now == state.steps - cut + 1


def test_a_checkpoint_that_is_half_written_is_passed_over(tiny: TinyModels, rng: random.Random, make: Make) -> None:
    train = labelled_pairs(rng, 16)
    base = shift_model(tiny.load("bert"))
    make(copy.deepcopy(base), train, None, RECIPE, folder="one").run()
    half = make(copy.deepcopy(base), train, None, RECIPE, folder="one").checkpoint
    assert half is not None
    assert half.name == "checkpoint-4"
    (half / "trainer_state.json").write_text('{"epoch": 1.')
    again = make(copy.deepcopy(base), train, None, RECIPE, folder="one").checkpoint
    assert again is not None
    assert again.name == "checkpoint-2"


@pytest.mark.parametrize("pairs", [7, 2])
def test_workers_that_share_a_batch_make_the_step_of_one(
    tiny: TinyModels, rng: random.Random, make: Make, pairs: int
) -> None:
    """Each takes a share, also of an odd batch, or of one with fewer pairs than workers; the mean of their gradients is
    that of the whole, dropout included."""
    train = labelled_pairs(rng, pairs)
    # Two texts that are equal have a cosine of 1, which nothing changes.
    train = replace(train, b=train.b[::-1])
    base = shift_model(tiny.load("bert"))

    def gradients(rank: int, world: int) -> torch.Tensor:
        trainer = make(copy.deepcopy(base), train, None, replace(RECIPE, batch=7), rank=rank, world=world)
        inputs = next(iter(trainer.get_train_dataloader()))
        torch.manual_seed(3)
        trainer.model.train()
        trainer.compute_loss(trainer.model, inputs).backward()
        return torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])

    whole = gradients(0, 1)
    shares = torch.stack([gradients(rank, 3) for rank in range(3)]).mean(0)
    torch.testing.assert_close(shares, whole, atol=1e-4 * float(whole.abs().max()), rtol=1e-3)


def test_epochs_take_every_pair_once_in_another_order(rng: random.Random) -> None:
    lengths = np.array([[rng.randint(5, 60), 5] for _ in range(rng.randrange(50, 3000))])
    sampler = LikeLengths(lengths, 16, seed=3)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    for one in (first, second):
        assert sorted(np.concatenate(one)) == list(range(len(lengths)))
        assert len(one) == len(sampler)
    assert first != second
    assert first == list(LikeLengths(lengths, 16, seed=3))


def test_the_trainer_takes_the_batches_of_every_epoch(
    tiny: TinyModels, rng: random.Random, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch a loader that never learns which epoch it is, and repeats the first one's order."""
    taken: list[list[list[int]]] = []
    plain = LikeLengths.__iter__

    def noted(self: LikeLengths) -> Any:
        batches = list(plain(self))
        taken.append(batches)
        return iter(batches)

    monkeypatch.setattr(LikeLengths, "__iter__", noted)
    trainer = make(tiny.load("bert"), labelled_pairs(rng, 40), None, RECIPE)
    assert isinstance(trainer.batches, DefaultBatchSampler)
    trainer.run()
    wanted = []
    for epoch in range(2):
        trainer.batches.set_epoch(epoch)
        wanted.append(list(plain(trainer.batches)))
    assert taken == wanted


def test_batches_hold_texts_of_like_length(rng: random.Random) -> None:
    lengths = np.array([[rng.randint(5, 60)] * 2 for _ in range(2048)])
    padded = sum(len(rows) * lengths[rows, 0].max() for rows in LikeLengths(lengths, 16, seed=0))
    assert padded < 1.05 * lengths[:, 0].sum()


def test_the_dot_loss_learns_dot_products(tiny: TinyModels, rng: random.Random, make: Make) -> None:
    """Embeddings grow or shrink to it; under cosine their length would not matter."""
    model = shift_model(tiny.load("bert"))
    train = labelled_pairs(rng, 64)

    def mean_square() -> float:
        a, b = (torch.tensor(model.encode(list(side))) for side in (train.a, train.b))
        return float(((a * b).sum(1) - torch.tensor(train.similarity)).square().mean())

    before = mean_square()
    make(model, train, None, replace(RECIPE, loss="dot", batch=4, epochs=4, learning_rate=2e-3)).run()
    assert mean_square() < 0.8 * before


def test_training_reads_the_prompt_that_encode_reads(
    tiny: TinyModels, rng: random.Random, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.load("bert", prompts={"query": "question: "})
    model.default_prompt_name = "query"
    seen: set[str | None] = set()
    plain = SentenceTransformer.preprocess

    def noted(self: Any, inputs: Any, prompt: str | None = None, **kwargs: Any) -> Any:
        seen.add(prompt)
        return plain(self, inputs, prompt=prompt, **kwargs)

    trainer = make(model, labelled_pairs(rng, 8), None, RECIPE)
    monkeypatch.setattr(trainer.data_collator, "preprocess_fn", noted.__get__(model))
    next(iter(trainer.get_train_dataloader()))
    assert seen == {"question: "}


def test_a_dev_set_without_a_correlation_stops_with_an_error(tiny: TinyModels, rng: random.Random, make: Make) -> None:
    """A model that embeds all texts alike has no best epoch."""
    same = LabelledPairs(["a dog"] * 3, ["a cat"] * 3, np.array([0.1, 0.5, 0.9]))
    with pytest.raises(SettingError, match="equally similar"):
        make(tiny.load("bert"), labelled_pairs(rng, 8), same, replace(RECIPE, keep="best", epochs=1)).run()


def test_the_best_epoch_needs_a_dev_set(tiny: TinyModels, make: Make) -> None:
    with pytest.raises(SettingError, match="dev set"):
        make(tiny.load("bert"), LabelledPairs(["a"], ["b"], np.ones(1)), None, Recipe())


def test_a_missing_library_is_named_with_what_installs_it(
    tiny: TinyModels, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe_module, "find_spec", lambda name: None if name == "accelerate" else object())
    with pytest.raises(SettingError, match=r"accelerate and datasets: pip install 'tokenpair\[train\]'"):
        make(tiny.load("bert"), LabelledPairs(["a"], ["b"], np.ones(1)), None, RECIPE)


def test_training_that_diverges_stops_with_an_error(tiny: TinyModels, rng: random.Random, make: Make) -> None:
    """Would catch a model without a number in it that is saved as trained."""
    model = tiny.load("bert")

    def spoil(state: Any) -> None:
        if state.step == 1:
            next(model.parameters()).data.fill_(float("nan"))

    recipe = Recipe(keep="last", batch=4, epochs=2, learning_rate=0.5)
    trainer = make(model, labelled_pairs(rng, 8), None, recipe, report=spoil)
    with pytest.raises(SettingError, match=r"step 2: training diverged; try a smaller learning_rate than 0\.5"):
        trainer.run()
