"""Words by their lift: which raise scores beyond what their texts' length lets every word add, which dilute them."""

from __future__ import annotations

import numpy as np

from jobs.analysis.statistics.batches import Batch
from jobs.analysis.statistics.measure import Scene, Table, rows_table
from jobs.analysis.statistics.sums import Array, quantised
from jobs.analysis.statistics.texts import TEXT

SHOWN = 20


class LiftedWords:
    """Sums of lifts by word, over both texts of a pair, or of a log over queries and documents apart."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.sides = {"a": ("a",), "b": ("b",)} if scene.run.roles[0] == "query" else {"both": ("a", "b")}
        size = len(scene.texts.names)
        self.sum = {side: np.zeros(size) for side in "ab"}
        self.times = {side: np.zeros(size, np.int64) for side in "ab"}

    def add(self, batch: Batch) -> None:
        """Add the lifts of some pairs."""
        texts = self.scene.texts
        sides = {"a": (batch.rows, batch.row_lifts), "b": (batch.cols, batch.col_lifts)}
        for side, ((_, word), lifts) in sides.items():
            assert lifts is not None
            own = texts.kind[word] == TEXT
            names = texts.word[word[own]]
            self.sum[side] += np.bincount(names, quantised(lifts[own], self.scene.lift_quantum), len(texts.names))
            self.times[side] += np.bincount(names, minlength=len(texts.names))

    def table(self, support: int) -> Table:
        """The words with the largest and the smallest sums, and with the largest means of at least ``support``."""
        rows = []
        for side, parts in self.sides.items():
            total = np.sum([self.sum[one] for one in parts], axis=0)
            times = np.sum([self.times[one] for one in parts], axis=0)
            for by, order in self._orders(total, times, support).items():
                for at in order:
                    rows.append(
                        (by, side, self.scene.texts.names[at], total[at], total[at] / times[at], int(times[at]))
                    )
        data = rows_table(("by", "side", "word", "total", "mean", "occurrences"), rows)
        described = {
            "by": "why it is here: total (largest sums of lifts), lowest (smallest sums), mean (largest means)",
            "word": "the word, letter case aside",
            "total": "sum of its lifts over all pairs of texts",
            "mean": "total / occurrences: what the word lifts a score by beyond what its text's length lets every word "
            "add; negative where it dilutes",
            "occurrences": "how often it stands in a text of a pair",
        }
        meaning = "Words by how much they lift or dilute the scores of their texts. Exact."
        return Table("words_by_lift", meaning, data, described)

    def _orders(self, total: Array, times: Array, support: int) -> dict[str, list[int]]:
        names = self.scene.texts.names
        there = np.flatnonzero(times)
        frequent = there[times[there] >= support]
        mean = total / np.maximum(times, 1)

        def first(of: Array, values: Array) -> list[int]:
            if len(of) > SHOWN:
                of = of[values[of] <= np.partition(values[of], SHOWN - 1)[SHOWN - 1]]
            # Numbers of words follow the layout of the run: of equal values, the alphabet decides.
            return sorted(of.tolist(), key=lambda at: (values[at], names[at]))[:SHOWN]

        return {
            "total": first(there[total[there] > 0], -total),
            "lowest": first(there[total[there] < 0], total),
            "mean": first(frequent, -mean),
        }
