"""The result of every reader: batches of good rows, and the rejected rows with their reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.sources.json_values import Number, written

ROW_TEXT_CHARACTERS = 4000
ROLES = ("a", "b", "id", "a_id", "b_id")
# Of a field in ``PairBatch.kept``: its text is numbers as they are written in JSON, which floats hold, or do not all.
NUMBERS, WRITTEN_NUMBERS = b"numbers", b"written numbers"


@dataclass(frozen=True)
class Reject:
    """A row that is not attributed. ``row`` counts from 1: lines of a text file, rows of a Parquet or Arrow file."""

    file: str
    row: int
    pair_id: str | None
    reason: str
    row_text: str


@dataclass(frozen=True)
class PairBatch:
    """Good rows of one file, in their order.

    ``table``: file (string), row (int64), a, b (string, neither null nor blank), id, a_id, b_id (string or null).
    ``kept``: the columns passed through, as many rows. ``untyped`` says that they come from a format without
    types, in which numbers are text. ``rejects`` are the bad rows among them. ``names`` has the column that
    each of a, b, id, a_id, b_id came from.
    """

    file: str
    table: pa.Table
    kept: pa.Table
    untyped: bool
    rejects: list[Reject]
    names: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.table.num_rows)


def shortened(text: str) -> str:
    """A row's text for the rejects: without what cannot be stored, and cut where it is very long."""
    clean = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return clean if len(clean) <= ROW_TEXT_CHARACTERS else clean[:ROW_TEXT_CHARACTERS] + "…"


def shown_name(name: str) -> str:
    """A column's name for a message: on one line, and not too long."""
    line = " ".join(name.split())
    return line if len(line) <= 60 else line[:60] + "…"


def number_mark(kind: pa.Field) -> bytes | None:
    """NUMBERS or WRITTEN_NUMBERS, where a kept column is marked so."""
    return next((mark for mark in (NUMBERS, WRITTEN_NUMBERS) if mark in (kind.metadata or {})), None)


def with_numbers(cells: dict[str, Any], fields: Sequence[pa.Field], names: Sequence[str]) -> dict[str, Any]:
    """A row's cells for :func:`row_text`: the text of ``fields``, called ``names`` here, that is numbers as numbers."""
    marked = {name for kind, name in zip(fields, names, strict=True) if number_mark(kind) is not None}
    return {name: Number(cell) if name in marked and cell is not None else cell for name, cell in cells.items()}


def row_text(cells: dict[str, Any]) -> str:
    """A row of a typed file as one line of JSON."""
    return shortened(written(cells, _plain))


def _plain(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def judged(
    file: str, rows: pa.Array, cells: dict[str, pa.Array], names: dict[str, str], kept: pa.Table, untyped: bool
) -> PairBatch:
    """A batch of the rows whose two texts can be attributed; the others become rejects.

    ``rows`` [n] int64; ``cells`` a, b, id, a_id, b_id, each [n] string; ``names`` the column each came from.
    """
    reasons = pc.coalesce(_blank(cells["a"], names["a"]), _blank(cells["b"], names["b"]))
    table = pa.table(
        {"file": pa.repeat(pa.scalar(file), len(rows)), "row": rows, **{role: cells[role] for role in ROLES}}
    )
    for role in ("id", "a_id", "b_id"):  # a blank id is no id
        index = table.schema.get_field_index(role)
        column = table[role]
        table = table.set_column(index, role, pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column))
    good = pc.is_null(reasons)
    rejects: list[Reject] = []
    if good.false_count:
        bad = pc.indices_nonzero(pc.invert(good))
        texts = table.take(bad).to_pylist()
        others = kept.take(bad).to_pylist() if kept.num_columns else [{}] * len(texts)
        others = [with_numbers(one, list(kept.schema), kept.column_names) for one in others]
        for line, more, why in zip(texts, others, reasons.take(bad).to_pylist(), strict=True):
            rejects.append(Reject(file, line["row"], line["id"], why, row_text(as_in_source(line, names, more))))
        table = table.filter(good)
        kept = kept.filter(good) if kept.num_columns else kept
    return PairBatch(file, table, kept, untyped, rejects, names)


def as_in_source(cells: dict[str, Any], names: dict[str, str], kept: dict[str, Any]) -> dict[str, Any]:
    """A row under its source's own column names; ``cells`` has a, b, id, a_id, b_id and may have more."""
    return {names[role]: cells[role] for role in ROLES if role in names} | kept


def _blank(column: pa.Array, name: str) -> pa.Array:
    """Why a cell cannot be attributed, or null where it can; [n] string."""
    name = shown_name(name)
    nothing = pa.scalar(None, pa.string())
    space = pc.equal(pc.utf8_trim_whitespace(column), "")
    filled = pc.if_else(
        pc.equal(pc.binary_length(column), 0),
        f"column '{name}' is empty",
        pc.if_else(space, f"column '{name}' holds only white space", nothing),
    )
    return pc.if_else(pc.is_null(column), f"column '{name}' is null", filled)
