"""Ranks that a log gives, against a count by hand of those that several documents share or that scores contradict."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import duckdb
import pytest

from jobs.plan.log_joins import ranks_against_scores

LOGS = 80

# Query, rank and score of one row of a log.
Row = tuple[int, float | None, float | None]


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    con = duckdb.connect(config={"threads": 1})
    con.execute("""
        CREATE TABLE q AS SELECT 'Q' || q AS id, q FROM range(2) AS t(q);
        CREATE TABLE coded (q BIGINT, place DOUBLE, score DOUBLE)
    """)
    yield con
    con.close()


@pytest.mark.parametrize("kind", ["scored", "unscored", "mixed"])
def test_ranks_of_any_log_are_compared_as_by_hand(con: duckdb.DuckDBPyConnection, kind: str) -> None:
    said = silent = 0
    for seed in range(LOGS):
        rows = log_of_chance(random.Random(f"{kind}{seed}"), kind)
        written = ", ".join(str(tuple("NULL" if one is None else one for one in row)) for row in rows)
        con.execute("DELETE FROM coded")
        con.execute(f"INSERT INTO coded VALUES {written}".replace("'", ""))
        lines = ranks_against_scores(con, "run")
        expected = by_hand(rows)
        assert len(lines) == len(expected), (lines, expected, rows)
        assert all(line.startswith(begin) for line, begin in zip(lines, expected, strict=True)), (lines, expected)
        said, silent = said + bool(lines), silent + (not lines)
    assert min(said, silent) >= 5


def log_of_chance(chance: random.Random, kind: str) -> list[Row]:
    """Rows whose ranks mostly count up, or are all the same, while their scores mostly fall."""
    rows: list[Row] = []
    flat = chance.random() < 0.15
    disorder = chance.choice([0, 0, 0.1, 0.5])
    for at in range(chance.randint(1, 12)):
        scored = kind == "scored" or (kind == "mixed" and chance.random() < 0.6)
        place = chance.randint(0, 6) if chance.random() < disorder else at
        score = chance.randint(-6, 0) if chance.random() < disorder else -at
        place = 1 if flat else place
        given = chance.random() < 0.9
        rows.append((chance.randrange(2), float(place) if given else None, score / 2 if scored else None))
    return rows


def by_hand(rows: list[Row]) -> list[str]:
    """How the lines begin that are to be said."""
    shared, against, scored = [], 0, 0
    for query in sorted({row[0] for row in rows}):
        by_place: dict[float, list[float | None]] = {}
        for q, place, score in rows:
            if q == query and place is not None:
                by_place.setdefault(place, []).append(score)
        scores = {place: [one for one in found if one is not None] for place, found in by_place.items()}
        twice = [place for place in sorted(by_place) if len(by_place[place]) > 1]
        # The same rank for every document that has a score says nothing.
        if twice and (len(by_place) > 1 or not all(scores.values())):
            shared.append(f"(query Q{query}: rank {twice[0]:g} {len(by_place[twice[0]])} times)")
        ordered = [scores[place] for place in sorted(scores) if scores[place]]
        against += any(max(later) > min(before) for before, later in itertools.pairwise(ordered))
        scored += bool(ordered)
    lines = []
    if shared:
        lines.append(f"run: ranks are not unique in {queries(len(shared))} {shared[0]}: ")
    if against:
        lines.append(f"run: in {against} of {queries(scored)} the ranks do not follow the scores: ")
    return lines


def queries(count: int) -> str:
    return "1 query" if count == 1 else f"{count} queries"
