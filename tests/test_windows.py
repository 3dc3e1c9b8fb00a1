"""Texts are cut into windows at the least cost: against every possible cut, and within what fits."""

from __future__ import annotations

import itertools
import random

import pytest

from attribution_core.directions.windows import windows


def cost(cut: list[list[int]], tokens: list[int], directions: list[int], fixed: float) -> float:
    """Padded tokens × (directions + 1) of every window, and its fixed cost."""
    return sum(
        len(window) * max(tokens[at] for at in window) * (max(directions[at] for at in window) + 1) + fixed
        for window in cut
    )


@pytest.mark.parametrize("fixed", [0.0, 30.0, 400.0, 1e9])
def test_no_other_cut_of_the_sorted_texts_costs_less(fixed: float, rng: random.Random) -> None:
    for _ in range(20):
        count = rng.randint(1, 9)
        tokens = sorted(rng.randint(1, 30) for _ in range(count))
        directions = [rng.randint(0, 20) for _ in range(count)]

        def most(length: int) -> int:
            return max(1, 90 // length)

        cut = windows([("text", 0, False)] * count, tokens, directions, most, fixed, lambda at: (at,))
        assert [at for window in cut for at in window] == list(range(count))
        possible = []
        for ends in itertools.product((False, True), repeat=count - 1):
            other: list[list[int]] = [[0]]
            for at, end in enumerate(ends, start=1):
                if end:
                    other.append([at])
                else:
                    other[-1].append(at)
            if all(len(window) <= most(max(tokens[at] for at in window)) for window in other):
                possible.append(cost(other, tokens, directions, fixed))
        assert cost(cut, tokens, directions, fixed) == min(possible)


def test_kinds_never_share_a_window(rng: random.Random) -> None:
    kinds = [(rng.choice(("query", "document")), rng.choice((0, 3)), rng.random() < 0.5) for _ in range(60)]
    cut = windows(kinds, [5] * 60, [2] * 60, lambda _: 100, 1e6, lambda at: (at,))
    assert sorted(at for window in cut for at in window) == list(range(60))
    assert all(len({kinds[at] for at in window}) == 1 for window in cut)
    assert len(cut) == len(set(kinds)), "a fixed cost so large joins all texts of a kind"


def test_one_long_text_among_short_ones_is_by_itself() -> None:
    tokens = [10] * 50 + [4000]
    cut = windows([("text", 0, False)] * 51, tokens, tokens, lambda n: max(1, 4096 // n), 500.0, lambda at: (at,))
    assert cut[-1] == [50]
    assert len(cut) == 2
