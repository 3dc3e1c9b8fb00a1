"""The files of a retrieval log: which they are, their formats, and the judgments."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from jobs.config.job import JobConfig
from jobs.errors import SourceError
from jobs.sources.dialect import Asked, decided
from jobs.sources.files import InputFile, named_together, resolve_inputs
from jobs.sources.lines import Record, read_lines, read_records
from jobs.sources.predictions import META, read_mteb, read_predictions
from jobs.sources.rows import Reject, shortened
from jobs.sources.runs import RANK_NAMES, LogBatch, is_header, number_of, read_run
from jobs.storage.s3 import StorageSettings

SNIFFED_BYTES = 1 << 16
BATCH_ROWS = 1 << 17
SHOWN_NAMES = 10
LARGEST_GRADE = 1 << 31


@dataclass(frozen=True)
class LogFiles:
    """The files of a job's log by what they hold, named below one folder."""

    log: list[InputFile]
    queries: list[InputFile]
    corpus: list[InputFile]
    qrels: list[InputFile]

    @property
    def all(self) -> list[InputFile]:
        """Every file once."""
        return list({file.url: file for file in (*self.log, *self.queries, *self.corpus, *self.qrels)}.values())


def log_files(job: JobConfig, options: StorageSettings | None = None) -> LogFiles:
    """The files of the log of ``job``; SourceError or StoreError where one is not there."""
    settings = options or job.storage
    groups = [
        resolve_inputs(places, settings, any_name=True) if places else []
        for places in (job.log, job.queries, job.corpus)
    ]
    groups.append(_judgments(job.qrels, settings) if job.qrels else [])
    for name, files in zip(("log", "qrels"), (groups[0], groups[3]), strict=True):
        typed = next((file for file in files if file.kind in ("parquet", "arrow")), None)
        if typed is not None:
            hint = "; a table with texts goes under input, with columns a, b, a_id, b_id" if name == "log" else ""
            raise SourceError(f"{typed.url}: {name} is read from text files, not from {typed.kind}{hint}")
    names = {file.url: file.name for file in named_together([file for files in groups for file in files])}
    renamed = [[replace(file, name=names[file.url]) for file in files] for files in groups]
    return LogFiles(*renamed)


def corpus_files(job: JobConfig, options: StorageSettings | None = None) -> list[InputFile]:
    """The files of the corpus of ``job``; SourceError or StoreError where one is not there."""
    files = resolve_inputs(job.corpus or [], options or job.storage, any_name=True)
    inside = job.output.rstrip("/") + "/"
    return named_together([file for file in files if not file.url.startswith(inside)])


def _judgments(places: list[str], settings: StorageSettings) -> list[InputFile]:
    """The files of judgments; where one does not exist, the error lists its neighbours, such as other splits."""
    try:
        return resolve_inputs(places, settings, any_name=True)
    except SourceError as error:
        for place in places:
            path = Path(place).expanduser()
            if "://" not in place and not path.exists() and path.parent.is_dir():
                there = sorted(one.name for one in path.parent.iterdir() if one.is_file())[:SHOWN_NAMES]
                if there:
                    raise SourceError(f"qrels: {error}; its folder has {', '.join(there)}") from None
        raise


def read_log(file: InputFile, format: str, part: str | None = None) -> Iterator[LogBatch]:
    """Batches of one file of a log; ``format`` auto looks at how it begins."""
    if format == "auto":
        format = sniffed_format(file)
    if format == "predictions":
        return read_predictions(file)
    if format == "mteb":
        return read_mteb(file, part)
    return read_run(file, format)


