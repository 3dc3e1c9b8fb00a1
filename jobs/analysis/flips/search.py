"""How many deletions it takes until the order of two documents turns: along orders, and by trying sets of words."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from jobs.analysis.faithfulness.judge import Judge
from jobs.analysis.faithfulness.perturbation import Order
from jobs.analysis.faithfulness.scores import Texts
from jobs.analysis.faithfulness.shapley import Key
from jobs.analysis.flips.contest import Contest

# Steps of an order that are encoded at once: few at first, for most orders turn soon.
FIRST_STEPS, MOST_STEPS = 6, 48
SETS_AT_ONCE = 512


@dataclass
class Walk:
    """Words of one text of a contest deleted in ``order``; at least one word stays.

    ``turned`` is the number of deletions after which the order of the documents has turned, None while it has not;
    ``done`` is how many were tried.
    """

    contest: Contest
    text: str
    order: Order
    turned: int | None = None
    done: int = 0
    steps: int = FIRST_STEPS
    _waiting: list[Key] = field(default_factory=list)

    @property
    def open(self) -> bool:
        """Whether there is more to try."""
        return self.turned is None and self.done < len(self.order) - 1

    @property
    def deleted(self) -> tuple[str, ...]:
        """The words that went until the order turned, in the order in which they went."""
        labels = self.contest.side(self.text).labels
        return tuple(labels[word] for word in self.order[: self.turned or 0])

    def next_texts(self) -> list[Key]:
        """Return the texts after the next deletions, by role."""
        side, role = self.contest.side(self.text), self.contest.role(self.text)
        last = min(self.done + self.steps, len(self.order) - 1)
        self._waiting = [(role, side.without(self.order[:n].tolist())) for n in range(self.done + 1, last + 1)]
        return self._waiting

    def take(self, embeddings: Texts) -> None:
        """What the model says of these texts: their ``embeddings``."""
        below = np.flatnonzero(self.contest.margins(self.text, self._waiting, embeddings) < 0)
        if len(below):
            self.turned = self.done + 1 + int(below[0])
        self.done += len(self._waiting)
        self.steps = min(2 * self.steps, MOST_STEPS)


def turn(walks: Sequence[Walk], judge: Judge) -> None:
    """Walk each order until the documents change places, all of them side by side so that texts are encoded together.

    Where the lower document is above already, no word has to go.
    """
    for walk in walks:
        if walk.contest.margin < 0:
            walk.turned = 0
    while waiting := [walk for walk in walks if walk.open]:
        texts = [walk.next_texts() for walk in waiting]
        embeddings = judge.embed(key for keys in texts for key in keys)
        for walk, keys in zip(waiting, texts, strict=True):
            walk.take({key: embeddings[key] for key in keys})


def fewest(contest: Contest, text: str, judge: Judge, *, below: int, most_texts: int) -> tuple[int | None, int]:
    """Return the size of the smallest set of words that turns the order, of sets of fewer than ``below`` words.

    All sets of one word are tried, then those of two and so on, as long as all sets up to a size are at
    most ``most_texts``. Returns the size, None where no set turned it, and the size up to which every set
    was tried.
    """
    side, role = contest.side(text), contest.role(text)
    left = most_texts
    for size in range(1, min(below, len(side))):
        left -= math.comb(len(side), size)
        if left < 0:
            return None, size - 1
        for some in _batches(itertools.combinations(range(len(side)), size)):
            keys = [(role, side.without(words)) for words in some]
            if (contest.margins(text, keys, judge.embed(keys)) < 0).any():
                return size, size
    return None, min(below, len(side)) - 1


def _batches(sets: Iterator[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    while some := list(itertools.islice(sets, SETS_AT_ONCE)):
        yield some
