"""Which pairs two runs share. The data is in a database on disk, so that runs of millions of pairs fit.

A pair is the same where its id and both its texts are. Where no id is shared (the runs read other files) pairs of the
same two texts are matched instead, the first with the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as t

from jobs.errors import RunError
from jobs.run.reader import Run
from jobs.storage.duckdb import first_row, readable

BATCH_ROWS = 1 << 14
# What pyarrow reads ahead by itself.
BATCHES_AHEAD, PARTS_AHEAD = 16, 4


@dataclass(frozen=True)
class Matched:
    """How many pairs were matched ``by`` ("pair_id" or "texts") and why others were not.

    ``other_texts`` have an id that both runs know, with other texts; ``unwritten`` are pairs of an unfinished run whose
    texts are not there yet.
    """

    by: str
    pairs: int
    first: int
    second: int
    other_texts: int
    unwritten: int


def scan(
    con: duckdb.DuckDBPyConnection,
    run: Run,
    folder: str,
    columns: Any,
    sql: str,
    *,
    rows: int = BATCH_ROWS,
    ahead: int = BATCHES_AHEAD,
) -> None:
    """Run ``sql`` over some columns of a folder's parts, called ``part`` there, which are read once and in batches.

    ``rows`` are read at once, and up to ``ahead`` such batches before they are asked for.

    Raises:
        RunError: where a part is damaged.
        StoreError: where the store fails.
    """
    dataset = run.dataset(folder)
    with readable(run.url), run._reading():
        scanner = dataset.scanner(
            columns=columns, batch_size=rows, batch_readahead=ahead, fragment_readahead=min(ahead, PARTS_AHEAD)
        )
        con.register("part", scanner.to_reader())
        try:
            con.execute(sql)
        finally:
            con.unregister("part")


def match_pairs(con: duckdb.DuckDBPyConnection, first: Run, second: Run) -> Matched:
    """Table ``matched``: n, pair_1, pair_2, text_a, text_b (ids of the first run), a_2, b_2 (of the second), score_1,
    score_2, total_1, total_2, and the columns that the first run passed through, by the names of ``kept_names``.

    Raises:
        RunError: where not one pair is shared.
    """
    for number, run in ((1, first), (2, second)):
        _load(con, run, number)
    kept = "".join(f", x.{name}" for name in kept_names(first).values())
    values = (
        "x.pair_id AS pair_1, y.pair_id AS pair_2, x.text_a_id AS text_a, x.text_b_id AS text_b, y.text_a_id AS a_2, "
        "y.text_b_id AS b_2, x.score AS score_1, y.score AS score_2, x.total AS total_1, y.total AS total_2" + kept
    )
    by = "pair_id"
    on = "x.pair_id = y.pair_id AND x.hash_a = y.hash_a AND x.hash_b = y.hash_b"
    shared = _count(con, "FROM pairs_1 x JOIN pairs_2 y USING (pair_id)")
    if not shared:
        by = "texts"
        on = "x.hash_a = y.hash_a AND x.hash_b = y.hash_b AND x.nth = y.nth"
    con.execute(
        f"CREATE TABLE matched AS SELECT row_number() OVER (ORDER BY x.pair_id) AS n, {values} "
        f"FROM pairs_1 x JOIN pairs_2 y ON {on}"
    )
    pairs = _count(con, "FROM matched")
    unwritten = sum(_count(con, f"FROM pairs_{n} WHERE hash_a IS NULL OR hash_b IS NULL") for n in (1, 2))
    matched = Matched(
        by=by,
        pairs=pairs,
        first=_count(con, "FROM pairs_1"),
        second=_count(con, "FROM pairs_2"),
        other_texts=max(shared - pairs - unwritten, 0) if shared else 0,
        unwritten=unwritten,
    )
    if not pairs:
        why = f"{shared:,} ids are the same but not their texts" if shared else "neither an id nor two texts"
        raise RunError(f"{first.url} and {second.url} share no pair: {why}")
    return matched


def kept_columns(run: Run) -> list[pa.Field]:
    """The columns passed through whose values are text, numbers or truth values."""
    own = run.reserved_names
    scalar = (t.is_string, t.is_large_string, t.is_integer, t.is_floating, t.is_boolean)
    return [f for f in run.dataset().schema if f.name not in own and any(is_one(f.type) for is_one in scalar)]


def kept_names(run: Run) -> dict[str, str]:
    """What each of ``kept_columns`` is called in SQL: a column may have a name of ours, or one that differs from
    another's in letter case alone."""
    return {field.name: f"kept_{at}" for at, field in enumerate(kept_columns(run))}


def _load(con: duckdb.DuckDBPyConnection, run: Run, number: int) -> None:
    role_a, role_b = run.roles
    scan(
        con,
        run,
        "texts",
        ["text_id", "role", "text"],
        f"CREATE TABLE hashes_{number} AS SELECT text_id, role, md5(text) AS hash FROM part",
    )
    columns = {name: pc.field(name) for name in ("pair_id", "text_a_id", "text_b_id", "score", "total")}
    if number == 1:
        columns |= {called: pc.field(name) for name, called in kept_names(run).items()}
    scan(
        con,
        run,
        "attributions",
        columns,
        f"CREATE TABLE rows_{number} AS SELECT * FROM part",
    )
    con.execute(
        f"CREATE TABLE pairs_{number} AS SELECT r.*, a.hash AS hash_a, b.hash AS hash_b, "
        "row_number() OVER (PARTITION BY a.hash, b.hash ORDER BY r.pair_id) AS nth "
        f"FROM rows_{number} r "
        f"LEFT JOIN hashes_{number} a ON a.text_id = r.text_a_id AND a.role = '{role_a}' "
        f"LEFT JOIN hashes_{number} b ON b.text_id = r.text_b_id AND b.role = '{role_b}'"
    )
    con.execute(f"DROP TABLE rows_{number}; DROP TABLE hashes_{number}")


def _count(con: duckdb.DuckDBPyConnection, of: str) -> int:
    row = first_row(con, f"SELECT count(*) {of}")
    assert row is not None
    return int(row[0])
