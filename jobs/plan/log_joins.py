"""Notices about ids of a log's files that are missing in its other files, and about contradicting judgments and ranks.

All functions read tables of jobs.plan.log_staging: ``asked`` (id) has every query of the log, ``q`` and ``d`` those
and the documents that the job takes, ``wanted`` (role, id, no) the ids whose texts it needs.
"""

from __future__ import annotations

import duckdb

from jobs.progress import counted
from jobs.storage.duckdb import first_row, one_row

SHOWN_IDS = 5


def queries_without_rows(con: duckdb.DuckDBPyConnection, file: str) -> str | None:
    """A notice about the queries of ``file``, in table ``listed`` (id), that the log lacks."""
    return _missing(con, "listed", "SELECT id FROM asked", f"{file}: {{}} not in the log", "queries")


def ids_without_text(con: duckdb.DuckDBPyConnection, file: str, role: int) -> str | None:
    """A notice about queries (``role`` 0) or documents (1) of the log that ``file`` lacks."""
    what = ("queries", "documents")[role]
    of_role = f"(SELECT id FROM wanted WHERE role = {role})"
    return _missing(
        con,
        of_role,
        f"SELECT id FROM wanted WHERE role = {role} AND no NOT IN (SELECT no FROM textless WHERE missing)",
        f"the log: {{}} not in {file}",
        what,
    )


def judged_queries(con: duckdb.DuckDBPyConnection, file: str) -> tuple[list[str], list[str]]:
    """Notices and warnings of the judgments in table ``judgments`` (query, document, relevance, nth), of ``file``."""
    total, common = _counts(con, "(SELECT DISTINCT query AS id FROM judgments)", "SELECT id FROM asked")
    if not total:
        return [], [f"{file}: contains no judgments, so relevance is null in every row"]
    warnings = [line for line in [_contradictions(con, file)] if line is not None]
    if not common:
        theirs, ours = one_row(con, "SELECT (SELECT min(query) FROM judgments), (SELECT min(id) FROM asked)")
        none = "its 1 judged query is not" if total == 1 else f"none of its {total:,} judged queries is"
        return [], [
            f"{file}: {none} in the log, so relevance is null in every row; ids look like {theirs!r} there and "
            f"{ours!r} in the log",
            *warnings,
        ]
    notices = [
        _missing(
            con,
            "(SELECT DISTINCT query AS id FROM judgments)",
            "SELECT id FROM asked",
            f"{file}: {{}} not in the log",
            "judged queries",
        ),
        _missing(
            con, "asked", "SELECT query AS id FROM judgments", f"the log: {{}} without judgment in {file}", "queries"
        ),
    ]
    if not first_row(con, "SELECT 1 FROM judged LIMIT 1"):
        theirs = one_row(con, "SELECT min(document) FROM judgments SEMI JOIN asked ON asked.id = judgments.query")[0]
        ours = one_row(con, "SELECT min(id) FROM wanted WHERE role = 1")[0]
        warnings.insert(
            0,
            f"{file}: judges none of the pairs, so relevance is null in every row; documents look like {theirs!r} "
            f"there and {ours!r} in the log",
        )
    return [line for line in notices if line is not None], warnings


def _contradictions(con: duckdb.DuckDBPyConnection, file: str) -> str | None:
    rows = con.execute("""
        SELECT query, document, arg_min(relevance, nth), arg_max(relevance, nth), min(nth) AS first FROM judgments
        GROUP BY query, document HAVING min(relevance) < max(relevance) ORDER BY first
    """).fetchall()
    if not rows:
        return None
    query, document, first, last, _ = rows[0]
    grades = f"{first} and {last}" if first != last else f"{first} and others"
    whose = "1 pair is" if len(rows) == 1 else f"{len(rows):,} pairs are"
    return (
        f"{file}: {whose} judged more than once with different grades, such as query {query} with document {document} "
        f"({grades}): the first is taken"
    )


def ranks_against_scores(con: duckdb.DuckDBPyConnection, file: str) -> list[str]:
    """Warnings about the ranks of the log, by table ``coded`` (q, d, score, place); ``file`` is its name."""
    # One sort of all rows shows it all. Scores fall within a rank, so that one above the score before has a later rank.
    con.execute("""
        CREATE TEMP TABLE placed AS
        SELECT q, bool_or(same) AND (bool_or(score IS NULL AND NOT same) OR count(*) FILTER (NOT same) > 1) AS tied,
               bool_or(above) AS against, count(score) > 0 AS scored
        FROM (
            SELECT q, score, place IS NOT DISTINCT FROM lag(place) OVER by_place AS same,
                   coalesce(score > lag(score IGNORE NULLS) OVER by_place, false) AS above
            FROM coded WHERE place IS NOT NULL
            WINDOW by_place AS (PARTITION BY q ORDER BY place, score DESC NULLS LAST))
        GROUP BY q
    """)
    ties, first, against, total = one_row(
        con,
        """
        SELECT count(*) FILTER (tied), min(q) FILTER (tied), count(*) FILTER (against), count(*) FILTER (scored)
        FROM placed
        """,
    )
    con.execute("DROP TABLE placed")
    lines = []
    # A run that gives every document the same rank, such as 0, gives none.
    if ties:
        query, place, times, scored = one_row(
            con,
            f"""
            SELECT q.id, place, count(*) AS n, count(score) > 0 FROM coded JOIN q USING (q)
            WHERE q = {int(first)} AND place IS NOT NULL GROUP BY q.id, place HAVING n > 1 ORDER BY place LIMIT 1
            """,
        )
        then = "the order is by score" if scored else "such documents are ordered by their ids, largest first"
        lines.append(
            f"{file}: ranks are not unique in {counted(ties, 'query')} (query {query}: rank {place:g} "
            f"{times} times): {then}"
        )
    if against:
        lines.append(
            f"{file}: in {against:,} of {counted(total, 'query')} the ranks do not follow the scores: "
            "the order is by score, largest first (if the scores are distances, negate them)"
        )
    return lines


def _missing(con: duckdb.DuckDBPyConnection, table: str, there: str, line: str, what: str) -> str | None:
    """``line`` about the ids of ``table`` that are not ``there``, with their number and some of them, or None."""
    total, common = _counts(con, table, there)
    missing = total - common
    if not missing:
        return None
    some = con.execute(f"""
        SELECT DISTINCT id FROM {table} AS t WHERE id NOT IN ({there}) ORDER BY id LIMIT {SHOWN_IDS}
    """).fetchall()
    shown = ", ".join(str(one) for (one,) in some) + (" …" if missing > SHOWN_IDS else "")
    are = "is" if missing == 1 else "are"
    return f"{line.format(f'{missing:,} of {total:,} {what} {are}')}: {shown}"


def _counts(con: duckdb.DuckDBPyConnection, table: str, there: str) -> tuple[int, int]:
    """How many ids a table has, and how many of these are among ``there``."""
    total, common = one_row(
        con,
        f"""
        SELECT count(DISTINCT t.id), count(DISTINCT t.id) FILTER (WHERE t.id IN ({there})) FROM {table} AS t
        """,
    )
    return int(total), int(common)
