"""Many pairs at once equal one pair at a time, computed the slow way in float64."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from row_tables import attribution_row, attribution_table, summarise
from row_tables import text_row as slow_text_row
from row_tables import text_table as slow_text_table
from test_completion import SUMS_TO, completed_by_hand, sample
from tiny_models import TinyModels, random_text

from attribution_core import Attributor
from attribution_core.model.encoder import ReadText
from attribution_core.pairs import products, tiles
from attribution_core.pairs.columns import PairColumns
from jobs.run.tables import attribution_table as columnar_table
from jobs.run.tables import text_table


def some_pairs(attributor: Attributor, rng: random.Random, count: int) -> tuple[list[ReadText], np.ndarray[Any, Any]]:
    """Texts of one to thirty words, some of which share words, and pairs of them, some with the same text twice."""
    texts = list(dict.fromkeys(random_text(rng, rng.choice((1, 2, 5, 9, 30))) for _ in range(count)))
    read = [text for text in attributor.read(texts, "text") if text.problem is None]
    edges = [(rng.randrange(len(read)), rng.randrange(len(read))) for _ in range(3 * count)]
    return read, np.array(edges, np.int64)


@pytest.mark.rotates(3)
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("way", ["forward", "partner"])
@pytest.mark.parametrize("sums_to", SUMS_TO)
def test_columns_equal_pairs_one_by_one(
    sums_to: str, way: str, similarity: str, tiny: TinyModels, rng: random.Random, seed: int, monkeypatch: Any
) -> None:
    """Would catch padding that counts, a cell of another pair, a transposed partner, and a lift of the wrong text."""
    # Small tiles, so that the pairs are in many.
    for module in (tiles, products):
        monkeypatch.setattr(module, "TILE_CELLS", rng.choice((64, 1024, 1 << 16)))
    model = tiny.load("bert", similarity=similarity, seed=seed % 5)
    centre = sample(rng) if sums_to == "centred" else None
    attributor = Attributor(model, layer=1, sums_to=sums_to, way=way, nodes=6, centre=centre, dtype="float64")
    read, edges = some_pairs(attributor, rng, 14)
    alone = Attributor(model, layer=1, sums_to=sums_to, way="forward", nodes=6, centre=centre, dtype="float64")
    of_text = alone.contributions(read)
    centre_D = attributor.completion.centres.get("text")
    completed = [completed_by_hand(one, sums_to, centre_D) for one in of_text]
    whole = [completed_by_hand(one, "score") for one in of_text]
    columns, defined = attributor.pair_columns(read, edges, top_k=7, cells=True)
    assert defined.tolist() == list(range(len(edges)))
    for at, (i, j) in enumerate(edges.tolist()):
        a, b = of_text[i], of_text[j]
        e_a, e_b, r_a, r_b = (
            v.astype(np.float64) for v in (a.embedding_D, b.embedding_D, a.reference_D, b.reference_D)
        )
        norm = float(np.linalg.norm(e_a) * np.linalg.norm(e_b)) if similarity == "cosine" else 1.0
        matrix = completed[i] @ completed[j].T / norm
        pair = columns.pair(at)
        close = {"rtol": 0, "atol": 1e-6 * max(1.0, float(np.abs(matrix).max()))}
        np.testing.assert_allclose(pair.matrix, matrix, **close)
        np.testing.assert_allclose(pair.row_sums, matrix.sum(1), **close)
        np.testing.assert_allclose(pair.col_sums, matrix.sum(0), **close)
        terms = [pair.score, pair.reference_a, pair.reference_b, pair.reference_ab, pair.total]
        expected = [e_a @ e_b / norm, e_a @ r_b / norm, r_a @ e_b / norm, r_a @ r_b / norm, matrix.sum()]
        np.testing.assert_allclose(terms, expected, **close)
        if similarity == "cosine":
            assert pair.row_lift is not None
            assert pair.col_lift is not None
            score = e_a @ e_b / norm
            np.testing.assert_allclose(pair.row_lift, whole[i] @ (e_b / norm - score * e_a / (e_a @ e_a)), **close)
            np.testing.assert_allclose(pair.col_lift, whole[j] @ (e_a / norm - score * e_b / (e_b @ e_b)), **close)
        else:
            assert pair.row_lift is None
    check_sums(columns, 7)


def check_sums(columns: PairColumns, top_k: int) -> None:
    """The sums and strongest cells of every pair are those of its matrix."""
    for at in range(len(columns)):
        slow = summarise(columns.pair(at), top_k)
        for name in ("positive", "negative", "special", "exact"):
            assert getattr(columns, name)[at] == pytest.approx(getattr(slow, name), abs=1e-6), name
        assert columns.largest is not None
        np.testing.assert_allclose(columns.largest[at], slow.largest, rtol=0, atol=1e-9)
        assert columns.top_i is not None
        assert columns.top_j is not None
        assert columns.top_value is not None
        found = zip(columns.top_i[at].tolist(), columns.top_j[at].tolist(), columns.top_value[at].tolist(), strict=True)
        assert list(found) == [(cell.i, cell.j, np.float32(cell.value)) for cell in slow.top]


@pytest.mark.parametrize("top_k", [0, 1, 32, 10_000])
def test_any_number_of_strongest_cells(top_k: int, tiny: TinyModels, rng: random.Random) -> None:
    """None, one, more than some pairs have, and more than any has."""
    attributor = Attributor(tiny.load("bert"), layer=1, nodes=4)
    columns, _ = attributor.pair_columns(*some_pairs(attributor, rng, 8), top_k=top_k, cells=True)
    check_sums(columns, top_k)


@pytest.mark.parametrize("store", ["top", "full"])
def test_tables_equal_those_made_row_by_row(store: str, tiny: TinyModels, rng: random.Random) -> None:
    """Would catch an offset of one column in another, a label of another text, and a null where a value is."""
    attributor = Attributor(tiny.load("bert"), layer=1, nodes=4)
    read, edges = some_pairs(attributor, rng, 10)
    columns, _ = attributor.pair_columns(read, edges, top_k=5, cells=True)
    ids = [
        {"pair_id": f"p{at}", "text_a_id": f"t{i}", "text_b_id": f"t{j}"} for at, (i, j) in enumerate(edges.tolist())
    ]
    rows = []
    for at, own in enumerate(ids):
        pair = columns.pair(at)
        rows.append(attribution_row(pair, summarise(pair, 5), store=store, **own))
    slow = attribution_table(rows, store=store)
    fast = columnar_table(columns, slow.select(["pair_id", "text_a_id", "text_b_id"]), store)
    assert fast.schema == slow.schema
    exact = [name for name in slow.schema.names if name not in ("positive", "negative", "special", "exact", "largest")]
    assert fast.select(exact).equals(slow.select(exact))
    names = [f"t{at}" for at in range(len(read))]
    slow_texts = slow_text_table(
        [slow_text_row(one.explained, name) for one, name in zip(columns.texts, names, strict=True)]
    )
    assert text_table(columns.texts, names).equals(slow_texts)


def test_no_pairs_are_an_empty_table(tiny: TinyModels) -> None:
    """A shard may reject every pair."""
    attributor = Attributor(tiny.load("bert"), layer=1, nodes=4)
    columns, defined = attributor.pair_columns([], np.zeros((0, 2), np.int64), top_k=5, cells=True)
    assert (len(columns), len(defined)) == (0, 0)
    empty = attribution_table([], store="full")
    assert columnar_table(columns, empty.select(["pair_id", "text_a_id", "text_b_id"]), "full").equals(empty)
    assert text_table([], []).equals(slow_text_table([]))


def test_a_pair_that_is_refined_changes_no_other(tiny: TinyModels, rng: random.Random) -> None:
    """It is computed again by itself and put in its place; its own row carries the larger number of nodes."""
    model = tiny.load("bert", seed=3)
    coarse = Attributor(model, layer=0, tolerance=0.3, pair_tolerance=1e9)
    fine = Attributor(model, layer=0, tolerance=0.3, pair_tolerance=1e-3)
    read, edges = some_pairs(coarse, rng, 10)
    before, _ = coarse.pair_columns(read, edges, top_k=5, cells=True)
    after, _ = fine.pair_columns(read, edges, top_k=5, cells=True)
    over = np.abs(before.error) > 1e-3
    assert over.any()
    assert sorted(after.again) == np.flatnonzero(over).tolist()
    for at in np.flatnonzero(~over).tolist():
        np.testing.assert_allclose(after.pair(at).matrix, before.pair(at).matrix, rtol=0, atol=1e-5)
    for at in np.flatnonzero(over).tolist():
        assert abs(after.error[at]) < abs(before.error[at])
        assert after.pair(at).a.nodes >= before.pair(at).a.nodes
    check_sums(after, 5)
