"""The pairs of a run in one fixed order, for counting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.analysis.statistics.sums import Array
from jobs.errors import RunError
from jobs.run.reader import Run

# Of the database; what does not fit goes to disk.
MEMORY = "1GB"
BATCH_ROWS = 1 << 14


def batches(run: Run, columns: Sequence[str], rows: int = BATCH_ROWS, folder: str = "attributions") -> Iterator[Any]:
    """The rows of a folder's parts in the order in which they lie, read little ahead."""
    dataset = run.dataset(folder)
    try:
        with run.store.guard("read", folder):
            yield from dataset.to_batches(
                columns=list(columns), batch_size=rows, batch_readahead=2, fragment_readahead=1
            )
    except pa.ArrowException:
        raise RunError(f"{run.url}: a part of its {folder} is damaged") from None


@dataclass(frozen=True)
class Pairs:
    """The pairs of the statistics, in the order of a hash of their ids: the same for any order in the parts.

    ``rank`` [rows of the run] is a row's place in that order, -1 where it is not in the sample; ``a`` and ``b`` [rows
    of the run] are its texts' places in the table of texts, -1 where a text is not written yet. ``without_text`` rows
    are left out for that reason. ``query`` [count] is, of a log, the place of a pair's query in the order of a hash,
    None of other runs. ``draws`` is the number of independent draws: queries of a log, pairs of other runs.
    """

    con: duckdb.DuckDBPyConnection
    rank: Array
    a: Array
    b: Array
    count: int
    draws: int
    query: Array | None
    without_text: int
    mass: float

    def ids(self, ranks: Sequence[int]) -> list[str]:
        """The ids of pairs by their ranks."""
        places = pa.array(np.arange(len(ranks), dtype=np.int64))
        self.con.register("wanted", pa.table([places, pa.array(list(ranks), pa.int64())], names=["place", "rank"]))
        rows = self.con.execute(
            "SELECT pair_id FROM wanted JOIN ranked USING (rank) JOIN ids USING (n) ORDER BY place"
        ).fetchall()
        self.con.unregister("wanted")
        return [pair_id for (pair_id,) in rows]


def order_pairs(
    run: Run, con: duckdb.DuckDBPyConnection, places: tuple[pa.Array, pa.Array], seed: int, sample: int | None
) -> Pairs:
    """Read the ids of all pairs and put them in order; ``places`` are the text ids of either role in table order,
    ``sample`` keeps only this many random pairs. RunError where no pair is there."""
    con.execute("CREATE TABLE ids (n INTEGER, pair_id VARCHAR, hash UBIGINT, whole BOOLEAN)")
    columns: dict[str, list[Array]] = {"a": [], "b": [], "mass": []}
    n = 0
    of_mass = ["positive", "negative"] if run.has_word_pairs else ["row_sums", "col_sums"]
    for batch in batches(run, ["pair_id", "text_a_id", "text_b_id", *of_mass], 1 << 17):
        sides = [
            pc.fill_null(pc.index_in(batch[name], value_set=ids), -1).to_numpy(zero_copy_only=False)
            for name, ids in zip(("text_a_id", "text_b_id"), places, strict=True)
        ]
        columns["a"].append(sides[0])
        columns["b"].append(sides[1])
        if run.has_word_pairs:
            positive, negative = (batch[name].to_numpy(zero_copy_only=False) for name in of_mass)
            columns["mass"].append(positive - negative)
        else:
            columns["mass"].append(np.sum([_absolute(batch[name]) for name in of_mass], axis=0))
        numbers = pa.array(np.arange(n, n + len(batch), dtype=np.int32))
        whole = pa.array((sides[0] >= 0) & (sides[1] >= 0))
        con.register("batch", pa.table([numbers, batch["pair_id"], whole], names=["n", "pair_id", "whole"]))
        con.execute(f"INSERT INTO ids SELECT n, pair_id, md5_number_lower('{int(seed)}:' || pair_id), whole FROM batch")
        con.unregister("batch")
        n += len(batch)
    if n == 0:
        raise RunError(f"{run.url}: no pair has been attributed yet")
    limit = f"LIMIT {int(sample)}" if sample is not None else ""
    con.execute(
        "CREATE TABLE ranked AS SELECT n, (row_number() OVER (ORDER BY hash, pair_id) - 1)::INTEGER AS rank FROM "
        f"(SELECT n, hash, pair_id FROM ids WHERE whole ORDER BY hash, pair_id {limit})"
    )
    order = con.execute("SELECT n FROM ranked ORDER BY rank").fetchnumpy()["n"]
    rank = np.full(n, -1, np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    a, b, mass = (np.concatenate(columns[name]) for name in ("a", "b", "mass"))
    without = int(((a < 0) | (b < 0)).sum())
    query = _queries(con, places[0], a[order], seed) if run.roles[0] == "query" else None
    draws = len(order) if query is None else int(query.max(initial=-1)) + 1
    mass_of_all = float(mass[order].sum())
    return Pairs(con, rank, a.astype(np.int32), b.astype(np.int32), len(order), draws, query, without, mass_of_all)


def _absolute(lists: pa.Array) -> Array:
    """The sum of absolute values of each list, [n]."""
    values = np.abs(lists.flatten().to_numpy(zero_copy_only=False).astype(np.float64))
    return np.bincount(pc.list_parent_indices(lists).to_numpy(zero_copy_only=False), values, len(lists))


def _queries(con: duckdb.DuckDBPyConnection, ids: pa.Array, a: Array, seed: int) -> Array:
    """Of each pair, whose query is number ``a`` of ``ids``, the place of that query in the order of a hash, [pairs]."""
    used = np.flatnonzero(np.bincount(a, minlength=len(ids)))
    con.register("queries", pa.table([pa.array(used), ids.take(pa.array(used))], names=["n", "id"]))
    order = con.execute(f"SELECT n FROM queries ORDER BY md5_number_lower('{int(seed)}:' || id), id").fetchnumpy()["n"]
    con.unregister("queries")
    place = np.full(len(ids), -1, np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return place[a]
