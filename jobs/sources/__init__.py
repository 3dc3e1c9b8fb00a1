"""Readers of pairs of texts in users' files; all formats yield the same batches of checked rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from jobs.config.job import JobConfig
from jobs.errors import SourceError
from jobs.sources.arrow import read_arrow
from jobs.sources.columns import ColumnChooser
from jobs.sources.dialect import Asked
from jobs.sources.files import InputFile, resolve_inputs
from jobs.sources.jsonl import read_jsonl
from jobs.sources.log import corpus_files, log_files
from jobs.sources.partitions import Partitions
from jobs.sources.rows import PairBatch, Reject
from jobs.sources.text import read_delimited
from jobs.storage.s3 import StorageSettings

__all__ = ["InputFile", "PairBatch", "PairReader", "Reject", "input_files", "read_pairs", "resolve_inputs"]


@dataclass
class PairReader:
    """The rows of a job's input in order, read once by iterating; ``notices`` grow while it is read."""

    files: list[InputFile]
    header: bool | None
    chooser: ColumnChooser
    notices: list[str] = field(default_factory=list)
    dialect: Asked = field(default_factory=Asked)

    def __iter__(self) -> Iterator[PairBatch]:
        partitions = Partitions.of(self.files)
        try:
            for file in self.files:
                seen = False
                for batch in self._with_partitions(file, partitions):
                    seen = seen or len(batch) > 0 or bool(batch.rejects)
                    yield batch
                if not seen:
                    if len(self.files) == 1:
                        raise SourceError(f"{file.url}: has no rows")
                    self.notices.append(f"{file.name}: has no rows")
        finally:  # also where a limit ends the reading
            self.notices += partitions.notices()

    def _with_partitions(self, file: InputFile, partitions: Partitions) -> Iterator[PairBatch]:
        chooser = partitions.chooser(file, self.chooser)
        if chooser is None:
            return self._read(file, self.chooser)
        return (chooser.complete(batch) for batch in self._read(file, chooser))

    def _read(self, file: InputFile, chooser: ColumnChooser) -> Iterator[PairBatch]:
        if file.kind in ("parquet", "arrow"):
            return read_arrow(file, chooser)
        if file.kind == "jsonl":
            return read_jsonl(file, chooser)
        return read_delimited(file, chooser, self.header, self.notices, self.dialect)


def input_files(job: JobConfig, options: StorageSettings | None = None) -> list[InputFile]:
    """The input files of ``job`` without those that its own run wrote; SourceError or StoreError when there is none.

    Of a retrieval log these are all its files: rankings, queries, corpus and judgments.
    """
    if job.task == "index":
        return corpus_files(job, options)
    if job.input is None:
        return log_files(job, options).all
    files = resolve_inputs(job.input, options or job.storage)
    inside = job.output.rstrip("/") + "/"
    files = [file for file in files if not file.url.startswith(inside)]
    if not files:
        raise SourceError("the input contains only the run directory itself")
    return files


def read_pairs(job: JobConfig, options: StorageSettings | None = None) -> PairReader:
    """A reader over the input of ``job``; SourceError or StoreError when there is nothing to read."""
    files = input_files(job, options)
    notices: list[str] = []
    return PairReader(
        files, job.header, ColumnChooser(job.columns, job.keep, notices), notices, Asked(job.delimiter, job.quotes)
    )
