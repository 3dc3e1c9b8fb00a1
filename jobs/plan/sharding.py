"""Which pairs are computed together: each expensive text in one shard with all its partners, shards of equal cost.

Costs are whole numbers, so that sums do not depend on the order of adding. They come from character lengths by the
rates of a calibration (jobs.plan.text_lengths).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import duckdb

from jobs.run.manifest import Calibration, ShardInfo, Work
from jobs.storage.duckdb import one_number, one_row

# A partner's cost is shared out among its pairs in parts as small as this of one direction of one token.
SHARE = 16
# Where the number of shards is not asked for, so many of the first are cut into so many: a run shows its first result,
# its rate and any mistake early. A job of few shards is soon done, and small shards cost it more than they show.
EARLY_SHARDS, EARLY_PARTS, FEW_SHARDS = 2, 8, 8
# A shard takes up to so long, and holds up to so many pairs; work worth sharing makes up to so many shards.
MOST_SECONDS, MOST_PAIRS = 60.0, 20_000
# Of an index: a part of 16 MB where a document takes 4 kB.
MOST_DOCUMENTS = 4096
SECONDS_WORTH_SHARING, SHARED_AMONG = 6.0, 32


def default_shards(seconds: float, pairs: int, most_pairs: int = MOST_PAIRS) -> int:
    """How many shards: several a worker on a small job, none that takes long, none with too many pairs for a file.

    ``seconds`` are those of one worker for all. A shard that is lost costs its seconds again.
    """
    shared = min(math.ceil(seconds / SECONDS_WORTH_SHARING), SHARED_AMONG)
    return max(1, shared, math.ceil(seconds / MOST_SECONDS), math.ceil(pairs / most_pairs))


def text_cost(tokens: int, groups: int, width: int) -> int:
    """Relative cost of one text's contributions by itself: tokens × (directions and the pass without any)."""
    return tokens * (min(groups, width) + 1)


