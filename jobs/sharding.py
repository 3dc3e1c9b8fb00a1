"""Which pairs are computed together: each expensive text in one shard with all its partners, shards of equal cost.

Costs come from character lengths and are whole numbers, so that sums do not depend on the order of adding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.database import first_row

if TYPE_CHECKING:
    import duckdb

CHARACTERS_A_TOKEN = 4
LONGEST_TOKENS = 512
MOST_DIRECTIONS = 384
SHARE = 16


@dataclass(frozen=True)
class ShardInfo:
    """What a shard holds; ``texts`` counts distinct texts, also those that other shards hold as well."""

    index: int
    pairs: int
    texts: int
    characters: int
    cost: int


def text_cost(characters: int) -> int:
    """Relative cost of one text's contributions: directions × tokens, both bounded as a model bounds them."""
    tokens = min(characters // CHARACTERS_A_TOKEN + 3, LONGEST_TOKENS)
    return tokens * min(tokens, MOST_DIRECTIONS)


def default_shards(tokens: int) -> int:
    """Shards for so many tokens of distinct text: some per worker on a small job, and none too long on a large one."""
    return max(1, min(math.ceil(tokens / 512), 128), math.ceil(tokens / 65536))


_COST = (
    f"least(characters // {CHARACTERS_A_TOKEN} + 3, {LONGEST_TOKENS}) * "
    f"least(characters // {CHARACTERS_A_TOKEN} + 3, {MOST_DIRECTIONS})"
)


def assign_shards(con: duckdb.DuckDBPyConnection, role_b: int, asked: int | None) -> list[ShardInfo]:
    """Tables ``numbered`` (ordinal, a_no, b_no, shard) and ``shard_texts`` (shard, no, owner) in ``con``.

    ``con`` holds ``pairs`` and ``texts`` as jobs.staging writes them, with at least one pair. Every text is owned
    by the first shard that holds it. Shards follow the input's order.
    """
    con.execute(f"""
        CREATE TEMP TABLE matched AS
        SELECT ordinal, ta.no AS a_no, tb.no AS b_no FROM pairs
        JOIN (SELECT key, no FROM texts WHERE role = 0) ta ON ta.key = a_key
        JOIN (SELECT key, no FROM texts WHERE role = {role_b}) tb ON tb.key = b_key;
        CREATE TEMP TABLE costs AS
        SELECT no, characters, ({_COST})::BIGINT AS cost FROM texts
        WHERE no IN (SELECT a_no FROM matched UNION ALL SELECT b_no FROM matched)
    """)
    cost_a, cost_b = (
        _number(con, f"SELECT sum(cost) FROM costs WHERE no IN (SELECT {s}_no FROM matched)") for s in "ab"
    )
    # On a tie the second text: in a retrieval log that is the document.
    dear, cheap = ("a_no", "b_no") if cost_a > cost_b else ("b_no", "a_no")
    tokens = _number(con, f"SELECT sum((characters + {CHARACTERS_A_TOKEN - 1}) // {CHARACTERS_A_TOKEN}) FROM costs")
    wanted = asked if asked is not None else default_shards(tokens)
    # A partner's cost is shared out among its pairs, so that the shares add up to the cost of computing it once.
    con.execute(f"""
        CREATE TEMP TABLE weights AS
        WITH partners AS (SELECT {cheap} AS no, count(*) AS n FROM matched GROUP BY 1),
             shares AS (SELECT no, {SHARE} * cost // n AS share FROM partners JOIN costs USING (no)),
             brought AS (SELECT {dear} AS no, sum(share)::BIGINT AS share
                         FROM matched JOIN shares ON shares.no = {cheap} GROUP BY 1)
        SELECT no, {SHARE} * cost + share AS weight FROM brought JOIN costs USING (no);
        CREATE TEMP TABLE shard_of AS
        WITH summed AS (SELECT no, weight, sum(weight) OVER (ORDER BY no ROWS UNBOUNDED PRECEDING) AS upto FROM weights)
        SELECT no, (dense_rank() OVER (ORDER BY cut) - 1)::INTEGER AS shard FROM (
            SELECT no, (2 * upto - weight) * {wanted} // (2 * (SELECT sum(weight) FROM weights)) AS cut FROM summed);
        CREATE TABLE numbered AS
        SELECT ordinal, a_no, b_no, shard FROM matched JOIN shard_of ON shard_of.no = {dear};
        CREATE TABLE shard_texts AS
        WITH held AS (SELECT shard, a_no AS no FROM numbered UNION SELECT shard, b_no FROM numbered),
             owners AS (SELECT no, min(shard) AS shard FROM held GROUP BY no)
        SELECT held.shard, held.no, held.shard = owners.shard AS owner FROM held JOIN owners ON owners.no = held.no
    """)
    rows = con.execute("""
        WITH p AS (SELECT shard, count(*) AS pairs FROM numbered GROUP BY shard),
             t AS (SELECT shard, count(*) AS texts, sum(characters) AS characters, sum(cost) AS cost
                   FROM shard_texts JOIN costs USING (no) GROUP BY shard)
        SELECT shard, pairs, texts, characters, cost FROM p JOIN t USING (shard) ORDER BY shard
    """).fetchall()
    con.execute("DROP TABLE matched; DROP TABLE costs; DROP TABLE weights; DROP TABLE shard_of")
    return [ShardInfo(*(int(value) for value in row)) for row in rows]


def _number(con: duckdb.DuckDBPyConnection, query: str) -> int:
    row = first_row(con, query)
    assert row is not None
    return int(row[0] or 0)
