"""The local DuckDB file in which a plan is made, and what all databases here have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.errors import RunError

if TYPE_CHECKING:
    import duckdb


def connect(folder: Path) -> duckdb.DuckDBPyConnection:
    """A database on disk in ``folder`` that keeps to 2 GB of memory, two threads, and never loads an extension."""
    import duckdb

    config: dict[str, Any] = {
        "memory_limit": "2GB",
        "threads": "2",
        "temp_directory": str(folder / "spill"),
        "preserve_insertion_order": "false",  # every order that counts is asked for
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    return duckdb.connect(str(folder / "plan.duckdb"), config=config)


@contextlib.contextmanager
def readable(url: str) -> Iterator[None]:
    """What DuckDB cannot read of the run at ``url`` as RunError, in one line."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        first = (str(error).strip().splitlines() or [""])[0][:200]
        raise RunError(f"{url}: cannot be read: {first}") from None


def first_row(con: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...] | None:
    """The first row of a short result; it is fetched whole, because an open result blocks its connection."""
    rows = con.execute(query).fetchall()
    return rows[0] if rows else None


def sampled(table: str, column: str, seed: int, count: int) -> str:
    """SQL that keeps ``count`` rows of ``table`` by chance: the same ones for the same seed, wherever they stand."""
    order = f"md5('{int(seed)}:' || {column}), {column}"
    return (
        f"DELETE FROM {table} WHERE {column} NOT IN (SELECT {column} FROM {table} ORDER BY {order} LIMIT {int(count)})"
    )


class PlanDatabase:
    """What the growing databases of plans have in common; ``con`` has a table ``rejects`` with a ``reason``."""

    con: duckdb.DuckDBPyConnection

    def count(self, table: str) -> int:
        """How many rows a table has."""
        row = first_row(self.con, f"SELECT count(*) FROM {table}")
        assert row is not None
        return int(row[0])

    def rejected(self) -> dict[str, int]:
        """How many rows were turned away, by reason, the commonest first."""
        rows = self.con.execute("SELECT reason, count(*) AS n FROM rejects GROUP BY reason ORDER BY n DESC, reason")
        return {str(reason): int(n) for reason, n in rows.fetchall()}

    def close(self) -> None:
        """Let go of the file."""
        self.con.close()
