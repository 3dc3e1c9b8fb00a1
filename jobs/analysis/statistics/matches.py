"""How much comes from words that are the same or nearly, from numbers, negations, punctuation and special tokens."""

from __future__ import annotations

import numpy as np

from jobs.analysis.resampling import divided, large_enough
from jobs.analysis.statistics.batches import Batch, flat_words
from jobs.analysis.statistics.measure import (
    SHARES,
    Measure,
    Result,
    Scene,
    Table,
    columns_table,
    figure,
    rows_table,
    share_columns,
    withheld,
)
from jobs.analysis.statistics.sums import Array, quantised
from jobs.analysis.statistics.tagging import NEGATION, NUMBER
from jobs.analysis.statistics.texts import PROMPT, PUNCTUATION, SPECIAL, TEXT, Texts

MATCHES = ("exact", "lemma", "stem", "other")
MEETINGS = ("same number", "other number", "punctuation", "two negations", "one negation", "other")
KINDS = ("word", "number", "punctuation", "negation", "special", "prompt")
WORD, NUMERIC, MARK, NEGATED, SPECIAL_KIND, PROMPT_KIND = range(len(KINDS))


class Matches(Measure):
    name = "matches"
    title = "Matches"
    meaning = (
        "How much of the {whole} comes from identical words, other forms of them, numbers, negations, punctuation and "
        "special tokens."
    )
    cells = True

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        texts = scene.texts
        own = texts.kind == TEXT
        self.kind = np.select(
            [
                texts.kind == SPECIAL,
                texts.kind == PROMPT,
                *((texts.flags & f) > 0 for f in (PUNCTUATION, NUMBER, NEGATION)),
            ],
            [SPECIAL_KIND, PROMPT_KIND, MARK, NUMERIC, NEGATED],
            WORD,
        )
        self.kinds = texts.counts(self.kind, len(KINDS)).astype(np.float64)
        word = np.where(own, texts.word, -1)
        both = _together(word, texts.lemma)
        self.same = {
            "word": Same(texts, word),
            "number": Same(texts, np.where(self.kind == NUMERIC, word, -1)),
        }
        if texts.pipeline is not None:
            self.same |= {"lemma": Same(texts, texts.lemma), "word and lemma": Same(texts, both)}
        if texts.stemmed:
            self.same |= {"stem": Same(texts, texts.stem)}
            self.same |= {"stem and lemma": Same(texts, _together(texts.stem, texts.lemma))}
        self.found = {"match": scene.sums(len(MATCHES)), "meeting": scene.sums(len(MEETINGS))}
        self.count = {name: scene.sums(sums.values.shape[1]) for name, sums in self.found.items()}
        self.bounds = {name: np.zeros((2, sums.values.shape[1])) for name, sums in self.found.items()}
        self.sides = {side: (scene.sums(len(KINDS)), scene.sums(len(KINDS))) for side in "ab"}
        self.total = scene.sums(4)

    def add(self, batch: Batch) -> None:
        one = batch.scalars
        self.total.add_rows(batch.bucket, np.column_stack([batch.text_total, one["exact"], one["total"], batch.mass]))
        sizes = batch.sizes()
        sides = {
            "a": (batch.rows, batch.row_values, sizes[1], batch.a),
            "b": (batch.cols, batch.col_values, sizes[0], batch.b),
        }
        for side, ((pair, word), values, other, text) in sides.items():
            self.sides[side][0].add(batch.bucket[pair], self.kind[word], values)
            self.sides[side][1].add_rows(batch.bucket, self.kinds[text] * other[:, None])
        cells, rest = batch.cells, batch.rest
        if not self.scene.word_pairs:
            return
        assert cells is not None
        assert rest is not None
        same = {name: found.count(batch.a, batch.b) for name, found in self.same.items()}
        labels = {"match": self._match(cells.a, cells.b), "meeting": self._meeting(cells.a, cells.b)}
        counts = {"match": self._matches(batch, same), "meeting": self._meetings(batch, same)}
        for name, label in labels.items():
            columns = counts[name].shape[1]
            self.found[name].add(batch.bucket[cells.pair], label, cells.value)
            self.count[name].add_rows(batch.bucket, counts[name])
            if not self.scene.whole:
                seen = np.bincount(cells.pair * columns + label, minlength=counts[name].size)
                even, *ends = rest.bounds(counts[name] - seen.reshape(counts[name].shape))
                self.found[name].add_rows(batch.bucket, even)
                self.bounds[name] += [quantised(end - even, self.scene.quantum).sum(0) for end in ends]

    def _match(self, a: Array, b: Array) -> Array:
        """The kind of match of each cell, a number of MATCHES."""
        texts = self.scene.texts
        kinds = np.full(len(a), MATCHES.index("other"))
        for name in ("stem", "lemma"):
            values = getattr(texts, name)
            kinds[(values[a] == values[b]) & (values[a] >= 0)] = MATCHES.index(name)
        kinds[texts.word[a] == texts.word[b]] = MATCHES.index("exact")
        return kinds

    def _matches(self, batch: Batch, same: dict[str, Array]) -> Array:
        """How many cells each kind of match has in each pair: words that are the same also share lemma and stem."""
        none = np.zeros(len(batch))
        exact, lemma = same["word"], same.get("lemma", none) - same.get("word and lemma", none)
        by_stem = same["stem"] - exact - (same["stem and lemma"] - same["word and lemma"]) if "stem" in same else none
        if "stem" in same and "lemma" not in self.same:
            by_stem = same["stem"] - exact
        return np.column_stack([exact, lemma, by_stem, batch.text_cells - exact - lemma - by_stem])

    def _meeting(self, a: Array, b: Array) -> Array:
        """The kinds of words that meet in each cell, a number of MEETINGS."""
        kinds = self.kind[a], self.kind[b]
        same = self.scene.texts.word[a] == self.scene.texts.word[b]
        both = [(kinds[0] == kind) & (kinds[1] == kind) for kind in (NUMERIC, MARK, NEGATED)]
        one = (kinds[0] == NEGATED) | (kinds[1] == NEGATED)
        return np.select([both[0] & same, *both, one], [0, 1, 2, 3, 4], 5)

    def _meetings(self, batch: Batch, same: dict[str, Array]) -> Array:
        a, b = self.kinds[batch.a], self.kinds[batch.b]
        numeric, marks, negated = (a[:, kind] * b[:, kind] for kind in (NUMERIC, MARK, NEGATED))
        words = batch.texts.words[batch.a], batch.texts.words[batch.b]
        one = a[:, NEGATED] * words[1] + b[:, NEGATED] * words[0] - 2 * negated
        other = batch.text_cells - numeric - marks - negated - one
        return np.column_stack([same["number"], numeric - same["number"], marks, negated, one, other])

    def result(self) -> Result:
        if not self.scene.word_pairs:
            return Result([], [self._sides()], self.scene.why_no_word_pairs)
        draw, whole = self.scene.resampling, self.scene.whole
        known = self.total.values
        sums = self.found["match"].values.copy()
        bounds = self.bounds["match"].copy()
        lemma, stem, other = (MATCHES.index(name) for name in ("lemma", "stem", "other"))
        # The sum over identical words is stored with every pair, and what is not in another kind is in the last.
        sums[:, 0], bounds[:, 0] = known[:, 1], 0
        sums[:, other] = known[:, 0] - sums[:, :other].sum(1)
        bounds[:, other] = -bounds[::-1, [lemma, stem]].sum(1)
        kinds = [name for name in MATCHES if name in ("exact", "other") or name in self.same]
        figures = [
            figure(
                "exact",
                "share of the sum over all word pairs without special tokens that identical words give",
                draw.share(known[:, 1], known[:, 0], known[:, 3]),
            ),
            figure(
                "special",
                f"share of the {self.scene.sum_name} that word pairs with a special or prompt token give",
                draw.share(known[:, 2] - known[:, 0], known[:, 2], known[:, 3]),
            ),
        ]
        counts = self.count["match"].values
        lift = draw.share_lift(known[:, 1:2], known[:, :1], known[:, 3:], counts[:, :1], counts.sum(1, keepdims=True))
        said = "share that identical words give over their share of these word pairs"
        figures.append(figure("exact_lift", said, lift, "ratio"))
        table = self._table("matches", MATCHES, kinds, sums, bounds, counts)
        for name in kinds[1:-1]:
            at = table.data["match"].to_pylist().index(name)
            row = table.data.slice(at, 1).to_pylist()[0]
            values = [np.nan if row[key] is None else row[key] for key in ("share", "low", "high")]
            said = f"share of the same sum that words with the same {name} give which are not identical"
            figures.append(figure(name, said, values, exact=whole, ends=(row["at_least"], row["at_most"])))
        parts = self.found["meeting"].values, self.bounds["meeting"], self.count["meeting"].values
        notes = withheld(self.scene, self.total.total[2], self.total.total[3])
        if "lemma" not in kinds:
            notes.append("Other forms of a word count as other: lemmas need a spaCy pipeline.")
        elif "stem" not in kinds:
            notes.append("Stems are left out: there is no stemmer for the pipeline's language.")
        return Result(figures, [table, self._table("meetings", MEETINGS, list(MEETINGS), *parts), self._sides()], notes)

    def _table(
        self, name: str, labels: tuple[str, ...], shown: list[str], sums: Array, bounds: Array, counts: Array
    ) -> Table:
        whole, below = self.scene.whole, (self.total.values[:, :1], self.total.values[:, 3:])
        shares = share_columns(self.scene, sums, *below, counts)
        total = large_enough(self.total.total[0], self.total.total[3])
        ends = [divided(sums.sum(0) + end, total) for end in bounds]
        at = [labels.index(label) for label in shown]
        what = "match" if name == "matches" else "meeting"
        exact = [whole or label == "exact" for label in shown]
        data = columns_table(
            **{what: shown},
            **{key: values[at] for key, values in shares.items()},
            mean=sums.sum(0)[at] / max(self.scene.pairs.count, 1),
            cells=counts.sum(0)[at].astype(np.int64),
            exact=exact,
            at_least=ends[0][at],
            at_most=ends[1][at],
        )
        described = {
            "match": "exact: the same word, letter case aside; lemma, stem: another form of it; other: neither",
            "meeting": "what meets: numbers, punctuation marks, negation words",
            "cells": "how many word pairs are of this kind",
        }
        meaning = "By what two words have in common: share of the sum over all word pairs without special tokens."
        return Table(name, meaning, data, described, exact=all(exact))

    def _sides(self) -> Table:
        rows = []
        for side, (sums, count) in self.sides.items():
            below = self.total.values[:, 2:3], self.total.values[:, 3:]
            shares = share_columns(self.scene, sums.values, *below, count.values)
            values = np.stack([*shares.values(), sums.total / max(self.scene.pairs.count, 1)])
            rows += [(side, kind, *values[:, at]) for at, kind in enumerate(KINDS) if count.total[at] > 0]
        data = rows_table(("side", "kind", *SHARES, "mean"), rows)
        described = {
            "kind": "kind of word or token",
            "frequency": "share of the word pairs that they are part of, special tokens included",
        }
        meaning = f"By kind of word, special tokens included: share of the {self.scene.sum_name}. Exact."
        return Table("word_kinds", meaning, data, described)


