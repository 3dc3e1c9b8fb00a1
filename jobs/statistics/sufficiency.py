"""How many cells it takes to get the score right, and whether chosen parts of speech are enough."""

from __future__ import annotations

from typing import Any

import numpy as np

from attribution_core.sparse import SHARES
from jobs.statistics.correlation import correlations, pearson_within, spearman_within
from jobs.statistics.measure import Measure, Result, Scene, Table, columns_table
from jobs.statistics.reading import Batch
from jobs.statistics.schema import Figure
from jobs.statistics.sums import Array
from jobs.statistics.tagging import UNIVERSAL
from jobs.statistics.texts import TEXT

CHOSEN: dict[str, tuple[str, ...]] = {
    "nouns": ("NOUN", "PROPN"),
    "verbs": ("VERB",),
    "nouns and verbs": ("NOUN", "PROPN", "VERB"),
    "content words": ("NOUN", "PROPN", "VERB", "ADJ", "ADV", "NUM"),
    "other words": ("ADP", "AUX", "CCONJ", "DET", "INTJ", "PART", "PRON", "SCONJ", "SYM", "X"),
}
FEWEST = 3


class Sufficiency(Measure):
    name = "sufficiency"
    title = "Sufficiency"
    meaning = (
        "How well the largest cells alone, or those of chosen parts of speech, follow the score and the gold label."
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
        found = np.column_stack([np.bincount(cells.pair, cells.value * one, n) for one in inside.T])
        bounds: tuple[Array, ...] = (found * 0,) * 3
        if not self.scene.whole:
            seen = np.column_stack([np.bincount(cells.pair, one, n) for one in inside.T])
            bounds = rest.bounds(self.count[batch.a] * self.count[batch.b] - seen)
        self.chosen[batch.rank] = np.stack([found + one for one in bounds], axis=2)

    def result(self) -> Result:
        scene = self.scene
        against = {"score": self.score, "total": self.largest[:, -1]}
        if scene.gold is not None and scene.gold_name is not None:
            against[scene.gold_name] = scene.gold
        percent = [*(round(100 * share) for share in SHARES), 100]
        curve, chosen = _Rows(), _Rows()
        figures = []
        notes = []
        for name, y in against.items():
            there = np.flatnonzero(np.isfinite(y))
            if len(there) < FEWEST:
                notes.append(f"{name}: {len(there)} pairs have a value, too few for a correlation.")
                continue
            cells = self.largest[there]
            together = None if scene.pairs.query is None else scene.pairs.query[there]
            reference = (self.score - self.largest[:, -1])[there, None]
            for kind, sums in (("cells", cells), ("score", np.hstack([reference, cells + reference]))):
                found = correlations(sums, y[there], scene.resamples, scene.seed, together)
                shown = percent if kind == "cells" else [0, *percent]
                for at, x in enumerate(shown):
                    curve.add({"sum": kind, "percent": x, "against": name}, found, at, len(there))
                for x in (1, 5, 10, 20, 50, 100):
                    if not (x == 100 and name == ("total" if kind == "cells" else "score")):
                        said = _said(kind, x, name)
                        figures.append(_figure(f"{kind}_{x}_{name}", said, found[1][shown.index(x)]))
            if self.chosen is None:
                continue
            kept = self.chosen[there]
            found = correlations(kept[:, :, 0], y[there], scene.resamples, scene.seed, together)
            for at, words in enumerate(CHOSEN):
                ends: dict[str, float] = {}
                if not scene.whole:
                    value, low, high = kept[:, at].T
                    both = [bound(value, low, high, y[there]) for bound in (pearson_within, spearman_within)]
                    for kind, (least, most) in zip(("pearson", "spearman"), both, strict=True):
                        ends |= {f"{kind}_at_least": least, f"{kind}_at_most": most}
                chosen.add({"words": words, "against": name}, found, at, len(there), scene.whole, ends)
        if scene.gold is None:
            notes.append("No column with gold labels was found; --gold names it.")
        tables = [_curve(curve)]
        if self.chosen is not None:
            tables.append(_chosen(chosen, scene.whole))
        else:
            notes.append("Keeping only chosen parts of speech needs a spaCy pipeline.")
        return Result(figures, tables, notes)


class _Rows:
    """Rows of a table of correlations."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {}

    def add(
        self,
        names: dict[str, Any],
        found: tuple[Array, Array],
        at: int,
        pairs: int,
        exact: bool = True,
        ends: dict[str, float] | None = None,
    ) -> None:
        row = dict(names)
        for kind, values in zip(("pearson", "spearman"), found, strict=True):
            row |= dict(zip((kind, f"{kind}_low", f"{kind}_high"), map(float, values[at]), strict=True))
            for end in ("at_least", "at_most"):
                row[f"{kind}_{end}"] = (ends or {}).get(f"{kind}_{end}", float(values[at, 0]))
        row |= {"exact": exact, "pairs": pairs}
        for name, value in row.items():
            self.columns.setdefault(name, []).append(value)

    def table(self) -> Any:
        floats = {n: np.array(v, np.float64) if v and isinstance(v[0], float) else v for n, v in self.columns.items()}
        return columns_table(**floats)


DESCRIBED = {
    "against": "what the sum is correlated with: the model's score, the total of all cells, or the gold column",
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


def _curve(rows: _Rows) -> Table:
    described = {
        **DESCRIBED,
        "sum": "cells: their sum alone; score: with the reference terms f(a, r_b) + f(r_a, b) - f(r_a, r_b), which "
        "makes the score of all cells; the two are the same for a model whose reference terms vanish",
        "percent": "the largest so many per cent of a pair's cells, by absolute value",
    }
    meaning = "Correlation of the sum of the largest cells with the score, the total and the gold label."
    return Table("sufficiency", meaning, rows.table(), described)


def _chosen(rows: _Rows, whole: bool) -> Table:
    described = {**DESCRIBED, "words": "; ".join(f"{name}: {', '.join(tags)}" for name, tags in CHOSEN.items())}
    meaning = "The same for the sum over cells whose two words are both of chosen parts of speech."
    return Table("sufficiency_words", meaning, rows.table(), described, exact=whole)


def _said(kind: str, percent: int, name: str) -> str:
    cells = "all cells" if percent == 100 else f"the largest {percent} % of cells"
    more = " and the reference terms" if kind == "score" else ""
    return f"Spearman's correlation of the sum of {cells}{more} with {name}"


def _figure(name: str, meaning: str, values: Array) -> Figure:
    value, low, high = (float(v) if np.isfinite(v) else None for v in values)
    return Figure(name=name, value=value, low=low, high=high, unit="correlation", meaning=meaning)
