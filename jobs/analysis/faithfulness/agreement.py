"""How far the values of words and word pairs agree with deletion: correlations, within a pair, with Shapley values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jobs.analysis.faithfulness.orders import ATTRIBUTIONS, RULES, Scored, Values
from jobs.analysis.faithfulness.scores import Scores
from jobs.analysis.faithfulness.shapley import Game, Key, Parts, summed
from jobs.analysis.ranks import pearson, spearman
from jobs.analysis.resampling import Bootstrap, Mean

WORDS, WORD_PAIRS = "words", "word pairs"
WORDS_A, WORDS_B = "words of a", "words of b"
SPEARMAN, PEARSON = "spearman", "pearson"
# (level, correlation) in the order in which they are kept and shown; the first is what the verdict goes by.
AGREEMENTS = (
    *((level, kind) for level in (WORDS, WORD_PAIRS) for kind in (SPEARMAN, PEARSON)),
    *((level, SPEARMAN) for level in (WORDS_A, WORDS_B)),
)
# A correlation of two values is 1 or -1 whatever they are.
FEWEST_WORDS = 3


@dataclass(frozen=True, eq=False)
class Gold:
    """Shapley values of a pair by deletion: of the parts of each text, [I] and [J], and of pairs of them, [I, J]; NaN
    where nobody asked for those of pairs."""

    parts_a: Parts
    parts_b: Parts
    a: Values
    b: Values
    cells: Values

    @staticmethod
    def of(parts_a: Parts, parts_b: Parts, vectors_a: Values, vectors_b: Values, e_a: Values, e_b: Values) -> Gold:
        """From the Shapley vectors φ, [I, D] and [J, D], and the embeddings [D]: φ_i(a) · e(b), e(a) · φ_j(b) and
        φ_i(a) · φ_j(b), in units of ‖e(a)‖‖e(b)‖, which no correlation depends on."""
        norm = float(np.linalg.norm(e_a) * np.linalg.norm(e_b)) or 1.0
        return Gold(parts_a, parts_b, vectors_a @ e_b / norm, vectors_b @ e_a / norm, vectors_a @ vectors_b.T / norm)

    @staticmethod
    def of_scores(game_a: Game, game_b: Game, whole: tuple[Key, Key], scores: Scores, *, pairs: bool) -> Gold:
        """From scores that are no product of two embeddings: of each text's words with the other text whole, and, with
        ``pairs``, of words of both at once."""
        texts_a, texts_b = sorted(game_a.needed()), sorted(game_b.needed())

        def shares(game: Game, texts: list[Key], table: Values) -> Values:
            return game.vectors(dict(zip(texts, table, strict=True)))

        a = shares(game_a, texts_a, scores.table(texts_a, whole[1:]))[:, 0]
        b = shares(game_b, texts_b, scores.table(whole[:1], texts_b).T)[:, 0]
        cells = np.full((len(a), len(b)), np.nan)
        if pairs:
            cells = shares(game_a, texts_a, shares(game_b, texts_b, scores.table(texts_a, texts_b).T).T)
        return Gold(game_a.parts, game_b.parts, a, b, cells)


def agreements(scored: Scored, gold: Gold) -> Values:
    """The correlations of AGREEMENTS, [6], of what a rule says of a pair with the gold standard.

    Words: the mean over the texts of three words or more, and of each text. Word pairs: over all of them at once; NaN
    where not all were stored. Values that are all alike agree with nothing: 0.
    """
    of_a, of_b = (
        [(summed(values, parts), true)] if len(parts) >= FEWEST_WORDS else []
        for values, parts, true in ((scored.a, gold.parts_a, gold.a), (scored.b, gold.parts_b, gold.b))
    )
    cells = summed(summed(scored.cells, gold.parts_a), gold.parts_b, axis=1)
    unknown = bool(np.isnan(cells).any() or np.isnan(gold.cells).any()) or cells.size < FEWEST_WORDS
    pairs = [] if unknown else [(cells.ravel(), gold.cells.ravel())]
    of_level = {WORDS: of_a + of_b, WORD_PAIRS: pairs, WORDS_A: of_a, WORDS_B: of_b}
    return np.array([_mean(of_level[level], kind) for level, kind in AGREEMENTS])


def _mean(sides: list[tuple[Values, Values]], kind: str) -> float:
    return float(np.mean([correlation(*side, kind) for side in sides])) if sides else float("nan")


def correlation(one: Values, other: Values, kind: str) -> float:
    """Pearson's or Spearman's correlation; 0 where one of the two does not vary."""
    value = spearman(one, other) if kind == SPEARMAN else pearson(one, other)
    return 0.0 if np.isnan(value) else value


@dataclass(frozen=True)
class Agreement:
    """The mean correlation of a rule's values with Shapley values, over ``pairs`` of texts.

    ``level`` is words (the mean of both texts), words of a, words of b or word pairs, ``correlation`` spearman or
    pearson, ``method`` one of RULES, of late interaction one of LATE_RULES.
    """

    level: str
    correlation: str
    method: str
    value: Mean
    pairs: int


@dataclass(frozen=True)
class Lead:
    """By how much the attributions' correlation with Shapley values is larger than that of the rule ``against``, within
    a pair; ``wins`` is the share of pairs where it is (equal ones count half)."""

    level: str
    correlation: str
    against: str
    difference: Mean
    wins: float


def summarise_agreement(
    values: Values, firsts: Sequence[str], seed: int, rules: Sequence[str] = RULES
) -> tuple[tuple[Agreement, ...], tuple[Lead, ...]]:
    """Means and differences with their intervals from correlations [pairs, ``rules``, AGREEMENTS], whose ``firsts``
    name the first texts; pairs without a value (NaN) are left out, and a level that no pair has is left out whole."""
    agreement: list[Agreement] = []
    leads: list[Lead] = []
    own = rules.index(ATTRIBUTIONS)
    for k, (level, kind) in enumerate(AGREEMENTS):
        known = [at for at, value in enumerate(values[:, own, k]) if np.isfinite(value)]
        if not known:
            continue
        bootstrap = Bootstrap([firsts[at] for at in known], seed)
        of_rule = values[known, :, k]
        for at, rule in enumerate(rules):
            agreement.append(Agreement(level, kind, rule, bootstrap.mean(of_rule[:, at]), len(known)))
            if rule != ATTRIBUTIONS:
                more = of_rule[:, own] - of_rule[:, at]
                leads.append(Lead(level, kind, rule, bootstrap.mean(more), share_won(more)))
    return tuple(agreement), tuple(leads)


def share_won(more: Values) -> float:
    """The share of differences above 0; those of 0 count half."""
    return float(np.mean((more > 0) + 0.5 * (more == 0)))