class Same:
    """Counts a pair's cells whose two words have the same label, without looking at cells: labels [words], negative
    ones never match. Labels are sorted within each text once, so that a pair's two lists are merged."""

    def __init__(self, texts: Texts, label: Array) -> None:
        self._texts, self._own = texts, label
        self._label = label[np.lexsort((label, texts.of_word))].astype(np.int64)
        self._most = int(label.max(initial=0)) + 2

    def count(self, a: Array, b: Array) -> Array:
        """How many cells of each pair match, [n] float64."""
        keys, labels = [], []
        for which in (a, b):
            pair, word = flat_words(self._texts, which)
            labels.append(self._label[word])
            keys.append(pair * self._most + labels[-1] + 1)
        there = np.flatnonzero(labels[0] >= 0)
        wanted = keys[0][there]
        first = np.searchsorted(keys[1], wanted, "left")
        # Most labels meet none of their own: only for the others is it looked up how many.
        met = np.append(keys[1], -1)[first] == wanted
        wanted, first = wanted[met], first[met]
        matched = np.searchsorted(keys[1], wanted, "right") - first
        return np.bincount(wanted // self._most, matched, len(a))

    def stand(self, a: Array, b: Array) -> Array:
        """Whether the second text of a pair contains each word of the first, [words of ``a``], one text after the
        other."""
        pair, word = flat_words(self._texts, a)
        other, place = flat_words(self._texts, b)
        keys = other * self._most + self._label[place] + 1
        wanted = pair * self._most + self._own[word].astype(np.int64) + 1
        met = np.append(keys, -1)[np.searchsorted(keys, wanted, "left")] == wanted
        return met & (self._own[word] >= 0)


def _together(left: Array, right: Array) -> Array:
    """One number for each combination of two; -1 where either is negative."""
    both = (left >= 0) & (right >= 0)
    joint = left.astype(np.int64) * (int(right.max(initial=0)) + 1) + right
    numbers = np.full(len(left), -1, np.int64)
    numbers[both] = np.unique(joint[both], return_inverse=True)[1]
    return numbers
