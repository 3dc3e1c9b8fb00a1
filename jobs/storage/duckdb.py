"""Opens DuckDB, which sorts and joins data that does not fit into memory, with the same limits everywhere."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb  # the library: imports are absolute, so this file does not hide it

from jobs.errors import RunError

MEMORY = "2GB"


def connect(folder: Path, memory: str = MEMORY) -> duckdb.DuckDBPyConnection:
    """Open a database on disk in ``folder`` that keeps to ``memory`` and two threads and loads no extension."""
    config: dict[str, Any] = {
        "memory_limit": memory,
        "threads": "2",
        "temp_directory": str(folder / "spill"),
        "preserve_insertion_order": "false",  # every order that counts is asked for
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    return duckdb.connect(str(folder / "tokenpair.duckdb"), config=config)


@contextlib.contextmanager
def temporary_database(memory: str = MEMORY) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database as :func:`connect` does, in a folder that is removed at the end of the block."""
    with (
        tempfile.TemporaryDirectory(prefix="tokenpair-duckdb-") as folder,
        contextlib.closing(connect(Path(folder), memory)) as con,
    ):
        yield con


@contextlib.contextmanager
def readable(url: str) -> Iterator[None]:
    """Turn DuckDB's errors inside the block into a RunError of one line about the run at ``url``."""
    try:
        yield
    except duckdb.Error as error:
        first = (str(error).strip().splitlines() or [""])[0][:200]
        raise RunError(f"{url}: cannot be read: {first}") from None


def first_row(con: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...] | None:
    """Return the first row of a short result, None where it is empty.

    The result is fetched whole, because an open one blocks its connection.
    """
    rows = con.execute(query).fetchall()
    return rows[0] if rows else None


def one_row(con: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    """Return the row of a query that always has one, such as an aggregate."""
    row = first_row(con, query)
    assert row is not None, "an aggregate has a row"
    return row


def one_number(con: duckdb.DuckDBPyConnection, query: str) -> int:
    """Return the number that is a query's only value, 0 for null."""
    return int(one_row(con, query)[0] or 0)
