"""The values that the attributions and the rules to beat give a pair's words, and the orders that follow from them.

Two orders. *words*: by a word's own sum over the other text. *pairs*: word pairs in the order of their value, most
positive first, each taking both its words; a word then goes when the first of its pairs is reached, so its place is
that of its largest one. Every order takes as many words at a step as any other, so curves differ by which words went
and by nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attribution_core.results import PairAttribution
from attribution_core.text.words import word_key
from jobs.analysis.faithfulness.perturbation import Order, Side, numbers

Values = NDArray[np.float64]

ATTRIBUTIONS = "attributions"
RANDOM = "random"
SHUFFLED = "shuffled"
LEXICAL = "identical words"
EMBEDDINGS = "token embeddings"
MATCHED = "matched similarities"
MARGINS = "margins of matches"
# What the attributions are held against, in the order in which it is shown: rules that give values.
RULES = (ATTRIBUTIONS, EMBEDDINGS, LEXICAL, SHUFFLED)
# The same for a model of late interaction.
LATE_RULES = (ATTRIBUTIONS, MATCHED, MARGINS, SHUFFLED)
# With what gives an order alone.
METHODS = (*RULES, RANDOM)
WORDS, PAIRS = "words", "pairs"


@dataclass(frozen=True)
class Scored:
    """The values that a rule gives a pair: ``cells`` [n, m] of its words, NaN where unknown, and a value a word of each
    text."""

    cells: Values
    a: Values
    b: Values

    def orders(self, level: str, chance: np.random.Generator) -> tuple[Order, Order]:
        """The order in which the words of each text are deleted: by pairs where ``level`` says so, else by words' own
        values; ties are broken at random."""
        if level != PAIRS:
            return _descending([self.a], chance), _descending([self.b], chance)
        reached = [_largest(self.cells), _largest(self.cells.T)]
        return _descending([reached[0], self.a], chance), _descending([reached[1], self.b], chance)


def of_attributions(pair: PairAttribution, a: Side, b: Side) -> Scored:
    """The run's values: exact sums of words, and the cells that it stored (of late interaction the interactions)."""
    rows, cols = list(a.groups), list(b.groups)
    cells = pair.matrix if pair.interactions is None else pair.interactions
    return Scored(numbers(cells)[np.ix_(rows, cols)], numbers(pair.row_sums)[rows], numbers(pair.col_sums)[cols])


def shuffled(scored: Scored, chance: np.random.Generator) -> Scored:
    """The same values on other words: cells among the cells, words' sums among the words of their text."""
    cells = chance.permutation(scored.cells.ravel()).reshape(scored.cells.shape)
    return Scored(cells, chance.permutation(scored.a), chance.permutation(scored.b))


def by_chance(a: Side, b: Side) -> Scored:
    """Every word and cell alike, so that chance alone decides."""
    return Scored(np.zeros((len(a), len(b))), np.zeros(len(a)), np.zeros(len(b)))


def of_identical_words(a: Side, b: Side) -> Scored:
    """1 where both texts contain a word, by :func:`word_key`."""
    left, right = ([word_key(label) for label in side.labels] for side in (a, b))
    cells = np.array([[float(one == other) for other in right] for one in left]).reshape(len(a), len(b))
    return Scored(cells, cells.max(1, initial=0.0), cells.max(0, initial=0.0))


def of_products(words_a: Values, words_b: Values) -> Scored:
    """Dot products of the words' vectors, [n, d] and [m, d]."""
    cells = words_a @ words_b.T
    return Scored(cells, cells.sum(1), cells.sum(0))


def of_matches(
    a_TD: Values, b_TD: Values, words_a: NDArray[np.int64], words_b: NDArray[np.int64], shape: tuple[int, int]
) -> tuple[Scored, Scored]:
    """The similarities of matched output tokens of late interaction, and their margins, as values of words.

    ``words_a`` and ``words_b`` are the word of each output token, -1 for none; ``shape`` is the number of words of both
    texts. Matched similarities: a word of b has the sum of the similarities of all output tokens of a that match one of
    its tokens; a word of a the sum over its own output tokens (the row maximum). Margins: a word of b has the sum of
    the same similarities, each less the largest one with a token of another word; a word of a its row maximum, too.
    """
    similarity = a_TD.astype(np.float64) @ b_TD.astype(np.float64).T
    best = similarity.argmax(1)
    values = similarity[np.arange(len(best)), best]
    word = words_b[best]
    others = np.where((words_b == word[:, None]) & (words_b >= 0), -np.inf, similarity).max(1)
    margins = values - np.where(np.isfinite(others), others, 0.0)

    def of_words(of_match: Values) -> Scored:
        cells = np.zeros((shape[0] + 1, shape[1] + 1))  # with a last row and column for -1, no word
        np.add.at(cells, (words_a, word), of_match)
        row_maxima = np.zeros(shape[0] + 1)
        np.add.at(row_maxima, words_a, values)
        return Scored(cells[:-1, :-1], row_maxima[:-1], cells.sum(0)[:-1])

    return of_words(values), of_words(margins)


def _largest(cells: Values) -> Values:
    """Each row's largest known cell, [n].

    Of rows with unknown cells only a positive one counts: the cells that a run keeps are the largest by absolute
    value, so a kept positive cell is larger than every unknown one, and a kept negative cell is not.
    """
    known = np.where(np.isnan(cells), -np.inf, cells).max(1, initial=-np.inf)
    return np.where(np.isnan(cells).any(1) & (known <= 0), -np.inf, known)


def _descending(keys: list[Values], chance: np.random.Generator) -> Order:
    """Largest first by the first key, of equals by the next, and at random last."""
    lots = chance.random(len(keys[0]))
    return np.lexsort([lots, *(-key for key in reversed(keys))]).astype(np.int64)
