"""The documents of a log that takes them from an index: their texts, or a comparison with those of the corpus."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import numpy as np
import pyarrow as pa

from jobs.config.job import JobConfig
from jobs.errors import SourceError
from jobs.index.agreement import differing_facts
from jobs.index.hashes import part_texts
from jobs.index.snapshot import load_snapshot, read_ids
from jobs.plan.corpus_staging import HASH
from jobs.plan.work import layer_sizes
from jobs.storage.duckdb import one_number
from jobs.storage.store import Store

NOT_INDEXED = "the index has no such document, or another text of it"


class IndexTexts:
    """The last state of a job's index, from which the documents of its log are taken."""

    def __init__(self, job: JobConfig) -> None:
        assert job.index is not None, "the job names an index"
        self.store = Store.open(job.index, job.storage)
        self.snapshot = load_snapshot(self.store)
        self._corpus = job.corpus is not None
        sizes = layer_sizes(job)
        differing = differing_facts(job, self.snapshot.facts, None if sizes is None else sizes.below, job.similarity)
        if differing:
            raise SourceError(f"index: {self.store.url} does not fit the job: {'; '.join(differing)}")
        if not self._corpus and not self.snapshot.facts.texts:
            raise SourceError(
                f"index: {self.store.url} stores no texts; give the corpus too, with the texts it was built from"
            )

    def stage(self, con: duckdb.DuckDBPyConnection, notices: list[str]) -> None:
        """Fill ``texts`` with the documents that ``wanted`` names; with a corpus drop what the index does not have.

        A document whose text in the corpus is not that of the index counts as missing.
        """
        con.register("indexed", read_ids(self.store, self.snapshot))
        if self._corpus:
            unlike = f"""
                role = 1 AND NOT EXISTS (SELECT 1 FROM indexed WHERE indexed.hash = {HASH}(texts.key)
                                         AND indexed.text_hash = {HASH}(texts.text))
            """
            changed = one_number(con, f"SELECT count(*) FROM texts WHERE {unlike}")
            con.execute(f"DELETE FROM texts WHERE {unlike}")
            if changed:
                notices.append(
                    f"{changed:,} of the log's documents are not in the index, or with another text: tokenpair index "
                    "brings it up to date"
                )
        else:
            places = con.sql(f"""
                SELECT wanted.id, wanted.no, part, indexed.row FROM wanted
                JOIN indexed ON indexed.hash = {HASH}(wanted.id) WHERE wanted.role = 1 ORDER BY part, indexed.row
            """).to_arrow_table()
            for table in self._texts(places):
                con.register("incoming", table)
                con.execute("""
                    INSERT INTO texts
                    SELECT 1, id, no, length(text), trim(text, E' \\t\\r\\n') = '', text, row FROM incoming
                """)
                con.unregister("incoming")
        con.unregister("indexed")

    def _texts(self, places: pa.Table) -> Iterator[pa.Table]:
        """Tables of id, no, text and row, one for each part of the index that has a wanted document."""
        parts = places["part"].to_numpy()
        for part in np.unique(parts).tolist():
            own = places.filter(pa.array(parts == part))
            stored = part_texts(self.store, self.snapshot.parts[part].file).take(own["row"])
            # Ids with one hash are told apart by themselves.
            same = [one == other for one, other in zip(stored["id"].to_pylist(), own["id"].to_pylist(), strict=True)]
            table = pa.table({"id": own["id"], "no": own["no"], "text": stored["text"], "row": own["row"]})
            yield table.filter(pa.array(same, pa.bool_()))
