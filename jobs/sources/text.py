"""Pairs from JSONL, CSV and TSV: read by the standard library, so that no bad line costs another."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jobs.errors import SourceError
from jobs.sources.columns import Chosen, ColumnChooser, unlike
from jobs.sources.dialect import Asked, decided
from jobs.sources.files import InputFile
from jobs.sources.headers import looks_headerless, surely_header
from jobs.sources.lines import Line, Record, read_lines, read_records
from jobs.sources.rows import ROLES, PairBatch, Reject, judged, shortened, shown_name

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 8192
BATCH_CHARACTERS = 16 << 20
SAMPLE_ROWS = 1000
MOST_KEPT = 1000
SHOWN_CELLS = 4


@dataclass
class _Gathered:
    """Parsed rows that wait for their batch: ``cells`` are lists of fields, or JSON objects."""

    numbers: list[int] = field(default_factory=list)
    cells: list[Any] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    characters: int = 0

    def add(self, number: int, cells: Any, size: int) -> None:
        self.numbers.append(number)
        self.cells.append(cells)
        self.characters += size

    def reject(self, file: str, number: int, reason: str, text: str) -> None:
        self.rejects.append(Reject(file, number, None, reason, shortened(text)))

    @property
    def full(self) -> bool:
        return len(self.cells) + len(self.rejects) >= BATCH_ROWS or self.characters >= BATCH_CHARACTERS


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


def _gather_records(file: InputFile, records: Iterator[Record], width: int) -> Iterator[_Gathered]:
    gathered = _Gathered()
    for record in records:
        if record.problem is not None:
            gathered.reject(file.name, record.number, record.problem, record.text)
        elif len(record.fields) != width:
            gathered.reject(file.name, record.number, "wrong number of fields", record.text)
        else:
            gathered.add(record.number, record.fields, len(record.text))
        if gathered.full:
            yield gathered
            gathered = _Gathered()
    if gathered.cells or gathered.rejects:
        yield gathered


def _delimited_batch(file: InputFile, names: Sequence[str], chosen: Chosen, gathered: _Gathered) -> PairBatch:
    import pyarrow as pa

    columns = list(zip(*gathered.cells, strict=True)) if gathered.cells else [()] * len(names)
    at = {name: index for index, name in enumerate(names)}

    def column(name: str) -> pa.Array:
        return pa.array(columns[at[name]], pa.string())

    cells = {role: column(chosen.used[role]) if role in chosen.used else _nothing(gathered) for role in ROLES}
    kept = pa.table({name: column(name) for name in chosen.kept})
    batch = judged(file.name, pa.array(gathered.numbers, pa.int64()), cells, chosen.used, kept, untyped=True)
    return _with_rejects(batch, gathered.rejects)


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


def read_jsonl(file: InputFile, chooser: ColumnChooser) -> Iterator[PairBatch]:
    """Batches of a file with one JSON object a line; nested values pass through as JSON text."""
    with file.guard(), file.open_text() as stream:
        lines = read_lines(stream)
        first = next(lines, None)
        if first is None:
            return
        if first.text.strip() == "[":
            raise SourceError(f"{file.url}: holds a JSON array; one object a line is needed (JSONL)")
        asked: Chosen | None = None
        for gathered in _gather_objects(file, itertools.chain([first], lines)):
            names = list(dict.fromkeys(key for cells in gathered.cells for key in cells))
            if asked is None and gathered.cells:
                asked = chooser.choose(file.url, names, _string_keys(names, gathered.cells))
            if asked is None:
                yield _rejects_only(file, gathered)
                continue
            if chooser.keep == "all":
                taken = set(asked.used.values())
                asked = Chosen(asked.used, tuple(dict.fromkeys([*asked.kept, *(n for n in names if n not in taken)])))
            if len(asked.kept) > MOST_KEPT:
                raise SourceError(f"{file.url}: has more than {MOST_KEPT} columns; name those to keep with keep")
            yield _object_batch(file, asked, gathered)


def _gather_objects(file: InputFile, lines: Iterator[Line]) -> Iterator[_Gathered]:
    gathered = _Gathered()
    for line in lines:
        if line.problem is not None:
            gathered.reject(file.name, line.number, line.problem, line.text)
        elif line.text and not line.text.isspace():
            try:
                cells = json.loads(line.text)
            except (ValueError, RecursionError):
                gathered.reject(file.name, line.number, "not valid JSON", line.text)
            else:
                if not isinstance(cells, dict):
                    gathered.reject(file.name, line.number, "not a JSON object", line.text)
                elif not _storable(line.text, cells):
                    gathered.reject(file.name, line.number, "text that is not Unicode (a lone surrogate)", line.text)
                else:
                    gathered.add(line.number, cells, len(line.text))
        if gathered.full:
            yield gathered
            gathered = _Gathered()
    if gathered.cells or gathered.rejects:
        yield gathered


def _storable(text: str, cells: dict[str, Any]) -> bool:
    """Whether every text can be written as UTF-8; only an escape such as \\ud800 can make it otherwise."""
    if "\\u" not in text:
        return True
    try:
        json.dumps(cells, ensure_ascii=False).encode("utf-8")
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def _object_batch(file: InputFile, chosen: Chosen, gathered: _Gathered) -> PairBatch:
    import pyarrow as pa

    good = _Gathered(rejects=gathered.rejects)
    for number, cells in zip(gathered.numbers, gathered.cells, strict=True):
        reason = _wrong_type(cells, chosen.used)
        if reason is None:
            good.add(number, cells, 0)
        else:
            pair_id = _as_id(cells.get(chosen.used["id"])) if "id" in chosen.used else None
            text = shortened(json.dumps(cells, ensure_ascii=False))
            good.rejects.append(Reject(file.name, number, pair_id, reason, text))

    def column(role: str, convert: Callable[[Any], str | None]) -> pa.Array:
        name = chosen.used.get(role)
        return _nothing(good) if name is None else pa.array([convert(c.get(name)) for c in good.cells], pa.string())

    cells = {role: column(role, (lambda x: x) if role in ("a", "b") else _as_id) for role in ROLES}
    kept = pa.table({name: _kept_column(file, name, good) for name in chosen.kept})
    batch = judged(file.name, pa.array(good.numbers, pa.int64()), cells, chosen.used, kept, untyped=False)
    return _with_rejects(batch, good.rejects)


def _wrong_type(cells: dict[str, Any], used: dict[str, str]) -> str | None:
    for role in ("a", "b"):
        value = cells.get(used[role], cells)
        if value is cells:
            return f"no field '{shown_name(used[role])}'"
        if value is not None and not isinstance(value, str):
            return f"column '{shown_name(used[role])}' holds {_json_kind(value)}, not text"
    for role in ("id", "a_id", "b_id"):
        value = cells.get(used[role]) if role in used else None
        if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
            return f"column '{shown_name(used[role])}' holds {_json_kind(value)}, not an id"
    return None


def _json_kind(value: object) -> str:
    if isinstance(value, bool):
        return "a truth value"
    if isinstance(value, int | float):
        return "a number"
    return "a list" if isinstance(value, list) else "an object"


def _as_id(value: Any) -> str | None:
    return None if value is None or isinstance(value, bool | float | list | dict) else str(value)


def _kept_column(file: InputFile, name: str, gathered: _Gathered) -> pa.Array:
    """One passed-through column of a batch: numbers, truth values, text, or JSON text for what is nested."""
    import pyarrow as pa

    values = [cells.get(name) for cells in gathered.cells]
    if any(isinstance(value, list | dict) for value in values):
        values = [
            json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value for value in values
        ]
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError):
        first, last = gathered.numbers[0], gathered.numbers[-1]
        raise SourceError(
            f"{file.url}: column {shown_name(name)!r} holds values of different types (lines {first} to {last}); "
            "make them alike or leave the column out with keep"
        ) from None


def _string_keys(names: Sequence[str], objects: Sequence[dict[str, Any]]) -> list[str]:
    sample = objects[:SAMPLE_ROWS]
    return [name for name in names if any(isinstance(cells.get(name), str) for cells in sample)]


def _rejects_only(file: InputFile, gathered: _Gathered) -> PairBatch:
    import pyarrow as pa

    empty = pa.table({"file": pa.array([], pa.string()), "row": pa.array([], pa.int64())})
    for role in ROLES:
        empty = empty.append_column(role, pa.array([], pa.string()))
    return PairBatch(file.name, empty, pa.table({}), False, gathered.rejects)


def _with_rejects(batch: PairBatch, earlier: list[Reject]) -> PairBatch:
    rejects = sorted([*earlier, *batch.rejects], key=lambda reject: reject.row)
    return PairBatch(batch.file, batch.table, batch.kept, batch.untyped, rejects, batch.names)


def _nothing(gathered: _Gathered) -> pa.Array:
    import pyarrow as pa

    return pa.nulls(len(gathered.cells), pa.string())
