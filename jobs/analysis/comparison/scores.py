"""Scores of matched pairs against each other, in SQL over all of them."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from jobs.analysis.quantiles import sql_quantiles
from jobs.storage.duckdb import first_row

BINS = 20
# Scores of one model that differ by no more were computed in other batches.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Spread:
    """How values are spread over ``count`` pairs; ``quantiles`` are those of SPREAD."""

    count: int
    mean: float
    deviation: float
    quantiles: tuple[float, ...]
    least: float
    most: float


@dataclass(frozen=True)
class Scores:
    """``difference`` is second − first. ``histogram`` counts differences in equal bins between ``edges``."""

    first: Spread
    second: Spread
    difference: Spread
    absolute: Spread
    pearson: float | None
    spearman: float | None
    edges: tuple[float, ...]
    histogram: tuple[int, ...]


def spread(con: duckdb.DuckDBPyConnection, table: str, value: str) -> Spread | None:
    """The spread of an expression over a table, nulls left out; None where nothing is left."""
    row = first_row(
        con,
        f"SELECT count(v), avg(v), coalesce(stddev_pop(v), 0), {sql_quantiles('v')}, min(v), max(v) "
        f"FROM (SELECT ({value})::DOUBLE AS v FROM {table}) WHERE v IS NOT NULL AND NOT isnan(v)",
    )
    if row is None or not row[0]:
        return None
    return Spread(int(row[0]), row[1], row[2], tuple(row[3]), row[4], row[5])


def compare_scores(con: duckdb.DuckDBPyConnection) -> Scores:
    """The scores of table ``matched``."""
    difference_of = "score_2::DOUBLE - score_1"
    spreads = [
        spread(con, "matched", value) for value in ("score_1", "score_2", difference_of, f"abs({difference_of})")
    ]
    first, second, difference, absolute = spreads
    assert first is not None, "a comparison has a pair"
    assert second is not None
    assert difference is not None
    assert absolute is not None
    width = (difference.most - difference.least) / BINS or 1.0
    place = f"floor(({difference_of} - ({difference.least!r})) / {width!r})"
    counts = dict(
        con.execute(f"SELECT least({place}, {BINS - 1})::INT AS bin, count(*) FROM matched GROUP BY bin").fetchall()
    )
    return Scores(
        first=first,
        second=second,
        difference=difference,
        absolute=absolute,
        pearson=correlation(con, "matched", "score_1", "score_2"),
        spearman=rank_correlation(con, "matched", "score_1", "score_2"),
        edges=tuple(difference.least + width * at for at in range(BINS + 1)),
        histogram=tuple(int(counts.get(at, 0)) for at in range(BINS)),
    )


def correlation(con: duckdb.DuckDBPyConnection, table: str, one: str, other: str) -> float | None:
    """Pearson's correlation of two expressions; None where one of them does not vary."""
    row = first_row(
        con,
        f"SELECT corr(x, y), stddev_pop(x), stddev_pop(y) FROM (SELECT ({one})::DOUBLE AS x, ({other})::DOUBLE AS y "
        f"FROM {table}) WHERE x IS NOT NULL AND y IS NOT NULL AND NOT isnan(x) AND NOT isnan(y)",
    )
    return None if row is None or row[0] is None or not row[1] or not row[2] else float(row[0])


def rank_correlation(con: duckdb.DuckDBPyConnection, table: str, one: str, other: str) -> float | None:
    """Spearman's correlation of two columns, equals sharing the mean of their ranks."""
    ranks = ", ".join(
        f"rank() OVER (ORDER BY {name}) + (count(*) OVER (PARTITION BY {name}) - 1) / 2.0 AS {to}"
        for name, to in ((one, "rank_x"), (other, "rank_y"))
    )
    inner = (
        f"(SELECT {ranks} FROM {table} WHERE {one} IS NOT NULL AND {other} IS NOT NULL "
        f"AND NOT isnan({one}::DOUBLE) AND NOT isnan({other}::DOUBLE))"
    )
    return correlation(con, inner, "rank_x", "rank_y")
