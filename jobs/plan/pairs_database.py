"""Rows of the input in a local DuckDB file: pairs, distinct texts, rejects, passed-through columns.

Nothing here grows with the input in memory. Pairs are numbered in input order (``ordinal``); a distinct text
carries ``no``, twice the ordinal of its first pair plus 1 on the second side, so that every number is a function
of the input alone.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from jobs.plan.database import PlanDatabase
from jobs.plan.extra_columns import PassedThrough
from jobs.sources.rows import ROW_TEXT_CHARACTERS, PairBatch, Reject, as_in_source, row_text, with_numbers
from jobs.storage.duckdb import one_number

FLUSH_BYTES = 64 << 20
FLUSH_ROWS = 1 << 18
ID_DIGITS = 20
DUPLICATE = "a second row with the same pair id"
CONFLICT = "a text id that an earlier row gave to another text"

_TABLES = """
CREATE TABLE pairs (ordinal BIGINT, file INTEGER, row BIGINT, id VARCHAR, a_key VARCHAR, b_key VARCHAR);
CREATE TABLE texts (role TINYINT, key VARCHAR, digest VARCHAR, no BIGINT, characters BIGINT, text VARCHAR);
CREATE TABLE rejects (file INTEGER, row BIGINT, id VARCHAR, reason VARCHAR, row_text VARCHAR,
                      ordinal BIGINT, a VARCHAR, b VARCHAR, a_id VARCHAR, b_id VARCHAR);
