"""The choice of ways as a pure function of sizes."""

from __future__ import annotations

import random

import pytest

from attribution_core.directions.cost import TextLoad, choose_ways, flops
from attribution_core.memory import LayerShape


def test_a_document_goes_through_its_short_query() -> None:
    """10 directions instead of 150; the query keeps a way of its own."""
    assert choose_ways([TextLoad(12, 10), TextLoad(200, 150)], [(0, 1)], 384) == ["forward", "partner"]


def test_a_document_of_many_queries_keeps_its_own_way() -> None:
    """Twenty queries of ten words are more directions than its 150 words."""
    loads = [TextLoad(200, 150), *[TextLoad(12, 10)] * 20]
    assert choose_ways(loads, [(0, query) for query in range(1, 21)], 384)[0] == "forward"


def test_a_text_of_more_groups_than_coordinates_is_pulled_back_whole() -> None:
    """With D = 32 a text of 200 tokens takes 32 cotangents, not 200 tangents."""
    assert choose_ways([TextLoad(200, 200), TextLoad(210, 190)], [(0, 1)], 32) == ["reverse", "reverse"]


def test_a_text_paired_with_itself_has_a_way_of_its_own() -> None:
    """Its contributions are needed to pull back along."""
    assert choose_ways([TextLoad(9, 7)], [(0, 0)], 384) == ["forward"]


@pytest.mark.parametrize("asked", ["auto", "partner", "forward", "reverse"])
def test_two_partners_never_wait_for_each_other(asked: str, rng: random.Random) -> None:
    """A text explained through its partners needs their contributions."""
    for _ in range(50):
        loads = [TextLoad(rng.randint(3, 300), rng.randint(1, 250)) for _ in range(20)]
        pairs = [(rng.randrange(20), rng.randrange(20)) for _ in range(rng.randint(1, 60))]
        ways = choose_ways(loads, pairs, 384, asked)
        assert all(ways[i] != "partner" or ways[j] != "partner" for i, j in pairs)
        if asked in ("forward", "reverse"):
            assert set(ways) == {asked}


def test_work_counts_the_products_of_the_structured_pass() -> None:
    """34 d² for each token and direction two layers below the top, beside attention."""
    shape = LayerShape(d=384, inner=1536, heads=12, layers=2, bytes=4)
    one = flops(shape, tokens=1, nodes=1, directions=1001) - flops(shape, tokens=1, nodes=1, directions=1)
    assert one / 1000 == pytest.approx(34 * 384**2, rel=0.01)
