"""Which rows move, and in which direction: known from tokens alone, the same as what the model's rows say."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from tiny_models import FAMILIES, TinyModels, random_text

from attribution_core import Attributor
from attribution_core.directions import Slots
from attribution_core.model.batch import TextBatch


def moving_rows(batch: TextBatch) -> np.ndarray[Any, Any]:
    """Which rows differ from their reference's, [B, S], by what the model computed."""
    return (batch.delta_BSd != 0).any(-1).numpy()


@pytest.mark.rotates(3)
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_row_moves_without_a_direction(family: str, layer: int, tiny: TinyModels, rng: random.Random) -> None:
    """A row that moved without one would be missing from every sum, such as RoBERTa's last at layer 0."""
    attributor = Attributor(tiny.load(family), layer=layer)
    texts = attributor.read([random_text(rng, rng.choice((1, 4, 9))) for _ in range(6)], attributor.roles[0])
    batch = attributor.encoder.batch([text for text in texts if text.problem is None])
    moves_BS = moving_rows(batch)
    assert moves_BS.any()
    assert not (moves_BS & (batch.moving_BS < 0)).any()


def test_slots_number_the_moving_groups_of_each_text(rng: random.Random, tiny: TinyModels) -> None:
    attributor = Attributor(tiny.load("bert"), layer=0, groups="word")
    read = attributor.read([random_text(rng, size) for size in (1, 3, 8)], "text")
    batch = attributor.encoder.batch(read)
    batch.moving_BS[:, 0] = -1
    slots = Slots.of(batch)
    groups = [sorted({g for g in own.tolist() if g >= 0}) for own in batch.moving_BS]
    assert slots.count == max(map(len, groups))
    assert not slots.same, "the first group has no direction"
    for at, own in enumerate(groups):
        of_group = slots.slot_of_BG[at].tolist()
        assert [of_group[group] for group in own] == list(range(len(own)))
        assert {of_group[group] for group in range(batch.groups) if group not in own} <= {slots.count}
        for slot, group in enumerate(own):
            tokens = np.flatnonzero(batch.moving_BS[at] == group).tolist()
            members = slots.members_BGW[at, slot].tolist()
            assert members == tokens + [batch.moving_BS.shape[1]] * (len(members) - len(tokens))
            assert np.flatnonzero(slots.slot_BS[at].numpy() == slot).tolist() == tokens
        assert (slots.members_BGW[at, len(own) :] == batch.moving_BS.shape[1]).all()


def test_a_text_of_references_has_no_direction(tiny: TinyModels) -> None:
    attributor = Attributor(tiny.load("bert"), layer=1)
    pad = attributor.encoder.tokenizer.pad_token
    read = [text for text in attributor.read([f"{pad} {pad}"], "text") if text.problem is None]
    if not read:
        pytest.skip("the tokenizer reads no token of padding")
    slots = Slots.of(attributor.encoder.batch(read))
    assert slots.count == 0
    assert slots.members_BGW.shape[:2] == (1, 0)