CREATE TABLE described (ordinal BIGINT, row_text VARCHAR);
"""
# Columns of a late reject, in the view of them.
_LATE = "late.ordinal, late.file, late.id, late.a, late.b, late.a_id, late.b_id"


class Staging(PlanDatabase):
    """The growing database of one plan. ``role_b`` is 0 where both sides share one role, else 1."""

    def __init__(self, folder: Path, *, retrieval: bool) -> None:
        super().__init__(folder, _TABLES)
        self.kept = PassedThrough(folder)
        self.role_b = 1 if retrieval else 0
        self.rows = 0
        self._names: dict[int, dict[str, str]] = {}
        self._waiting: list[pa.Table] = []
        self._waiting_bytes = 0
        self._waiting_rows = 0
        self._rejects: list[Reject] = []
        self._any_id = False

    def add(self, batch: PairBatch) -> None:
        """Add the good and the bad rows of ``batch``."""
        number = self.number(batch.file)
        self._names.setdefault(number, batch.names)
        self._rejects += batch.rejects
        if len(batch):
            ordinals = pa.array(range(self.rows, self.rows + len(batch)), pa.int64())
            table = batch.table.drop_columns(["file"]).append_column("ordinal", ordinals)
            table = table.append_column("file", pa.repeat(pa.scalar(number, pa.int32()), len(batch)))
            self._any_id = self._any_id or pc.any(pc.is_valid(table["id"])).as_py()
            self.kept.add(batch, ordinals)
            self.rows += len(batch)
            self._waiting.append(table)
            self._waiting_rows += len(batch)
            self._waiting_bytes += table.nbytes
        if self._waiting_bytes > FLUSH_BYTES or self._waiting_rows > FLUSH_ROWS or len(self._rejects) > FLUSH_ROWS // 8:
            self.flush()

    def flush(self) -> None:
        """Write the rows in memory to the database."""
        self.insert_rejects(self._rejects)
        self._rejects = []
        if not self._waiting:
            return
        self.con.register("waiting", pa.concat_tables(self._waiting))
        self._waiting, self._waiting_bytes, self._waiting_rows = [], 0, 0
        self.con.execute(f"""
            CREATE OR REPLACE TEMP TABLE incoming AS
            SELECT ordinal, file, row, id, a_digest, b_digest, a_id IS NOT NULL OR b_id IS NOT NULL AS given,
                   coalesce(a_id, a_digest) AS a_key, coalesce(b_id, b_digest) AS b_key FROM (
                SELECT * EXCLUDE (a, b),
                       substr(sha256(a), 1, {ID_DIGITS}) AS a_digest, substr(sha256(b), 1, {ID_DIGITS}) AS b_digest
                FROM waiting)
        """)
        # The first row with an id decides its text; only texts not met before are stored.
        self.con.execute(f"""
            CREATE OR REPLACE TEMP TABLE fresh AS
            SELECT role, key, min(no) AS no FROM (
                SELECT 0 AS role, a_key AS key, 2 * ordinal AS no FROM incoming
                UNION ALL SELECT {self.role_b}, b_key, 2 * ordinal + 1 FROM incoming) AS met
            WHERE NOT EXISTS (SELECT 1 FROM texts WHERE texts.role = met.role AND texts.key = met.key)
            GROUP BY role, key
        """)
        self.con.execute("""
            INSERT INTO texts
            SELECT role, key, a_digest, no, length(a), a FROM waiting JOIN
                (SELECT ordinal, role, key, a_digest, no FROM fresh JOIN incoming ON no = 2 * ordinal) USING (ordinal)
            UNION ALL
            SELECT role, key, b_digest, no, length(b), b FROM waiting JOIN
                (SELECT ordinal, role, key, b_digest, no FROM fresh JOIN incoming ON no = 2 * ordinal + 1)
                USING (ordinal)
        """)
        self._reject_conflicts()
        self.con.execute("""
            INSERT INTO pairs SELECT ordinal, file, row, id, a_key, b_key FROM incoming ORDER BY ordinal;
            DROP TABLE incoming; DROP TABLE fresh;
        """)
        self.con.unregister("waiting")

    def drop_duplicates(self) -> int:
        """Reject every row but the first of a pair id; return the number of pairs that are left."""
        if self._any_id:
            self.con.execute(f"""
                CREATE OR REPLACE TEMP TABLE again AS
                WITH named AS (SELECT ordinal, coalesce(id, name || ':' || row) AS pair_id FROM pairs
                               JOIN files ON files.no = pairs.file),
                     first AS (SELECT pair_id, min(ordinal) AS ordinal FROM named GROUP BY pair_id HAVING count(*) > 1)
                SELECT named.ordinal FROM named JOIN first USING (pair_id) WHERE named.ordinal > first.ordinal;
                INSERT INTO rejects
                SELECT p.file, p.row, p.id, '{DUPLICATE}', NULL, p.ordinal, {_cut("ta.text")}, {_cut("tb.text")},
                       nullif(p.a_key, ta.digest), nullif(p.b_key, tb.digest)
                FROM pairs p JOIN again USING (ordinal)
                JOIN texts ta ON ta.role = 0 AND ta.key = p.a_key
                JOIN texts tb ON tb.role = {self.role_b} AND tb.key = p.b_key;
                DELETE FROM pairs WHERE ordinal IN (SELECT ordinal FROM again);
                DROP TABLE again;
            """)
        return self.count("pairs")

    def cut(self, limit: int) -> None:
        """Keep the first ``limit`` pairs, and the rejects before the last of these."""
        last = self.first_row(f"SELECT ordinal, file, row FROM pairs ORDER BY ordinal LIMIT 1 OFFSET {limit - 1}")
        if last is not None:
            self.con.execute("DELETE FROM pairs WHERE ordinal > ?", [last[0]])
            self.con.execute(
                "DELETE FROM rejects WHERE file > ? OR (file = ? AND row > ?)", [last[1], last[1], last[2]]
            )

    def sample(self, seed: int, count: int) -> None:
        """Keep the pairs of ``count`` first texts, chosen at random."""
        self.con.execute("CREATE TABLE chosen AS SELECT DISTINCT a_key FROM pairs")
        self.keep_sample("chosen", "a_key", seed, count)
        self.con.execute("DELETE FROM pairs WHERE a_key NOT IN (SELECT a_key FROM chosen); DROP TABLE chosen")

    def describe_rejects(self) -> None:
        """Give the rows that the plan rejected a ``row_text`` as the readers do: the source's columns as JSON.

        To be called once, after the passed-through columns were collected.
        """
        if not self._late_rejects():
            return
        for names, table in self.kept.sources():
            self.con.register("source", table)
            columns = "".join(f", source.k{i}" for i in range(len(names)))
            fields = list(table.schema)[1:]
            self._describe(f"SELECT {_LATE}{columns} FROM late JOIN source USING (ordinal)", names, fields)
            self.con.unregister("source")
        # What is left has no further column.
        self._describe(f"SELECT {_LATE} FROM late WHERE ordinal NOT IN (SELECT ordinal FROM described)", [], [])
        self.con.execute("""
            UPDATE rejects SET row_text = described.row_text FROM described WHERE described.ordinal = rejects.ordinal
        """)

    def _late_rejects(self) -> bool:
        self.con.execute("CREATE OR REPLACE VIEW late AS SELECT * FROM rejects WHERE ordinal IS NOT NULL")
        return self.count("late") > 0

    def _describe(self, query: str, kept: list[str], fields: list[pa.Field]) -> None:
        # An open result blocks its connection.
        writing = self.con.cursor()
        for batch in self.con.sql(query).to_arrow_reader(1 << 13):
            ordinals, texts = [], []
            for line in batch.to_pylist():
                more = with_numbers({name: line[f"k{i}"] for i, name in enumerate(kept)}, fields, kept)
                ordinals.append(line["ordinal"])
                texts.append(row_text(as_in_source(line, self._names[line["file"]], more)))
            table = pa.table({"ordinal": pa.array(ordinals, pa.int64()), "row_text": pa.array(texts, pa.string())})
            writing.register("lines", table)
            writing.execute("INSERT INTO described SELECT * FROM lines")
            writing.unregister("lines")
        writing.close()

    def publish(self, reserved: set[str], notices: list[str]) -> pa.Schema:
        """Table ``matched`` and view ``pair_rows``, as jobs.plan.plan reads them; the schema of the columns k0, k1 …

        To be called once, when every row is there.
        """
        kept = self.kept.collect(self.con, reserved, notices)
        self.describe_rejects()
        columns = "".join(f", k{i}" for i in range(len(kept)))
        join = "LEFT JOIN kept USING (ordinal)" if len(kept) else ""
        self.con.execute(f"""
            CREATE TABLE matched AS
            SELECT ordinal, ta.no AS a_no, tb.no AS b_no FROM pairs
            JOIN (SELECT key, no FROM texts WHERE role = 0) ta ON ta.key = a_key
            JOIN (SELECT key, no FROM texts WHERE role = {self.role_b}) tb ON tb.key = b_key;
            CREATE VIEW pair_rows AS
            SELECT ordinal, a_no, b_no, coalesce(id, name || ':' || row) AS pair_id, a_key, b_key, name, row{columns}
            FROM pairs JOIN matched USING (ordinal) JOIN files ON files.no = pairs.file {join}
        """)
        return kept

    def _reject_conflicts(self) -> None:
        if not one_number(
            self.con, "SELECT count(*) FROM incoming WHERE given"
        ):  # content hashes cannot contradict their content
            return
        self.con.execute(f"""
            CREATE OR REPLACE TEMP TABLE wrong AS
            SELECT ordinal FROM incoming JOIN texts ON texts.role = 0 AND texts.key = a_key WHERE a_digest <> digest
            UNION
            SELECT ordinal FROM incoming JOIN texts ON texts.role = {self.role_b} AND texts.key = b_key
            WHERE b_digest <> digest;
            INSERT INTO rejects
            SELECT i.file, i.row, i.id, '{CONFLICT}', NULL, i.ordinal, {_cut("w.a")}, {_cut("w.b")}, w.a_id, w.b_id
            FROM incoming i JOIN wrong USING (ordinal) JOIN waiting w USING (ordinal);
            DELETE FROM incoming WHERE ordinal IN (SELECT ordinal FROM wrong);
            DROP TABLE wrong;
        """)


def _cut(text: str) -> str:
    """SQL for as much of a text as a reject can show."""
    return f"substr({text}, 1, {ROW_TEXT_CHARACTERS})"
