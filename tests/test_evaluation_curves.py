"""Orders and curves of an evaluation: texts change as they should, and a model whose right answer is known."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_runs import tiny_row, tiny_run
from pair_runs import Row, attributed, cut_text, words, write_pairs
from tiny_models import TinyModels

from attribution_core.results import ExplainedText, PairAttribution
from jobs.analysis.faithfulness.curves import area, measure, measures_of, prepare, shares_of
from jobs.analysis.faithfulness.judge import Judge
from jobs.analysis.faithfulness.orders import (
    ATTRIBUTIONS,
    METHODS,
    SHUFFLED,
    Scored,
    of_attributions,
    of_identical_words,
    shuffled,
)
from jobs.analysis.faithfulness.perturbation import Side, deletions, insertions, word_counts
from jobs.analysis.faithfulness.result import advantages_of
from jobs.analysis.faithfulness.scores import Scores

CHANCE = np.random.default_rng(0)


class BagOfWords:
    """A judge of which everything is known: a text's embedding is the sum of its words' weights, one axis a word."""

    similarity = "dot"

    def __init__(self, weights: dict[str, float]) -> None:
        self.weights = weights

    def embed(self, texts: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Any]:
        axes = list(self.weights)
        return {
            (role, text): np.array([self.weights[axis] * text.split().count(axis) for axis in axes])
            for role, text in texts
        }

    def word_vectors(self, side: Side, role: str) -> Any:
        return np.eye(len(side), 16)


def bag_pair(weights: dict[str, float], a: ExplainedText, b: ExplainedText) -> PairAttribution:
    """The exact attribution of a bag of words: only equal words meet."""
    inner = [[weights[x] * weights[y] * (x == y) for y in b.text.split()] for x in a.text.split()]
    pair = attributed(a, b, inner)
    return PairAttribution(**{**vars(pair), "pair_id": "p"})


def test_deleted_words_leave_no_doubled_space_and_no_unread_text() -> None:
    side = Side.of(cut_text("A red, red rose", ["A", "red", ",", "red", "rose"]))
    assert side.without([1]) == "A , red rose"
    assert side.without([3]) == "A red, rose"
    assert side.without([0, 4]) == "red, red"
    assert side.without([1, 2, 3]) == "A rose"
    assert side.without([]) == "A red, red rose"
    assert side.without(range(5)) == ""
    cut = words("one two three four")
    read = ExplainedText(**{**vars(cut), "groups": words("one two").groups, "truncated": True, "cut_at": 7})
    assert Side.of(read).without([0]) == "two"


def test_deletion_and_insertion_go_from_whole_to_empty_and_back(rng: random.Random) -> None:
    side = Side.of(words("a b c d e f g"))
    order = np.array(rng.sample(range(7), 7))
    gone, come = deletions(side, order, 5), insertions(side, order, 5)
    assert (gone[0], gone[-1], come[0], come[-1]) == (side.text, "", "", side.text)
    assert word_counts(7, 5).tolist() == [0, 2, 3, 5, 6, 7]
    for left, there in zip(gone, come, strict=True):
        assert sorted(left.split() + there.split()) == list("abcdefg")
    kept, begun = deletions(side, order, 5, left=1), insertions(side, order, 5, left=1)
    assert (kept[:-1], kept[-1]) == (gone[:-1], "abcdefg"[order[-1]])
    assert (begun[1:], begun[0]) == (come[1:], "abcdefg"[order[0]])
    assert word_counts(10, 3, 0.3).tolist() == [0, 1, 2, 3]
    assert deletions(side, order, 2, share=0.5) == [side.text, side.without(order[:2]), side.without(order[:4])]


def test_most_positive_pairs_go_first_and_unknown_cells_lie_between() -> None:
    """Of the words without a stored positive cell their exact sums decide; a stored negative cell helps nobody."""
    nan = np.nan
    cells = np.array([[nan, 0.5], [0.9, nan], [nan, nan], [nan, -0.8]])
    scored = Scored(cells, np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.0, 1.0]))
    order_a, order_b = scored.orders("pairs", CHANCE)
    assert order_a.tolist() == [1, 0, 3, 2]
    assert order_b.tolist() == [0, 1]
    assert scored.orders("words", CHANCE)[0].tolist() == [3, 2, 1, 0]


def test_orders_of_a_run_of_strongest_cells_are_those_of_whole_matrices(tmp_path: Path, rng: random.Random) -> None:
    """Words' order always; pairs' order where the strongest cells are enough to know it."""
    a, b = words("a b c d"), words("e f g")
    inner = np.random.default_rng(rng.randrange(1 << 30)).normal(0, 1, (4, 3)) + 1
    row = Row("p", attributed(a, b, inner))
    found = []
    for store, top_k in (("full", 1), ("top", 12), ("top", 3)):
        run = write_pairs(tmp_path / f"{store}{top_k}", [[row]], store=store, top_k=top_k)
        found.append(of_attributions(run.pair("p"), Side.of(a), Side.of(b)))
    for scored in found:
        for level in ("words", "pairs") if scored is not found[2] else ("words",):
            for order, direct in zip(scored.orders(level, CHANCE), found[0].orders(level, CHANCE), strict=True):
                assert order.tolist() == direct.tolist()
    assert np.isnan(found[2].cells).sum() == 9


def test_shuffling_keeps_the_values_and_identical_words_ignore_case() -> None:
    scored = Scored(np.arange(12.0).reshape(4, 3), np.arange(4.0), np.arange(3.0))
    moved = shuffled(scored, np.random.default_rng(1))
    assert sorted(moved.cells.ravel()) == sorted(scored.cells.ravel())
    assert not np.array_equal(moved.cells, scored.cells)
    same = of_identical_words(Side.of(words("The cat sat")), Side.of(words("a CAT")))
    assert same.cells.tolist() == [[0, 0], [0, 1], [0, 0]]


def test_exact_attributions_are_the_best_order_of_a_model_that_is_known(rng: random.Random) -> None:
    """A bag of words: no order of the words of a lowers or raises the score faster than the attributions' own."""
    weights = {name: rng.uniform(0.5, 3) for name in ("p", "q", "r", "s", "t", "u")}
    a, b = words("p q r s"), words("s q r t u")
    judge: Any = BagOfWords(weights)
    pair = bag_pair(weights, a, b)
    ready = prepare(pair, "a", judge, steps=4, orders=2, seed=rng.randrange(1 << 30))
    curves = measure(ready, Scores(judge.embed(ready.texts()), "dot"))
    m = METHODS.index(ATTRIBUTIONS)
    side = Side.of(a)
    whole = np.array([weights[w] * b.text.split().count(w) for w in weights])
    areas = {"deletion": [], "insertion": []}  # type: ignore[var-annotated]
    for order in itertools.permutations(range(4)):
        for operation, change in (("deletion", deletions), ("insertion", insertions)):
            texts = change(side, np.array(order), 4)
            embedded = judge.embed([("text", text) for text in texts])
            areas[operation].append(float(area(np.array([embedded["text", text] @ whole for text in texts]))))
    own = dict(zip(measures_of("score"), curves.areas()[m], strict=True))
    assert own["words of a", "deletion"] == pytest.approx(min(areas["deletion"]))
    assert own["words of a", "insertion"] == pytest.approx(max(areas["insertion"]))
    assert min(areas["deletion"]) < max(areas["deletion"])


