"""Two runs by the columns that were passed through: by label, by relevance, by query."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import pyarrow.types as t

from jobs.analysis.comparison.matching import kept_columns, kept_names
from jobs.analysis.comparison.scores import rank_correlation
from jobs.errors import JobError
from jobs.run.reader import Run
from jobs.storage.duckdb import first_row

QUERY = "query"
# A column with more different values than this is no label; of a column asked for, and of queries, those that differ
# most are reported.
MOST_VALUES = 20
PAIRS_A_VALUE = 2


@dataclass(frozen=True)
class Column:
    """Spearman's correlation of a number that was passed through (a gold label, a rank) with each run's score."""

    name: str
    first: float | None
    second: float | None


@dataclass(frozen=True)
class Group:
    """The pairs with one ``value`` of a column ``by``; ``distance`` is the mean of the ``compared`` ones."""

    by: str
    value: str
    pairs: int
    difference: float
    absolute: float
    compared: int
    distance: float | None


def correlate_columns(con: duckdb.DuckDBPyConnection, first: Run) -> tuple[Column, ...]:
    """Every passed-through column of numbers with more than two values."""
    columns = []
    called = kept_names(first)
    for field in kept_columns(first):
        if t.is_integer(field.type) or t.is_floating(field.type):
            name = called[field.name]
            if _distinct(con, name) > 2:
                columns.append(
                    Column(field.name, *(rank_correlation(con, "matched", name, f"score_{n}") for n in (1, 2)))
                )
    return tuple(columns)


def compare_groups(con: duckdb.DuckDBPyConnection, first: Run, second: Run, by: str | None) -> tuple[Group, ...]:
    """Groups by every column of few values and, in logs, by query; or by the one column that was asked for."""
    names = kept_names(first)
    if by is not None and by not in (QUERY, *names):
        there = ", ".join((QUERY, *names))
        raise JobError(f"--by {by}: there is no such column in {first.url}; there are {there}")
    if by is not None:
        return _groups(con, by, names.get(by, "text_a"))
    groups: list[Group] = []
    (pairs,) = con.execute("SELECT count(*) FROM matched").fetchone() or (0,)
    # A value that hardly two pairs share makes no group: few pairs have few values in any column.
    most = min(MOST_VALUES, pairs // PAIRS_A_VALUE)
    for name, column in names.items():
        if 1 < _distinct(con, column) <= most:
            groups += _groups(con, name, column)
    logs = QUERY in first.roles or QUERY in second.roles
    if logs and QUERY not in names and _distinct(con, "text_a") > 1:
        groups += _groups(con, QUERY, "text_a")
    return tuple(groups)


def _groups(con: duckdb.DuckDBPyConnection, name: str, column: str) -> tuple[Group, ...]:
    rows = con.execute(
        f"SELECT {column}::VARCHAR AS value, count(*), avg(score_2::DOUBLE - score_1) AS difference, "
        "avg(abs(score_2::DOUBLE - score_1)) AS absolute, count(distance), avg(distance) AS distance "
        f"FROM matched LEFT JOIN details USING (n) WHERE {column} IS NOT NULL GROUP BY value "
        f"ORDER BY absolute DESC, distance DESC NULLS LAST, value LIMIT {MOST_VALUES}"
    ).fetchall()
    return tuple(Group(name, *row) for row in rows)


def _distinct(con: duckdb.DuckDBPyConnection, column: str) -> int:
    row = first_row(con, f"SELECT count(DISTINCT {column}) FROM matched")
    assert row is not None
    return int(row[0])
