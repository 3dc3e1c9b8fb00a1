"""Detects how a CSV or TSV file is written: delimiter and quoting, once per file from samples of the whole file.

DuckDB's sniffer and the standard library's treat quotes as quoting wherever that can be parsed, and so merge lines of a
TSV whose quotes are ordinary characters. Here both readings are tried. Rows that are correct under one reading only
decide; where there are none, CSV is quoted and TSV is not.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from jobs.errors import SourceError
from jobs.sources.files import InputFile
from jobs.sources.headers import NUMBER, ROWS
from jobs.sources.lines import Dialect, quoted_fields
from jobs.sources.sampling import Piece, Sample, sample_of

NAMES = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
CALLED = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars (|)"}
# A delimiter is the one that a file's name says where this share of its lines has as many.
REGULAR = 0.9
# Another is taken where at least so many have as many.
LIKELY = 0.5
# A row counts from this many delimiters on that fall into place in cells over several lines by chance alone.
COINCIDENCES = 2
# So many rows that can be read both ways are as much as one that cannot: with some cells in quotes in CSV, with all
# of them in TSV.
FEW, MANY = 5, 20
# Lines that are looked at for a beginning of a row in a piece from the middle of a file.
LOST_LINES = 200
LONGEST_CELL = 1 << 20
# The rows by which a header is recognised, the header itself among them.
FIRST_ROWS = ROWS + 1
EARLY_LINES = 20
SAID = " (set delimiter or quotes to change this)"


@dataclass(frozen=True)
class Asked:
    """What the job sets of a file's dialect; None means that it is detected."""

    delimiter: str | None = None
    quotes: str | None = None

    @property
    def sign(self) -> str | None:
        """The delimiter as the sign that it is."""
        return None if self.delimiter is None else NAMES.get(self.delimiter, self.delimiter)


@dataclass
class _Evidence:
    """How many rows speak for which reading.

    ``bare`` ones have quotes within cells only. Those that can be read both ways are ``wholly`` in quotes but for
    numbers, ``doubtful`` with some cells in quotes, or ``spanning`` lines. ``all_quoted``: every row is wholly so.
    """

    quoted: int = 0
    plain: int = 0
    bare: int = 0
    wholly: int = 0
    doubtful: int = 0
    spanning: int = 0
    all_quoted: bool = True


@dataclass(frozen=True)
class _Reading:
    """A sample by one delimiter: ``share`` of its lines are rows that have as many cells as most.

    ``first_rows`` are those of the file's beginning, where quotes were looked at.
    """

    dialect: Dialect
    share: float
    evidence: _Evidence
    first_rows: list[_Row] = field(default_factory=list)


class _Row(NamedTuple):
    """One record of a quoted reading: the lines ``start`` to ``end``; without fields it is none."""

    start: int
    end: int
    fields: list[str] | None


def decided(file: InputFile, asked: Asked, notices: list[str]) -> tuple[Dialect, list[list[str]]]:
    """The dialect of ``file``, and the first rows of it as they are read so; ``notices`` say what is unusual.

    It depends on the file's bytes, on its name and on ``asked`` alone, so every reader of the file finds the same.
    Raises SourceError or StoreError where the file cannot be read.
    """
    sample = sample_of(file)
    first = next((line for line in sample.pieces[0].lines if line), "")
    if re.match(r'\s*\{\s*"[^"]*"\s*:', first):
        raise SourceError(f"{file.url}: holds JSON Lines, not a table with delimiters; name it .jsonl")
    usual = "\t" if file.kind == "tsv" or (file.kind != "csv" and "\t" in first) else ","
    excel = re.fullmatch(r'"?sep=(.)"?', first)
    if excel is not None:
        lines = sample.pieces[0].lines
        skipped = lines.index(first) + 1
        sample = replace(sample, pieces=[replace(sample.pieces[0], lines=lines[skipped:]), *sample.pieces[1:]])
    else:
        skipped = 0
    sign = asked.sign or (excel[1] if excel is not None else None)
    reading = _read_by(sample, sign, asked) if sign is not None else _likeliest(sample, asked, usual)
    dialect = replace(reading.dialect, skipped=skipped)
    _say(file, dialect, reading.evidence, sample.encoding, asked, usual, notices)
    return dialect, _first_rows(sample.pieces[0], reading)


def _likeliest(sample: Sample, asked: Asked, usual: str) -> _Reading:
    """The reading by the delimiter that the first line has; a first cell over several lines may hide it."""
    first = next((line for line in sample.pieces[0].lines if line), "")
    early = "\n".join(sample.pieces[0].lines[:EARLY_LINES])
    readings: dict[str, _Reading] = {}
    for place in (first, early):
        for sign in dict.fromkeys([usual, *CALLED]):
            if sign in place and sign not in readings:
                readings[sign] = _read_by(sample, sign, asked)
        able = {sign: one for sign, one in readings.items() if one.dialect.width > 1}
        if usual in first and usual in able and able[usual].share >= REGULAR:
            # Prose has commas everywhere; what stands as often in every line without exception is no prose.
            sure = [sign for sign in able if sign != usual and able[sign].share == 1.0]
            if "\t" in sure:
                return able["\t"]
            prose = next((sign for sign in sure if _is_prose(sample, usual) and not _is_prose(sample, sign)), None)
            return able[prose or usual]
        best = max(able.values(), key=lambda one: one.share, default=None)
        if best is not None and best.share >= LIKELY:
            return best
    return readings.get(usual) or _read_by(sample, usual, asked)


