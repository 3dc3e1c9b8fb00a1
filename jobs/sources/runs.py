"""Rankings from TREC runs (six columns) and MS MARCO's (three): ten million rows in seconds.

Arrow's reader reads a block of regular lines; a block with anything unusual (several spaces, a wrong number of fields,
an invalid score) is read line by line, and only its bad lines are rejected.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from jobs.sources.files import InputFile
from jobs.sources.lines import read_blocks
from jobs.sources.rows import Reject, shortened

LINE_BYTES = 1 << 20
FIELDS = {
    "trec": ("query", "q0", "document", "place", "score", "tag"),
    "msmarco": ("query", "document", "place"),
    "scores": ("query", "document", "score"),
    "three": ("query", "document", "third"),
}
# Words above a column of ranks or scores, where a run has a header.
RANK_NAMES = ("rank", "position", "pos", "place")
SCORE_NAMES = ("score", "scores", "sim", "similarity")


@dataclass(frozen=True)
class LogBatch:
    """Rows of a log's file, in their order.

    ``table``: row (int64, from 1), query, document (string), score (double, null where the log has none), place
    (int64, the rank that the log gives, or null), tag (string or null), third (double, a rank or a score, which only
    the whole log shows; else null). ``rejects`` are the unreadable rows among them. ``queries``: id,
    text (string), where the log has the texts of its queries.
    """

    file: str
    table: pa.Table
    rejects: list[Reject]
    queries: pa.Table | None = None


@dataclass
class Gathered:
    """Columns of the next :class:`LogBatch`."""

    rows: list[int] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)
    places: list[int | None] = field(default_factory=list)
    tags: list[str | None] = field(default_factory=list)
    thirds: list[float | None] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)

    def add(
        self,
        row: int,
        query: str,
        document: str,
        score: float | None,
        place: int | None = None,
        tag: str | None = None,
        third: float | None = None,
    ) -> None:
        """Take one good row."""
        self.rows.append(row)
        self.queries.append(query)
        self.documents.append(document)
        self.scores.append(score)
        self.places.append(place)
        self.tags.append(tag)
        self.thirds.append(third)

    def batch(self, file: str, texts: pa.Table | None = None) -> LogBatch:
        """The collected rows as a batch."""
        columns = [
            pa.array(self.rows, pa.int64()),
            pa.array(self.queries, pa.string()),
            pa.array(self.documents, pa.string()),
            pa.array(self.scores, pa.float64()),
            pa.array(self.places, pa.int64()),
            pa.array(self.tags, pa.string()),
            pa.array(self.thirds, pa.float64()),
        ]
        return LogBatch(file, pa.table(columns, names=list(COLUMNS)), self.rejects, texts)


COLUMNS = ("row", "query", "document", "score", "place", "tag", "third")


def read_run(file: InputFile, format: str) -> Iterator[LogBatch]:
    """Batches of a run: trec (query Q0 document rank score tag), msmarco (query document rank), scores (query document
    score), or three (query, document, and a number that is either).

    Fields are separated by white space; a header is passed over. A score decides the order, whatever rank is given.
    """
    with file.guard(), file.open_text() as stream:
        start = 1
        for block in read_blocks(stream):
            if start == 1 and is_header(block.split(b"\n", 1)[0], format):
                block, start = block.split(b"\n", 1)[1], 2
            batch = _at_once(file.name, block, start, format) or _by_line(file.name, block, start, format)
            start += block.count(b"\n")
            yield batch


def is_header(line: bytes, format: str) -> bool:
    """Whether a run's first line names its columns."""
    words = line.decode("utf-8", "replace").lower().split()
    at = 4 if format == "trec" else 2
    return len(words) == len(FIELDS[format]) and words[at] in (*RANK_NAMES, *SCORE_NAMES)


