"""Pairs from CSV and TSV: read by the standard library, so a bad line does not affect others."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pyarrow as pa

from jobs.errors import SourceError
from jobs.sources.columns import Chosen, ColumnChooser, unlike
from jobs.sources.dialect import Asked, decided
from jobs.sources.files import InputFile
from jobs.sources.gathering import Gathered, nothing, with_rejects
from jobs.sources.headers import looks_headerless, surely_header
from jobs.sources.lines import Record, read_lines, read_records
from jobs.sources.rows import ROLES, PairBatch, judged, shown_name

SAMPLE_ROWS = 1000
SHOWN_CELLS = 4


def read_delimited(
    file: InputFile, chooser: ColumnChooser, header: bool | None, notices: list[str], asked: Asked | None = None
) -> Iterator[PairBatch]:
    """Batches of a CSV or TSV file; kept columns are text, typed later over all files.

    ``header`` is None where the job does not say whether there is one: there is, unless the first line reads like the
    rows below. Raises SourceError for a file that looks headerless, before any of its rows.
    """
    dialect, first_rows = decided(file, asked or Asked(), notices)
    if header is None and first_rows:
        _refuse_headerless(file, first_rows, chooser)
    elif header is False and first_rows and surely_header(first_rows[0], first_rows[1:]):
        notices.append(f"{file.name}: its first line looks like a header, and is read as a row (header: false)")
    with file.guard(), file.open_text() as stream:
        records = read_records(itertools.islice(read_lines(stream), dialect.skipped, None), dialect)
        if header is False:
            names = written = [f"column_{at + 1}" for at in range(dialect.width)]
        else:
            start = next(records, None)
            if start is None:
                return
            if start.problem is not None:
                raise SourceError(f"{file.url}: its first line cannot be read: {start.problem}")
            written = start.fields
            names = unlike(written, file.name, notices)
        chosen: Chosen | None = None
        for gathered in _gather_records(file, records, len(names)):
            if chosen is None:
                chosen = chooser.choose(file.url, names, _text_columns(names, gathered.cells))
                _refuse_ambiguous(file, chosen, written)
            yield _delimited_batch(file, names, chosen, gathered)
        if chosen is None and header is not False:  # a header alone must still fit the job
            chooser.choose(file.url, names, names)


def _refuse_ambiguous(file: InputFile, chosen: Chosen, written: Sequence[str]) -> None:
    twice = next((name for name in chosen.used.values() if written.count(name) > 1), None)
    if twice is not None:
        raise SourceError(f"{file.url}: there are two columns {shown_name(twice)!r}; rename one")


def _refuse_headerless(file: InputFile, rows: Sequence[Sequence[str]], chooser: ColumnChooser) -> None:
    """SourceError where the first line is no header."""
    if looks_headerless(rows[0], rows[1:], chooser.asked()):
        shown = ", ".join(repr(shown_name(cell)) for cell in rows[0][:SHOWN_CELLS])
        raise SourceError(
            f"{file.url}: looks headerless: add --no-header (header: false); its first line reads like a row: {shown}; "
            "or, if it does name the columns, add --header (header: true)"
        )


def _gather_records(file: InputFile, records: Iterator[Record], width: int) -> Iterator[Gathered]:
    gathered = Gathered()
    for record in records:
        if record.problem is not None:
            gathered.reject(file.name, record.number, record.problem, record.text)
        elif len(record.fields) != width:
            gathered.reject(file.name, record.number, "wrong number of fields", record.text)
        else:
            gathered.add(record.number, record.fields, len(record.text))
        if gathered.full:
            yield gathered
            gathered = Gathered()
    if gathered.cells or gathered.rejects:
        yield gathered


def _delimited_batch(file: InputFile, names: Sequence[str], chosen: Chosen, gathered: Gathered) -> PairBatch:
    columns = list(zip(*gathered.cells, strict=True)) if gathered.cells else [()] * len(names)
    at = {name: index for index, name in enumerate(names)}

    def column(name: str) -> pa.Array:
        return pa.array(columns[at[name]], pa.string())

    cells = {role: column(chosen.used[role]) if role in chosen.used else nothing(gathered) for role in ROLES}
    kept = pa.table({name: column(name) for name in chosen.kept})
    batch = judged(file.name, pa.array(gathered.numbers, pa.int64()), cells, chosen.used, kept, untyped=True)
    return with_rejects(batch, gathered.rejects)


def _text_columns(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The columns whose first cells are not all numbers."""
    sample = rows[:SAMPLE_ROWS]
    return [name for i, name in enumerate(names) if not sample or any(not _number(row[i]) for row in sample)]


def _number(cell: str) -> bool:
    try:
        float(cell or "0")
    except ValueError:
        return False
    return True
