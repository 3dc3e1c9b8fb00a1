"""What share of the sum comes from the largest word pairs, and how much of it is negative."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from attribution_core.pairs.columns import SHARES
from jobs.analysis.quantiles import quantiles
from jobs.analysis.resampling import LEAST_TOTAL, divided, large_enough
from jobs.analysis.statistics.batches import Batch, Cells, Rest
from jobs.analysis.statistics.measure import (
    NO_WORD_PAIRS,
    Measure,
    Result,
    Scene,
    Table,
    columns_table,
    figure,
    mean_interval,
    rows_table,
    withheld,
)
from jobs.analysis.statistics.sums import Array

EXAMPLES = 5


class Concentration(Measure):
    name = "concentration"
    title = "Concentration"
    meaning = "How much of the {whole} the largest word pairs of each pair of texts give, and how much is negative."
    cells = True

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self.sums = scene.sums(len(SHARES) + 4)
        self.count = scene.sums(4)
        self.share = scene.array(len(SHARES))
        self.of_mass = scene.array()
        self.negative = scene.array()
        self.skew = scene.array(3)

    @staticmethod
    def missing(scene: Scene) -> str | None:
        return None if scene.word_pairs else NO_WORD_PAIRS

    def add(self, batch: Batch) -> None:
        one = batch.scalars
        mass = batch.mass
        size = batch.texts.offsets[batch.a + 1] - batch.texts.offsets[batch.a]
        size = size * (batch.texts.offsets[batch.b + 1] - batch.texts.offsets[batch.b])
        columns = np.column_stack([batch.largest, one["total"], one["negative"], mass, size])
        self.sums.add_rows(batch.bucket, columns)
        self.share[batch.rank] = divided(batch.largest, large_enough(one["total"], mass)[:, None])
        self.of_mass[batch.rank] = divided(batch.largest[:, SHARES.index(0.05)], mass)
        self.negative[batch.rank] = divided(-one["negative"], mass)
        assert batch.cells is not None
        assert batch.rest is not None
        self.skew[batch.rank] = skewness(batch.cells, batch.rest, batch.text_total, batch.text_cells)
        below = np.bincount(batch.cells.pair, batch.cells.value < 0, len(batch))
        # Of cells not kept the sign is not known; their share of the mass that is left is the best guess.
        unknown = np.where(batch.rest.negative < 0, batch.rest.count, 0)
        guess = unknown * divided(batch.rest.negative, batch.rest.negative - batch.rest.positive)
        counts = np.column_stack([below + np.nan_to_num(guess), below, below + unknown, batch.text_cells])
        self.count.add_rows(batch.bucket, counts)

    def result(self) -> Result:
        draw, found, exact = self.scene.resampling, self.sums.values, self.scene.whole
        k, whole = len(SHARES), self.scene.sum_name
        value, low, high = draw.share(found[:, :k], found[:, k : k + 1], found[:, k + 2 : k + 3])
        there = np.isfinite(self.share[:, 0])
        percent = [round(100 * share) for share in SHARES]
        mean = self.sums.total[k + 3] / max(self.scene.pairs.count, 1)
        data = columns_table(
            **{"percent": percent, "cells": np.array(SHARES) * mean, "share": value, "low": low, "high": high},
            **dict(zip(("p05", "p25", "p50", "p75", "p95"), quantiles(self.share[there]), strict=True)),
        )
        figures = [
            figure(f"largest_{p}", f"share of the {whole} that the largest {p} % of word pairs give", at)
            for p, at in zip(percent, zip(value, low, high, strict=True), strict=True)
        ]
        negative = draw.ratio(-found[:, k + 1], found[:, k + 2])
        figures.append(figure("negative_mass", "share of the sum of absolute values that is negative", negative))
        counts = self.count.values
        certain = [divided(self.count.total[at], self.count.total[3]) for at in (1, 2)]
        cells = draw.ratio(counts[:, 0], counts[:, 3])
        meaning = "share of the word pairs that are negative, by number, special tokens left out"
        figures.append(figure("negative_cells", meaning, cells, exact=exact, ends=certain))
        skew = mean_interval(self.scene, self.skew[:, 0])
        ends = [
            np.nan if np.isinf(self.skew[:, at]).any() else mean_interval(self.scene, self.skew[:, at])[0]
            for at in (1, 2)
        ]
        meaning = "skewness of a pair's word pairs, special tokens left out, mean over pairs"
        figures.append(figure("skewness", meaning, skew, "", exact=exact, ends=ends))
        notes = withheld(self.scene, self.sums.total[k], self.sums.total[k + 2])
        if not there.all():
            notes.append(
                f"{(~there).sum():,} of {len(there):,} pairs have a {whole} near zero or negative, below "
                f"{LEAST_TOTAL:g} of their sum of absolute values: they count in the shares over all pairs, and have "
                "none of their own."
            )
        if (value > 1).any():
            notes.append("Shares above 100 %: the other word pairs add up to less than zero.")
        return Result(figures, [_table(data, whole), self._examples(there)], notes)

    def _examples(self, there: Array) -> Table:
        """Pairs to look at: where few word pairs make most, where many do, and where most is negative; ``there`` are
        those whose own share means something."""
        of_mass = np.where(there, self.of_mass, np.nan)
        asked = {"largest 5 % give most": -of_mass, "largest 5 % give least": of_mass, "most negative": -self.negative}
        examples = [
            (what, int(rank), abs(float(order[rank])))
            for what, order in asked.items()
            for rank in np.argsort(np.where(np.isfinite(order), order, np.inf), kind="stable")[:EXAMPLES]
            if np.isfinite(order[rank])
        ]
        ids = self.scene.pairs.ids([rank for _, rank, _ in examples])
        rows = [(what, pair_id, value) for (what, _, value), pair_id in zip(examples, ids, strict=True)]
        data = rows_table(("what", "pair_id", "value"), rows)
        columns = {
            "what": "what the pair is an example of",
            "value": "their sum over the pair's sum of absolute values",
        }
        return Table("concentration_examples", "Pairs that stand out.", data, columns)


def skewness(cells: Cells, rest: Rest, total: Array, count: Array) -> Array:
    """Skewness of each pair's cells: an estimate, at least, at most [n, 3]; all three equal where every cell is known,
    and NaN where there are no two.

    The unknown cells' mean is known and each lies within ``rest.limit``. Over all such numbers, a sum of squares is
    least where all are equal and greatest where all are at an end; a sum of cubes lies between the envelopes of x³.
    """
    n = len(total)
    mean = divided(total, count)
    off = cells.value - mean[cells.pair]
    second = np.bincount(cells.pair, off**2, n)
    third = np.bincount(cells.pair, off**3, n)
    m = np.clip(rest.total / np.maximum(rest.count, 1), -rest.limit, rest.limit) - mean
    lowest, highest = -rest.limit - mean, rest.limit - mean
    with np.errstate(divide="ignore", invalid="ignore"):
        at_top = np.where(highest > lowest, (m - lowest) / (highest - lowest), 0.0)
        least, most = second + rest.count * m**2, second + rest.count * (at_top * highest**2 + (1 - at_top) * lowest**2)
        below = third - rest.count * cubes_above(-m, -highest, -lowest)
        above = third + rest.count * cubes_above(m, lowest, highest)

        def skew(cubes: Array, squares: Array) -> Array:
            return np.where(
                squares > 0, (cubes / count) / (squares / count) ** 1.5, np.where(cubes == 0, 0, np.inf * cubes)
            )

        estimate = skew(third + rest.count * m**3, least)
        at_least = np.minimum(skew(below, least), skew(below, most))
        at_most = np.maximum(skew(above, least), skew(above, most))
    bounds = np.column_stack([estimate, at_least, at_most])
    bounds[rest.count == 0] = estimate[rest.count == 0, None]
    # One cell differs from its mean by what was lost in rounding.
    bounds[((least <= 0) & (rest.count == 0)) | (count < 2)] = np.nan
    return bounds


def cubes_above(mean: Array, lowest: Array, highest: Array) -> Array:
    """The largest mean of x³ over numbers in [lowest, highest] with this mean: the concave envelope of x³ there."""
    touch = -highest / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        chord = lowest**3 + np.where(highest > lowest, (highest**3 - lowest**3) / (highest - lowest), 0) * (
            mean - lowest
        )
    tangent = highest**3 + 0.75 * highest**2 * (mean - highest)
    line = np.where(touch >= lowest, np.where(mean <= touch, mean**3, tangent), chord)
    return np.where(highest <= 0, mean**3, line)


def _table(data: pa.Table, whole: str) -> Table:
    columns = {
        "percent": "the largest so many per cent of a pair's word pairs, by absolute value",
        "cells": "how many word pairs that is in the mean pair",
        "share": f"sum of them over all pairs / sum of the {whole}s of all pairs, so pairs near zero weigh little; "
        f"empty where the second sum is less than {LEAST_TOTAL:g} of the sum of absolute values",
        **{
            f"p{q:02d}": f"{q} % quantile of a pair's own share, over the pairs whose {whole} is at least "
            f"{LEAST_TOTAL:g} of their sum of absolute values"
            for q in (5, 25, 50, 75, 95)
        },
    }
    meaning = f"Share of the {whole} that the largest word pairs of each pair of texts give."
    return Table("concentration", meaning, data, columns)