def sniffed_format(file: InputFile) -> str:
    """The format of a log's file by its first line; SourceError where it is unknown."""
    with file.guard(), file.open_text() as stream:
        head = stream.read(SNIFFED_BYTES).decode("utf-8", "replace").removeprefix("\ufeff").lstrip()
    if head.startswith("{"):
        first = head.split("\n", 1)[0]
        if '"results"' in first and re.search(r'"query_id"\s*:', first) and META not in first:
            return "predictions"
        if re.search(r'"text"\s*:\s*"', first):
            raise SourceError(f"{file.url}: is not a log but a table of texts; it goes under queries or corpus")
        return "mteb"
    lines = head.split("\n")
    fields = lines[0].split()
    if len(fields) == 6:
        return "trec"
    if len(fields) == 3 and number_of(fields[2]) is not None:
        return "three"
    if len(fields) == 3 and is_header(lines[0].encode(), "three"):
        if fields[2].lower() in RANK_NAMES:
            return "msmarco"
        # Judgments have such a header too, above grades, which are whole numbers.
        numbers = [number_of(line.split()[2]) for line in lines[1:-1] if len(line.split()) == 3]
        if any(one is not None and one != int(one) for one in numbers):
            return "scores"
    if not fields:
        raise SourceError(f"{file.url}: has no rows")
    seen = f"its first line has {len(fields)} fields"
    if len(fields) == 4 or fields[-1].lower() == "score":
        seen += " (as in qrels)"
    elif len(fields) == 3:
        seen += " and the third is neither a rank nor a score"
    raise SourceError(
        f"{file.url}: is not a log: {seen}; a TREC run has 6, MS MARCO's has 3; or set log_format (--log-format) if "
        "that line is bad"
    )


@dataclass(frozen=True)
class QrelsBatch:
    """Judgments: ``table`` has query, document (string) and relevance (int32)."""

    file: str
    table: pa.Table
    rejects: list[Reject]


def read_qrels(file: InputFile, notices: list[str] | None = None) -> Iterator[QrelsBatch]:
    """Batches of judgments: TREC's four columns (query, 0, document, grade) or BEIR's three under a header.

    Columns are separated by white space, or as :mod:`jobs.sources.dialect` finds; ``notices`` say what is
    unusual about that. A header is a first line whose last field is no number.
    """
    with file.guard():
        rows: list[tuple[str, str, int]] = []
        rejects: list[Reject] = []
        first: int | None = None
        for record in _judged_lines(file, [] if notices is None else notices):
            first = record.number if first is None else first
            fields, problem = record.fields, record.problem
            if not any(fields) and problem is None:
                continue
            grade = _grade(fields[-1]) if len(fields) in (3, 4) else None
            if problem is None and grade is not None and fields[0] and fields[-2]:
                rows.append((fields[0], fields[-2], grade))
            elif record.number > first or problem is not None or len(fields) not in (3, 4):
                problem = problem or ("wrong number of fields" if len(fields) not in (3, 4) else "no grade")
                rejects.append(Reject(file.name, record.number, None, problem, shortened(record.text)))
            if len(rows) >= BATCH_ROWS:
                yield _qrels(file, rows, rejects)
                rows, rejects = [], []
        yield _qrels(file, rows, rejects)


def _judged_lines(file: InputFile, notices: list[str]) -> Iterator[Record]:
    """The lines of a file of judgments with their fields, however those are separated; no field has outer spaces."""
    with file.open_text() as stream:
        first = next((line.text for line in read_lines(stream) if line.text.strip()), "")
    spaced = "\t" not in first and len(first.split()) in (3, 4)
    dialect = None if spaced else decided(file, Asked(), notices)[0]
    with file.open_text() as stream:
        lines = read_lines(stream)
        if dialect is None:
            yield from (Record(line.number, line.text.split(), line.text, line.problem) for line in lines)
            return
        for record in read_records(itertools.islice(lines, dialect.skipped, None), dialect):
            # A line among others that is written with spaces.
            few = record.problem is None and len(record.fields) not in (3, 4)
            fields = record.text.split() if few else [one.strip() for one in record.fields]
            yield Record(record.number, fields, record.text, record.problem)


def _grade(text: str) -> int | None:
    """A whole number, also written as 1.0; None where it is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value == value and abs(value) < LARGEST_GRADE and value == int(value) else None


def _qrels(file: InputFile, rows: list[tuple[str, str, int]], rejects: list[Reject]) -> QrelsBatch:
    columns = list(zip(*rows, strict=True)) if rows else [(), (), ()]
    types = {"query": pa.string(), "document": pa.string(), "relevance": pa.int32()}
    arrays = [pa.array(column, kind) for column, kind in zip(columns, types.values(), strict=True)]
    return QrelsBatch(file.name, pa.table(arrays, names=list(types)), rejects)
