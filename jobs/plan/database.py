"""What the databases of plans for pairs and for logs have in common: files, rejected rows, samples."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from jobs.sources.rows import Reject
from jobs.storage.duckdb import connect, first_row, one_number


class PlanDatabase:
    """A DuckDB file in ``folder`` with ``tables`` (SQL), among them the two that every plan has.

    ``files`` numbers the input files; ``rejects`` has the rows that are not attributed, each with a ``reason``.
    """

    def __init__(self, folder: Path, tables: str) -> None:
        self.con = connect(folder)
        self.con.execute(f"CREATE TABLE files (no INTEGER, name VARCHAR); {tables}")
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """Return the number that an input file has in the tables; ``name`` is unique among the job's files."""
        if name not in self._numbers:
            self._numbers[name] = len(self._numbers)
            self.con.execute("INSERT INTO files VALUES (?, ?)", [self._numbers[name], name])
        return self._numbers[name]

    def insert_rejects(self, rejects: list[Reject]) -> None:
        """Insert rows that their reader rejected."""
        if not rejects:
            return
        table = pa.table(
            {
                "file": pa.array([self.number(one.file) for one in rejects], pa.int32()),
                "row": pa.array([one.row for one in rejects], pa.int64()),
                "id": pa.array([one.pair_id for one in rejects], pa.string()),
                "reason": pa.array([one.reason for one in rejects], pa.string()),
                "row_text": pa.array([one.row_text for one in rejects], pa.string()),
            }
        )
        self.con.register("rejected", table)
        self.con.execute("INSERT INTO rejects BY NAME SELECT * FROM rejected")
        self.con.unregister("rejected")

    def keep_sample(self, table: str, column: str, seed: int, count: int) -> None:
        """Delete all but ``count`` rows of ``table``, chosen at random: the same ones for the same seed."""
        order = f"md5('{int(seed)}:' || {column}), {column}"
        self.con.execute(f"""
            DELETE FROM {table} WHERE {column} NOT IN (
                SELECT {column} FROM {table} ORDER BY {order} LIMIT {int(count)})
        """)

    def first_row(self, query: str) -> tuple[object, ...] | None:
        """Return the first row of a short result, None where it is empty."""
        return first_row(self.con, query)

    def count(self, table: str) -> int:
        """Return how many rows a table has."""
        return one_number(self.con, f"SELECT count(*) FROM {table}")

    def rejected(self) -> dict[str, int]:
        """Return how many rows were rejected by reason, the commonest first."""
        rows = self.con.execute("SELECT reason, count(*) AS n FROM rejects GROUP BY reason ORDER BY n DESC, reason")
        return {str(reason): int(n) for reason, n in rows.fetchall()}

    def close(self) -> None:
        """Close the database."""
        self.con.close()
