"""Decides whether the third column of a three-column log is a document's rank or its score.

The whole log decides. Ranks are whole numbers that count up within a query; scores have fractions, or fall from row to
row. Where the log shows neither, an error asks the user to set the format.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from jobs.errors import SourceError
from jobs.storage.duckdb import first_row, one_row

NEARLY_ALL = 0.95
# From this share of whole numbers on the others are taken for mistakes.
WHOLE = 0.99


@dataclass(frozen=True)
class Decision:
    """What the column is, ``rank`` or ``score``, and a notice where this is unusual."""

    kind: str
    notice: str | None = None


@dataclass(frozen=True)
class _Seen:
    """Of all rows: the share of whole numbers, of rows in queries that count 1, 2, 3 …, steps up and down, queries."""

    whole: float
    counted: float
    up: int
    down: int


def decide(con: duckdb.DuckDBPyConnection, file: str) -> Decision | None:
    """What the column ``third`` of table ``log`` (ordinal, query, document, third) is; None where no row has one.

    ``file`` is the name to speak of. Raises SourceError with the setting to add where it could be either.
    """
    if not first_row(con, "SELECT 1 FROM log WHERE third IS NOT NULL LIMIT 1"):
        return None
    seen = _look(con)
    if seen.whole < WHOLE:
        return Decision("score", f"{file}: the third column has fractions or negative numbers, so it is the score")
    steps = seen.up + seen.down
    rises, falls = seen.up >= NEARLY_ALL * steps, seen.down >= NEARLY_ALL * steps
    if seen.counted >= NEARLY_ALL:
        if not steps or rises:
            return Decision("rank")
        if not falls:
            return Decision("rank", f"{file}: the third column counts from 1 within each query, so it is the rank")
    elif steps and rises:
        return Decision("rank", f"{file}: the third column rises within each query, so it is the rank")
    elif steps and falls:
        return Decision("score", f"{file}: the third column falls within each query, so it is the score")
    raise SourceError(
        f"{file}: the third column could be a rank or a score: it holds whole numbers that do not count up from 1; add "
        "log_format: msmarco (a rank) or log_format: scores (a score), or the flag --log-format"
    )


def _look(con: duckdb.DuckDBPyConnection) -> _Seen:
    whole, counted, up, down = one_row(
        con,
        """
        WITH once AS (
            SELECT query, document, min(ordinal) AS ordinal, arg_min(third, ordinal) AS third FROM log
            WHERE third IS NOT NULL GROUP BY query, document),
        stepped AS (
            SELECT query, third, third >= 0 AND third = floor(third) AS whole,
                   third - lag(third) OVER (PARTITION BY query ORDER BY ordinal) AS step FROM once),
        asked AS (
            SELECT count(*) AS n, sum(whole::INTEGER) AS whole, count(step) FILTER (step > 0) AS up,
                   count(step) FILTER (step < 0) AS down,
                   min(third) IN (0, 1) AND max(third) - min(third) = count(*) - 1
                       AND count(DISTINCT third) = count(*) AS counts
            FROM stepped GROUP BY query)
        SELECT sum(whole) / sum(n), coalesce(sum(n) FILTER (counts), 0) / sum(n), sum(up), sum(down) FROM asked
        """,
    )
    return _Seen(float(whole), float(counted), int(up), int(down))
