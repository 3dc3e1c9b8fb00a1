"""Which pairs and queries of a run are shown: a few of each kind that a reader would ask for, and some at random.

Everything is chosen in one pass over narrow columns and in memory that does not grow with the run; the same seed gives
the same choice whatever the shards are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow.types as types

from jobs.run.reader import Run
from jobs.views.report.database import connected, one_row

MOST_DOCUMENTS = 1000


@dataclass(frozen=True)
class Kind:
    """One kind of pairs: the ``count`` with the largest ``order`` (SQL) among those that meet ``where``."""

    label: str
    order: str
    count: int
    where: str = "true"


KINDS = (
    Kind("Highest scores", "score", 8),
    Kind("Lowest scores", "-score", 8),
)
CHANCE = Kind("Chosen at random", "", 16)
RETRIEVAL = (
    Kind("Judged relevant, ranked last", "rank", 5, "relevance > 0 AND rank IS NOT NULL"),
    Kind("Judged not relevant, scored highest", "score", 5, "relevance = 0"),
)


def choose_pairs(run: Run, seed: int, count: int) -> list[tuple[str, list[str]]]:
    """The ids of about ``count`` pairs, some of every kind that the run has, with the kind's label."""
    kinds = [*KINDS]
    columns = ["pair_id", "score"]
    if _numeric(run, "rank", "relevance"):
        kinds += RETRIEVAL
        columns += ["rank", "relevance"]
    share = count / (CHANCE.count + sum(kind.count for kind in kinds))
    with connected(run, {"attributions": columns}) as con:
        picks = [_largest(kind, _scaled(kind.count, share)) for kind in kinds]
        picks.append(_by_chance(seed, _scaled(CHANCE.count, share), "pair_id"))
        row = one_row(
            con,
            "SELECT " + ", ".join(f"{pick} AS k{at}" for at, pick in enumerate(picks)) + " FROM attributions",
        )
    return [(kind.label, ids) for at, kind in enumerate([*kinds, CHANCE]) if (ids := row[f"k{at}"])]


def choose_queries(run: Run, seed: int, count: int) -> list[str]:
    """Random queries of a log; none where the run's pairs are not ranked documents of queries."""
    if run.roles[0] != "query":
        return []
    with connected(run, {"attributions": ["text_a_id"]}) as con:
        row = one_row(
            con,
            f"SELECT {_by_chance(seed, count, 'text_a_id')} AS ids FROM (SELECT text_a_id, count(*) AS documents"
            f" FROM attributions GROUP BY text_a_id) WHERE documents BETWEEN 2 AND {MOST_DOCUMENTS}",
        )
    return list(row["ids"] or ())


def rejected(run: Run, reasons: int, examples: int) -> list[dict[str, Any]]:
    """The commonest ``reasons`` of the rejected rows: ``reason``, ``count`` and the first few ``examples``."""
    with connected(run, {"rejects": ["file", "row", "reason", "row_text"]}) as con:
        answer = con.execute(
            "SELECT reason, count(*) AS n, min_by({'file': file, 'row': row, 'text': left(row_text, 200)},"
            f" {{'file': coalesce(file, ''), 'row': coalesce(row, 0)}}, {int(examples)}) AS examples"
            f" FROM rejects GROUP BY reason ORDER BY n DESC, reason LIMIT {int(reasons)}"
        )
        return [{"reason": row[0], "count": row[1], "examples": row[2]} for row in answer.fetchall()]


def _numeric(run: Run, *columns: str) -> bool:
    """Whether the run passed columns of these names through, and they hold numbers."""
    schema = run.dataset().schema
    kinds = [schema.field(name).type for name in columns if name in schema.names]
    return len(kinds) == len(columns) and all(types.is_integer(kind) or types.is_floating(kind) for kind in kinds)


def _scaled(count: int, share: float) -> int:
    return max(round(count * share), 1)


def _largest(kind: Kind, count: int) -> str:
    # The id decides between equals, so that the order of the rows does not.
    key = f"{{'by': {kind.order}, 'id': pair_id}}"
    return f"max_by(pair_id, {key}, {count}) FILTER ({kind.where} AND isfinite({kind.order}))"


def _by_chance(seed: int, count: int, column: str) -> str:
    return f"min_by({column}, {{'by': md5('{int(seed)}:' || {column}), 'id': {column}}}, {int(count)})"
