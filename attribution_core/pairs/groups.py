"""What is known of the groups of some texts before anything is computed: places, shares, kinds, words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attribution_core.pairs.columns import Doubles, Ints
from attribution_core.text.tokenized import ReadText
from attribution_core.text.words import word_key


@dataclass(frozen=True, eq=False)
class GroupTable:
    """N texts with X groups in all, one behind the other; those of text n begin at ``first_N1[n]``.

    ``share_X`` are the groups' shares of the reference, ``text_X`` says which are of kind text, and ``word_X`` numbers
    distinct words; groups that are no text have none (−1). Behind the groups is one more entry, for what is padded.
    """

    count_N: Ints
    first_N1: Ints
    share_X: Doubles
    text_X: NDArray[np.bool_]
    word_X: Ints

    @staticmethod
    def of(texts: Sequence[ReadText]) -> GroupTable:
        """Return the table of ``texts``."""
        count_N = np.fromiter((text.group_count for text in texts), np.int64, len(texts))
        text_X = np.concatenate([*(text.text_G for text in texts), np.zeros(1, bool)])
        return GroupTable(
            count_N=count_N,
            first_N1=np.concatenate([[0], np.cumsum(count_N)]),
            share_X=np.concatenate([*(text.shares_G for text in texts), np.zeros(1)]),
            text_X=text_X,
            word_X=_word_numbers(texts, text_X),
        )

    def groups(self, texts: Ints) -> Ints:
        """Return the places in X of each text's groups, [texts, most groups]; −1 where a text has fewer."""
        offset = np.arange(int(self.count_N[texts].max(initial=1)))
        return np.where(offset < self.count_N[texts][:, None], self.first_N1[texts][:, None] + offset, -1)


def _word_numbers(texts: Sequence[ReadText], text_X: NDArray[np.bool_]) -> Ints:
    """A number for each distinct word, −1 where a group is no text."""
    known: dict[str, int] = {}
    keys: dict[str, int] = {}
    numbers = np.full(len(text_X), -1, np.int64)
    at = 0
    for text in texts:
        for label in text.labels:
            number = known.get(label)
            if number is None:
                number = known[label] = keys.setdefault(word_key(label), len(keys))
            numbers[at] = number
            at += 1
    numbers[~text_X] = -1
    return numbers
