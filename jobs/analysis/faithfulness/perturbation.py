"""Texts with some of their words deleted, or with some of their words alone.

Words are the run's own groups (tokens, words or sentences) of kind ``text``, found by their character offsets. A text
that the run's model read in part is cut where it stopped reading, so that after a deletion no unread text is read.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attribution_core.results import ExplainedText
from attribution_core.text.characters import with_unseen

Order = NDArray[np.int64]


@dataclass(frozen=True)
class Side:
    """One text of a pair: ``groups[n]`` is the index of word n among the run's groups, ``spans[n]`` in ``text``.

    A span has the invisible characters next to its word too, such as an emoji's variation selector: they go with it.
    """

    text: str
    groups: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.groups)

    @staticmethod
    def of(read: ExplainedText) -> Side:
        """The words of a text that a run explained."""
        groups = read.groups
        chosen = tuple(at for at, kind in enumerate(groups.kinds) if kind == "text")
        text = read.text if read.cut_at is None else read.text[: read.cut_at]
        return Side(
            text=text,
            groups=chosen,
            spans=tuple(_whole(text, groups.starts[at], groups.ends[at]) for at in chosen),
            labels=tuple(groups.labels[at] for at in chosen),
        )

    def without(self, gone: Collection[int]) -> str:
        """The text without the words ``gone``, nothing at all without any of them.

        Where white space then meets white space one of the two goes too: tokenizers that mark spaces would see a
        doubled one as a word of its own.
        """
        if len(gone) == len(self):
            return ""
        kept = ""
        at = 0
        for start, end in sorted(self.spans[word] for word in gone):
            if start > at:
                kept = _joined(kept, self.text[at:start])
            at = max(at, end)
        return _joined(kept, self.text[at:]).strip() if len(gone) else self.text


def _whole(text: str, start: int, end: int) -> tuple[int, int]:
    return with_unseen(text, start, end) if end > start else (start, end)


def _joined(before: str, after: str) -> str:
    return before + (after.lstrip() if not before or before[-1].isspace() else after)


def word_counts(words: int, steps: int, share: float = 1.0) -> NDArray[np.int64]:
    """How many words are deleted after each of the steps 0 … ``steps``, ``share`` of them after the last: rounded up,
    [steps + 1]."""
    return np.ceil(np.arange(steps + 1) * words * share / steps - 1e-9).astype(np.int64)


def deletions(side: Side, order: Order, steps: int, *, share: float = 1.0, left: int = 0) -> list[str]:
    """The text after each step when words go in ``order``: whole first, without ``share`` of them last; ``left`` words
    always stay."""
    counts = np.minimum(word_counts(len(side), steps, share), max(len(side) - left, 0))
    return [side.without(order[:count].tolist()) for count in counts]


def insertions(side: Side, order: Order, steps: int, *, share: float = 1.0, left: int = 0) -> list[str]:
    """The text after each step when words come in ``order``, each to its own place: empty first, with ``share`` of them
    last; ``left`` words are there from the first step on."""
    counts = np.maximum(word_counts(len(side), steps, share), min(left, len(side)))
    return [side.without(order[count:].tolist()) for count in counts]


def numbers(values: Any) -> NDArray[np.float64]:
    """Values as an array of float64."""
    return np.asarray(values, np.float64)
