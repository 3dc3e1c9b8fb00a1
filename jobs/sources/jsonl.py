"""Pairs from JSONL: one object a line, so a bad line does not affect others. Numbers stay as they are written."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from jobs.errors import SourceError
from jobs.sources.columns import Chosen, ColumnChooser
from jobs.sources.files import InputFile
from jobs.sources.gathering import Gathered, nothing, with_rejects
from jobs.sources.json_values import Number, parsed, written
from jobs.sources.lines import Line, read_lines
from jobs.sources.rows import NUMBERS, ROLES, WRITTEN_NUMBERS, PairBatch, Reject, judged, shortened, shown_name

SAMPLE_ROWS = 1000
MOST_KEPT = 1000


def read_jsonl(file: InputFile, chooser: ColumnChooser) -> Iterator[PairBatch]:
    """Batches of a file with one JSON object a line; nested values pass through as JSON text."""
    with file.guard(), file.open_text() as stream:
        lines = read_lines(stream)
        first = next(lines, None)
        if first is None:
            return
        if first.text.strip() == "[":
            raise SourceError(f"{file.url}: contains a JSON array; JSONL needs one object per line")
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


def _gather_objects(file: InputFile, lines: Iterator[Line]) -> Iterator[Gathered]:
    gathered = Gathered()
    for line in lines:
        if line.problem is not None:
            gathered.reject(file.name, line.number, line.problem, line.text)
        elif line.text and not line.text.isspace():
            try:
                cells = parsed(line.text)
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
            gathered = Gathered()
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


def _object_batch(file: InputFile, chosen: Chosen, gathered: Gathered) -> PairBatch:
    good = Gathered(rejects=gathered.rejects)
    for number, cells in zip(gathered.numbers, gathered.cells, strict=True):
        reason = _wrong_type(cells, chosen.used)
        if reason is None:
            good.add(number, cells, 0)
        else:
            pair_id = _as_id(cells.get(chosen.used["id"])) if "id" in chosen.used else None
            text = shortened(written(cells))
            good.rejects.append(Reject(file.name, number, pair_id, reason, text))

    def column(role: str, convert: Callable[[Any], str | None]) -> pa.Array:
        name = chosen.used.get(role)
        return nothing(good) if name is None else pa.array([convert(c.get(name)) for c in good.cells], pa.string())

    cells = {role: column(role, (lambda x: x) if role in ("a", "b") else _as_id) for role in ROLES}
    columns = [_kept_column(file, name, good) for name in chosen.kept]
    kept = pa.table([column for _, column in columns], schema=pa.schema([kind for kind, _ in columns]))
    batch = judged(file.name, pa.array(good.numbers, pa.int64()), cells, chosen.used, kept, untyped=False)
    return with_rejects(batch, good.rejects)


def _wrong_type(cells: dict[str, Any], used: dict[str, str]) -> str | None:
    for role in ("a", "b"):
        value = cells.get(used[role], cells)
        if value is cells:
            return f"no field '{shown_name(used[role])}'"
        if value is not None and (isinstance(value, Number) or not isinstance(value, str)):
            return f"column '{shown_name(used[role])}' holds {_json_kind(value)}, not text"
    for role in ("id", "a_id", "b_id"):
        value = cells.get(used[role]) if role in used else None
        if value is not None and _as_id(value) is None:
            return f"column '{shown_name(used[role])}' holds {_json_kind(value)}, not an id"
    return None


def _json_kind(value: object) -> str:
    if isinstance(value, bool):
        return "a truth value"
    if isinstance(value, Number):
        return "a number"
    return "a list" if isinstance(value, list) else "an object"


def _as_id(value: Any) -> str | None:
    if isinstance(value, Number):
        return str(value) if value.whole else None
    return value if isinstance(value, str) else None


def _kept_column(file: InputFile, name: str, gathered: Gathered) -> tuple[pa.Field, pa.Array]:
    """One passed-through column of a batch: truth values, text, JSON text for what is nested, numbers as written.

    A column of numbers says so in its field, and is typed with those of all batches.
    """
    values = [cells.get(name) for cells in gathered.cells]
    there = [value for value in values if value is not None]
    if there and all(isinstance(value, Number) for value in there):
        kept = NUMBERS if all(value.kept_by_float for value in dict.fromkeys(there)) else WRITTEN_NUMBERS
        return pa.field(name, pa.string(), metadata={kept: b""}), pa.array(values, pa.string())
    if any(isinstance(value, list | dict) for value in there):
        values = [written(value) if isinstance(value, list | dict) else value for value in values]
    try:
        if any(isinstance(value, Number) for value in there):
            raise TypeError
        column = pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError):
        first, last = gathered.numbers[0], gathered.numbers[-1]
        raise SourceError(
            f"{file.url}: column {shown_name(name)!r} holds values of different types (lines {first} to {last}); "
            "give them one type, or leave the column out with keep"
        ) from None
    return pa.field(name, column.type), column


def _string_keys(names: Sequence[str], objects: Sequence[dict[str, Any]]) -> list[str]:
    sample = objects[:SAMPLE_ROWS]
    text = [{name for name, value in cells.items() if _is_text(value)} for cells in sample]
    there = set().union(*text)
    return [name for name in names if name in there]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not isinstance(value, Number)


def _rejects_only(file: InputFile, gathered: Gathered) -> PairBatch:
    empty = pa.table({"file": pa.array([], pa.string()), "row": pa.array([], pa.int64())})
    for role in ROLES:
        empty = empty.append_column(role, pa.array([], pa.string()))
    return PairBatch(file.name, empty, pa.table({}), False, gathered.rejects)
