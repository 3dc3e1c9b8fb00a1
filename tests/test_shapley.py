"""The gold standard of an evaluation: Shapley values by deletion are what they are by definition."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pair_runs import words
from scipy.stats import pearsonr, spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tiny_models import TOKENIZERS, WORDS, TinyModels

from attribution_core.model.encoder import Encoder
from attribution_core.model.factory import make_encoder
from jobs.analysis.faithfulness.agreement import AGREEMENTS, Gold, agreements, summarise_agreement
from jobs.analysis.faithfulness.judge import raw_embeddings
from jobs.analysis.faithfulness.orders import RULES, Scored
from jobs.analysis.faithfulness.perturbation import Side
from jobs.analysis.faithfulness.scores import units
from jobs.analysis.faithfulness.shapley import MOST_PARTS, Game, orders_of, parts_of, summed

PLAIN = [word for word in WORDS if "'" not in word]


def embeddings_of(encoder: Encoder, texts: set[tuple[str, str]]) -> dict[tuple[str, str], Any]:
    keys = sorted(texts)
    return dict(zip(keys, raw_embeddings(encoder, "text", [text for _, text in keys]), strict=True))


def by_definition(model: SentenceTransformer, text: str) -> Any:
    """φ_i = Σ_S |S|! (n − |S| − 1)! / n! (e(S and i) − e(S)) over all sets S of the other words, [n, D]."""
    pieces = text.split()
    n = len(pieces)
    sets = [frozenset(s) for size in range(n + 1) for s in itertools.combinations(range(n), size)]
    texts = [" ".join(piece for at, piece in enumerate(pieces) if at in s) for s in sets]
    e = dict(zip(sets, np.asarray(model.encode(texts), np.float64), strict=True))
    found = np.zeros((n, len(e[sets[0]])))
    for i, s in itertools.product(range(n), sets):
        if i not in s:
            weight = math.factorial(len(s)) * math.factorial(n - len(s) - 1) / math.factorial(n)
            found[i] += weight * (e[s | {i}] - e[s])
    return found


@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_all_orders_give_the_shapley_values_by_definition(tiny: TinyModels, rng: random.Random, family: str) -> None:
    """Would catch an order applied to the wrong words, or a wrong text for a set of words."""
    text = " ".join(rng.sample(PLAIN, 4))
    model = tiny.load(family)
    game = Game.of(Side.of(words(text)), "text", orders=24, seed=0)
    assert len(game.orders) == 24
    found = game.vectors(embeddings_of(make_encoder(model, role="text"), game.needed()))
    np.testing.assert_allclose(found, by_definition(model, text), atol=2e-5 * float(np.abs(found).max() + 1))


def test_sampled_orders_are_centred_on_the_shapley_values(tiny: TinyModels, rng: random.Random) -> None:
    """Over many seeds, each with one order and its reverse; would catch a reverse that is none."""
    text = " ".join(rng.sample(PLAIN, 5))
    model = tiny.load("bert")
    side = Side.of(words(text))
    everything = Game.of(side, "text", orders=120, seed=0)
    embedded = embeddings_of(make_encoder(model, role="text"), everything.needed())
    drawn = np.array([Game.of(side, "text", orders=2, seed=seed).vectors(embedded) for seed in range(400)])
    error = drawn.mean(0) - everything.vectors(embedded)
    sigma = drawn.std(0) / len(drawn) ** 0.5
    assert (np.abs(error) < 5.5 * sigma + 1e-6).all()
    assert sigma.max() > 1e-3, "the draws do not differ"


@pytest.mark.parametrize("orders", [1, 2, 3, 7])
def test_shapley_vectors_sum_to_what_all_words_add(tiny: TinyModels, rng: random.Random, orders: int) -> None:
    """Exactly, whatever the number of orders: Σ φ = e(text) − e(no words)."""
    text = " ".join(rng.sample(PLAIN, 9))
    model = tiny.load("roberta")
    game = Game.of(Side.of(words(text)), "text", orders=orders, seed=rng.randrange(1 << 30))
    assert len(game.orders) == orders + orders % 2
    found = game.vectors(embeddings_of(make_encoder(model, role="text"), game.needed()))
    whole, nothing = np.asarray(model.encode([text, ""]), np.float64)
    np.testing.assert_allclose(found.sum(0), whole - nothing, atol=1e-4)


def test_a_mean_of_word_vectors_has_shapley_values_in_closed_form(rng: random.Random) -> None:
    """A static embedding e(S) = mean of x_j: φ_i = H/n · x_i + (1 − H) / (n (n − 1)) · Σ_{j≠i} x_j, H = 1 + … + 1/n."""
    tokenizer = TOKENIZERS["bert"]()
    weights = np.random.default_rng(rng.randrange(1 << 30)).normal(0, 1, (len(tokenizer), 8))
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)], device="cpu")
    chosen = rng.sample([w for w in PLAIN if len(tokenizer.encode(w, add_special_tokens=False)) == 1], 4)
    game = Game.of(Side.of(words(" ".join(chosen))), "text", orders=24, seed=0)
    found = game.vectors(embeddings_of(make_encoder(model, role="text"), game.needed()))
    x = np.array([weights[tokenizer.encode(word, add_special_tokens=False)[0]] for word in chosen])
    n, h = 4, 1 + 1 / 2 + 1 / 3 + 1 / 4
    others = x.sum(0) - x
    np.testing.assert_allclose(found, h / n * x + (1 - h) / (n * (n - 1)) * others, atol=1e-6)


def test_where_words_add_up_any_orders_give_their_own_part(rng: random.Random) -> None:
    """A bag of words: φ_i is the word's own vector, and the gold of word pairs is where equal words meet."""
    axes = "p q r s t u v".split()  # noqa: SIM905
    weight = {axis: rng.uniform(0.5, 3) for axis in axes}
    text_a, text_b = "p q r s", "s q t u v"

    def embed(text: str) -> Any:
        return np.array([weight[axis] * text.split().count(axis) for axis in axes])

    vectors = []
    for text in (text_a, text_b):
        game = Game.of(Side.of(words(text)), "text", orders=2, seed=rng.randrange(1 << 30))
        vectors.append(game.vectors({key: embed(key[1]) for key in game.needed()}))
    parts = [parts_of(4), parts_of(5)]
    gold = Gold.of(*parts, *vectors, embed(text_a), embed(text_b))
    meets = [[weight[x] * weight[y] * (x == y) for y in text_b.split()] for x in text_a.split()]
    norm = np.linalg.norm(embed(text_a)) * np.linalg.norm(embed(text_b))
    np.testing.assert_allclose(gold.cells * norm, meets, atol=1e-12)
    np.testing.assert_allclose(gold.a * norm, np.sum(meets, axis=1), atol=1e-12)
    np.testing.assert_allclose(gold.b * norm, np.sum(meets, axis=0), atol=1e-12)
    exact = Scored(np.array(meets), np.sum(meets, axis=1), np.sum(meets, axis=0))
    np.testing.assert_allclose(agreements(exact, gold), 1)


