"""A retrieval log: relevant documents compared with others, ranks, and what each word of a query added to its
scores."""

from __future__ import annotations

import itertools

import numpy as np

from attribution_core.pairs.columns import SHARES
from jobs.analysis.resampling import LEAST_TOTAL
from jobs.analysis.statistics.batches import Batch
from jobs.analysis.statistics.measure import Measure, Result, Scene, Table, figure, numbers, rows_table
from jobs.analysis.statistics.query_words import QueryWords
from jobs.analysis.statistics.schema import Figure
from jobs.analysis.statistics.sums import Array, BucketSums

RELEVANCE = ("relevant", "not relevant", "not judged")
RANKS = (*range(1, 21), 21, 51, 101, 1 << 30)
# What _Retrieval sums up of a group of pairs.
SUMMED = ("count", "score", "total", "largest_5", "exact", "text_total", "negative", "mass", "special")
# What of these is divided by what: means over pairs and of absolute values, and shares of a sum that can be near zero.
MEANS = {"score": ("score", "count"), "total": ("total", "count"), "negative_mass": ("negative", "mass")}
# Measures that need word pairs.
OF_PAIRS = ("largest_5", "exact", "negative_mass", "special")
SHARED = {"largest_5": ("largest_5", "total"), "exact": ("exact", "text_total"), "special": ("special", "total")}


class Retrieval(Measure):
    name = "retrieval"
    title = "Retrieval"
    meaning = "Relevant documents against others, documents by rank, and what each word of a query added to its scores."
    lifts = True

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self.words = QueryWords(scene)
        self.groups: dict[str, list[BucketSums]] = {}
        if "relevance" in scene.kept:
            self.groups["relevance"] = [scene.sums(len(SUMMED)) for _ in RELEVANCE]
        if "rank" in scene.kept:
            self.groups["rank"] = [scene.sums(len(SUMMED)) for _ in RANKS[:-1]]
        whole = scene.sum_name
        self.measures = {
            "score": "mean score",
            "total": "mean sum of all attributions, the total",
            "largest_5": f"share of the {whole} that the largest 5 % of word pairs give",
            "exact": "share of the sum over word pairs without special tokens that identical words give",
            "negative_mass": "share of the sum of absolute values that is negative",
            "special": f"share of the {whole} that word pairs with a special or prompt token give",
        }
        if not scene.word_pairs:
            self.measures = {name: said for name, said in self.measures.items() if name not in OF_PAIRS}
        if scene.sums_to == "score":
            del self.measures["total"]  # the same number twice

    @staticmethod
    def missing(scene: Scene) -> str | None:
        if scene.run.roles[0] == "query" or {"rank", "relevance"} & set(scene.kept):
            return None
        return "The run is no retrieval log: it has no queries, and no ranks or relevance in numbers."

    def add(self, batch: Batch) -> None:
        self.words.add(batch)
        one = batch.scalars
        five = batch.largest[:, SHARES.index(0.05)] if self.scene.word_pairs else np.zeros(len(batch))
        columns = [np.ones(len(batch)), one["score"], one["total"], five, one["exact"], batch.text_total]
        # NaN where the run has no word pairs.
        summed = np.nan_to_num(np.column_stack([*columns, -one["negative"], batch.mass, one["special"]]))
        for name, sums in self.groups.items():
            values = numbers(batch.kept[name])
            if name == "relevance":
                group = np.where(np.isfinite(values), np.where(values > 0, 0, 1), 2)
            else:
                group = np.where(np.isfinite(values), np.searchsorted(RANKS, np.nan_to_num(values), "right") - 1, -1)
            for at in np.unique(group[group >= 0]):
                own = group == at
                sums[int(at)].add_rows(batch.bucket[own], summed[own])

    def result(self) -> Result:
        tables = [
            self._by_group(name, labels)
            for name, labels in (("relevance", list(RELEVANCE)), ("rank", _rank_labels()))
            if name in self.groups
        ]
        figures = self._relevance_figures() if "relevance" in self.groups else []
        words = self.words.result()
        notes = [*words.notes, *self.scene.why_no_word_pairs]
        return Result([*figures, *words.figures], [*tables, *words.tables], notes)

    def _measured(self, measure: str, values: Array) -> tuple[Array, Array, Array]:
        """A measure of the pairs whose sums by bucket are ``values`` [buckets, SUMMED], and its interval."""
        draw = self.scene.resampling
        above, below = (values[:, SUMMED.index(name)] for name in (MEANS | SHARED)[measure])
        if measure in MEANS:
            return draw.ratio(above, below)
        return draw.share(above, below, values[:, SUMMED.index("mass")])

    def _by_group(self, name: str, labels: list[str]) -> Table:
        rows = []
        for order, (label, sums) in enumerate(zip(labels, self.groups[name], strict=True)):
            pairs = int(sums.total[0])
            for measure in self.measures if pairs else ():
                values = (float(one[0]) for one in self._measured(measure, sums.values))
                rows.append((label, order, measure, pairs, *values))
        data = rows_table(("group", "order", "measure", "pairs", "value", "low", "high"), rows)
        described = {
            "group": "relevant: a judged relevance above 0" if name == "relevance" else "rank in the log, from 1",
            "order": "number of the group",
            "measure": "; ".join(f"{key}: {text}" for key, text in self.measures.items()),
            "value": f"the measure over the pairs of the group; no share where their {self.scene.sum_name}s add up to "
            f"less than {LEAST_TOTAL:g} of the sum of absolute values",
        }
        return Table(f"retrieval_{name}", f"Pairs of a log by {name}.", data, described)

    def _relevance_figures(self) -> list[Figure]:
        figures = []
        for measure in (one for one in ("score", "exact", "largest_5") if one in self.measures):
            for name, at in (("relevant", 0), ("not_relevant", 1)):
                sums = self.groups["relevance"][at]
                if sums.total[0]:
                    said = f"{self.measures[measure]}, {name.replace('_', ' ')} documents"
                    unit = "" if measure == "score" else "share"
                    figures.append(figure(f"{measure}_{name}", said, self._measured(measure, sums.values), unit))
        return figures


def _rank_labels() -> list[str]:
    pairs = itertools.pairwise(RANKS)
    return [str(a) if b == a + 1 else (f"{a} and more" if b == 1 << 30 else f"{a}-{b - 1}") for a, b in pairs]
