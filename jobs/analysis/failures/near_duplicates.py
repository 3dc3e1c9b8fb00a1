"""Near-duplicates among a query's top documents: texts that share sequences of three words, and what differs in them.

The cosine of two embeddings does not distinguish a copy with half its words replaced from another document on the same
subject; shared sequences do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import combinations

from attribution_core.text.words import word_key, word_spans
from jobs.analysis.failures.result import Rate
from jobs.analysis.statistics.texts import NEGATIONS, NUMERAL

NAME = "near_duplicates"
# Two texts are near-duplicates where they share more of their different sequences of LENGTH words than this
# (Jaccard: shared sequences by all sequences).
SHARED = 0.05
LENGTH = 3
# Of the words that differ, so many of a kind are listed.
LISTED = 12
# Of MiniLM's top tens, by tests/benchmarks/planted.py on 2026-11-29. Cranfield has copies of its own.
MEASURED = (
    Rate(collection="Cranfield", planted=180, controls=60, recognised=0.93, false_alarms=0.0, of="pairs"),
    Rate(collection="SciFact", planted=180, controls=60, recognised=0.97, false_alarms=0.0, of="pairs"),
    Rate(
        collection="Cranfield", planted=180, controls=60, recognised=0.94, false_alarms=0.13, of="any of ten documents"
    ),
    Rate(collection="SciFact", planted=180, controls=60, recognised=0.97, false_alarms=0.0, of="any of ten documents"),
)


@dataclass(frozen=True)
class Differences:
    """The words that only one of two texts has at a place, by what they are, at most ``LISTED`` of each.

    ``changed`` counts all of them, in both texts, of ``words`` in all.
    """

    negations: tuple[str, ...]
    numbers: tuple[str, ...]
    others: tuple[str, ...]
    changed: int
    words: int

    def sentence(self) -> str:
        """Return what differs, in one line; of texts that share less than half their words only how much."""
        if 2 * self.changed > self.words:
            return f"they share passages; {self.changed:,} of {self.words:,} words differ"
        named = [
            f"{name} ({', '.join(words)})"
            for name, words in (("a negation", self.negations), ("a number", self.numbers))
            if words
        ]
        if self.others:
            more = ", …" if len(self.others) == LISTED else ""
            named.append(f"other words ({', '.join(self.others)}{more})")
        return f"they differ in {' and '.join(named)}" if named else "no word differs"


def words_of(text: str) -> list[str]:
    """Return the words of a text, letter case aside, without punctuation."""
    words = (word_key(text[start:end]) for start, end in word_spans(text))
    return [word for word in words if any(sign.isalnum() for sign in word)]


def sequences(words: Sequence[str]) -> frozenset[tuple[str, ...]]:
    """Return the different sequences of LENGTH words."""
    return frozenset(zip(*(words[at:] for at in range(LENGTH)), strict=False))


def shared(a: frozenset[tuple[str, ...]], b: frozenset[tuple[str, ...]]) -> float:
    """Return shared sequences by all sequences of two texts, 0 to 1; 0 where neither has one."""
    return len(a & b) / (len(a | b) or 1)


def near_duplicates(texts: Sequence[str]) -> list[tuple[int, int, float]]:
    """Return the pairs of ``texts`` that are near-duplicates, by their places, with what they share; the most alike
    first.

    A text that stands twice, word for word, counts: its sequences are the same.
    """
    each = [sequences(words_of(text)) for text in texts]
    pairs = [(i, j, shared(each[i], each[j])) for i, j in combinations(range(len(texts)), 2)]
    return sorted((pair for pair in pairs if pair[2] > SHARED), key=lambda pair: (-pair[2], pair[:2]))


def differences(a: str, b: str) -> Differences:
    """Return what differs between two near-duplicates, in reading order."""
    words = words_of(a), words_of(b)
    changed: list[str] = []
    for operation, a_from, a_to, b_from, b_to in SequenceMatcher(None, *words, autojunk=False).get_opcodes():
        if operation != "equal":
            changed += words[0][a_from:a_to] + words[1][b_from:b_to]
    kinds: dict[str, list[str]] = {"negations": [], "numbers": [], "others": []}
    for word in dict.fromkeys(changed):
        kinds[_kind(word)].append(word)
    return Differences(
        **{kind: tuple(some[:LISTED]) for kind, some in kinds.items()}, changed=len(changed), words=sum(map(len, words))
    )


def _kind(word: str) -> str:
    if word in NEGATIONS or word.endswith("n't"):
        return "negations"
    return "numbers" if NUMERAL.fullmatch(word) else "others"
