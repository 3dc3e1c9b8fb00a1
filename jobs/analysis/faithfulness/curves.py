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
four are scores of the model, so this needs no more than embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attribution_core.model.inspection import LATE_SIMILARITIES
from attribution_core.model.modules import Role
from attribution_core.results import PairAttribution
from jobs.analysis.faithfulness.agreement import Gold, agreements
from jobs.analysis.faithfulness.judge import Judge
from jobs.analysis.faithfulness.orders import (
    ATTRIBUTIONS,
    EMBEDDINGS,
    LEXICAL,
    MARGINS,
    MATCHED,
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
from jobs.analysis.faithfulness.scores import Scores
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

    ``values`` [methods, measures, steps + 1] are its curves, in the order of ``methods`` and :func:`measures_of`. A
    curve of words is the score; one of pairs is what the words that are there contribute together: all of it with
    nothing deleted, 0 when one text is empty. ``scores`` [methods, 2, steps + 1] are the plain scores of the last two
    curves.
    ``agreement`` [rules, correlations] says how far each of the rules agrees with Shapley values, in the order of
    AGREEMENTS; NaN where word pairs were not all stored. What is random is a mean over what was drawn.
    """

    pair_id: str
    text_a_id: str
    words: tuple[int, int]
    values: NDArray[np.float64]
    scores: NDArray[np.float64]
    agreement: NDArray[np.float64]
    rules: tuple[str, ...] = RULES

    @property
    def methods(self) -> tuple[str, ...]:
        """The rules and random order."""
        return (*self.rules, RANDOM)

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
    rules = {ATTRIBUTIONS: [attributed], **_rules_to_beat(a, b, (role_a, role_b), judge)}  # type: ignore[arg-type]
    rules[SHUFFLED] = [shuffled(attributed, generator(seed, pair.pair_id, "shuffle", str(n))) for n in range(orders)]
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


def _rules_to_beat(a: Side, b: Side, roles: tuple[Role, Role], judge: Judge) -> dict[str, list[Scored]]:
    """What the attributions are held against, by the judging model."""
    if judge.similarity in LATE_SIMILARITIES:
        matched, margins = judge.matches(a, b, roles)
        return {MATCHED: [matched], MARGINS: [margins]}
    products = of_products(*(judge.word_vectors(side, role) for side, role in zip((a, b), roles, strict=True)))
    return {EMBEDDINGS: [products], LEXICAL: [of_identical_words(a, b)]}


def measure(prepared: Prepared, scores: Scores) -> PairCurves:
    """The curves and the agreement of a pair from the scores of its texts."""
    values, plain = [], []
    for drawn_orders in prepared.orders.values():
        drawn = [_curves(levels, prepared.whole, scores) for levels in drawn_orders]
        values.append(np.mean([one for one, _ in drawn], axis=0))
        plain.append(np.mean([one for _, one in drawn], axis=0))
    gold = _gold(prepared, scores)
    agreement = [np.mean([agreements(one, gold) for one in drawn], axis=0) for drawn in prepared.rules.values()]
    return PairCurves(
        prepared.pair_id,
        prepared.text_a_id,
        (len(prepared.a), len(prepared.b)),
        np.stack(values),
        np.stack(plain),
        np.stack(agreement),
        tuple(prepared.rules),
    )


def _gold(prepared: Prepared, scores: Scores) -> Gold:
    game_a, game_b = prepared.games
    if scores.late:
        (attributed,) = prepared.rules[ATTRIBUTIONS]
        stored = not np.isnan(attributed.cells).any()
        return Gold.of_scores(game_a, game_b, prepared.whole, scores, pairs=stored)
    phi_a, phi_b = (game.vectors(scores.embeddings) for game in prepared.games)
    e_a, e_b = (scores.embeddings[key] for key in prepared.whole)
    return Gold.of(game_a.parts, game_b.parts, phi_a, phi_b, e_a, e_b)


def _curves(levels: dict[str, Changed], whole: tuple[Key, Key], scores: Scores) -> tuple[Values, Values]:
    """The six curves [6, steps + 1] and the plain scores [2, steps + 1] of the last two, of one order."""
    words = levels[WORDS]
    (joint,) = (changed for level, changed in levels.items() if level != WORDS)

    def of_a(keys: Sequence[Key]) -> Values:
        return scores.table(keys, whole[1:])[:, 0]

    def of_b(keys: Sequence[Key]) -> Values:
        return scores.table(whole[:1], keys)[0]

    left, kept = (joint.deleted_a, joint.deleted_b), (joint.inserted_a, joint.inserted_b)
    plain = [scores.paired(*left), scores.paired(*kept)]
    last = plain
    if PAIRS in levels:
        empty_a, empty_b = words.deleted_a[-1:], words.deleted_b[-1:]
        # f(a, b) cancels from what is left of it; the score of two empty texts does not.
        without, empty = of_a(empty_a) + of_b(empty_b), scores.paired(empty_a, empty_b)
        with_empty = scores.table(kept[0], empty_b)[:, 0] + scores.table(empty_a, kept[1])[0]
        last = [of_a(left[0]) + of_b(left[1]) - plain[0] - without + empty, plain[1] - with_empty + empty]
    by_word = [of_a(words.deleted_a), of_a(words.inserted_a), of_b(words.deleted_b), of_b(words.inserted_b)]
    return np.stack([*by_word, *last]), np.stack(plain)
