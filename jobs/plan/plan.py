"""The plan of a job: every good pair in exactly one shard, every distinct text owned by one, on disk in the run.

The files are functions of the input, the job's settings, and for a large job of whether a GPU is here, byte for byte.
Data files carry their content's hash in their name, and the manifest, written last and once, names them: files that a
killed planner left are not read.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.cluster.ray_internals import gpus_here
from jobs.config.job import JobConfig
from jobs.config.model_folder import is_late
from jobs.errors import SourceError
from jobs.index.hashes import indexed_hashes
from jobs.plan.centre import write_centre_sample
from jobs.plan.corpus_staging import CorpusStaging
from jobs.plan.log_staging import LogStaging
from jobs.plan.missing_prompts import missing_prompts
from jobs.plan.pairs_database import Staging
from jobs.plan.reject_limits import check_share
from jobs.plan.sharding import MOST_DOCUMENTS, MOST_PAIRS, assign_shards, default_shards, work_of_level
from jobs.plan.text_lengths import ROLES, SAMPLE, calibrate
from jobs.plan.work import assumed_seconds
from jobs.progress import counted
from jobs.run.manifest import MANIFEST, PAIR_COLUMNS, Plan, encoded, load_plan
from jobs.run.tables import reserved_names, write_rejects
from jobs.sources import InputFile, PairReader, input_files, read_pairs
from jobs.sources.log import log_files
from jobs.storage.duckdb import one_row
from jobs.storage.store import Store

# A job of so many seconds on a processor asks whether a GPU is here: reading that from Ray takes a second.
SECONDS_WORTH_A_LOOK = 600.0
# Levels that every job can have.
LEVELS = ("pairs", "words")
PERCENTILES = (0, 10, 50, 90, 99, 100)

AnyStaging = Staging | LogStaging | CorpusStaging


def make_plan(job: JobConfig, run: Store) -> Plan:
    """Read the input of ``job`` and commit its plan to ``run``; a plan that is already stored is returned unchanged.

    Raises SourceError (nothing usable in the input), UnchangedError (nothing new for the index) and StoreError.
    """
    present = load_plan(run)
    if present is not None:
        return present
    with tempfile.TemporaryDirectory(prefix="tokenpair-plan-") as name:
        folder = Path(name)
        if job.task == "index":
            corpus = CorpusStaging(folder, job, input_files(job))
            with contextlib.closing(corpus):
                corpus.stage(indexed_hashes(job.update_of, job.storage) if job.update_of is not None else None)
                return _write(corpus, corpus.input_files, [], job, run, folder)
        if job.input is None:
            files = log_files(job)
            log = LogStaging(folder, job, files)
            with contextlib.closing(log):
                log.stage()
                return _write(log, files.all, [], job, run, folder)
        reader = read_pairs(job, job.storage)
        staging = Staging(folder, retrieval=job.mode == "retrieval")
        with contextlib.closing(staging):
            _stage(staging, reader, job)
            return _write(staging, reader.files, reader.notices, job, run, folder)


def _stage(staging: Staging, reader: PairReader, job: JobConfig) -> None:
    limit = job.limit if job.sample is None else None
    wanted = limit
    for batch in reader:
        staging.add(batch)
        if limit is not None and wanted is not None and staging.rows >= wanted:
            staging.flush()
            good = staging.drop_duplicates()
            if good >= limit:
                break
            wanted = staging.rows + limit - good
    staging.flush()
    good = staging.drop_duplicates()
    if job.max_rejects is not None:
        bad = staging.rejected()
        check_share("the input", bad, good + sum(bad.values()), job.max_rejects, "max_rejects", "cannot be used")
    if job.sample is not None:
        staging.sample(job.seed, job.sample)
        good = staging.count("pairs")
    if job.limit is not None and good >= job.limit:
        staging.cut(job.limit)
    if not good:
        reasons = "; ".join(f"{n} × {reason}" for reason, n in list(staging.rejected().items())[:5])
        raise SourceError(f"no row of the input can be attributed: {reasons}")


def _write(
    staging: AnyStaging,
    files: list[InputFile],
    notices: list[str],
    job: JobConfig,
    run: Store,
    folder: Path,
) -> Plan:
    # Also where nobody knows what the model is.
    reserved = reserved_names(late=is_late(job.model) is not False)
    kept = staging.publish({*reserved, *PAIR_COLUMNS}, notices)
    calibration = calibrate(job, _samples(staging, job.mode))
    centre_file = write_centre_sample(staging.con, run, job) if job.sums_to == "centred" else None
    notices += missing_prompts(job)
    if not calibration.measured:
        notices.append("the model's tokenizer is not on this machine, so lengths in tokens are assumed, not measured")
    shards, side = assign_shards(
        staging.con, calibration, partial(_shards_by_seconds, job), job.shards, job.level, indexed=job.index is not None
    )
    if job.shards is not None and len(shards) < job.shards:
        notices.append(
            f"{counted(len(shards), 'shard')} instead of {job.shards}: each text is in one shard with all its partners"
        )
    pairs_file = _commit(run, folder, "pairs", _pair_tables(staging, side, kept))
    texts_file = _commit(run, folder, "texts", _text_tables(staging, job.mode))
    judgments = staging.judgments() if isinstance(staging, LogStaging) else None
    judgments_file = None if judgments is None else _commit(run, folder, "judgments", iter([judgments]))
    corpus_file = None
    if isinstance(staging, CorpusStaging):
        corpus_file = _commit(run, folder, "corpus", iter([staging.hashes()]))
    present = load_plan(run)
    if present is not None:
        return present  # another planner was first, and so its rejects stay
    write_rejects(run, "plan", _rejects(staging), job.format)
    texts, characters = one_row(staging.con, "SELECT count(*), sum(characters) FROM costs")
    plan = Plan(
        job=job.digest(),
        shards=tuple(shards),
        pairs=sum(shard.pairs for shard in shards),
        texts=int(texts),
        characters=int(characters),
        mode=job.mode,
        rejected=staging.rejected(),
        inputs=[_input(file) for file in files],
        kept=kept,
        notices=list(dict.fromkeys(notices)),
        pairs_file=pairs_file,
        texts_file=texts_file,
        calibration=calibration,
        lengths=_lengths(staging, job.mode),
        work=work_of_level(staging.con, job.level),
        other_levels={one: work_of_level(staging.con, one) for one in _other_levels(job)},
        centre_file=centre_file,
        judgments_file=judgments_file,
        corpus_file=corpus_file,
        index_snapshot=staging.index_snapshot if isinstance(staging, LogStaging) else None,
        task=job.task,
        warnings=staging.warnings if isinstance(staging, LogStaging) else [],
    )
    if run.commit(MANIFEST, encoded(plan)):
        return plan
    present = load_plan(run)  # another planner was first
    assert present is not None
    return present


def _other_levels(job: JobConfig) -> list[str]:
    """Return the other levels that the job could have, and ``index`` where its corpus could be indexed."""
    if job.task == "index" or job.index is not None:
        return []
    indexable = job.log is not None and not is_late(job.model)
    return [one for one in LEVELS if one != job.level] + (["index"] if indexable else [])


def _shards_by_seconds(job: JobConfig, pairs: int, texts: int, cost: int) -> int:
    """How many shards a job has that does not say it, by the seconds that its kind of worker is taken to need."""
    gpu = bool(job.workers.gpus)
    seconds = assumed_seconds(job, pairs, texts, cost, gpu=gpu)
    if seconds > SECONDS_WORTH_A_LOOK and job.workers.gpus is None and gpus_here():
        seconds = assumed_seconds(job, pairs, texts, cost, gpu=True)
    return default_shards(seconds, pairs, MOST_DOCUMENTS if job.task == "index" else MOST_PAIRS)


def _samples(staging: AnyStaging, mode: str) -> dict[str, list[str]]:
    """A random sample of each role's texts that are in a pair, the same every time; also creates table ``used``
    (no)."""
    staging.con.execute("CREATE TABLE used AS SELECT a_no AS no FROM matched UNION SELECT b_no FROM matched")
    samples: dict[str, list[str]] = {}
    for role, name in enumerate(ROLES[mode]):
        rows = staging.con.execute(f"""
            SELECT text FROM texts SEMI JOIN used USING (no) WHERE role = {role} ORDER BY md5(key), key LIMIT {SAMPLE}
        """).fetchall()
        samples[name] = [str(text) for (text,) in rows]
    return samples


def _lengths(staging: AnyStaging, mode: str) -> dict[str, dict[str, int]]:
    """Characters of the distinct texts of each role at some percentiles."""
    rows = staging.con.execute(f"""
        SELECT role, count(*), {", ".join(f"quantile_disc(characters, {p / 100})" for p in PERCENTILES)}
        FROM costs GROUP BY role ORDER BY role
    """).fetchall()
    names = ["texts", *map(str, PERCENTILES)]
    return {ROLES[mode][row[0]]: dict(zip(names, map(int, row[1:]), strict=True)) for row in rows}


def _input(file: InputFile) -> dict[str, Any]:
    return {"file": file.url, "size": file.size, "modified": file.modified, "fingerprint": file.fingerprint()}


def _pair_tables(staging: AnyStaging, side: str, kept: pa.Schema) -> Iterator[pa.Table]:
    columns = "".join(f", k{i}" for i in range(len(kept)))
    query = f"""
        SELECT shard, ordinal, pair_id, a_key, b_key, name, row{columns}
        FROM pair_rows JOIN shard_of ON shard_of.no = pair_rows.{side} ORDER BY shard, ordinal
    """
    types = [pa.int64(), pa.string(), pa.string(), pa.string(), pa.string(), pa.int64()]
    schema = pa.schema([*zip(PAIR_COLUMNS, types, strict=True), *kept])
    return _by_shard(staging.con.sql(query).to_arrow_reader(1 << 14), schema)


def _text_tables(staging: AnyStaging, mode: str) -> Iterator[pa.Table]:
    role = "CASE role WHEN 0 THEN 'query' ELSE 'document' END" if mode == "retrieval" else "'text'"
    query = f"""
        SELECT shard, key, {role} AS role_name, text, owner, shared
        FROM shard_texts JOIN texts USING (no) ORDER BY shard, no
    """
    words, truths = ("text_id", "role", "text"), ("owner", "shared")
    schema = pa.schema([*((name, pa.string()) for name in words), *((name, pa.bool_()) for name in truths)])
    return _by_shard(staging.con.sql(query).to_arrow_reader(1 << 12), schema)


def _rejects(staging: AnyStaging) -> Iterator[pa.Table]:
    query = """
        SELECT coalesce(id, name || ':' || row) AS pair_id, name AS file, row, reason, row_text
        FROM rejects JOIN files ON files.no = rejects.file ORDER BY rejects.file, row, reason, row_text
    """
    for batch in staging.con.sql(query).to_arrow_reader(1 << 14):
        yield pa.Table.from_batches([batch])


def _by_shard(batches: pa.RecordBatchReader, schema: pa.Schema) -> Iterator[pa.Table]:
    """Rows sorted by their first column, ``shard``, as one table a shard without it."""
    current: int | None = None
    parts: list[pa.RecordBatch] = []

    def whole() -> pa.Table:
        # One chunk a column: how the rows arrived must not show in the bytes.
        table = pa.Table.from_batches(parts).drop_columns(["shard"]).rename_columns(schema.names)
        return table.cast(schema).combine_chunks()

    for batch in batches:
        shards = batch.column(0).to_numpy()
        starts = [0, *(np.flatnonzero(np.diff(shards)) + 1).tolist(), len(shards)]
        for start, end in itertools.pairwise(starts):
            if start == end:
                continue
            if parts and shards[start] != current:
                yield whole()
                parts = []
            current = int(shards[start])
            parts.append(batch.slice(start, end - start))
    if parts:
        yield whole()


def _commit(run: Store, folder: Path, kind: str, tables: Iterator[pa.Table]) -> str:
    """Write the tables as row groups of one Parquet file under a name that holds the content's hash."""
    path = folder / f"{kind}.parquet"
    writer: Any = None
    for table in tables:
        if writer is None:
            # Texts differ, so looking for equal ones among them is lost time.
            names = [name for name in table.schema.names if name != "text"]
            writer = pq.ParquetWriter(
                path, table.schema, compression="zstd", write_statistics=False, use_dictionary=names
            )
        writer.write_table(table, row_group_size=max(1, len(table)))
    assert writer is not None, "a plan has at least one shard"
    writer.close()
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    name = f"plan/{kind}-{digest}.parquet"
    run.commit_file(name, path)
    path.unlink()
    return name