def test_shuffled_attributions_are_centred_on_random_order(rng: random.Random) -> None:
    """Over many pairs of a known model: exact attributions far above random order, the same ones shuffled at it."""
    known = [f"w{at}" for at in range(10)]
    gained = []
    for at in range(200):
        weights = {name: rng.uniform(0.2, 3) for name in known}
        pair = bag_pair(weights, words(" ".join(rng.sample(known, 5))), words(" ".join(rng.sample(known, 7))))
        judge: Any = BagOfWords(weights)
        pair = PairAttribution(**{**vars(pair), "pair_id": str(at)})
        ready = prepare(pair, "a", judge, steps=4, orders=1, seed=rng.randrange(1 << 30))
        gained.append(advantages_of(measure(ready, Scores(judge.embed(ready.texts()), "dot"))))
    values = np.stack(gained)
    for method, holds in ((ATTRIBUTIONS, lambda sigmas: sigmas > 10), (SHUFFLED, lambda sigmas: np.abs(sigmas) < 5)):
        of_method = values[:, METHODS.index(method)]
        assert holds(of_method.mean(0) / (of_method.std(0) / len(values) ** 0.5)).all(), method


def test_curves_of_both_texts_end_while_most_words_are_there(tiny: TinyModels, tmp_path: Path) -> None:
    """The score, as the model gives it, without the first 30 % of the words of each text, and of these words alone, of
    which one is there from the beginning."""
    run = tiny_run(tiny, tmp_path / "run", [[tiny_row(random.Random(5), "p")]])
    judge = Judge(run)
    pair = run.pair("p")
    ready = prepare(pair, "p", judge, steps=2, orders=1, seed=0)
    curves = measure(ready, Scores(judge.embed(ready.texts()), "cosine"))
    assert measures_of(pair.sums_to)[4:] == (("both texts", "deletion"), ("both texts", "insertion"))
    assert shares_of("both texts", 2) == (0, 0.15, 0.3)
    sides = [(pair.a.text.split(), pair.row_sums[1:-1]), (pair.b.text.split(), pair.col_sums[1:-1])]
    model = tiny.load("bert", normalize=True)
    found: dict[str, list[Any]] = {"deletion": [], "insertion": []}
    for gone in (0, 1, 2):
        # Of five and of four words 15 % is one and 30 % two.
        left = [[w for at, w in enumerate(text) if at not in np.argsort(-sums)[:gone]] for text, sums in sides]
        come = [[w for at, w in enumerate(text) if at in np.argsort(-sums)[: max(gone, 1)]] for text, sums in sides]
        for operation, texts in (("deletion", left), ("insertion", come)):
            a, b = model.encode([" ".join(text) for text in texts])
            found[operation].append(float(a @ b))
    m = METHODS.index(ATTRIBUTIONS)
    np.testing.assert_allclose(curves.values[m, 4], found["deletion"], atol=1e-5)
    np.testing.assert_allclose(curves.values[m, 5], found["insertion"], atol=1e-5)
    np.testing.assert_array_equal(curves.values[:, 4:], curves.scores)