def test_correlations_are_those_of_each_pair(rng: random.Random) -> None:
    """Words: the mean of both texts; word pairs: all at once. Checked against scipy."""
    chance = np.random.default_rng(rng.randrange(1 << 30))
    gold = Gold(parts_of(4), parts_of(3), chance.normal(size=4), chance.normal(size=3), chance.normal(size=(4, 3)))
    scored = Scored(chance.normal(size=(4, 3)).round(1), chance.normal(size=4).round(1), chance.normal(size=3))
    found = dict(zip(AGREEMENTS, agreements(scored, gold), strict=True))
    for kind, oracle in (("spearman", spearmanr), ("pearson", pearsonr)):
        of_words = [oracle(scored.a, gold.a)[0], oracle(scored.b, gold.b)[0]]
        assert found["words", kind] == pytest.approx(np.mean(of_words))
        assert found["word pairs", kind] == pytest.approx(oracle(scored.cells.ravel(), gold.cells.ravel())[0])


def test_what_cannot_be_judged_is_left_out() -> None:
    """A text of two words, cells that were not stored; values that are all alike agree with nothing."""
    nan = np.nan
    gold = Gold(parts_of(3), parts_of(2), np.array([1.0, 2, 3]), np.array([1.0, 2]), np.arange(6.0).reshape(3, 2))
    scored = Scored(np.array([[1, nan], [2, 3], [4, 5]]), np.array([1.0, 2, 3]), np.array([2.0, 1]))
    found = agreements(scored, gold)
    assert found[:2].tolist() == pytest.approx([1, 1]), "the text of two words counted"
    assert np.isnan(found[2:4]).all()
    assert (found[4], np.isnan(found[5])) == (pytest.approx(1), True)
    flat = Scored(np.ones((3, 2)), np.ones(3), np.ones(2))
    assert agreements(flat, gold).tolist()[:5] == [0, 0, 0, 0, 0]
    short = Gold(parts_of(2), parts_of(1), np.array([1.0, 2]), np.array([1.0]), np.ones((2, 1)))
    assert np.isnan(agreements(Scored(np.ones((2, 1)), np.ones(2), np.ones(1)), short)).all()


