"""Evaluating runs of late-interaction models: MaxSim with matches searched anew, and the rules to beat."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from late_models import FIXED, late_folder
from pair_runs import Row, attributed, words, write_pairs
from sentence_transformers import MultiVectorEncoder
from test_verdict import LESS, NONE, YES, judged
from tiny_models import WORDS, TinyModels

from jobs.analysis.faithfulness.agreement import AGREEMENTS, SPEARMAN, WORDS_A, WORDS_B, Gold
from jobs.analysis.faithfulness.evaluate import evaluate_run
from jobs.analysis.faithfulness.judge import Judge
from jobs.analysis.faithfulness.orders import LATE_RULES, MARGINS, MATCHED, of_matches
from jobs.analysis.faithfulness.perturbation import Side
from jobs.analysis.faithfulness.scores import Scores
from jobs.analysis.faithfulness.shapley import Game
from jobs.run.reader import Run
from jobs.views.faithfulness.figure import faithfulness_figure
from jobs.views.report.faithfulness import sections

PLAIN = [word for word in WORDS if "'" not in word]


def late_run(tiny: TinyModels, place: Path, pairs: int, similarity: str = "maxsim", **model: object) -> Run:
    """A run of a tiny late-interaction model with attributions by chance."""
    rng = random.Random(3)
    rows = []
    for at in range(pairs):
        a, b = (words(" ".join(rng.sample(PLAIN, count)), role) for role, count in (("query", 3), ("document", 4)))
        rows.append(Row(f"p{at}", attributed(a, b, np.random.default_rng(at).normal(0, 1, (3, 4)))))
    folder = late_folder(tiny, similarity=similarity, **model)  # type: ignore[arg-type]
    settings = {"model": str(folder), "similarity": similarity, "mode": "retrieval", "sums_to": "score"}
    return write_pairs(place, [rows], store="full", **settings)


@pytest.mark.parametrize("similarity", ["maxsim", "meanmaxsim"])
def test_texts_are_scored_as_the_model_scores_them(tiny: TinyModels, tmp_path: Path, similarity: str) -> None:
    """With its prompts, expansion and skip list, texts of different lengths and an empty one."""
    run = late_run(tiny, tmp_path / "run", 1, similarity, expansion=FIXED)
    judge = Judge(run)
    queries, documents = ["red dog", "", "good ball , walking"], ["good red , ball .", "", "river"]
    keys = [("query", text) for text in queries], [("document", text) for text in documents]
    scores = Scores(judge.embed([*keys[0], *keys[1]]), judge.similarity)
    model = MultiVectorEncoder(str(run.setting("model")), device="cpu")
    a, b = model.encode_query(queries), model.encode_document(documents)
    np.testing.assert_allclose(scores.table(*keys), model.similarity(a, b), atol=1e-5)
    np.testing.assert_allclose(scores.paired(*keys), model.similarity_pairwise(a, b), atol=1e-5)
    assert judge.similarity == similarity


def test_matches_and_margins_are_summed_over_words() -> None:
    """Two words a text; the second word of b has two tokens, and the first token of each text is of no word."""
    a_TD = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0], [0.0, 0.9, 0.2]])
    b_TD = np.array([[0, 0, 0.5], [0.6, 0.2, 0], [0.1, 0.8, 0.7], [0.5, 0.7, 0]])
    matched, margins = of_matches(a_TD, b_TD, np.array([-1, 0, 1, 1]), np.array([-1, 0, 1, 1]), (2, 2))
    # Similarities: [.5 0 .7 0], [0 .6 .1 .5], [0 .2 .8 .7], [.1 .18 .86 .63]: the best are .7, .6, .8 and .86.
    np.testing.assert_allclose(matched.a, [0.6, 1.66])
    np.testing.assert_allclose(matched.b, [0.6, 0.7 + 0.8 + 0.86])
    np.testing.assert_allclose(matched.cells, [[0.6, 0], [0, 1.66]])
    # The next best tokens of other words are .5 (no word), .5, .2 and .18.
    np.testing.assert_allclose(margins.a, matched.a)
    np.testing.assert_allclose(margins.b, [0.1, 0.2 + 0.6 + 0.68])
    np.testing.assert_allclose(margins.cells, [[0.1, 0], [0, 1.28]])


def test_the_words_of_output_tokens_are_those_that_they_stand_in(tiny: TinyModels, tmp_path: Path) -> None:
    """Prompts, [MASK] and special tokens are of no word; a skipped token has no output."""
    judge = Judge(late_run(tiny, tmp_path / "run", 1, expansion=FIXED))
    a, b = Side.of(words("red dog ,", "query")), Side.of(words("good ball , red", "document"))
    scores = Scores(judge.embed([("query", a.text), ("document", b.text)]), "maxsim")
    matched, margins = judge.matches(a, b, ("query", "document"))
    score = scores.table([("query", a.text)], [("document", b.text)])[0, 0]
    assert 0 < len(a) < 12 == len(scores.embeddings["query", a.text])
    assert (matched.a != 0).all()
    assert matched.a.sum() < score
    assert (matched.b[2], margins.b[2]) == (0, 0)
    assert (margins.b <= matched.b).all()


def test_shapley_values_from_scores_are_those_from_embeddings_where_both_exist() -> None:
    """A product of two embeddings, so that the words of both texts at once are known, too."""
    chance = np.random.default_rng(1)
    axes = {word: chance.normal(size=6) for word in "p q r s t".split()}  # noqa: SIM905

    def embed(text: str) -> np.ndarray:
        return np.tanh(sum((axes[word] for word in text.split()), np.zeros(6)))

    keys = ("text", "p q r s"), ("text", "s q t")
    games = [Game.of(Side.of(words(text)), "text", orders=4, seed=0) for _, text in keys]
    embeddings = {key: embed(key[1]) for game in games for key in (*game.needed(), *keys)}
    vectors = [game.vectors(embeddings) for game in games]
    whole = [embeddings[key] for key in keys]
    direct = Gold.of(games[0].parts, games[1].parts, vectors[0], vectors[1], *whole)
    norm = np.linalg.norm(whole[0]) * np.linalg.norm(whole[1])
    found = Gold.of_scores(games[0], games[1], keys, Scores(embeddings, "dot"), pairs=True)
    for name in ("a", "b", "cells"):
        np.testing.assert_allclose(getattr(found, name), getattr(direct, name) * norm, atol=1e-12)
    assert np.isnan(Gold.of_scores(games[0], games[1], keys, Scores(embeddings, "dot"), pairs=False).cells).all()


def test_a_late_run_is_evaluated_with_the_rules_of_late_interaction(tiny: TinyModels, tmp_path: Path) -> None:
    run = late_run(tiny, tmp_path / "run", 7)
    found = evaluate_run(run, steps=2, orders=1, shapley=2)
    assert (found.pairs, found.similarity, found.rules) == (7, "maxsim", LATE_RULES)
    shown = str(found)
    for said in (
        "words that sum to the score, and word pairs by their interactions",
        "matched",
        "margins",
        "words of b, ranks",
        "what the score",
        "word pairs, ranks",
    ):
        assert said in shown, said
    assert max(map(len, str(found).splitlines())) <= 110
    assert "embeddings" not in shown
    lead = found.lead(WORDS_B, SPEARMAN, MATCHED)
    own = [dict(zip(AGREEMENTS, one.agreement.T, strict=True))[WORDS_B, SPEARMAN] for one in found.measured]
    assert lead is not None
    assert lead.difference.mean == pytest.approx(np.mean([one[0] - one[1] for one in own]))
    assert found.agreed(WORDS_A, SPEARMAN, MARGINS) is not None
    assert found.to_table().num_rows == 7 * 6 * 5
    assert set(found.to_agreement_table()["method"].to_pylist()) == set(LATE_RULES)
    assert faithfulness_figure(found).get_figwidth() > 0
    titles = [plot["title"] for part in sections(found.to_dict()) for plot in part["plots"]]
    assert "Agreement with deletion: words of b" in titles
    model = MultiVectorEncoder(str(run.setting("model")), device="cpu")
    ends = []
    for one in found.measured:
        pair = run.pair(one.pair_id)
        ends.append(float(model.similarity(model.encode_query([pair.a.text]), model.encode_document([pair.b.text]))[0]))
    curve = found.curve(WORDS_B, "deletion", MATCHED)
    assert curve.values[0] == pytest.approx(np.mean(ends), abs=1e-4)


@pytest.mark.parametrize(
    ("margins", "grade", "said"),
    [(YES, "faithful", ""), (NONE, "faithful", "They agree as well as their margins"), (LESS, "partly", "less than")],
)
def test_the_verdict_goes_by_matched_similarities(margins: object, grade: str, said: str) -> None:
    verdict = judged(YES, margins, late=True)  # type: ignore[arg-type]
    assert verdict.grade == grade
    assert "agree with deletion better than the similarities of matched tokens" in verdict.text
    assert said in verdict.text
    assert ("margins" in verdict.text) == bool(said)
