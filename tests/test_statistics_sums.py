"""Sums without an order, intervals as wide as they should be, bounds that hold at their worst."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import optimize, stats
from statistics_runs import made_pairs, write_made

from jobs.analysis.quantiles import quantiles, sql_quantiles
from jobs.analysis.ranks import dense_ranks, mean_ranks, pearson, spearman
from jobs.analysis.resampling import Resampling
from jobs.analysis.statistics import correlation
from jobs.analysis.statistics.batches import Cells, Rest
from jobs.analysis.statistics.compute import compute_statistics
from jobs.analysis.statistics.concentration import cubes_above, skewness
from jobs.analysis.statistics.correlation import correlations, pearson_within, ranks_within
from jobs.analysis.statistics.sums import BucketSums, quantised, quantum_for
from jobs.storage.duckdb import temporary_database


@pytest.fixture
def chance(rng: random.Random) -> np.random.Generator:
    return np.random.default_rng(rng.randrange(1 << 32))


def test_sums_are_the_same_in_any_order_and_lose_nothing(chance: np.random.Generator) -> None:
    values = (chance.normal(0, 1, 200_000) * 10.0 ** chance.integers(-6, 2, 200_000)).astype(np.float32)
    bucket = chance.integers(0, 7, len(values))
    quantum = quantum_for(float(np.abs(values).sum()))
    order = chance.permutation(len(values))
    one, two = BucketSums(7, 1, quantum), BucketSums(7, 1, quantum)
    one.add(bucket, 0, values)
    for part in np.array_split(order, 13):
        two.add(bucket[part], 0, values[part])
    assert (one.values == two.values).all()
    assert one.total[0] == pytest.approx(np.sum(values, dtype=np.float64), abs=len(values) * quantum)
    plain = np.bincount(bucket, values.astype(np.float64)), np.bincount(bucket[order], values[order].astype(np.float64))
    assert (plain[0] != plain[1]).any(), "values that any sum adds up alike prove nothing"
    assert np.abs(quantised(values, quantum) - values).max() <= quantum / 2


def test_a_bootstrap_interval_is_as_wide_as_theory_says(chance: np.random.Generator) -> None:
    # Would catch buckets that hold pairs which have something in common, or draws without replacement.
    values = chance.normal(3, 1, 20_000)
    buckets = np.arange(20_000) * 500 // 20_000
    sums, counts = np.bincount(buckets, values), np.bincount(buckets).astype(float)
    _, low, high = Resampling.drawn(500, 2000, 0).ratio(sums, counts)
    assert high[0] - low[0] == pytest.approx(2 * 1.96 / np.sqrt(20_000), rel=0.2)


def test_ranks_and_correlations_are_scipys(chance: np.random.Generator) -> None:
    x, y = chance.normal(size=300).round(1), chance.normal(size=300)
    y += x
    both = np.column_stack([x, y.round(1)])
    assert (mean_ranks(dense_ranks(both)) == stats.rankdata(both, axis=0)).all()
    # A resample has the ranks of its own values, not those of the sample.
    rows = chance.integers(0, 300, 300)
    assert (mean_ranks(dense_ranks(both)[rows]) == stats.rankdata(both[rows], axis=0)).all()
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert np.isnan([pearson(x, y * 0 + 0.1), spearman(y * 0 + 0.1, x)]).all()
    found = correlations(x[:, None], y[:, None], 20, 0)
    assert [one[0, 0, 0] for one in found] == pytest.approx(
        [stats.pearsonr(x, y).statistic, stats.spearmanr(x, y).statistic]
    )


def test_quantiles_are_the_same_in_numpy_and_in_sql(chance: np.random.Generator) -> None:
    values = chance.normal(size=237)
    shares = (0.025, 0.05, 0.5, 0.9, 1.0)
    with temporary_database() as con:
        con.register("sample", pa.table({"value": [*values, None]}))
        (in_sql,) = con.execute(f"SELECT {sql_quantiles('value', shares)} FROM sample").fetchone()
    assert quantiles(np.append(values, np.nan), shares) == pytest.approx(in_sql, abs=1e-12)
    columns = quantiles(np.column_stack([values, np.full(237, np.nan)]))
    assert columns[:, 0] == pytest.approx(quantiles(values))
    assert np.isnan(columns[:, 1]).all()


def test_intervals_of_many_pairs_shrink_with_their_number(
    chance: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = chance.normal(size=(8000, 1))
    y = x[:, 0] + chance.normal(size=8000)
    whole = correlations(x, y[:, None], 300, 0)
    monkeypatch.setattr(correlation, "MOST_DRAWN", 10_000)
    for few, many in zip(whole, correlations(x, y[:, None], 300, 0), strict=True):
        assert few[0, 0, 2] - few[0, 0, 1] == pytest.approx(many[0, 0, 2] - many[0, 0, 1], rel=0.35)


def test_an_interval_lies_about_the_value_of_all_pairs(chance: np.random.Generator) -> None:
    # Would catch percentiles of the pairs that are drawn put around the value of all: here these correlate less.
    x = chance.normal(size=(8000, 1))
    noise = chance.normal(size=8000) * np.where(np.arange(8000) < correlation.MOST_DRAWN, 3, 1)
    for (((value, low, high),),) in correlations(x, x + noise[:, None], 300, 0):
        assert low < value < high
        assert (low + high) / 2 == pytest.approx(value, abs=(high - low) / 4)


@pytest.mark.parametrize("most", [100, 100_000])
def test_rows_of_a_cluster_are_drawn_together(
    chance: np.random.Generator, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    # Would catch intervals of a log that take thirty copies of a document for thirty documents.
    monkeypatch.setattr(correlation, "MOST_DRAWN", most)
    x = chance.normal(size=(200, 1))
    y = x[:, 0] + chance.normal(size=200)
    single = correlations(x, y[:, None], 500, 0)
    cluster, order = np.repeat(np.arange(200), 30), chance.permutation(6000)
    many = correlations(np.repeat(x, 30, axis=0)[order], np.repeat(y, 30)[order, None], 500, 0, cluster[order])
    for one, other in zip(single, many, strict=True):
        assert other[0, 0, 0] == pytest.approx(one[0, 0, 0], abs=1e-3)
        # Taken for thirty documents, thirty copies would make it more than five times narrower.
        assert other[0, 0, 2] - other[0, 0, 1] == pytest.approx(one[0, 0, 2] - one[0, 0, 1], rel=0.6)
    alone = correlations(x, y[:, None], 50, 0, np.zeros(200, int))
    assert np.isnan([one[0, 0, 1:] for one in alone]).all()


def test_one_bucket_alone_has_no_interval() -> None:
    # Would catch an interval of no width, as if one pair were certain.
    one = np.array([[2.0, 2.0], [0.0, 1.0]])
    count = np.array([[1.0, 1.0], [0.0, 1.0]])
    draw = Resampling.drawn(2, 200, 0)
    shares = (draw.share(one, count, count), draw.share_lift(one, count, count, count, count))
    for value, low, high in (draw.ratio(one, count), *shares):
        assert np.isfinite(value).all()
        assert np.isnan([low[0], high[0]]).all()
        assert low[1] < high[1]


def test_a_share_of_next_to_nothing_is_none(chance: np.random.Generator) -> None:
    # Would catch a share of a total that cancels, and an interval of those draws alone in which it does not.
    part = chance.random((200, 1))
    mass = np.full((200, 1), 10.0)
    draw = Resampling.drawn(200, 500, 0)
    for mean, given, interval in ((3.0, True, True), (1.05, True, False), (0.2, False, False), (-3.0, False, False)):
        total = chance.normal(0, 2, (200, 1))
        total += mean - total.mean()
        for found in (draw.share(part, total, mass), draw.share_lift(part, total, mass, part, part)):
            value, low, high = (one[0] for one in found)
            assert np.isfinite(value) == given
            assert np.isfinite([low, high]).tolist() == [interval] * 2
        if given:
            assert draw.share(part, total, mass)[0] == pytest.approx(part.sum() / total.sum())


def test_a_pair_of_one_cell_has_no_skewness() -> None:
    # Its cell differs from the mean by rounding alone, which made it 1 or -1.
    cells = Cells(np.array([0, 1, 1, 1]), *(np.zeros(4, int),) * 2, np.array([0.1, 0.0, 0.0, 1.0]))
    none = np.zeros(2)
    found = skewness(cells, Rest(*(none,) * 5), np.array([np.float32(0.1), 1.0]), np.array([1, 3]))
    assert np.isnan(found[0]).all()
    assert found[1] == pytest.approx(stats.skew([0.0, 0.0, 1.0]))


def test_no_values_within_their_bounds_leave_a_correlations_bounds(chance: np.random.Generator) -> None:
    y = chance.normal(size=60)
    x = y + chance.normal(0, 0.5, 60)
    at_least, at_most = x - chance.uniform(0, 0.3, 60), x + chance.uniform(0, 0.3, 60)
    ranked = ranks_within(x, at_least, at_most)
    for bounds, other, kind in (
        ((x, at_least, at_most), y, stats.pearsonr),
        (ranked, stats.rankdata(y), stats.spearmanr),
    ):
        low, high = pearson_within(*bounds, other)
        assert -1 < low < high <= 1
        # The worst ones push every value towards or away from y.
        pushed = [np.where((y > y.mean()) == up, at_most, at_least) for up in (True, False)]
        drawn = [chance.uniform(at_least, at_most) for _ in range(200)]
        for true in [*pushed, *drawn]:
            assert low - 1e-9 <= kind(true, y).statistic <= high + 1e-9


@pytest.mark.parametrize(("lowest", "highest"), [(-2.0, 1.0), (-1.0, 2.0), (0.5, 2.0), (-2.0, -0.5), (-3.0, 1.0)])
def test_the_largest_mean_of_cubes_is_reached_and_never_passed(lowest: float, highest: float) -> None:
    # Two points are enough for an envelope: the best mixture, searched for.
    for mean in np.linspace(lowest, highest, 9)[1:-1]:

        def mixture(left: float, mean: float = mean) -> float:
            weight = (mean - left) / (highest - left)
            return -((1 - weight) * left**3 + weight * highest**3)

        best = -optimize.minimize_scalar(mixture, bounds=(lowest, mean), method="bounded", options={"xatol": 1e-9}).fun
        best = max(best, mean**3, -mixture(lowest))
        found = float(cubes_above(np.array(mean), np.array(lowest), np.array(highest)))
        assert found == pytest.approx(best, abs=1e-6)


def test_values_and_layout_do_not_depend_on_buckets(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # A million pairs share two thousand buckets; here sixty share seven.
    pairs = made_pairs(seed, 60)
    names = ("concentration", "position_word", "matches")
    only = ["concentration", "matches", "position"]
    run = write_made(tmp_path / "own", pairs)
    compute_statistics(run, only=only, resamples=20)
    monkeypatch.setattr("jobs.analysis.statistics.batches.BUCKETS", 7)
    few = write_made(tmp_path / "few", pairs)
    again = write_made(tmp_path / "again", pairs, [range(20, 60), range(20)])
    for one in (few, again):
        compute_statistics(one, only=only, resamples=20)
    for name in names:
        tables = [one.statistics.table(name) for one in (run, few, again)]
        assert tables[1].equals(tables[2])
        assert tables[0]["share"].equals(tables[1]["share"])
