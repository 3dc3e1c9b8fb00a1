"""The database of a log's plan: its tables, and how rows are inserted or rejected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.config.job import JobConfig
from jobs.plan.database import PlanDatabase
from jobs.plan.reject_limits import check_share
from jobs.sources import InputFile
from jobs.sources.rows import row_text

MAX_UNREADABLE = 0.01
SHOWN_PLACES = 5

_TABLES = """
CREATE TABLE log (ordinal BIGINT, file INTEGER, row BIGINT, query VARCHAR, document VARCHAR,
                  score DOUBLE, place BIGINT, tag VARCHAR, third DOUBLE);
CREATE TABLE log_queries (id VARCHAR, text VARCHAR, row BIGINT);
CREATE TABLE texts (role TINYINT, key VARCHAR, no BIGINT, characters BIGINT, blank BOOLEAN, text VARCHAR, row BIGINT);
CREATE TABLE listed (id VARCHAR);
CREATE TABLE judgments (query VARCHAR, document VARCHAR, relevance INTEGER, nth BIGINT);
CREATE TABLE rejects (file INTEGER, row BIGINT, id VARCHAR, reason VARCHAR, row_text VARCHAR);
-- Ids may hold any sign; with the query's colons escaped the first colon is the one between the two.
CREATE MACRO pair_name(query, document) AS replace(replace(query, '%', '%25'), ':', '%3A') || ':' || document;
"""


class LogDatabase(PlanDatabase):
    """Tables of one log, and lines about them: ``warnings`` are those ``notices`` that the summary repeats."""

    def __init__(self, folder: Path, job: JobConfig) -> None:
        super().__init__(folder, _TABLES)
        self.notices: list[str] = []
        self.warnings: list[str] = []
        self.job = job

    def note(self, line: str | None) -> None:
        """Add a notice, if there is one."""
        if line is not None:
            self.notices.append(line)

    def warn(self, lines: list[str]) -> None:
        """Add notices that the summary repeats."""
        self.notices += lines
        self.warnings += lines

    def reject_rows(self, table: str) -> int:
        """Move the rows of ``table`` that are in ``bad`` (ordinal, reason) to the rejects, and drop ``bad``."""
        rejected = self.count("bad")
        if rejected:
            query = f"""
                SELECT file, row, reason, pair_name(q.id, d.id) AS id, q.id AS query, d.id AS document,
                       score AS log_score, tag
                FROM bad JOIN {table} USING (ordinal) JOIN q USING (q) JOIN d USING (d)
            """
            writing = self.con.cursor()  # an open result blocks its connection
            for batch in self.con.sql(query).to_arrow_reader(1 << 16):
                _insert_described(writing, batch)
            writing.close()
            self.con.execute(f"DELETE FROM {table} WHERE ordinal IN (SELECT ordinal FROM bad)")
        self.con.execute("DROP TABLE bad")
        return rejected

    def insert(self, statement: str, table: pa.Table) -> None:
        """Run ``statement`` over ``table`` as ``incoming``, its rows numbered from 0 by ``nth``."""
        if len(table):
            numbered = table.append_column("nth", pa.array(np.arange(len(table), dtype=np.int64)))
            self.con.register("incoming", numbered)
            self.con.execute(statement)
            self.con.unregister("incoming")

    def check_unreadable(self, files: list[InputFile], good: int) -> None:
        """SourceError where too many rows of ``files``, of which ``good`` could be read, were rejected."""
        numbers = ", ".join(str(self.number(file.name)) for file in files)
        rows = self.con.execute(f"""
            SELECT reason, count(*) FROM rejects WHERE file IN ({numbers}) GROUP BY 1 ORDER BY 2 DESC, 1
        """).fetchall()
        first = self.con.execute(f"""
            SELECT name || ':' || row FROM rejects JOIN files ON files.no = rejects.file
            WHERE rejects.file IN ({numbers}) ORDER BY rejects.file, row LIMIT {SHOWN_PLACES}
        """).fetchall()
        most = self.job.max_rejects if self.job.max_rejects is not None else MAX_UNREADABLE
        total = good + sum(n for _, n in rows)
        places = [str(place) for (place,) in first]
        check_share(files[0].name, dict(rows), total, most, "max_rejects", "cannot be used", places)


def called(files: list[InputFile]) -> str:
    """The name of some files in a notice."""
    return files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more"


def _insert_described(con: Any, batch: pa.RecordBatch) -> None:
    """Insert rejects with their rows as text, as the readers give them."""
    lines = batch.select(["query", "document", "log_score", "tag"]).to_pylist()
    texts = [row_text({name: value for name, value in one.items() if value is not None}) for one in lines]
    table = pa.table(
        {
            "file": batch.column("file"),
            "row": batch.column("row"),
            "id": batch.column("id"),
            "reason": batch.column("reason"),
            "row_text": pa.array(texts, pa.string()),
        }
    )
    con.register("described", table)
    con.execute("INSERT INTO rejects SELECT file, row, id, reason, row_text FROM described")
    con.unregister("described")