def test_curves_of_pairs_run_from_the_whole_interaction_to_none(tiny: TinyModels, tmp_path: Path) -> None:
    """Of a run of differences: ends are f(a, b) − f(a, empty) − f(empty, b) + f(empty, empty), as the model scores
    them."""
    run = tiny_run(tiny, tmp_path / "run", [[tiny_row(random.Random(5), "p")]], sums_to="difference")
    judge = Judge(run)
    pair = run.pair("p")
    ready = prepare(pair, "p", judge, steps=6, orders=1, seed=0)
    curves = measure(ready, Scores(judge.embed(ready.texts()), "cosine"))
    model = tiny.load("bert", normalize=True)
    assert measures_of(pair.sums_to)[4][0] == "pairs"
    a, b, empty = model.encode([pair.a.text, pair.b.text, ""])
    interaction = float(a @ b - a @ empty - empty @ b + empty @ empty)
    for m in range(len(METHODS)):
        deletion, insertion = curves.values[m, 4], curves.values[m, 5]
        assert (deletion[0], deletion[-1]) == pytest.approx((interaction, 0), abs=1e-5)
        assert (insertion[0], insertion[-1]) == pytest.approx((0, interaction), abs=1e-5)
        assert curves.values[m, 0, 0] == pytest.approx(float(a @ b), abs=1e-5)
        assert curves.values[m, 0, -1] == pytest.approx(float(empty @ b), abs=1e-5)
        assert curves.scores[m, 0, -1] == pytest.approx(1, abs=1e-5)
