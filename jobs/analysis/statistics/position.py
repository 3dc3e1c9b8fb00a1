"""At which positions of a text words add most, and how much of a text the model did not read."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from jobs.analysis.statistics.batches import Batch
from jobs.analysis.statistics.measure import (
    SHARES,
    Measure,
    Result,
    Scene,
    Table,
    figure,
    rows_table,
    share_columns,
    withheld,
)
from jobs.analysis.statistics.texts import TEXT

# Places by word: each of the first ten, then wider and wider ranges.
EDGES = (*range(10), 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1 << 30)
TENTHS = 10
CHARACTERS = (0, 50, 100, 200, 300, 500, 750, 1000, 1500, 2000, 3000, 5000, 1 << 30)


class Position(Measure):
    name = "position"
    title = "Position"
    meaning = "How much of the {whole} the words of a text give, by where they stand in it."

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        texts = scene.texts
        own = texts.kind == TEXT
        place = np.searchsorted(EDGES, texts.place, "right") - 1
        read = np.maximum(texts.chars * texts.cut, 1)[texts.of_word]
        tenth = np.minimum((texts.starts * TENTHS / read).astype(np.int64), TENTHS - 1)
        character = np.searchsorted(CHARACTERS, texts.starts, "right") - 1
        self.scales = {
            "word": (_ranges(EDGES), np.where(own, place, -1)),
            "tenth": (
                [f"{100 * t // TENTHS}-{100 * (t + 1) // TENTHS} %" for t in range(TENTHS)],
                np.where(own, tenth, -1),
            ),
            "characters": (_ranges(CHARACTERS), np.where(own, character, -1)),
        }
        self.sums = {(s, side): scene.sums(len(labels)) for s, (labels, _) in self.scales.items() for side in "ab"}
        self.counts = {key: scene.sums(sums.values.shape[1]) for key, sums in self.sums.items()}
        self.cut = scene.sums(4)
        self.total = scene.sums(2)

    def add(self, batch: Batch) -> None:
        sizes = batch.sizes()
        sides = {"a": (batch.rows, batch.row_values, sizes[1]), "b": (batch.cols, batch.col_values, sizes[0])}
        for (scale, side), sums in self.sums.items():
            (pair, word), values, other = sides[side]
            label = self.scales[scale][1][word]
            there = label >= 0
            bucket = batch.bucket[pair[there]]
            sums.add(bucket, label[there], values[there])
            self.counts[scale, side].add(bucket, label[there], other[pair[there]])
        self.total.add_rows(batch.bucket, np.column_stack([batch.text_total, batch.mass]))
        cut = [batch.texts.cut[which] for which in (batch.a, batch.b)]
        self.cut.add_rows(batch.bucket, np.column_stack([*cut, *(one < 1 for one in cut)]))

    def result(self) -> Result:
        draw = self.scene.resampling
        tables, figures = [], []
        for scale, (labels, _) in self.scales.items():
            rows = []
            for side in "ab":
                sums_of_side, count = self.sums[scale, side].values, self.counts[scale, side].values
                shares = share_columns(
                    self.scene, sums_of_side, sums_of_side.sum(1, keepdims=True), self.total.values[:, 1:], count
                )
                values = np.stack(list(shares.values()))
                rows += [(side, int(at), labels[at], *values[:, at]) for at in np.flatnonzero(count.sum(0) > 0)]
                if scale == "tenth":
                    meaning = f"share that the first tenth of text {side} gives over its share of the word pairs"
                    lift = [shares[name][0] for name in ("lift", "lift_low", "lift_high")]
                    figures.append(figure(f"lead_{side}", meaning, lift, "ratio"))
            tables.append(_table(scale, rows))
        cut = self.cut.values
        for at, side in enumerate("ab"):
            pairs = self.scene.pairs_a_bucket
            share = draw.ratio(cut[:, 2 + at], pairs)
            figures.append(
                figure(f"truncated_{side}", f"share of pairs whose text {side} is longer than the model reads", share)
            )
            lost = [1 - one for one in draw.ratio(cut[:, at], pairs)]
            meaning = f"share of text {side}'s characters that the model does not read, mean over pairs"
            figures.append(figure(f"unread_{side}", meaning, [lost[0], lost[2], lost[1]]))
        return Result(figures, tables, withheld(self.scene, *self.total.total))


def _ranges(edges: tuple[int, ...]) -> list[str]:
    pairs = itertools.pairwise(edges)
    return [str(a) if b == a + 1 else (f"{a} and more" if b == 1 << 30 else f"{a}-{b - 1}") for a, b in pairs]


def _table(scale: str, rows: Sequence[tuple[object, ...]]) -> Table:
    said = {
        "word": "words before it in the text (0 is the first word)",
        "tenth": "how far into what the model read of the text, in tenths of its characters",
        "characters": "characters before it in the text",
    }[scale]
    meaning = f"By position, {said}: share of what all words of the text give, special tokens left out."
    described = {"order": "number of the range, in reading order", "position": said}
    return Table(f"position_{scale}", meaning, rows_table(("side", "order", "position", *SHARES), rows), described)