def _is_prose(sample: Sample, sign: str) -> bool:
    """Whether a character occurs only as in sentences and numbers: before a space, or between digits."""
    text = "\n".join(sample.pieces[0].lines[:200])
    return re.search(rf"(?<!\d){re.escape(sign)}\S|{re.escape(sign)}[^\s\d]|{re.escape(sign)}$", text, re.M) is None


def _read_by(sample: Sample, sign: str, asked: Asked) -> _Reading:
    """The better of the readings with a delimiter; in doubt tab-separated cells are not quoted, and all others are."""
    by_default = sign != "\t"
    lines = [line for piece in sample.pieces for line in piece.lines if line]
    counts = [line.count(sign) + 1 for line in lines]
    plain_width = _usual_width(counts)
    plain_share = counts.count(plain_width) / len(counts) if counts else 0.0
    plain = _Reading(Dialect(sign, False, width=plain_width), plain_share, _Evidence())
    if not any('"' in line for line in lines):
        as_csv = asked.quotes == "csv" or (asked.quotes is None and by_default)
        return replace(plain, dialect=replace(plain.dialect, quoted=as_csv))
    readings = [_quoted_reading(sample, sign, plain_width, escaped=False)]
    if any('\\"' in line for line in lines):
        readings.append(_quoted_reading(sample, sign, plain_width, escaped=True))
    quoted = max(readings, key=lambda one: one.evidence.quoted - one.evidence.plain)
    if asked.quotes == "csv":
        return quoted
    if asked.quotes == "none" or not _is_quoted(quoted.evidence, by_default=by_default):
        return replace(plain, evidence=quoted.evidence)
    return quoted


def _is_quoted(evidence: _Evidence, *, by_default: bool) -> bool:
    # Who quotes cells also quotes those with quotes in them; in CSV that is often forgotten.
    if by_default:
        quoted = evidence.quoted + evidence.wholly + evidence.doubtful // FEW
        against = evidence.plain + (0 if quoted else evidence.bare)
        return quoted >= against
    quoted, against = evidence.quoted + evidence.wholly // MANY, evidence.plain + evidence.bare
    if quoted or against:
        return quoted > against
    return evidence.wholly > 1 and evidence.all_quoted


def _quoted_reading(sample: Sample, sign: str, plain_width: int, *, escaped: bool) -> _Reading:
    dialect = Dialect(sign, True, escaped)
    rows_of = [_rows(piece, dialect) for piece in sample.pieces]
    width = _usual_width([len(row.fields) for rows in rows_of for row in rows if row.fields])
    dialect = replace(dialect, width=width)
    if any(row.end - row.start > 1 and len(row.fields or ()) != width for rows in rows_of for row in rows):
        rows_of = [_rows(piece, dialect) for piece in sample.pieces]
    evidence = _Evidence()
    right = total = 0
    for number, (piece, rows) in enumerate(zip(sample.pieces, rows_of, strict=True)):
        for row in rows if number == 0 else _from_a_beginning(rows, width):
            lines = piece.lines[row.start : row.end]
            total += len(lines)
            good = row.fields is not None and len(row.fields) == width and width > 1
            right += len(lines) if good else 0
            if '"' in lines[0] or (len(lines) > 1 and any('"' in line for line in lines)):
                _weigh(evidence, row, lines, sign, good, width, plain_width)
            elif evidence.all_quoted:
                evidence.all_quoted = _all_quoted(row.fields or [])
    return _Reading(dialect, right / total if total else 0.0, evidence, rows_of[0])


def _rows(piece: Piece, dialect: Dialect) -> list[_Row]:
    """The records of a piece. Lines behind a quote that is never closed are rows again."""
    records: list[_Row] = []
    lines, at = piece.lines, 0
    while at < len(lines):
        if not lines[at]:
            at += 1
            continue
        if '"' not in lines[at]:
            records.append(_Row(at, at + 1, lines[at].split(dialect.delimiter)))
            at += 1
            continue
        taken = [1]
        fields = quoted_fields((lines[at] + "\n",), dialect.delimiter, dialect.escaped)
        if fields is None:
            taken = [0]
            fields = quoted_fields(_following(lines, at, taken), dialect.delimiter, dialect.escaped)
        several = taken[0] > 1
        if fields is None and at + taken[0] >= len(lines) and not piece.last and several:
            break  # the piece may end within a cell
        if several and (fields is None or (dialect.width and len(fields) != dialect.width)):
            fields, taken = None, [1]
        records.append(_Row(at, at + taken[0], fields))
        at += taken[0]
    return records


