"""The documents of an index's corpus in a local DuckDB file: numbered, checked, compared with those of the index.

A document is planned as a pair of itself with itself, so that shards, their costs and their files are those of pairs.
Its number ``no`` is its place in the corpus.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from jobs.config.job import JobConfig
from jobs.errors import SourceError
from jobs.plan.log_database import MAX_UNREADABLE, called
from jobs.plan.pairs_database import FLUSH_BYTES, PlanDatabase
from jobs.plan.reject_limits import check_share
from jobs.sources import InputFile
from jobs.sources.rows import ROW_TEXT_CHARACTERS
from jobs.sources.tables import read_texts
from jobs.storage.duckdb import one_number

DUPLICATE = "a second document with the same id"
BLANK = "the document is empty"
# As jobs.index.format.id_hash.
HASH = "md5_number_upper"

_TABLES = f"""
CREATE TABLE texts (role TINYINT, key VARCHAR, no BIGINT, characters BIGINT, blank BOOLEAN, text VARCHAR, file INTEGER,
                    row BIGINT);
CREATE TABLE rejects (file INTEGER, row BIGINT, id VARCHAR, reason VARCHAR, row_text VARCHAR);
CREATE MACRO hashed(word) AS {HASH}(word);
"""


class UnchangedError(SourceError):
    """The index has every document of the corpus, with the same text; ``hashes`` is :meth:`CorpusStaging.hashes`."""

    def __init__(self, message: str, hashes: pa.Table) -> None:
        super().__init__(message)
        self.hashes = hashes


class CorpusStaging(PlanDatabase):
    """The growing database of one index's plan; :meth:`stage` fills it from the corpus."""

    def __init__(self, folder: Path, job: JobConfig, files: list[InputFile]) -> None:
        super().__init__(folder, _TABLES)
        self.job, self.input_files = job, files
        self.notices: list[str] = []

    def stage(self, unchanged: pa.Table | None) -> None:
        """Everything that precedes sharding.

        ``unchanged`` has columns hash and text_hash (uint64) of documents that are not planned. Raises SourceError
        where the corpus has no usable document, and UnchangedError where all of them are unchanged.
        """
        self._read()
        unreadable = self.rejected()
        most = self.job.max_rejects if self.job.max_rejects is not None else MAX_UNREADABLE
        total = self.count("texts") + sum(unreadable.values())
        check_share(called(self.input_files), unreadable, total, most, "max_rejects", "cannot be used")
        self._reject(
            "no IN (SELECT no FROM (SELECT no, row_number() OVER (PARTITION BY key ORDER BY no) AS nth "
            "FROM texts) WHERE nth > 1)",
            DUPLICATE,
        )
        self._reject("blank", BLANK)
        good = self.count("texts")
        bad = self.rejected()
        if not good:
            reasons = "; ".join(f"{n} × {reason}" for reason, n in list(bad.items())[:5])
            raise SourceError(f"no document of the corpus can be used: {reasons or 'it has no rows'}")
        if self.job.sample is not None:
            self.keep_sample("texts", "key", self.job.seed, self.job.sample)
        if self.job.limit is not None:
            self.con.execute(
                f"DELETE FROM texts WHERE no NOT IN (SELECT no FROM texts ORDER BY no LIMIT {self.job.limit})"
            )
        self.con.execute("CREATE TABLE hashes AS SELECT hashed(key) AS hash, hashed(text) AS text_hash FROM texts")
        if unchanged is not None:
            self.con.register("indexed", unchanged)
            self._check_removed()
            self.con.execute("""
                DELETE FROM texts WHERE no IN (
                    SELECT no FROM texts JOIN indexed ON indexed.hash = hashed(texts.key)
                    AND indexed.text_hash = hashed(texts.text))
            """)
            self.con.unregister("indexed")
            left = self.count("texts")
            if not left:
                raise UnchangedError("the index has every document of the corpus, with the same text", self.hashes())
            self.notices.append(f"{good - left:,} of {good:,} documents are in the index and did not change")

    def _check_removed(self) -> None:
        """SourceError where the corpus lacks too many documents of the index: it is likely not the whole one."""
        lost = one_number(self.con, "SELECT count(*) FROM indexed WHERE hash NOT IN (SELECT hash FROM hashes)")
        indexed = one_number(self.con, "SELECT count(*) FROM indexed")
        if lost > self.job.max_removed * indexed:
            raise SourceError(
                f"{called(self.input_files)}: lacks {lost:,} of the {indexed:,} documents of the index, more than "
                f"max_removed {self.job.max_removed:g} allows; if it has changes alone add --partial, else set "
                "max_removed to a larger share"
            )

    def hashes(self) -> pa.Table:
        """The hashes of the ids and texts of all documents of the corpus, sorted."""
        table = self.con.sql("SELECT hash, text_hash FROM hashes ORDER BY hash, text_hash").to_arrow_table()
        schema = pa.schema([("hash", pa.uint64()), ("text_hash", pa.uint64())])
        return table.cast(schema).combine_chunks()

    def publish(self, reserved: set[str], notices: list[str]) -> pa.Schema:
        """Table ``matched`` and view ``pair_rows``, as jobs.plan.plan reads them; an index passes no column through."""
        notices += self.notices
        self.con.execute("""
            CREATE TABLE matched AS SELECT no AS ordinal, no AS a_no, no AS b_no FROM texts;
            CREATE VIEW pair_rows AS
            SELECT texts.no AS ordinal, texts.no AS a_no, texts.no AS b_no, key AS pair_id, key AS a_key, key AS b_key,
                   files.name, row
            FROM texts JOIN files ON files.no = texts.file
        """)
        return pa.schema([])

    def _read(self) -> None:
        rows = 0
        waiting: list[pa.Table] = []

        def keep() -> None:
            if waiting:
                self.con.register("incoming", pa.concat_tables(waiting))
                self.con.execute(
                    "INSERT INTO texts SELECT 1, id, no, length(text), blank, text, file, row FROM incoming"
                )
                self.con.unregister("incoming")
                waiting.clear()

        for file in self.input_files:
            number = self.number(file.name)
            for batch in read_texts(file, self.job.corpus_columns, titles=self.job.titles, notices=self.notices):
                self.insert_rejects(batch.rejects)
                table, count = batch.table, len(batch.table)
                blank = pc.equal(pc.utf8_trim_whitespace(table["text"]), "")
                table = table.append_column("blank", blank)
                table = table.append_column("no", pa.array(range(rows, rows + count), pa.int64()))
                waiting.append(table.append_column("file", pa.repeat(pa.scalar(number, pa.int32()), count)))
                rows += count
                if sum(one.nbytes for one in waiting) > FLUSH_BYTES:
                    keep()
        keep()

    def _reject(self, which: str, reason: str) -> None:
        """Move the documents that meet the SQL condition ``which`` to the rejects."""
        self.con.execute(f"""
            INSERT INTO rejects SELECT file, row, key, '{reason}', substr(text, 1, {ROW_TEXT_CHARACTERS}) FROM texts
            WHERE {which};
            DELETE FROM texts WHERE {which}
        """)
