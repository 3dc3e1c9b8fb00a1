"""Shapley values of a text's words by deletion: the gold standard that attributions are compared with.

A text's words are inserted one after the other, in some order. What the embedding e gains when word i is inserted,
averaged over orders, is its Shapley vector

    φ_i = mean over orders of  e(words before i, and i) − e(words before i),    [D],

and Σ_i φ_i = e(text) − e(no words), exactly, for any sample of orders. The text of some of the words is the text with
the others deleted (:meth:`Side.without`), embedded by the model; nothing is integrated and no gradient is taken.
A word's share of the score with a partner b is φ_i · e(b) / norm, and that of two words φ_i(a) · φ_j(b) / norm.

Each sampled order is used with its reverse, because what a word gains early and what it gains late then cancel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.analysis.faithfulness.orders import Values
from jobs.analysis.faithfulness.perturbation import Side
from jobs.analysis.faithfulness.sampling import generator

ORDERS = 12
# A longer text costs a pass for each of its words and orders: it is judged by so many runs of neighbouring words.
MOST_PARTS = 48

Key = tuple[str, str]  # role, text
Parts = tuple[tuple[int, ...], ...]


def parts_of(words: int, most: int = MOST_PARTS) -> Parts:
    """The words that are deleted as one: each by itself, or ``most`` runs of neighbours where there are more words."""
    return tuple(tuple(part.tolist()) for part in np.array_split(np.arange(words), min(words, most)))


def summed(values: Values, parts: Parts, axis: int = 0) -> Values:
    """Values of words summed over the words of each part, along ``axis``."""
    return np.add.reduceat(values, [part[0] for part in parts], axis=axis)


def orders_of(count: int, orders: int, chance: np.random.Generator) -> NDArray[np.int64]:
    """Orders of ``count`` parts, [orders, count]: half of them random, with their reverses; all orders where there
    are no more than ``orders``."""
    if count < 20 and math.factorial(count) <= orders:
        return np.array(list(itertools.permutations(range(count))), np.int64)
    drawn = [chance.permutation(count) for _ in range((orders + 1) // 2)]
    return np.array([order for one in drawn for order in (one, one[::-1])], np.int64)


@dataclass(frozen=True, eq=False)
class Game:
    """One text's orders [orders, parts], and the texts that each passes: ``texts[o][k]`` has its first k parts."""

    role: str
    parts: Parts
    orders: NDArray[np.int64]
    texts: tuple[tuple[str, ...], ...]

    @staticmethod
    def of(side: Side, role: str, *, orders: int, seed: int, most: int = MOST_PARTS) -> Game:
        """The game of a text; the same for the same seed, role and text."""
        parts = parts_of(len(side), most)
        drawn = orders_of(len(parts), orders, generator(seed, "shapley", role, side.text))
        texts: dict[frozenset[int], str] = {}

        def without(gone: frozenset[int]) -> str:
            if gone not in texts:
                texts[gone] = side.without([word for part in gone for word in parts[part]])
            return texts[gone]

        passed = tuple(tuple(without(frozenset(order[k:].tolist())) for k in range(len(parts) + 1)) for order in drawn)
        return Game(role, parts, drawn, passed)

    def needed(self) -> set[Key]:
        """Every text that has to be embedded, with its role."""
        return {(self.role, text) for passed in self.texts for text in passed}

    def vectors(self, embeddings: Mapping[Key, Values]) -> Values:
        """φ [parts, D] from the embeddings of all :meth:`needed`, each [D]."""
        gained = []
        for order, passed in zip(self.orders, self.texts, strict=True):
            steps = np.diff(np.stack([embeddings[self.role, text] for text in passed]), axis=0)
            gained.append(steps[np.argsort(order)])
        return np.asarray(np.mean(gained, axis=0))
