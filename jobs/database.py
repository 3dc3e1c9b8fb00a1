"""The local DuckDB file in which a plan is made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

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
