"""Which parts of speech add most to the score, against what their frequency would give."""

from __future__ import annotations

import numpy as np

from jobs.analysis.resampling import divided, large_enough
from jobs.analysis.statistics.batches import Batch
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
from jobs.analysis.statistics.schema import Figure
from jobs.analysis.statistics.sums import Array, quantised
from jobs.analysis.statistics.tagging import UNIVERSAL
from jobs.analysis.statistics.texts import TEXT

N = len(UNIVERSAL)
NOUNS, VERBS = ("NOUN", "PROPN"), ("VERB",)


class PartsOfSpeech(Measure):
    name = "parts_of_speech"
    title = "Parts of speech"
    meaning = "How much of the {whole} each part of speech gives, by word and by pair of words, against its frequency."
    cells = True

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        texts = scene.texts
        self.label = np.where(texts.kind == TEXT, texts.pos.astype(np.int64), -1)
        self.count = texts.counts(self.label, N).astype(np.float64)
        # The tags that each text has, one text after the other: where each begins [T + 1], the tags, how often.
        text, tag = np.nonzero(self.count)
        self.held = np.searchsorted(text, np.arange(len(texts) + 1)), tag, self.count[text, tag]
        self.sides = {side: (scene.sums(N), scene.sums(N)) for side in "ab"}
        self.words = {side: np.zeros(N) for side in "ab"}
        self.pairs = scene.sums(N * N)
        self.cell_counts = scene.sums(N * N)
        self.total = scene.sums(2)
        self.bounds = np.zeros((2, N * N))

    @staticmethod
    def missing(scene: Scene) -> str | None:
        return (
            "Parts of speech need a spaCy pipeline and words or tokens as groups."
            if scene.texts.pipeline is None
            else None
        )

    def add(self, batch: Batch) -> None:
        sizes = batch.sizes()
        sides = {
            "a": (batch.rows, batch.row_values, sizes[1], batch.a),
            "b": (batch.cols, batch.col_values, sizes[0], batch.b),
        }
        for side, ((pair, word), values, other, text) in sides.items():
            label = self.label[word]
            there = label >= 0
            bucket = batch.bucket[pair[there]]
            self.sides[side][0].add(bucket, label[there], values[there])
            self.sides[side][1].add_rows(batch.bucket, self.count[text] * other[:, None])
            self.words[side] += self.count[text].sum(0)
        self.total.add_rows(batch.bucket, np.column_stack([batch.text_total, batch.mass]))
        cells, rest = batch.cells, batch.rest
        if not self.scene.word_pairs:
            return
        assert cells is not None
        assert rest is not None
        label = self.label[cells.a] * N + self.label[cells.b]
        self.pairs.add(batch.bucket[cells.pair], label, cells.value)
        pair, both, count = self._meetings(batch.a, batch.b)
        self.cell_counts.add(batch.bucket[pair], both, count)
        if not self.scene.whole:
            seen = np.bincount(cells.pair * N * N + label, minlength=len(batch) * N * N)
            even, *ends = rest.of(pair).bounds((count - seen[pair * N * N + both])[:, None])
            self.pairs.add(batch.bucket[pair], both, even[:, 0])
            off = [quantised(end - even, self.scene.quantum)[:, 0] for end in ends]
            self.bounds += [np.bincount(both, one, N * N) for one in off]

    def _meetings(self, a: Array, b: Array) -> tuple[Array, Array, Array]:
        """Which tags meet in each pair of texts [n]: the pair, the two tags as one number, and in how many cells."""
        first, tag, count = self.held
        (of_a, of_b), (in_a, in_b) = (first[a], first[b]), (first[a + 1] - first[a], first[b + 1] - first[b])
        pair = np.repeat(np.arange(len(a)), in_a * in_b)
        begins = np.cumsum(in_a * in_b) - in_a * in_b
        at_a, at_b = np.divmod(np.arange(len(pair)) - begins[pair], in_b[pair])
        at_a, at_b = at_a + of_a[pair], at_b + of_b[pair]
        return pair, tag[at_a] * N + tag[at_b], count[at_a] * count[at_b]

    def result(self) -> Result:
        words, by_side = self._words()
        notes = withheld(self.scene, *self.total.total)
        if not self.scene.word_pairs:
            return Result(by_side, [words], [*notes, *self.scene.why_no_word_pairs])
        pairs, by_pair = self._pairs()
        return Result([*by_side, *by_pair], [words, pairs], notes)

    def _words(self) -> tuple[Table, list[Figure]]:
        draw = self.scene.resampling
        rows, figures = [], []
        for side in ("a", "b", "both"):
            one = "ab" if side == "both" else side
            sums = np.sum([self.sides[s][0].values for s in one], axis=0)
            count = np.sum([self.sides[s][1].values for s in one], axis=0)
            words = np.sum([self.words[s] for s in one], axis=0)
            # Both sides together hold every word pair twice.
            below = sums.sum(1, keepdims=True), len(one) * self.total.values[:, 1:]
            cells = count.sum(1, keepdims=True)
            mean = sums.sum(0) / len(one) / max(self.scene.pairs.count, 1)
            values = np.stack([*share_columns(self.scene, sums, *below, count).values(), mean])
            for at in np.flatnonzero(words > 0):
                rows.append((side, UNIVERSAL[at], int(words[at]), *values[:, at]))
            if side == "both":
                for name, tags in (("nouns", NOUNS), ("verbs", VERBS)):
                    which = [UNIVERSAL.index(tag) for tag in tags]
                    own, counted = sums[:, which].sum(1), count[:, which].sum(1)
                    who = f"{name} and names" if "PROPN" in tags else name
                    said = f"share of the {self.scene.sum_name} (special tokens left out) that {who} give"
                    figures.append(figure(f"{name}_share", said, draw.share(own, *below)))
                    against = draw.share_lift(own[:, None], *below, counted[:, None], cells)
                    meaning = f"share that {who} give over their share of the word pairs"
                    figures.append(figure(f"{name}_lift", meaning, against, "ratio"))
        data = rows_table(("side", "pos", "words", *SHARES, "mean"), rows)
        described = {
            "pos": "universal part of speech",
            "words": "how many words of it the pairs have",
            "frequency": "share of the word pairs that they are part of",
        }
        meaning = "By part of speech: share of what all words give together, special tokens left out. Exact."
        return Table("parts_of_speech", meaning, data, described), figures

    def _pairs(self) -> tuple[Table, list[Figure]]:
        draw, whole = self.scene.resampling, self.scene.whole
        sums, below = self.pairs.values, (self.total.values[:, :1], self.total.values[:, 1:])
        counted = self.cell_counts.values
        total = large_enough(*self.total.total)
        at_least, at_most = (divided(sums.sum(0) + end, total) for end in self.bounds)
        there = np.flatnonzero(counted.sum(0) > 0)
        order = there[np.argsort(-np.abs(sums.sum(0)[there]), kind="stable")]
        data = columns_table(
            pos_a=[UNIVERSAL[at // N] for at in order],
            pos_b=[UNIVERSAL[at % N] for at in order],
            **{name: values[order] for name, values in share_columns(self.scene, sums, *below, counted).items()},
            mean=sums.sum(0)[order] / max(self.scene.pairs.count, 1),
            cells=counted.sum(0)[order].astype(np.int64),
            exact=[whole] * len(order),
            at_least=at_least[order],
            at_most=at_most[order],
        )
        described = {
            "pos_a": "part of speech of the word of a",
            "pos_b": "part of speech of the word of b",
            "cells": "how many word pairs are of this kind",
        }
        meaning = "By pair of parts of speech: share of the sum over all word pairs without special tokens."
        figures = []
        for name, tags in (("noun_cells", NOUNS), ("noun_verb_cells", (*NOUNS, *VERBS))):
            which = [UNIVERSAL.index(p) * N + UNIVERSAL.index(q) for p in tags for q in tags]
            who = "nouns or names" if len(tags) == len(NOUNS) else "nouns, names or verbs"
            said = f"share of the sum over all word pairs without special tokens that come of two words, both {who}"
            certain = (at_least[which].sum(), at_most[which].sum())
            values = draw.share(sums[:, which].sum(1), *below)
            figures.append(figure(name, said, values, exact=whole, ends=certain))
        return Table("pos_pairs", meaning, data, described, exact=whole), figures
