"""Where a second run ranks a query's documents differently: read from the comparison that is stored in the run."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.errors import RunError
from jobs.run.reader import Run
from jobs.storage.duckdb import temporary_database
from jobs.views.report.database import MEMORY

# Where `tokenpair compare RUN OTHER --output RUN/comparison` writes.
FOLDER = "comparison"
PAIRS, RESULT = f"{FOLDER}/pairs.parquet", f"{FOLDER}/comparison.json"


@dataclass(frozen=True)
class Disagreement:
    """A query whose first document is another in the second run: ``first`` is this run's and ``other`` the second's;
    ``correlation`` is Spearman's of the ``documents`` that both runs have."""

    query_id: str
    first: str
    other: str
    correlation: float
    documents: int


@dataclass(frozen=True)
class Disagreements:
    """The queries on which ``second``, the run that was compared with, disagrees most; ``count`` of ``of`` have another
    first document."""

    second: str
    queries: tuple[Disagreement, ...]
    count: int
    of: int


def read_disagreements(run: Run, most: int) -> Disagreements | None:
    """Return the ``most`` queries on which the stored comparison disagrees; None where there is none. RunError where it
    is damaged."""
    if not (run.store.exists(PAIRS) and run.store.exists(RESULT)):
        return None
    try:
        second = json.loads(run.store.read(RESULT))["second"]["run"]
        with run.store.guard("read", PAIRS), run.store.open_input(PAIRS) as raw:
            pairs = pq.read_table(raw, columns=["text_a_id", "text_b_id", "score_1", "score_2"])
    except (pa.ArrowException, ValueError, KeyError, TypeError):
        raise RunError(f"{run.url}/{FOLDER}: is damaged; write it again with tokenpair compare --output") from None
    with temporary_database(MEMORY) as con:
        con.register("pairs", pairs)
        con.execute(
            "CREATE TABLE queries AS SELECT text_a_id AS query, arg_min(text_b_id, r1) AS first, "
            "arg_min(text_b_id, r2) AS other, corr(r1, r2) AS correlation, count(*) AS documents FROM ("
            "SELECT *, row_number() OVER (PARTITION BY text_a_id ORDER BY score_1 DESC, text_b_id) AS r1, "
            "row_number() OVER (PARTITION BY text_a_id ORDER BY score_2 DESC, text_b_id) AS r2 FROM pairs"
            ") GROUP BY text_a_id HAVING count(*) > 1"
        )
        of, count = con.execute("SELECT count(*), count(*) FILTER (first <> other) FROM queries").fetchone() or (0, 0)
        rows = con.execute(
            "SELECT query, first, other, correlation, documents FROM queries WHERE first <> other "
            f"ORDER BY correlation, query LIMIT {int(most)}"
        ).fetchall()
    return Disagreements(str(second), tuple(Disagreement(*row) for row in rows), int(count), int(of))
