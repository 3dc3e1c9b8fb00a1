"""Lists of a run's first pairs with their texts, and of its rejected rows with their reasons."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from jobs.errors import RunError
from jobs.run.reader import Run
from jobs.run.status import read_status
from jobs.run.untrusted import as_written
from jobs.storage.duckdb import readable, temporary_database

COLUMNS = ("file", "row", "pair_id", "reason", "row_text")
ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class ListedPair:
    """A pair of a list. A text is None while the run has not written it."""

    pair_id: str
    score: float
    a: str | None
    b: str | None


@dataclass(frozen=True)
class PairList:
    """The first pairs of a run, of ``pairs`` that are attributed; ``query_id`` is a query of them in a log's run."""

    pairs: int
    first: tuple[ListedPair, ...]
    finished: bool
    query_id: str | None = None


def list_pairs(run: Run, count: int) -> PairList:
    """The first ``count`` pairs of ``run`` in the order of its parts; RunError where it has none."""
    with as_written(run.url):
        return _list_pairs(run, count)


def _list_pairs(run: Run, count: int) -> PairList:
    rows = run.head(count, ("pair_id", "score", "text_a_id", "text_b_id"))
    if not rows:
        raise RunError(f"{run.url}: {_nothing(run)}")
    texts: list[dict[str, str]] = []
    for side, role in zip("ab", run.roles, strict=True):
        texts.append(run.written_texts({row[f"text_{side}_id"] for row in rows}, role))
    first = tuple(
        ListedPair(
            str(row["pair_id"]), float(row["score"]), texts[0].get(row["text_a_id"]), texts[1].get(row["text_b_id"])
        )
        for row in rows
    )
    status = read_status(run.store)
    pairs = status.totals.pairs if status.totals is not None else status.pairs_done
    query_id = str(rows[0]["text_a_id"]) if run.roles[0] == "query" and _has_query_ids(run) else None
    return PairList(max(pairs, len(first)), first, run.finished, query_id)


def _has_query_ids(run: Run) -> bool:
    """Whether queries have ids from the user, not ids made from their texts."""
    columns = run.setting("columns")
    return bool(run.setting("log")) or (isinstance(columns, dict) and columns.get("a_id") is not None)


def _nothing(run: Run) -> str:
    if not run.finished:
        return f"has no pair yet; tokenpair status {run.url} shows its progress"
    return f"has no pair, every row was rejected; tokenpair rejects {run.url} says why"


@dataclass(frozen=True)
class Rejects:
    """The rejected rows of a run: how many there are, by reason, the commonest first, and the rows themselves."""

    reasons: dict[str, int]
    _con: duckdb.DuckDBPyConnection
    _url: str

    @property
    def count(self) -> int:
        """How many rows were rejected."""
        return sum(self.reasons.values())

    def rows(self, most: int | None = None, reason: str | None = None) -> Iterator[dict[str, Any]]:
        """Up to ``most`` rows, all by default, in the order of files and rows, as mappings of ``COLUMNS``.

        ``reason`` keeps those whose reason has these words, whatever their case.
        """
        wanted = "" if reason is None else "WHERE contains(lower(reason), lower(?))"
        limit = "" if most is None else f"LIMIT {int(most)}"
        order = "ORDER BY file, row, pair_id, reason"
        with readable(self._url):
            result = self._con.execute(
                f"SELECT {', '.join(COLUMNS)} FROM rejects {wanted} {order} {limit}", [] if reason is None else [reason]
            )
            while some := result.fetchmany(ROWS_AT_ONCE):
                for row in some:
                    yield dict(zip(COLUMNS, row, strict=True))


@contextlib.contextmanager
def open_rejects(run: Run) -> Iterator[Rejects]:
    """The rejected rows of ``run`` so far; RunError where its parts are not of tokenpair's form.

    Rows are sorted on disk where they are more than memory should hold.
    """
    with temporary_database() as con:
        with as_written(run.url), readable(run.url):
            con.register("parts", run.dataset("rejects"))
            con.execute(
                "CREATE TABLE rejects AS SELECT file::VARCHAR AS file, row::BIGINT AS row, "
                "pair_id::VARCHAR AS pair_id, reason::VARCHAR AS reason, row_text::VARCHAR AS row_text FROM parts"
            )
            counts = con.execute(
                "SELECT coalesce(reason, ''), count(*) AS n FROM rejects GROUP BY 1 ORDER BY n DESC, 1"
            ).fetchall()
        yield Rejects({str(reason): int(n) for reason, n in counts}, con, run.url)