def _at_once(name: str, block: bytes, start: int, format: str) -> LogBatch | None:
    """The block by Arrow's reader, or None where a line of it needs a closer look."""
    wanted = [one for one in FIELDS[format] if one != "q0"]
    batch = _columns(name, block, start, format, wanted)
    if batch is None and format == "trec":  # what stands in place of its ranks may be no number
        batch = _columns(name, block, start, format, [one for one in wanted if one != "place"])
    return batch


def _columns(name: str, block: bytes, start: int, format: str, wanted: list[str]) -> LogBatch | None:
    tabs = b"\t" in block
    if (tabs and b" " in block) or b"  " in block or b"\t\t" in block or b"\r" in block:
        return None
    fields = FIELDS[format]
    types = {"query": pa.string(), "document": pa.string(), "tag": pa.string(), "score": pa.float64()}
    types |= {"place": pa.int64(), "third": pa.float64()}
    try:
        columns = csv.read_csv(
            io.BytesIO(block),
            csv.ReadOptions(column_names=list(fields), block_size=len(block) + 1, use_threads=False),
            csv.ParseOptions(
                delimiter="\t" if tabs else " ", quote_char=False, double_quote=False, ignore_empty_lines=False
            ),
            csv.ConvertOptions(
                column_types=types, include_columns=wanted, null_values=[], strings_can_be_null=False, check_utf8=True
            ),
        )
    except pa.ArrowInvalid:
        return None
    if len(columns) != block.count(b"\n"):
        return None
    for column in ("score", "third"):
        if column in wanted and not pc.all(pc.is_finite(columns[column])).as_py():
            return None
    for column in ("query", "document"):
        if pc.any(pc.equal(pc.binary_length(columns[column]), 0)).as_py():
            return None
    if format == "msmarco" and pc.min(columns["place"]).as_py() < 0:
        return None
    rows: dict[str, Any] = {"row": pa.array(range(start, start + len(columns)), pa.int64())}
    empty = {"score": pa.float64(), "place": pa.int64(), "tag": pa.string(), "third": pa.float64()}
    for column in COLUMNS[1:]:
        rows[column] = columns[column] if column in wanted else pa.nulls(len(columns), empty[column])
    return LogBatch(name, pa.table(rows), [])


def _by_line(name: str, block: bytes, start: int, format: str) -> LogBatch:
    """The block line by line; blank lines are passed over."""
    gathered = Gathered()
    for number, line in enumerate(block.split(b"\n")[:-1], start):
        # bytes.split() knows ASCII white space only: an id may hold any other.
        fields = line.split()
        if not fields:
            continue
        problem = _take(gathered, number, fields, format)
        if problem is not None:
            text = shortened(line[:LINE_BYTES].decode("utf-8", "backslashreplace").rstrip("\r"))
            gathered.rejects.append(Reject(name, number, None, problem, text))
    return gathered.batch(name)


def _take(gathered: Gathered, number: int, fields: list[bytes], format: str) -> str | None:
    """Add a line's row, or say what is wrong with it."""
    if len(fields) != len(FIELDS[format]):
        return "wrong number of fields"
    try:
        words = [one.decode("utf-8") for one in fields]
    except UnicodeDecodeError:
        return "invalid UTF-8"
    if format == "msmarco":
        query, document, place = words
        rank = _rank_of(place)
        if rank is None or rank < 0:
            return "rank is not a whole number"
        gathered.add(number, query, document, None, rank)
        return None
    if format in ("scores", "three"):
        query, document, word = words
        value = number_of(word)
        if value is None:
            return "score is not a number" if format == "scores" else "neither a rank nor a score"
        score, third = (value, None) if format == "scores" else (None, value)
        gathered.add(number, query, document, score, third=third)
        return None
    query, _, document, place, word, tag = words
    value = number_of(word)
    if value is None:
        return "score is not a number"
    gathered.add(number, query, document, value, _rank_of(place), tag)
    return None


def _rank_of(text: str) -> int | None:
    """A whole number, or None."""
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= 18 else None


def number_of(text: str) -> float | None:
    """A finite number as it is written in a run, or None."""
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
