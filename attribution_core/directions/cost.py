"""Chooses the cheapest direction (a *way*) for each text of a set of pairs: a pure function of sizes.

The work on a text is directions × nodes × tokens × (what one direction costs a token in the layers above the cut). The
last two factors are the same for every way, so ways are compared by the number of directions: groups that move
(forward), the embedding width (reverse), or the groups of all its partners (partner), each weighed by
``DIRECTION_COST``. A text explained through its partners needs their contributions, so two partners never both are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from attribution_core.memory import LayerShape

# A text is pulled back along its partners, in a round of its own behind theirs, where that saves such a share of its
# work. (The product with its own embedding is one direction more.)
WORTH_A_CALL = 0.2

Way = Literal["forward", "reverse", "partner"]

# Time of one direction relative to a forward one. All make the same products, so they count alike; no timing has
# shown yet that one should weigh more (tests/benchmarks/ways.py).
DIRECTION_COST: dict[Way, float] = {"forward": 1.0, "reverse": 1.0, "partner": 1.0}


@dataclass(frozen=True)
class TextLoad:
    """What decides the cost of one text: its tokens and the groups that move on its path."""

    tokens: int
    groups: int


def flops(shape: LayerShape, *, tokens: int, nodes: int, directions: int) -> float:
    """Floating-point operations of the matrix products for one text, structured layers and mean pooling.

    For each direction, node and token: the first layer needs no query, key and value projections, the last no second
    feed-forward projection; attention adds its products of depth ``tokens``. One more direction's worth of full
    layers is spent on the values at the nodes themselves.
    """
    d, inner = shape.d, shape.inner
    projections, mixing, feed_forward = 6.0 * d * d, 2.0 * d * d, 2.0 * d * inner
    attention = 8.0 * tokens * d
    full = projections + mixing + 2 * feed_forward + attention
    every = shape.layers * full - projections - feed_forward - attention / 2
    return nodes * tokens * (directions * every + shape.layers * full)


def choose_ways(
    loads: Sequence[TextLoad], pairs: Sequence[tuple[int, int]], width: int, asked: str = "auto"
) -> list[Way]:
    """The way of every text, given which texts (indices into ``loads``) are paired.

    Texts are taken by what the partner way would save them, largest first; a tie is broken by position. ``asked``
    forces a way on every text; for "partner" on every text that has no partner of that way already.
    """
    partners: list[set[int]] = [set() for _ in loads]
    for i, j in pairs:
        partners[i].add(j)
        partners[j].add(i)
    ways: list[Way] = []
    saved: list[tuple[float, int]] = []
    for at, load in enumerate(loads):
        forward, reverse = load.groups * DIRECTION_COST["forward"], width * DIRECTION_COST["reverse"]
        ways.append("reverse" if asked == "reverse" or (asked != "forward" and reverse < forward) else "forward")
        directions = sum(loads[other].groups for other in partners[at])
        own = min(forward, reverse)
        saving = load.tokens * (own - (directions + 1) * DIRECTION_COST["partner"] - WORTH_A_CALL * own)
        if partners[at] and at not in partners[at] and (asked == "partner" or (asked == "auto" and saving > 0)):
            saved.append((-saving, at))
    for _, at in sorted(saved):
        if all(ways[other] != "partner" for other in partners[at]):
            ways[at] = "partner"
    return ways