def test_a_long_text_is_judged_by_runs_of_neighbouring_words() -> None:
    """Every word once, in order, so that what an evaluation costs is bounded."""
    text = " ".join(f"w{at}" for at in range(101))
    game = Game.of(Side.of(words(text)), "text", orders=4, seed=0)
    assert len(game.parts) == MOST_PARTS
    assert [word for part in game.parts for word in part] == list(range(101))
    assert {len(part) for part in game.parts} == {2, 3}
    assert len(game.needed()) <= 4 * MOST_PARTS
    values = np.arange(101.0)
    assert summed(values, game.parts).tolist() == [values[list(part)].sum() for part in game.parts]
    assert parts_of(3) == ((0,), (1,), (2,))


def test_orders_depend_on_seed_and_text_alone() -> None:
    side = Side.of(words("a b c d e f g h"))
    one, same, other = (Game.of(side, "text", orders=6, seed=seed).orders.tolist() for seed in (3, 3, 4))
    assert one == same
    assert one != other
    assert all(one[at] == one[at + 1][::-1] for at in (0, 2, 4)), "an order comes without its reverse"
    assert len({tuple(order) for order in orders_of(3, 12, np.random.default_rng(0)).tolist()}) == 6


def test_a_lead_is_measured_within_pairs() -> None:
    """Rules that do well on other pairs than the attributions; and pairs that lack a value are left out."""
    values = np.zeros((8, len(RULES), len(AGREEMENTS)))
    values[:, 0, 0] = np.linspace(0, 0.7, 8)
    values[:, 1, 0] = values[:, 0, 0] - 0.1
    values[:, 0, 2:] = np.nan
    values[:3, 0, 2] = 0.5
    agreement, leads = summarise_agreement(values, [str(at) for at in range(8)], 0)
    lead = next(one for one in leads if (one.level, one.correlation, one.against) == ("words", "spearman", RULES[1]))
    assert (lead.difference.mean, lead.difference.low, lead.difference.high) == pytest.approx((0.1, 0.1, 0.1))
    assert lead.wins == 1
    counts = {(one.level, one.correlation): one.pairs for one in agreement}
    assert counts == {("words", "spearman"): 8, ("words", "pearson"): 8, ("word pairs", "spearman"): 3}


def test_raw_embeddings_are_the_model_s_own_before_it_normalises(tiny: TinyModels, tmp_path: Path) -> None:
    """In their order, whatever the batches; and divided by their length they are what the model gives."""
    texts = [" ".join(PLAIN[: 1 + at % 9]) for at in range(70)] + [""]
    model = tiny.load("bert", normalize=True)
    found = np.stack(raw_embeddings(make_encoder(model, role="text", similarity="cosine"), "text", texts))
    np.testing.assert_allclose(found, tiny.load("bert").encode(texts), atol=1e-4)
    np.testing.assert_allclose(units(found), model.encode(texts), atol=1e-5)
    assert units(np.zeros((1, 3))).tolist() == [[0, 0, 0]]
