"""A retrieval log in a local DuckDB file: rows numbered, ranked, cut at the depth, joined to their texts.

Ids become numbers as early as possible, so that ten million rows are sorted and joined as whole numbers: ``q`` is the
ordinal of a query's first row, ``d`` the place of a document's id in byte order. A text's ``no`` is twice the ordinal
of its first row, plus 1 for a document, as in jobs.plan.pairs_database.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from jobs.config.job import JobConfig
from jobs.errors import SourceError
from jobs.plan.index_texts import NOT_INDEXED, IndexTexts
from jobs.plan.log_database import LogDatabase, called
from jobs.plan.log_joins import ids_without_text, judged_queries, queries_without_rows, ranks_against_scores
from jobs.plan.reject_limits import check_share
from jobs.plan.third_column import decide
from jobs.run.manifest import NOT_IN_LOG, judgment_schema
from jobs.sources import InputFile
from jobs.sources.log import LogFiles, read_log, read_qrels
from jobs.sources.tables import read_texts
from jobs.storage.duckdb import one_number

NO_RANK = "rank is not a whole number"
DUPLICATE = "a second row for the same query and document"
NO_TEXT = {"query": "query id without text", "document": "document id without text"}
BLANK = {"query": "the query is empty", "document": "the document is empty"}
FLUSH_BYTES = 128 << 20
SHOWN_IDS = 5
# From this share of ids without a text on, it is looked whether queries and corpus were mixed up.
SUSPICIOUS = 0.1


class LogStaging(LogDatabase):
    """The growing database of one log's plan; :meth:`stage` fills it from the job's files."""

    role_b = 1

    def __init__(self, folder: Path, job: JobConfig, files: LogFiles) -> None:
        super().__init__(folder, job)
        self._files = files
        self._document = ""  # an id of the corpus, to be shown where none fits
        self._rows = 0
        self._index = IndexTexts(job) if job.index is not None else None

    @property
    def index_snapshot(self) -> int | None:
        """The number of the index's snapshot that documents come from; None without an index."""
        return None if self._index is None else self._index.snapshot.number

    def stage(self) -> None:
        """Everything that precedes sharding; SourceError where too much is wrong with the input."""
        self._read_log()
        self._rank()
        self._read_all_texts()
        self._reject_without_text()
        self._limit()
        self._read_judgments()
        if not self.count("ranked"):
            reasons = "; ".join(f"{n} × {reason}" for reason, n in list(self.rejected().items())[:5])
            raise SourceError(f"no row of the log can be attributed: {reasons}{self._example()}")

    def _example(self) -> str:
        """An id of the log beside one of the corpus, where no document has a text."""
        wanted = self.first_row("SELECT min(id), bool_and(no IN (SELECT no FROM textless)) FROM wanted WHERE role = 1")
        if wanted is None or not wanted[1] or not self._document:
            return ""
        return f"; ids of documents look like {wanted[0]!r} in the log and {self._document!r} in the corpus"

    # Rankings ------------------------------------------------------------------------------------------------------

    def _read_log(self) -> None:
        """Tables ``log`` and ``log_queries`` (texts of queries that the log itself has)."""
        ordinal = texts = 0
        for file in self._files.log:
            number, before, bad = self.number(file.name), ordinal, 0
            for batch in read_log(file, self.job.log_format, self.job.log_part):
                bad += len(batch.rejects)
                self.insert_rejects(batch.rejects)
                columns = "row, query, document, score, place, tag, third"
                self.insert(f"INSERT INTO log SELECT {ordinal} + nth, {number}, {columns} FROM incoming", batch.table)
                if batch.queries is not None:
                    self.insert(f"INSERT INTO log_queries SELECT id, text, {texts} + nth FROM incoming", batch.queries)
                    texts += len(batch.queries)
                ordinal += len(batch.table)
            if ordinal == before and not bad:
                raise SourceError(f"{file.url}: has no rows")
        self._rows = ordinal
        if not ordinal:
            self.check_unreadable(self._files.log, 0)
            raise SourceError(f"{self._files.log[0].url}: no row can be read")
        if self._files.queries == [] and not self.count("log_queries"):
            raise SourceError("queries: is missing; the log has no texts of its queries")

    def _rank(self) -> None:
        """Tables ``q``, ``d`` (ids and numbers) and ``ranked``: every row that is asked for, with its rank."""
        job = self.job
        decision = decide(self.con, called(self._files.log))
        if decision is not None and decision.notice is not None:
            self.notices.append(decision.notice)
        self.con.execute("""
            CREATE TABLE q AS SELECT query AS id, min(ordinal) AS q FROM log GROUP BY query;
            CREATE TABLE asked AS SELECT id FROM q
        """)
        if job.sample is not None:
            self.keep_sample("q", "id", job.seed, job.sample)
        by_score = decision is not None and decision.kind == "score"
        score, place = ("coalesce(score, third)", "place") if by_score else ("score", "coalesce(place, third)")
        self.con.execute(f"""
            CREATE TABLE d AS SELECT id, row_number() OVER (ORDER BY id) AS d FROM (
                SELECT DISTINCT document AS id FROM log SEMI JOIN q ON q.id = log.query);
            CREATE TABLE coded AS
            SELECT ordinal, file, row, q, d, {score} AS score, {place} AS place, tag FROM log
            JOIN q ON q.id = log.query JOIN d ON d.id = log.document;
            DROP TABLE log
        """)
        self.con.execute(f"""
            CREATE TEMP TABLE bad AS SELECT ordinal, '{NO_RANK}' AS reason FROM coded
            WHERE score IS NULL AND (place < 0 OR place <> floor(place))
        """)
        unusable = self.reject_rows("coded")
        # The first row of a query and document counts.
        self.con.execute(f"""
            CREATE TEMP TABLE bad AS
            SELECT ordinal, '{DUPLICATE}' AS reason FROM coded
            JOIN (SELECT q, d, min(ordinal) AS first FROM coded GROUP BY q, d HAVING count(*) > 1) USING (q, d)
            WHERE ordinal > first
        """)
        unusable += self.reject_rows("coded")
        self.warn(ranks_against_scores(self.con, called(self._files.log)))
        # trec_eval's order: the score, then the id, both from the largest down; without a score, the rank given.
        depth = f"WHERE rank <= {job.depth}" if job.depth is not None else ""
        order = "score DESC NULLS LAST, CASE WHEN score IS NULL THEN place END NULLS LAST, d DESC"
        self.con.execute(f"""
            CREATE TABLE ranked AS SELECT ordinal, file, row, q, d, score, tag, rank::INTEGER AS rank FROM (
                SELECT *, row_number() OVER (PARTITION BY q ORDER BY {order}) AS rank FROM coded) {depth};
            DROP TABLE coded
        """)
        self.check_unreadable(self._files.log, self._rows - unusable)

    # Texts ---------------------------------------------------------------------------------------------------------

    def _read_all_texts(self) -> None:
        """Tables ``documents``, ``wanted`` (ids and numbers of ranked rows) and ``texts`` (what the files say)."""
        self.con.execute("""
            CREATE TABLE documents AS
            SELECT d, id, 2 * first + 1 AS no
            FROM d JOIN (SELECT d, min(ordinal) AS first FROM ranked GROUP BY d) USING (d);
            CREATE TABLE wanted AS
            SELECT 0::TINYINT AS role, id, 2 * q AS no FROM q WHERE q IN (SELECT q FROM ranked)
            UNION ALL
            SELECT 1, id, no FROM documents
        """)
        if self._files.queries:
            self._read_texts("query", self._files.queries)
            self.note(queries_without_rows(self.con, called(self._files.queries)))
        else:
            self.con.execute("""
                INSERT INTO texts SELECT 0, id, no, length(text), trim(text, E' \\t\\r\\n') = '', text, row
                FROM log_queries JOIN wanted USING (id) WHERE wanted.role = 0
            """)
        if self._files.corpus:
            self._read_texts("document", self._files.corpus)
        self._drop_second_texts()
        if self._index is not None:
            self._index.stage(self.con, self.notices)

    def _read_texts(self, what: str, files: list[InputFile]) -> None:
        job, role = self.job, 0 if what == "query" else 1
        columns = job.query_columns if what == "query" else job.corpus_columns
        self.con.execute(f"CREATE TEMP TABLE sought AS SELECT id, no FROM wanted WHERE role = {role}")
        empty: list[str] = []
        waiting: list[pa.Table] = []
        rows = empties = 0

        def keep() -> None:
            # All ids are looked through each time, so it is done with many texts at once.
            if waiting:
                self.insert(
                    f"INSERT INTO texts SELECT {role}, id, no, length(text), blank, text, place FROM incoming "
                    "JOIN sought USING (id)",
                    pa.concat_tables(waiting),
                )
                waiting.clear()

        for file in files:
            self.number(file.name)  # files are numbered in the order in which they are read
            for batch in read_texts(file, columns, titles=job.titles and what == "document", notices=self.notices):
                self.insert_rejects(batch.rejects)
                blank = pc.equal(pc.utf8_trim_whitespace(batch.table["text"]), "")
                if pc.any(blank).as_py():
                    without = batch.table.filter(blank)["id"].to_pylist()
                    empties += len(without)
                    empty += without[: SHOWN_IDS - len(empty)]
                places = pa.array(range(rows, rows + len(batch.table)), pa.int64())
                waiting.append(batch.table.append_column("blank", blank).append_column("place", places))
                rows += len(batch.table)
                if what == "query":
                    self.insert("INSERT INTO listed SELECT id FROM incoming", batch.table)
                elif not self._document and len(batch.table):
                    self._document = batch.table["id"][0].as_py()
                if sum(table.nbytes for table in waiting) > FLUSH_BYTES:
                    keep()
        keep()
        self.con.execute("DROP TABLE sought")
        if empties:
            shown = ", ".join(empty) + (" …" if empties > len(empty) else "")
            whose = f"{empties} {'query is' if what == 'query' else 'document is'} empty"
            if empties > 1:
                whose = f"{empties} {'queries are' if what == 'query' else 'documents are'} empty"
            self.notices.append(f"{files[0].name}: {whose}: {shown}")
        self.check_unreadable(files, rows)

    def _drop_second_texts(self) -> None:
        """Keep the first text of an id that occurs several times in a table of texts."""
        self.con.execute(
            "CREATE TEMP TABLE twice AS SELECT no, min(row) AS row FROM texts GROUP BY no HAVING count(*) > 1"
        )
        twice = self.count("twice")
        if twice:
            self.con.execute("DELETE FROM texts USING twice WHERE texts.no = twice.no AND texts.row > twice.row")
            self.notices.append(f"{twice} ids occur more than once in the queries or corpus: the first text was taken")
        self.con.execute("DROP TABLE twice")

    def _reject_without_text(self) -> None:
        """Rows whose query or document has no text, or a blank one, go to the rejects."""
        no_text = NO_TEXT if self._index is None else NO_TEXT | {"document": NOT_INDEXED}
        cases = " ".join(
            f"WHEN role = {role} AND missing THEN '{no_text[what]}' WHEN role = {role} THEN '{BLANK[what]}'"
            for role, what in enumerate(("query", "document"))
        )
        self.con.execute(f"""
            CREATE TABLE textless AS SELECT no, CASE {cases} END AS reason, missing FROM (
                SELECT wanted.role, wanted.no, texts.no IS NULL AS missing
                FROM wanted LEFT JOIN texts ON texts.no = wanted.no
                WHERE texts.no IS NULL OR texts.blank)
        """)
        if not self.count("textless"):
            return
        self._check_mixed_up()
        documents = "the index" if self._index is not None else called(self._files.corpus)
        for role, name in enumerate((called(self._files.queries or self._files.log), documents)):
            self.note(ids_without_text(self.con, name, role))
        pairs = self.count("ranked")
        self.con.execute("""
            CREATE TEMP TABLE bad AS
            SELECT ordinal, coalesce(ta.reason, tb.reason) AS reason FROM ranked
            JOIN documents USING (d)
            LEFT JOIN textless ta ON ta.no = 2 * q LEFT JOIN textless tb ON tb.no = documents.no
            WHERE ta.no IS NOT NULL OR tb.no IS NOT NULL
        """)
        reasons = self.con.execute("SELECT reason, count(*) FROM bad GROUP BY 1 ORDER BY 2 DESC, 1").fetchall()
        self.reject_rows("ranked")
        if self.job.max_missing is not None:
            check_share("the log", dict(reasons), pairs, self.job.max_missing, "max_missing", "have no text")

    def _check_mixed_up(self) -> None:
        """SourceError where the ids show that the files of queries and documents were given the wrong way round."""
        ids = "SELECT count(*) FROM wanted"
        wanted = one_number(self.con, ids)
        missing = one_number(self.con, "SELECT count(*) FROM textless WHERE missing")
        if not self._files.queries or not self._files.corpus or missing < SUSPICIOUS * wanted:
            return
        swapped = 0
        for role, files, columns in (
            (1, self._files.queries, self.job.query_columns),
            (0, self._files.corpus, self.job.corpus_columns),
        ):
            self.con.execute("CREATE OR REPLACE TEMP TABLE seen (id VARCHAR)")
            for file in files:
                for batch in read_texts(file, columns, titles=False, notices=[]):
                    self.insert("INSERT INTO seen SELECT id FROM incoming", batch.table)
            swapped += one_number(self.con, f"{ids} SEMI JOIN seen ON seen.id = wanted.id WHERE wanted.role = {role}")
        if wanted - swapped < missing / 2:
            raise SourceError(
                f"queries and corpus look swapped: of {wanted:,} ids in the log {missing:,} have no text as given and "
                f"{wanted - swapped:,} the other way round; queries: is {self._files.queries[0].url}, corpus: is "
                f"{self._files.corpus[0].url}"
            )

    # The rest ------------------------------------------------------------------------------------------------------

    def _limit(self) -> None:
        """Keep the first ``limit`` pairs, queries in the log's order and their documents by rank."""
        if self.job.limit is None:
            return
        self.con.execute(f"""
            DELETE FROM ranked WHERE ordinal NOT IN (
                SELECT ordinal FROM ranked ORDER BY q, rank LIMIT {self.job.limit})
        """)

    def _read_judgments(self) -> None:
        """Table ``judged``: the grades of the pairs; the first judgment of a query and document counts."""
        read = 0
        for file in self._files.qrels:
            before = read
            self.number(file.name)
            for batch in read_qrels(file, self.notices):
                self.insert_rejects(batch.rejects)
                self.insert(
                    f"INSERT INTO judgments SELECT query, document, relevance, {read} + nth FROM incoming", batch.table
                )
                read += len(batch.table)
            self.check_unreadable([file], read - before)
        self.con.execute("""
            CREATE TABLE judged AS
            SELECT a.no AS a_no, b.no AS b_no, arg_min(relevance, nth) AS relevance FROM judgments
            JOIN wanted a ON a.role = 0 AND a.id = judgments.query
            JOIN wanted b ON b.role = 1 AND b.id = judgments.document GROUP BY a.no, b.no
        """)
        if self._files.qrels:
            notices, warnings = judged_queries(self.con, called(self._files.qrels))
            self.notices += notices
            self.warn(warnings)

    def judgments(self) -> pa.Table | None:
        """The judgments of the queries that have pairs, also of documents that the log lacks; None without qrels.

        The first judgment of a query and document counts, as in the pairs' own column.
        """
        if not self._files.qrels:
            return None
        table = self.con.sql("""
            SELECT query, document, arg_min(relevance, nth) AS relevance FROM judgments
            SEMI JOIN (SELECT id FROM q WHERE q IN (SELECT q FROM ranked)) AS used ON used.id = judgments.query
            GROUP BY query, document ORDER BY query, document
        """).to_arrow_table()
        absent = one_number(
            self.con, "SELECT count(DISTINCT query) FROM judgments WHERE query NOT IN (SELECT id FROM asked)"
        )
        schema = judgment_schema().with_metadata({NOT_IN_LOG: str(absent)})
        return table.cast(schema).combine_chunks()

    def publish(self, reserved: set[str], notices: list[str]) -> pa.Schema:
        """Table ``matched`` and view ``pair_rows``, as jobs.plan.plan reads them; the schema of the columns k0, k1 …"""
        notices += self.notices
        kinds = {"rank": pa.int32(), "log_score": pa.float64(), "tag": pa.string(), "relevance": pa.int32()}
        assert not reserved & set(kinds)
        self.con.execute("""
            CREATE TABLE matched AS
            SELECT ordinal, 2 * q AS a_no, documents.no AS b_no FROM ranked JOIN documents USING (d);
            CREATE VIEW pair_rows AS
            SELECT ordinal, 2 * q AS a_no, documents.no AS b_no,
                   pair_name(q.id, documents.id) AS pair_id,
                   q.id AS a_key, documents.id AS b_key, files.name, ranked.row,
                   rank AS k0, score AS k1, tag AS k2, relevance AS k3
            FROM ranked JOIN q USING (q) JOIN documents USING (d) JOIN files ON files.no = ranked.file
            LEFT JOIN judged ON judged.a_no = 2 * q AND judged.b_no = documents.no
        """)
        return pa.schema(list(kinds.items()))
