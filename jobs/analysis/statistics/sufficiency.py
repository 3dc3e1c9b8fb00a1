"""How many word pairs predict the score well, and whether chosen parts of speech are enough.

Where a pair's attributions sum to its score, the sum of some of them is a prediction of the score as it is. Where they
sum to something else, the prediction is that sum and what the score has beside the attributions' total: the reference
terms f(a, r_b) + f(r_a, b) − f(r_a, r_b) under ``difference``, and what an average pair has under ``centred``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.stats import rankdata

from attribution_core.pairs.columns import SHARES
from jobs.analysis.statistics.batches import Batch
from jobs.analysis.statistics.correlation import correlations, pearson_within, ranks_within
from jobs.analysis.statistics.measure import NO_WORD_PAIRS, Measure, Result, Scene, Table, rows_table
from jobs.analysis.statistics.schema import Figure
from jobs.analysis.statistics.sums import Array
from jobs.analysis.statistics.tagging import UNIVERSAL
from jobs.analysis.statistics.texts import TEXT

CHOSEN: dict[str, tuple[str, ...]] = {
    "nouns": ("NOUN", "PROPN"),
    "verbs": ("VERB",),
    "nouns and verbs": ("NOUN", "PROPN", "VERB"),
    "content words": ("NOUN", "PROPN", "VERB", "ADJ", "ADV", "NUM"),
    "other words": ("ADP", "AUX", "CCONJ", "DET", "INTJ", "PART", "PRON", "SCONJ", "SYM", "X"),
}
FEWEST = 3
# What makes the score of a pair's total, by what attributions sum to.
ADDED = {
    "difference": "the reference terms f(a, r_b) + f(r_a, b) - f(r_a, r_b)",
    "centred": "what the score has beside the total (score - total, of each pair)",
}
PERCENT = (*(round(100 * share) for share in SHARES), 100)


class Sufficiency(Measure):
    name = "sufficiency"
    title = "Sufficiency"
    meaning = (
        "How well the largest word pairs alone, or those of chosen parts of speech, follow the score and the gold "
        "label."
    )
    cells = True

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self.largest = scene.array(len(SHARES) + 1)
        self.score = scene.array()
        self.chosen = scene.array(len(CHOSEN), 3) if scene.texts.pipeline is not None else None
        texts = scene.texts
        tags = [np.isin(texts.pos, [UNIVERSAL.index(tag) for tag in names]) for names in CHOSEN.values()]
        self.inside = np.column_stack([one & (texts.kind == TEXT) for one in tags])
        begins = texts.offsets[:-1]
        self.count = np.add.reduceat(self.inside.astype(np.int64), begins, axis=0).astype(np.float64)

    @property
    def is_score(self) -> bool:
        """Whether attributions sum to the score, and nothing is to be added to them."""
        return self.scene.sums_to == "score"

    @staticmethod
    def missing(scene: Scene) -> str | None:
        return None if scene.word_pairs else NO_WORD_PAIRS

    def add(self, batch: Batch) -> None:
        self.largest[batch.rank] = np.column_stack([batch.largest, batch.scalars["total"]])
        self.score[batch.rank] = batch.scalars["score"]
        if self.chosen is None:
            return
        cells, rest = batch.cells, batch.rest
        assert cells is not None
        assert rest is not None
        n = len(batch)
        inside = self.inside[cells.a] & self.inside[cells.b]
        sums = np.column_stack([np.bincount(cells.pair, cells.value * one, n) for one in inside.T])
        bounds: tuple[Array, ...] = (sums * 0,) * 3
        if not self.scene.whole:
            seen = np.column_stack([np.bincount(cells.pair, one, n) for one in inside.T])
            bounds = rest.bounds(self.count[batch.a] * self.count[batch.b] - seen)
        self.chosen[batch.rank] = np.stack([sums + one for one in bounds], axis=2)

    def result(self) -> Result:
        scene = self.scene
        against = {"score": self.score}
        if not self.is_score:
            against["total"] = self.largest[:, -1]
        if scene.gold is not None and scene.gold_name is not None:
            against[scene.gold_name] = scene.gold
        notes = []
        by_name: dict[str, tuple[int, dict[str, Any]]] = {}
        for there, names in _alike(against):
            if len(there) < FEWEST:
                notes += [f"{name}: {len(there)} pairs have a value, too few for a correlation." for name in names]
                continue
            for name, one in zip(names, self._correlated(there, [against[name] for name in names]), strict=True):
                by_name[name] = len(there), one
        curve, chosen = [], []
        figures = []
        for name in (name for name in against if name in by_name):
            pairs, one = by_name[name]
            for kind, shown in self._kinds().items():
                for at, x in enumerate(shown):
                    curve.append(_row({"sum": kind, "percent": x, "against": name}, _at(one[kind], at), pairs))
                for x in (1, 5, 10, 20, 50, 100):
                    if not (x == 100 and name == ("score" if self.is_score or kind == "score" else "total")):
                        said = self._said(kind, x, name)
                        figures.append(_figure(f"{kind}_{x}_{name}", said, one[kind][1][shown.index(x)]))
            for at, words in enumerate(CHOSEN if self.chosen is not None else ()):
                named = {"words": words, "against": name}
                chosen.append(_row(named, _at(one["words"], at), pairs, scene.whole, one["ends"][at]))
        if scene.gold is None:
            notes.append("No column with gold labels was found; --gold names it.")
        tables = [_curve(curve, scene.sums_to)]
        if self.chosen is not None:
            tables.append(_chosen(chosen, scene.whole))
        else:
            notes.append("Keeping only chosen parts of speech needs a spaCy pipeline.")
        return Result(figures, tables, notes)

    def _kinds(self) -> dict[str, tuple[int, ...]]:
        """The sums to correlate, and for which per cents of the word pairs."""
        return {"cells": PERCENT} if self.is_score else {"cells": PERCENT, "score": (0, *PERCENT)}

    def _said(self, kind: str, percent: int, name: str) -> str:
        pairs = "all word pairs" if percent == 100 else f"the largest {percent} % of word pairs"
        more = f" and {ADDED[self.scene.sums_to]}" if kind == "score" else ""
        return f"Spearman's correlation of the sum of {pairs}{more} with {name}"

    def _correlated(self, there: Array, ys: list[Array]) -> list[dict[str, Any]]:
        """For each of ``ys``: correlations of each sum of the pairs ``there``, and the bounds of those estimated."""
        scene = self.scene
        y = np.column_stack(ys)[there]
        together = None if scene.pairs.query is None else scene.pairs.query[there]
        cells = self.largest[there]
        sums = {"cells": cells}
        if not self.is_score:
            added = (self.score - self.largest[:, -1])[there, None]
            sums["score"] = np.hstack([added, cells + added])
        kept = None if self.chosen is None else self.chosen[there]
        if kept is not None:
            sums["words"] = kept[:, :, 0]
        made = {name: correlations(xs, y, scene.resamples, scene.seed, together) for name, xs in sums.items()}
        correlated: list[dict[str, Any]] = [
            {name: (pearson[at], spearman[at]) for name, (pearson, spearman) in made.items()} for at in range(len(ys))
        ]
        for one in correlated:
            one["ends"] = [{} for _ in CHOSEN]
        if kept is None or scene.whole:
            return correlated
        in_ranks = rankdata(y, axis=0).T
        for at in range(len(CHOSEN)):
            value, low, high = kept[:, at].T
            in_order = ranks_within(value, low, high)
            for kind, (x, *ends), others in (("pearson", (value, low, high), y.T), ("spearman", in_order, in_ranks)):
                for one, other in zip(correlated, others, strict=True):
                    least, most = pearson_within(x, ends[0], ends[1], other)
                    one["ends"][at] |= {f"{kind}_at_least": least, f"{kind}_at_most": most}
        return correlated


def _alike(columns: dict[str, Array]) -> list[tuple[Array, list[str]]]:
    """Where columns have numbers, with the names of those that have them in the same places."""
    groups: list[tuple[Array, list[str]]] = []
    for name, values in columns.items():
        there = np.flatnonzero(np.isfinite(values))
        names = next((names for other, names in groups if np.array_equal(there, other)), None)
        if names is None:
            groups.append((there, [name]))
        else:
            names.append(name)
    return groups


def _at(values: tuple[Array, Array], at: int) -> tuple[Array, Array]:
    return values[0][at], values[1][at]


def _row(
    names: dict[str, Any],
    values: tuple[Array, Array],
    pairs: int,
    exact: bool = True,
    ends: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, Any]:
    """A row of a table of correlations: Pearson's and Spearman's ``values`` [3] each, and the ``ends`` of estimates."""
    row = dict(names)
    for kind, one in zip(("pearson", "spearman"), values, strict=True):
        row |= dict(zip((kind, f"{kind}_low", f"{kind}_high"), map(float, one), strict=True))
        for end in ("at_least", "at_most"):
            row[f"{kind}_{end}"] = ends.get(f"{kind}_{end}", float(one[0]))
    return row | {"exact": exact, "pairs": pairs}


def _correlation_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    return rows_table(list(rows[0]), [list(row.values()) for row in rows]) if rows else pa.table({})


DESCRIBED = {
    "against": "what the sum is correlated with: the model's score, the total of all word pairs (where that is another "
    "number), or the gold column",
    **{
        name + end: text
        for name, full in (("pearson", "Pearson's correlation"), ("spearman", "Spearman's rank correlation"))
        for end, text in (
            ("", full),
            ("_low", "lower end of its 95 % bootstrap interval"),
            ("_high", "upper end of it"),
            ("_at_least", "an estimate's true value is certainly not below this"),
            ("_at_most", "an estimate's true value is certainly not above this"),
        )
    },
}


def _curve(rows: Sequence[dict[str, Any]], sums_to: str) -> Table:
    more = f"; score: with {ADDED[sums_to]}, which makes the score of all of them" if sums_to in ADDED else ""
    described = {
        **DESCRIBED,
        "sum": f"cells: the sum of the word pairs{more or ', which is the score of all of them'}",
        "percent": "the largest so many per cent of a pair's word pairs, by absolute value",
    }
    meaning = "Correlation of the sum of the largest word pairs with the score and the gold label."
    return Table("sufficiency", meaning, _correlation_table(rows), described)


def _chosen(rows: Sequence[dict[str, Any]], whole: bool) -> Table:
    described = {**DESCRIBED, "words": "; ".join(f"{name}: {', '.join(tags)}" for name, tags in CHOSEN.items())}
    meaning = "The same for the sum over word pairs whose two words are both of chosen parts of speech."
    return Table("sufficiency_words", meaning, _correlation_table(rows), described, exact=whole)


def _figure(name: str, meaning: str, values: Array) -> Figure:
    value, low, high = (float(v) if np.isfinite(v) else None for v in values)
    return Figure(name=name, value=value, low=low, high=high, unit="correlation", meaning=meaning)
