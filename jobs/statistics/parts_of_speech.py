"""Which parts of speech bring most, against what their frequency would give."""

from __future__ import annotations

from typing import Any

import numpy as np

from jobs.statistics.measure import Measure, Result, Scene, Table, columns_table, figure
from jobs.statistics.reading import Batch
from jobs.statistics.schema import Figure
from jobs.statistics.sums import Array, divided, quantised
from jobs.statistics.tagging import UNIVERSAL
from jobs.statistics.texts import TEXT

N = len(UNIVERSAL)
NOUNS, VERBS = ("NOUN", "PROPN"), ("VERB",)
INTERVAL = ("share", "low", "high")


class PartsOfSpeech(Measure):
    name = "parts_of_speech"
    title = "Parts of speech"
    meaning = "Which parts of speech bring the score, by word and by pair of words, against their frequency."
    cells = True
    tagged = True

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
        self.total = scene.sums(1)
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
        self.total.add_rows(batch.bucket, batch.text_total[:, None])
        cells, rest = batch.cells, batch.rest
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
        pairs, by_pair = self._pairs()
        figures = [*by_side, *by_pair]
        return Result(figures, [words, pairs])

    def _words(self) -> tuple[Table, list[Figure]]:
        draw = self.scene.resampling
        columns: dict[str, list[Any]] = {name: [] for name in ("side", "pos", "words")}
        floats: dict[str, list[Array]] = {n: [] for n in (*INTERVAL, "frequency", "lift", "lift_low", "lift_high")}
        figures = []
        for side in ("a", "b", "both"):
            one = "ab" if side == "both" else side
            found = np.sum([self.sides[s][0].values for s in one], axis=0)
            count = np.sum([self.sides[s][1].values for s in one], axis=0)
            words = np.sum([self.words[s] for s in one], axis=0)
            every = found.sum(1, keepdims=True), count.sum(1, keepdims=True)
            share, lift = draw.ratio(found, every[0]), draw.lift(found, every[0], count, every[1])
            frequency = draw.ratio(count, every[1])[0]
            there = words > 0
            columns["side"] += [side] * int(there.sum())
            columns["pos"] += [name for name, is_there in zip(UNIVERSAL, there, strict=True) if is_there]
            columns["words"] += [int(n) for n in words[there]]
            for name, values in zip(floats, (*share, frequency, *lift), strict=True):
                floats[name].append(values[there])
            if side == "both":
                for name, tags in (("nouns", NOUNS), ("verbs", VERBS)):
                    which = [UNIVERSAL.index(tag) for tag in tags]
                    own, counted = found[:, which].sum(1), count[:, which].sum(1)
                    said = " and ".join(tags)
                    figures.append(figure(f"{name}_share", f"share that {said} bring", draw.ratio(own, every[0])))
                    against = draw.lift(own[:, None], every[0], counted[:, None], every[1])
                    meaning = f"what {said} bring, against their frequency"
                    figures.append(figure(f"{name}_lift", meaning, against, "ratio"))
        data = columns_table(**columns, **{name: np.concatenate(values) for name, values in floats.items()})
        described = {
            "pos": "universal part of speech",
            "words": "how many words of it the pairs have",
            "frequency": "share of the cells that lie in their rows (a) or columns (b)",
        }
        meaning = "Share of all words' row (a) and column (b) sums by part of speech. Exact for every run."
        return Table("parts_of_speech", meaning, data, described), figures

    def _pairs(self) -> tuple[Table, list[Figure]]:
        draw, whole = self.scene.resampling, self.scene.whole
        found, total = self.pairs.values, self.total.values
        counted = self.cell_counts.values
        cells = counted.sum(1, keepdims=True)
        share, lift = draw.ratio(found, total), draw.lift(found, total, counted, cells)
        at_least, at_most = (divided(found.sum(0) + end, total.sum()) for end in self._ends())
        there = np.flatnonzero(counted.sum(0) > 0)
        order = there[np.argsort(-np.abs(np.nan_to_num(share[0][there])), kind="stable")]
        data = columns_table(
            pos_a=[UNIVERSAL[at // N] for at in order],
            pos_b=[UNIVERSAL[at % N] for at in order],
            **{name: values[order] for name, values in zip(INTERVAL, share, strict=True)},
            frequency=divided(counted.sum(0), cells.sum())[order],
            **{name: values[order] for name, values in zip(("lift", "lift_low", "lift_high"), lift, strict=True)},
            cells=counted.sum(0)[order].astype(np.int64),
            exact=[whole] * len(order),
            at_least=at_least[order],
            at_most=at_most[order],
        )
        described = {
            "pos_a": "part of speech of the word of a",
            "pos_b": "part of speech of the word of b",
            "cells": "how many cells are of this pair",
        }
        meaning = "Share of the sum over all cells between words, by pair of parts of speech."
        figures = []
        for name, tags in (("noun_cells", NOUNS), ("noun_verb_cells", (*NOUNS, *VERBS))):
            which = [UNIVERSAL.index(p) * N + UNIVERSAL.index(q) for p in tags for q in tags]
            said = f"share of the cells whose two words are both {' or '.join(tags)}"
            certain = (at_least[which].sum(), at_most[which].sum())
            values = draw.ratio(found[:, which].sum(1), total)
            figures.append(figure(name, said, values, exact=whole, ends=certain))
        return Table("pos_pairs", meaning, data, described, exact=whole), figures

    def _ends(self) -> Array:
        # Divided by a sum below zero, the lower end becomes the upper one.
        return self.bounds if self.total.values.sum() >= 0 else self.bounds[::-1]
