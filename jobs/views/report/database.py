"""A DuckDB with bounded memory over the datasets of a run, for queries in one pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobs.run.reader import Run
from jobs.storage.duckdb import readable, temporary_database

MEMORY = "1GB"


@contextlib.contextmanager
def connected(run: Run, tables: Mapping[str, Sequence[str]]) -> Iterator[Any]:
    """A database with those columns of some tables of the run, called as its folders; each to be read in one pass.

    RunError where a part is damaged.
    """
    with temporary_database(MEMORY) as con, readable(run.url), run.store.guard("read", ""):
        # The parts are read through pyarrow, as everywhere else: DuckDB would need an extension to read from a store.
        for folder, columns in tables.items():
            con.register(folder, run.dataset(folder).scanner(columns=list(columns)))
        yield con


def one_row(con: Any, query: str, values: list[Any] | None = None) -> dict[str, Any]:
    """The one row that ``query`` gives, by column."""
    answer = con.execute(query, values or [])
    names = [column[0] for column in answer.description]
    row = answer.fetchone()
    assert row is not None
    return dict(zip(names, row, strict=True))
