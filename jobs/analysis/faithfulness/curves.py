"""Curves of a pair's score while its words are deleted, or inserted, in one order or another.

*words of a* are deleted while b stays whole, and *words of b* likewise. *both texts*: words are deleted from both at
once, each in the order of its own sums, and the curve ends at 30 % of the words. Two texts without the words that mean
something are alike, whatever they meant (on all-MiniLM-L6-v2 the score falls to 30 % and rises from there on), and two
empty ones score 1; so one word of each text always stays, too.

A run whose word pairs sum to the paper's difference of four scores is judged by *pairs* in place of *both texts*.
There a removal is not judged by the score but by what its words contribute *together*: with I deleted from a and J
from b that is

    f(a, b) − f(a∖I, b) − f(a, b∖J) + f(a∖I, b∖J),

the share of Σ A (the same four terms, with reference texts in place of a∖I and b∖J) that the pairs I × J stand for. The
four are scores of the model, so this needs no more than embeddings: for cosine and dot it is the product of the two
texts' differences, (e(a) − e(a∖I)) · (e(b) − e(b∖J)).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attribution_core.results import PairAttribution
from jobs.analysis.faithfulness.agreement import Gold, agreements
from jobs.analysis.faithfulness.judge import Judge, Texts, units
from jobs.analysis.faithfulness.orders import (
    ATTRIBUTIONS,
    EMBEDDINGS,
    LEXICAL,
    METHODS,
    PAIRS,
    RANDOM,
    RULES,
    SHUFFLED,
    WORDS,
    Scored,
    Values,
    by_chance,
    of_attributions,
    of_identical_words,
    of_products,
    shuffled,
)
from jobs.analysis.faithfulness.perturbation import Side, deletions, insertions
from jobs.analysis.faithfulness.sampling import generator
from jobs.analysis.faithfulness.shapley import ORDERS, Game, Key

DELETION, INSERTION = "deletion", "insertion"
BOTH = "both texts"
# The share of the words that goes from both texts, or comes.
BOTH_SHARE = 0.3
Measure = tuple[str, str]  # level, operation


def measures_of(sums_to: str) -> tuple[Measure, ...]:
    """(level, operation) of each of the six curves of a run whose word pairs sum to ``sums_to``."""
    levels = ("words of a", "words of b", PAIRS if sums_to == "difference" else BOTH)
    return tuple((level, operation) for level in levels for operation in (DELETION, INSERTION))


def shares_of(level: str, steps: int) -> tuple[float, ...]:
    """The share of the words that are deleted, or inserted, after each step of a curve, [steps + 1]."""
    return tuple((BOTH_SHARE if level == BOTH else 1.0) * step / steps for step in range(steps + 1))


@dataclass(frozen=True)
class Changed:
    """The texts after each step of one order at one level, [steps + 1] each: words deleted, and words inserted."""

    deleted_a: tuple[Key, ...]
    deleted_b: tuple[Key, ...]
    inserted_a: tuple[Key, ...]
    inserted_b: tuple[Key, ...]

    def texts(self) -> tuple[Key, ...]:
        """All of them."""
        return self.deleted_a + self.deleted_b + self.inserted_a + self.inserted_b


@dataclass(frozen=True)
class Prepared:
    """One pair with every text that its curves and its gold standard need.

    ``rules[method]`` has what each says of the pair, one entry a shuffle; ``orders[method]`` one an order drawn, by
    level; ``games`` the sampled orders of both texts for their Shapley values.
    """

    pair_id: str
    text_a_id: str
    sums_to: str
    a: Side
    b: Side
    whole: tuple[Key, Key]
    rules: dict[str, list[Scored]]
    orders: dict[str, list[dict[str, Changed]]]
    games: tuple[Game, Game]

    def texts(self) -> set[Key]:
        """Every text that has to be encoded."""
        changed = [one for drawn in self.orders.values() for levels in drawn for one in levels.values()]
        texts = {key for one in changed for key in one.texts()}
        return texts.union(self.whole, *(game.needed() for game in self.games))


@dataclass(frozen=True)
class PairCurves:
    """What was measured of one pair.

    ``values`` [methods, measures, steps + 1] are its curves, in the order of METHODS and :func:`measures_of`. A curve
    of words is the score; one of pairs is what the words that are there contribute together: all of it with nothing
    deleted, 0 when one text is empty. ``scores`` [methods, 2, steps + 1] are the plain scores of the last two curves.
    ``agreement`` [rules, correlations] says how far each of RULES agrees with Shapley values, in the order of
    AGREEMENTS; NaN where word pairs were not all stored. What is random is a mean over what was drawn.
    """

    pair_id: str
    text_a_id: str
    words: tuple[int, int]
    values: NDArray[np.float64]
    scores: NDArray[np.float64]
    agreement: NDArray[np.float64]

    def areas(self) -> Values:
        """The area under each curve, with a length of 1 for all its steps, [methods, measures]."""
        return area(self.values)


def area(values: Values) -> Values:
    """The area under curves with equal steps from 0 to 1 along the last axis."""
    inner = values[..., 1:-1].sum(-1) + (values[..., 0] + values[..., -1]) / 2
    return np.asarray(inner / (values.shape[-1] - 1))


def prepare(
    pair: PairAttribution, text_a_id: str, judge: Judge, *, steps: int, orders: int, seed: int, shapley: int = ORDERS
) -> Prepared:
    """The texts to encode for a pair: ``orders`` random orders and as many shuffles, ``shapley`` for the gold
    standard."""
    a, b = Side.of(pair.a), Side.of(pair.b)
    role_a, role_b = pair.a.role, pair.b.role
    attributed = of_attributions(pair, a, b)
    products = of_products(judge.word_vectors(a, role_a), judge.word_vectors(b, role_b))  # type: ignore[arg-type]
    rules: dict[str, list[Scored]] = {
        ATTRIBUTIONS: [attributed],
        EMBEDDINGS: [products],
        LEXICAL: [of_identical_words(a, b)],
        SHUFFLED: [shuffled(attributed, generator(seed, pair.pair_id, "shuffle", str(n))) for n in range(orders)],
    }
    joint = PAIRS if pair.sums_to == "difference" else BOTH
    texts: dict[tuple[bytes, bytes, str], Changed] = {}

    def changed(scored: Scored, level: str, method: str, number: int) -> Changed:
        # The same lots at both levels: where a rule says the same at both, so do the orders.
        order_a, order_b = scored.orders(level, generator(seed, pair.pair_id, method, str(number)))
        key = (order_a.tobytes(), order_b.tobytes(), level)
        if key not in texts:
            share, left = (BOTH_SHARE, 1) if level == BOTH else (1.0, 0)
            texts[key] = Changed(
                tuple((role_a, text) for text in deletions(a, order_a, steps, share=share, left=left)),
                tuple((role_b, text) for text in deletions(b, order_b, steps, share=share, left=left)),
                tuple((role_a, text) for text in insertions(a, order_a, steps, share=share, left=left)),
                tuple((role_b, text) for text in insertions(b, order_b, steps, share=share, left=left)),
            )
        return texts[key]

    return Prepared(
        pair_id=pair.pair_id,
        text_a_id=text_a_id,
        sums_to=pair.sums_to,
        a=a,
        b=b,
        whole=((role_a, a.text), (role_b, b.text)),
        rules=rules,
        orders={
            method: [
                {level: changed(scored, level, method, number) for level in (WORDS, joint)}
                for number, scored in enumerate(drawn)
            ]
            for method, drawn in (rules | {RANDOM: [by_chance(a, b)] * orders}).items()
        },
        games=(
            Game.of(a, role_a, orders=shapley, seed=seed),
            Game.of(b, role_b, orders=shapley, seed=seed),
        ),
    )


def measure(prepared: Prepared, embeddings: Texts, *, cosine: bool) -> PairCurves:
    """The curves and the agreement of a pair from the embeddings of its texts, which are not divided by their length;
    ``cosine`` says whether the score divides by it."""

    def rows(keys: tuple[Key, ...]) -> Values:
        embeddings_ND = np.stack([embeddings[key] for key in keys])
        return units(embeddings_ND) if cosine else embeddings_ND

    values, scores = [], []
    for method in METHODS:
        drawn = [_curves(levels, rows) for levels in prepared.orders[method]]
        values.append(np.mean([one for one, _ in drawn], axis=0))
        scores.append(np.mean([one for _, one in drawn], axis=0))
    game_a, game_b = prepared.games
    e_a, e_b = (embeddings[key] for key in prepared.whole)
    gold = Gold.of(game_a.parts, game_b.parts, game_a.vectors(embeddings), game_b.vectors(embeddings), e_a, e_b)
    agreement = [np.mean([agreements(one, gold) for one in prepared.rules[rule]], axis=0) for rule in RULES]
    return PairCurves(
        prepared.pair_id,
        prepared.text_a_id,
        (len(prepared.a), len(prepared.b)),
        np.stack(values),
        np.stack(scores),
        np.stack(agreement),
    )


def _curves(levels: dict[str, Changed], rows: Callable[[tuple[Key, ...]], Values]) -> tuple[Values, Values]:
    """The six curves [6, steps + 1] and the plain scores [2, steps + 1] of the last two, of one order."""
    words = levels[WORDS]
    gone_a, gone_b = rows(words.deleted_a), rows(words.deleted_b)
    come_a, come_b = rows(words.inserted_a), rows(words.inserted_b)
    whole_a, whole_b = gone_a[0], gone_b[0]
    (joint,) = (changed for level, changed in levels.items() if level != WORDS)
    left_a, left_b = rows(joint.deleted_a), rows(joint.deleted_b)
    kept_a, kept_b = rows(joint.inserted_a), rows(joint.inserted_b)
    scores = [(left_a * left_b).sum(1), (kept_a * kept_b).sum(1)]
    last = scores
    if PAIRS in levels:
        empty_a, empty_b = gone_a[-1], gone_b[-1]
        together = float((whole_a - empty_a) @ (whole_b - empty_b))
        taken = ((whole_a - left_a) * (whole_b - left_b)).sum(1)
        last = [together - taken, ((kept_a - empty_a) * (kept_b - empty_b)).sum(1)]
    return np.stack([gone_a @ whole_b, come_a @ whole_b, gone_b @ whole_a, come_b @ whole_a, *last]), np.stack(scores)
