"""The attributions of matched pairs side by side, read in batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.analysis.comparison.agreement import MEASURES, Stored, agreement
from jobs.analysis.comparison.alignment import Aligned, Cut, align
from jobs.analysis.comparison.matching import scan
from jobs.progress import Progress
from jobs.run.reader import Run
from jobs.storage.duckdb import first_row

PAIRS_AT_ONCE = 2048
# Cells of whole matrices held at once, of both runs together.
CELLS_AT_ONCE = 2_000_000
# Batches of wide rows that are read before they are asked for.
ROWS_AHEAD = 2
# Columns whose lists are taken as arrays.
LISTS = ("rows_", "cols_", "cells_", "matrix_")
# Alignments kept: a query stands beside each of its documents.
KEPT = 1 << 14


@dataclass(frozen=True)
class SideBySide:
    """One matched pair: number ``n``, what each run stored, and the units of its two texts."""

    n: int
    first: Stored
    second: Stored
    a: Aligned
    b: Aligned
    texts: tuple[str, str]


def add_agreement(con: duckdb.DuckDBPyConnection, first: Run, second: Run, progress: Progress | None = None) -> int:
    """Table ``details`` (n, MEASURES, alone) for the pairs of table ``chosen`` (n); the number of them.

    ``alone`` is how many words of the pair only one of the runs read.
    """
    columns = ", ".join(f"{name} FLOAT" for name in MEASURES)
    measures = [(name, pa.float32()) for name in MEASURES]
    schema = pa.schema([("n", pa.int64()), *measures, ("alone", pa.int32()), ("words", pa.int32())])
    con.execute(f"CREATE TABLE details (n BIGINT, {columns}, alone INTEGER, words INTEGER)")
    done = 0
    pairs = side_by_side(con, first, second)
    while rows := [_measured(one) for one in islice(pairs, PAIRS_AT_ONCE)]:
        # A cursor of its own: the connection is in the middle of reading what is written about here.
        with con.cursor() as cursor:
            cursor.register("found", pa.Table.from_pylist(rows, schema=schema))
            cursor.execute("INSERT INTO details SELECT * FROM found")
            cursor.unregister("found")
        done += len(rows)
        if progress is not None:
            progress.advance(len(rows))
    return done


def _measured(pair: SideBySide) -> dict[str, Any]:
    """A row of ``details``; its inputs can then be freed."""
    return {
        "n": pair.n,
        **agreement(pair.first, pair.second, pair.a, pair.b),
        "alone": pair.a.alone + pair.b.alone,
        "words": pair.a.units + pair.b.units,
    }


def side_by_side(con: duckdb.DuckDBPyConnection, first: Run, second: Run) -> Iterator[SideBySide]:
    """The pairs of table ``chosen`` (n), one after the other; of both runs only their rows are kept."""
    whole = all("matrix" in run.dataset().schema.names for run in (first, second))
    size = PAIRS_AT_ONCE
    for number, run in ((1, first), (2, second)):
        size = min(size, _load(con, run, number, whole))
    matrix = ", r{0}.matrix AS matrix_{0}, r{0}.scale AS scale_{0}" if whole else ""
    wanted = "".join(
        f", r{n}.row_sums AS rows_{n}, r{n}.col_sums AS cols_{n}, r{n}.cells AS cells_{n}"
        f", a{n}.read AS read_a_{n}, b{n}.read AS read_b_{n}" + matrix.format(n)
        for n in (1, 2)
    )
    query = (
        f"SELECT m.n, m.text_a, m.text_b, m.a_2, m.b_2{wanted} FROM matched m JOIN chosen USING (n) "
        "JOIN stored_1 r1 ON r1.pair_id = m.pair_1 JOIN stored_2 r2 ON r2.pair_id = m.pair_2 "
        "JOIN read_1 a1 ON a1.text_id = m.text_a AND a1.side = 'a' "
        "JOIN read_1 b1 ON b1.text_id = m.text_b AND b1.side = 'b' "
        "JOIN read_2 a2 ON a2.text_id = m.a_2 AND a2.side = 'a' "
        "JOIN read_2 b2 ON b2.text_id = m.b_2 AND b2.side = 'b'"
    )
    units: dict[tuple[str, str, str], Aligned] = {}

    def aligned(side: str, ids: tuple[str, str], row: dict[str, Any]) -> Aligned:
        key = (side, *ids)
        if key not in units:
            if len(units) >= KEPT:
                units.clear()
            units[key] = align(_cut(row[f"read_{side}_1"]), _cut(row[f"read_{side}_2"]))
        return units[key]

    for batch in con.cursor().sql(query).to_arrow_reader(size):
        narrow = [at for at, field in enumerate(batch.schema) if not field.name.startswith(LISTS)]
        stored = zip(_stored(batch, 1), _stored(batch, 2), strict=True)
        for row, both in zip(batch.select(narrow).to_pylist(), stored, strict=True):
            a = aligned("a", (row["text_a"], row["a_2"]), row)
            b = aligned("b", (row["text_b"], row["b_2"]), row)
            texts = (row["read_a_1"]["text"], row["read_b_1"]["text"])
            yield SideBySide(row["n"], *both, a, b, texts)
    for table in ("stored", "read"):
        con.execute(f"DROP TABLE {table}_1; DROP TABLE {table}_2")


def _load(con: duckdb.DuckDBPyConnection, run: Run, number: int, whole: bool) -> int:
    """Tables ``stored_N`` and ``read_N``: the rows and texts of the chosen pairs; how many are to be held at once."""
    columns = {name: pc.field(name) for name in ("pair_id", "row_sums", "col_sums", "top")}
    extra, size = "", PAIRS_AT_ONCE
    if whole:
        # DuckDB has no float16.
        columns |= {"matrix": pc.field("matrix").cast(pa.list_(pa.float32())), "scale": pc.field("matrix_scale")}
        extra = ", matrix, scale"
        size = _pairs_at_once(con, run)
    pair, a, b = ("pair_1", "text_a", "text_b") if number == 1 else ("pair_2", "a_2", "b_2")
    scan(
        con,
        run,
        "attributions",
        columns,
        f"CREATE TABLE stored_{number} AS SELECT pair_id, row_sums, col_sums, "
        f"flatten(list_transform(top, lambda cell: [cell.i, cell.j])) AS cells{extra} FROM part "
        f"WHERE pair_id IN (SELECT {pair} FROM matched JOIN chosen USING (n))",
        rows=size,
        ahead=ROWS_AHEAD,
    )
    role_a, role_b = run.roles
    con.execute(
        f"CREATE TABLE wanted AS SELECT DISTINCT {a} AS text_id, 'a' AS side, '{role_a}' AS role FROM matched "
        f"JOIN chosen USING (n) UNION SELECT DISTINCT {b}, 'b', '{role_b}' FROM matched JOIN chosen USING (n)"
    )
    scan(
        con,
        run,
        "texts",
        ["text_id", "role", "text", "starts", "ends", "kinds"],
        f"CREATE TABLE read_{number} AS SELECT text_id, side, "
        "{'text': text, 'starts': starts, 'ends': ends, 'kinds': kinds} AS read FROM part JOIN wanted "
        "USING (text_id, role)",
    )
    con.execute("DROP TABLE wanted")
    return size


def _pairs_at_once(con: duckdb.DuckDBPyConnection, run: Run) -> int:
    """How many pairs of a run of whole matrices have, on the mean, half of CELLS_AT_ONCE."""
    scan(con, run, "attributions", ["rows", "cols"], "CREATE TABLE sizes AS SELECT avg(rows::BIGINT * cols) FROM part")
    row = first_row(con, "SELECT * FROM sizes")
    con.execute("DROP TABLE sizes")
    mean = (row[0] if row is not None else None) or 1.0
    return max(1, min(PAIRS_AT_ONCE, int(CELLS_AT_ONCE / 2 / mean)))


def _cut(read: dict[str, Any]) -> Cut:
    return Cut(read["starts"], read["ends"], read["kinds"])


def _stored(batch: pa.RecordBatch, number: int) -> Iterator[Stored]:
    """What run ``number`` stored of each pair, without a Python object a number."""
    rows, cols, cells = (_lists(batch[f"{name}_{number}"]) for name in ("rows", "cols", "cells"))
    whole = f"matrix_{number}" in batch.schema.names
    matrices = _lists(batch[f"matrix_{number}"]) if whole else [None] * len(batch)
    scales = batch[f"scale_{number}"].to_pylist() if whole else [None] * len(batch)
    for row_sums, col_sums, strongest, matrix, scale in zip(rows, cols, cells, matrices, scales, strict=True):
        if matrix is not None:
            matrix = matrix.astype(np.float64).reshape(len(row_sums), len(col_sums)) * scale
        yield Stored(row_sums, col_sums, strongest.astype(np.int64).reshape(-1, 2), matrix)


def _lists(column: pa.ListArray) -> Iterator[Any]:
    """The list of each row as an array; None for null."""
    values, offsets = column.values.to_numpy(zero_copy_only=False), column.offsets.to_numpy()
    for at, there in enumerate(column.is_valid().to_pylist()):
        yield values[offsets[at] : offsets[at + 1]] if there else None
