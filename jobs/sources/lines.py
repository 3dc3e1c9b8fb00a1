"""Lines and delimited records of text files, read so that a bad line loses one row and no more."""

from __future__ import annotations

import csv
import functools
import re
import sys
from _csv import Dialect as CsvDialect
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from jobs.errors import SourceError

MARK = b"\xef\xbb\xbf"  # UTF-8's byte-order mark
LINE_BYTES = 16 << 20
QUOTED_CHARACTERS = 4 << 20
CHUNK_BYTES = 1 << 20
BLOCK_BYTES = 16 << 20
LONGEST_BLOCK = 64 << 20
LONE_BACKSLASH = re.compile(r'\\(?!["\\])')


# Of lines and records there are as many as rows: a tuple is made in half the time of a frozen dataclass.
class Line(NamedTuple):
    """One line without its line feed; ``problem`` says why its text is invalid."""

    number: int
    text: str
    problem: str | None = None


@dataclass(frozen=True)
class Dialect:
    """How a delimited file is written.

    ``quoted``: cells may stand in quotes. ``escaped``: quotes within those may be written ``\\"``. ``width``: how many
    cells most rows have, 0 where it is not known. ``skipped``: lines before the table, such as ``sep=;``.
    """

    delimiter: str
    quoted: bool
    escaped: bool = False
    width: int = 0
    skipped: int = 0


class Record(NamedTuple):
    """The fields of one delimited row, or why it has none. ``number`` is the line it begins at."""

    number: int
    fields: list[str]
    text: str
    problem: str | None = None


def read_lines(stream: BinaryIO) -> Iterator[Line]:
    """The lines of UTF-8 text; an over-long line is skipped over, never held in memory."""
    number = 0
    pending = b""
    too_long = False
    while True:
        chunk = stream.read(CHUNK_BYTES)
        parts = chunk.split(b"\n") if chunk else [b""]
        parts[0] = pending + parts[0]
        pending = parts.pop()
        for part in parts:
            number += 1
            yield _long_line(number, part) if too_long or len(part) > LINE_BYTES else _line(number, part)
            too_long = False
        if not chunk:
            # `pending` was moved into parts[0] and taken out again: the last line may lack its line feed.
            if pending or too_long:
                yield _long_line(number + 1, pending) if too_long else _line(number + 1, pending)
            return
        if len(pending) > LINE_BYTES:
            too_long, pending = True, pending[:1000]


def read_blocks(stream: BinaryIO) -> Iterator[bytes]:
    """The bytes in blocks of whole lines, each ended by a line feed, for readers that take many lines at once.

    Raises SourceError where no line feed comes for so long that this is no text of lines.
    """
    rest = b""
    first = True
    while chunk := stream.read(BLOCK_BYTES):
        if first:
            chunk, first = chunk.removeprefix(MARK), False
        cut = chunk.rfind(b"\n") + 1
        if cut:
            yield rest + chunk[:cut]
            rest = chunk[cut:]
            continue
        rest += chunk
        if len(rest) > LONGEST_BLOCK:
            raise SourceError(f"has a line of more than {LONGEST_BLOCK >> 20} MiB, so it is not read line by line")
    if rest:
        yield rest + b"\n"


def _line(number: int, data: bytes) -> Line:
    if number == 1:
        data = data.removeprefix(MARK)
    try:
        return Line(number, data.decode("utf-8"))
    except UnicodeDecodeError:
        return Line(number, data.decode("utf-8", "backslashreplace"), "invalid UTF-8")


def _long_line(number: int, data: bytes) -> Line:
    return Line(number, data[:1000].decode("utf-8", "backslashreplace"), f"line longer than {LINE_BYTES >> 20} MiB")


class _Lines:
    """Lines that can be put back, for a quote that turns out not to begin a quoted cell."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._back: deque[Line] = deque()

    def next(self) -> Line | None:
        return self._back.popleft() if self._back else next(self._lines, None)

    def take_back(self, lines: list[Line]) -> None:
        self._back.extendleft(reversed(lines))


def read_records(lines: Iterator[Line], dialect: Dialect) -> Iterator[Record]:
    """Rows of delimited text; blank lines are passed over.

    In a quoted file quoted cells may hold delimiters, doubled quotes and line feeds, and a row whose quotes do not
    work out has a problem. In any other a line is a row, and a quote an ordinary character.
    """
    if not dialect.quoted:
        yield from _plain_records(lines, dialect.delimiter)
        return
    csv.field_size_limit(sys.maxsize)
    source = _Lines(lines)
    while (line := source.next()) is not None:
        text = line.text.removesuffix("\r")
        if not text:
            continue
        if line.problem is not None:
            yield Record(line.number, [], text, line.problem)
        elif '"' not in text:
            yield Record(line.number, text.split(dialect.delimiter), text)
        else:
            yield _quoted(line, source, dialect)


def _plain_records(lines: Iterator[Line], delimiter: str) -> Iterator[Record]:
    for line in lines:
        text = line.text.removesuffix("\r")
        if line.problem is not None:
            yield Record(line.number, [], text, line.problem)
        elif text:
            yield Record(line.number, text.split(delimiter), text)


def _quoted(line: Line, source: _Lines, dialect: Dialect) -> Record:
    """The record that begins at ``line``; lines that do not belong to it are put back."""
    fields = quoted_fields((line.text + "\n",), dialect.delimiter, dialect.escaped)
    if fields is not None:  # most are one line, which is read at once
        return Record(line.number, fields, line.text)
    more: list[Line] = []

    def pull() -> Iterator[str]:
        yield line.text + "\n"
        size = 0
        while size < QUOTED_CHARACTERS and (following := source.next()) is not None:
            more.append(following)
            size += len(following.text)
            yield following.text + "\n"

    fields = quoted_fields(pull(), dialect.delimiter, dialect.escaped)
    if fields is not None:
        bad = next((one.problem for one in more if one.problem), None)
        if not more or bad is not None or not dialect.width or len(fields) == dialect.width:
            return Record(line.number, [] if bad else fields, "\n".join([line.text, *(one.text for one in more)]), bad)
    source.take_back(more)
    return Record(line.number, [], line.text.removesuffix("\r"), "quotes that do not match")


def quoted_fields(lines: Iterable[str], delimiter: str, escaped: bool) -> list[str] | None:
    """The cells of the record that begins with the first of ``lines`` (with their ends), or None where it is none.

    ``escaped``: a quote within a quoted cell may be written with a backslash before it.
    """
    if escaped:
        # Any other backslash stands for itself, which the reader takes from two of them.
        lines = (LONE_BACKSLASH.sub(r"\\\\", line) for line in lines)
    try:
        return next(csv.reader(lines, _csv_dialect(delimiter, escaped)))
    except csv.Error:
        return None


@functools.cache
def _csv_dialect(delimiter: str, escaped: bool) -> CsvDialect:
    """The standard library's own form of a dialect; to make it takes longer than to read a row."""
    return csv.reader((), delimiter=delimiter, strict=True, escapechar="\\" if escaped else None).dialect