def assign_shards(
    con: duckdb.DuckDBPyConnection,
    calibration: Calibration,
    wanted_for: Callable[[int, int, int], int],
    asked: int | None,
    level: Literal["pairs", "words"] = "pairs",
    *,
    indexed: bool = False,
) -> tuple[list[ShardInfo], str]:
    """Tables ``shard_of`` (no, shard), ``shard_texts`` (shard, no, owner, shared), ``costs``; the side that has shards.

    ``con`` holds ``matched`` (ordinal, a_no, b_no) with at least one pair, ``texts``, and ``used`` (no) with those of
    the pairs. The side is ``a_no`` or ``b_no``: the number of the expensive text, which is in one shard. Every text is
    owned by the first shard that holds it, and shared where it is not the only one. Shards follow the input's order.
    ``level`` is that of the job: without word pairs every text can be explained along its partners' embeddings.
    ``indexed`` says that documents come from an index, where they cost nothing to compute.
    """
    width = calibration.width
    alone = {"pairs": f"least(groups, {width})", "words": f"least(groups, partners + 1, {width})"}
    tokens = f"CASE WHEN role = 1 THEN 0 ELSE {calibration.tokens_sql()} END" if indexed else calibration.tokens_sql()
    con.execute(f"""
        CREATE TABLE costs AS
        WITH met AS (SELECT no, count(*) AS partners FROM
                     (SELECT a_no AS no FROM matched UNION ALL SELECT b_no FROM matched) GROUP BY no)
        SELECT no, role, characters, tokens, groups, partners, tokens * ({alone[level]} + 1) AS cost FROM (
            SELECT no, role, characters, {tokens} AS tokens, {calibration.groups_sql()} AS groups,
                   partners
            FROM texts JOIN met USING (no))
    """)
    cost_a, cost_b = (
        one_number(con, f"SELECT sum(cost) FROM costs SEMI JOIN matched ON costs.no = matched.{s}_no") for s in "ab"
    )
    # On a tie the second text: in a retrieval log that is the document.
    dear, cheap = ("a_no", "b_no") if cost_a > cost_b else ("b_no", "a_no")
    sizes = one_row(con, "SELECT (SELECT count(*) FROM matched), count(*), sum(cost) FROM costs")
    wanted = asked if asked is not None else wanted_for(*map(int, sizes))
    parts, early = (1, 0) if asked is not None or wanted <= FEW_SHARDS else (EARLY_PARTS, EARLY_SHARDS * EARLY_PARTS)
    # A partner's cost is shared out among its pairs, so that the shares add up to the cost of computing it once.
    con.execute(f"""
        CREATE TABLE directions AS
        WITH partners AS (SELECT {cheap} AS no, count(*) AS n FROM matched GROUP BY 1),
             shares AS (SELECT no, groups, {SHARE} * cost // n AS share FROM partners JOIN costs USING (no)),
             partner_sums AS (SELECT {dear} AS no, sum(share)::BIGINT AS share, sum(groups)::BIGINT AS groups
                         FROM matched JOIN shares ON shares.no = {cheap} GROUP BY 1)
        -- A text can be explained along its partners' groups, where those are fewer than its own.
        SELECT no, tokens, share, least(costs.groups, partner_sums.groups, {width}) AS pairs,
               least(costs.groups, partners + 1, {width}) AS words
        FROM partner_sums JOIN costs USING (no);
        CREATE TABLE shard_of AS
        WITH weights AS (SELECT no, {SHARE} * tokens * ({level} + 1) + share AS weight FROM directions),
             summed AS (SELECT no, weight, sum(weight) OVER (ORDER BY no ROWS UNBOUNDED PRECEDING) AS upto FROM weights)
        SELECT no, (dense_rank() OVER (ORDER BY CASE WHEN cut < {early} THEN cut ELSE cut // {parts} * {parts} END) - 1)
               ::INTEGER AS shard FROM (
            SELECT no, (2 * upto - weight) * {wanted * parts} // (2 * (SELECT sum(weight) FROM weights)) AS cut
            FROM summed);
        CREATE TABLE shard_texts AS
        -- A partner's text is read in every shard that needs it; the expensive text in its own.
        WITH held AS (SELECT shard, no FROM shard_of
                      UNION SELECT shard, {cheap} FROM matched JOIN shard_of ON shard_of.no = {dear}),
             owners AS (SELECT no, min(shard) AS shard, count(*) AS shards FROM held GROUP BY no)
        SELECT held.shard, held.no, held.shard = owners.shard AS owner, owners.shards > 1 AS shared
        FROM held JOIN owners ON owners.no = held.no
    """)
    # For each level how many directions each text of a shard takes.
    con.execute(f"""
        CREATE TABLE shard_costs AS
        WITH there AS (SELECT shard, {cheap} AS no, count(*) AS partners
                       FROM matched JOIN shard_of ON shard_of.no = {dear} GROUP BY ALL)
        SELECT held.shard, costs.no, costs.role, characters, costs.tokens,
               coalesce(directions.pairs, least(groups, {width})) AS pairs,
               coalesce(directions.words, least(groups, there.partners + 1, {width})) AS words
        FROM shard_texts held JOIN costs ON costs.no = held.no
        LEFT JOIN shard_of own ON own.no = held.no AND own.shard = held.shard
        LEFT JOIN directions ON directions.no = own.no
        LEFT JOIN there ON there.no = held.no AND there.shard = held.shard
    """)
    return _shards(con, dear, level), dear


def work_of_level(con: duckdb.DuckDBPyConnection, level: str) -> Work:
    """The total cost at a level of the shards that :func:`assign_shards` made; ``index``: that of the queries alone."""
    roles = "(0)" if level == "index" else "(0, 1)"
    level = "pairs" if level == "index" else level
    row = one_row(
        con,
        f"""
        SELECT count(*), sum(tokens), sum(tokens * tokens), sum(tokens * {level}), sum(tokens * tokens * {level})
        FROM shard_costs WHERE role IN {roles}
        """,
    )
    return Work(*(int(value) for value in row))


def _shards(con: duckdb.DuckDBPyConnection, dear: str, level: str) -> list[ShardInfo]:
    rows = con.execute(f"""
        WITH p AS (SELECT shard, count(*) AS pairs FROM matched JOIN shard_of ON shard_of.no = {dear} GROUP BY shard),
             t AS (SELECT shard, count(*) AS texts, sum(characters) AS characters,
                          sum(tokens * ({level} + 1)) AS cost FROM shard_costs GROUP BY shard)
        SELECT shard, pairs, texts, characters, cost FROM p JOIN t USING (shard) ORDER BY shard
    """).fetchall()
    return [ShardInfo(*(int(value) for value in row)) for row in rows]