def _following(lines: Sequence[str], at: int, taken: list[int]) -> Iterator[str]:
    size = 0
    while at + taken[0] < len(lines) and size < LONGEST_CELL:
        line = lines[at + taken[0]]
        taken[0] += 1
        size += len(line)
        yield line + "\n"


def _from_a_beginning(rows: list[_Row], width: int) -> list[_Row]:
    """Rows of a piece from the middle of a file, without those that may be the rest of a cell."""
    right = [row.fields is not None and len(row.fields) == width for row in rows[: LOST_LINES + 3]]
    start = next((at for at in range(min(LOST_LINES, len(right))) if all(right[at : at + 3])), 0)
    return rows[start:]


def _weigh(
    evidence: _Evidence, row: _Row, lines: list[str], sign: str, good: bool, width: int, plain_width: int
) -> None:
    """Count what a row with quotes speaks for. ``width`` and ``plain_width``: cells of most rows by either reading."""
    plain = lines[0].count(sign) + 1 == plain_width
    if len(lines) > 1:
        plain = plain and all(line.count(sign) + 1 == plain_width for line in lines[1:])
    if not good:
        if plain_width > 1 and plain:
            evidence.plain += 1
        return
    assert row.fields is not None
    if not plain:
        evidence.quoted += 1
        return
    if len(lines) > 1:
        if (len(lines) - 1) * (width - 1) >= COINCIDENCES:
            evidence.plain += 1
        else:
            evidence.spanning += 1
        return
    cells = lines[0].split(sign)
    if width != plain_width:
        evidence.quoted += any(sign in cell for cell in row.fields)
    elif cells == row.fields:
        evidence.bare += 1
    else:
        wholly = _all_quoted(cells)
        # Most rows are as they stand, but for the quotes around their cells.
        same = [written[1:-1] if written[:1] == '"' else written for written in cells] == row.fields
        if not same and any(
            cell != written and written[1:-1] != cell for cell, written in zip(row.fields, cells, strict=True)
        ):
            evidence.quoted += 1
        elif wholly:
            evidence.wholly += 1
        else:
            evidence.doubtful += 1
        evidence.bare += any('"' in cell for cell in cells if cell[:1] != '"')
        evidence.all_quoted = evidence.all_quoted and wholly


def _all_quoted(cells: Sequence[str]) -> bool:
    return all(NUMBER.fullmatch(cell) is not None for cell in cells if cell and cell[0] != '"')


def _usual_width(counts: Sequence[int]) -> int:
    """How many cells most rows have; where it is as good, as many as the first."""
    if not counts:
        return 0
    times = Counter(counts)
    return max(times, key=lambda count: (times[count], count == counts[0], count))


def _first_rows(piece: Piece, reading: _Reading) -> list[list[str]]:
    if reading.dialect.quoted and reading.first_rows:
        rows = (row.fields for row in reading.first_rows if row.fields is not None)
    else:
        rows = (line.split(reading.dialect.delimiter) for line in piece.lines if line)
    return list(itertools.islice(rows, FIRST_ROWS))


def _say(
    file: InputFile,
    dialect: Dialect,
    evidence: _Evidence,
    encoding: str | None,
    asked: Asked,
    usual: str,
    notices: list[str],
) -> None:
    notes = [f"is {encoding}, read as such"] if encoding is not None else []
    chosen = []
    tabs = dialect.delimiter == "\t"
    if asked.delimiter is None and dialect.delimiter != usual:
        chosen.append(f"columns are separated by {CALLED.get(dialect.delimiter, repr(dialect.delimiter))}")
    if asked.quotes is None and not dialect.quoted and _matters(evidence):
        chosen.append("quotes are ordinary characters and stay in the texts")
    elif asked.quotes is None and dialect.quoted and tabs and _matters(evidence):
        chosen.append("quotes around cells are read as in CSV")
    elif asked.quotes is None and dialect.quoted and evidence.spanning and not evidence.quoted:
        chosen.append("quotes around cells are read as in CSV, also where a cell spans lines")
    if dialect.escaped:
        chosen.append('a quote within a cell is written \\"')
    if chosen:
        notes.append("; ".join(chosen) + SAID)
    if notes:
        say_once(notices, file.name, "; ".join(notes))


def _matters(evidence: _Evidence) -> bool:
    """Whether a row reads otherwise with quotes than without."""
    return evidence.quoted + evidence.plain + evidence.wholly + evidence.doubtful + evidence.spanning > 0


def say_once(notices: list[str], name: str, what: str) -> None:
    """Add a notice about a file; a notice about several files names the first and counts the others."""
    for at, notice in enumerate(notices):
        same = re.fullmatch(rf"(.*?)(?: and (\d+) more files?)?: {re.escape(what)}", notice, re.S)
        if same is not None:
            more = int(same[2] or 0) + 1
            notices[at] = f"{same[1]} and {more} more file{'s' if more > 1 else ''}: {what}"
            return
    notices.append(f"{name}: {what}")
