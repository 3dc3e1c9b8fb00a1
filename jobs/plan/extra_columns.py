"""Columns that pass through a job untouched: gathered from every file under one schema, with unique names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as t

from jobs.errors import SourceError
from jobs.sources.rows import NUMBERS, PairBatch, number_mark, shown_name
from jobs.storage.duckdb import one_row

DECIMAL = "-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][+-]?[0-9]+)?"


@dataclass
class _Group:
    """Batches of one schema, in one local IPC file with columns ``ordinal``, ``k0``, ``k1`` …

    ``marks``: for a column of text that may become numbers NUMBERS or WRITTEN_NUMBERS (JSON), or empty (CSV, TSV);
    None for a column whose type is fixed. ``numeric``: the columns of text that are nothing but numbers.
    """

    names: list[str]
    types: list[pa.DataType]
    marks: list[bytes | None]
    path: Path
    writer: Any
    files: list[str] = field(default_factory=list)
    numeric: set[int] = field(default_factory=set)


class PassedThrough:
    """Columns that pass through the plan to the output."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._groups: dict[tuple[Any, ...], _Group] = {}

    def add(self, batch: PairBatch, ordinals: pa.Array) -> None:
        """Store the passed-through columns of ``batch``, whose rows have these ordinals."""
        if not batch.kept.num_columns:
            return
        names = list(batch.kept.column_names)
        columns = [_plain(batch.kept[name]) for name in names]
        marks = [b"" if batch.untyped else number_mark(kind) for kind in batch.kept.schema]
        key = (tuple(names), tuple(str(column.type) for column in columns), tuple(marks))
        group = self._groups.get(key)
        fields = [
            pa.field(f"k{i}", column.type, metadata={mark: b""} if mark else None)
            for i, (column, mark) in enumerate(zip(columns, marks, strict=True))
        ]
        table = pa.table([ordinals, *columns], schema=pa.schema([pa.field("ordinal", pa.int64()), *fields]))
        if group is None:
            path = self._folder / f"kept-{len(self._groups)}.arrow"
            types = [column.type for column in columns]
            group = _Group(names, types, marks, path, pa.ipc.new_file(str(path), table.schema))
            self._groups[key] = group
        if not group.files or group.files[-1] != batch.file:
            group.files.append(batch.file)
        group.writer.write_table(table)

    def collect(self, con: duckdb.DuckDBPyConnection, reserved: set[str], notices: list[str]) -> pa.Schema:
        """Table ``kept`` (ordinal, k0, k1 …) in ``con``, and the schema with the names that the output uses.

        Raises SourceError where a column's types in different files have nothing in common.
        """
        groups = list(self._groups.values())
        tables = {}
        for index, group in enumerate(groups):
            group.writer.close()
            tables[index] = pa.ipc.open_file(pa.memory_map(str(group.path))).read_all()
            con.register(f"kept_{index}", tables[index])
            for at, mark in enumerate(group.marks):
                if mark is not None:
                    group.types[at], numeric = _text_type(con, f"kept_{index}", at, mark)
                    group.numeric |= {at} if numeric else set()
        uses_of: dict[str, list[tuple[_Group, int]]] = {}
        for group in groups:
            for at, name in enumerate(group.names):
                uses_of.setdefault(name, []).append((group, at))
        schema = pa.schema([(name, _common_type(name, uses)) for name, uses in uses_of.items()])
        self._fill(con, groups, schema)
        return pa.schema(
            [pa.field(new, f.type) for new, f in zip(_apart(schema.names, reserved, notices), schema, strict=True)]
        )

    def sources(self) -> Iterator[tuple[list[str], pa.Table]]:
        """The columns as they were added, for each set of names: ``ordinal``, ``k0``, ``k1`` … stand for them.

        To be called after :meth:`collect`.
        """
        for group in self._groups.values():
            yield group.names, pa.ipc.open_file(pa.memory_map(str(group.path))).read_all()

    def _fill(self, con: duckdb.DuckDBPyConnection, groups: list[_Group], schema: pa.Schema) -> None:
        numbered = pa.schema([("ordinal", pa.int64()), *((f"k{i}", f.type) for i, f in enumerate(schema))])
        con.register("kept_shape", numbered.empty_table())
        con.execute("CREATE TABLE kept AS SELECT * FROM kept_shape")
        con.unregister("kept_shape")
        for index, group in enumerate(groups):
            targets = [schema.get_field_index(name) for name in group.names]
            values = []
            for i, target in enumerate(targets):
                typed = group.marks[i] is not None and not pa.types.is_string(schema.field(target).type)
                values.append(f"nullif(k{i}, '')" if typed else f"k{i}")
            into = ", ".join(f"k{target}" for target in targets)
            con.execute(f"INSERT INTO kept (ordinal, {into}) SELECT ordinal, {', '.join(values)} FROM kept_{index}")
            con.unregister(f"kept_{index}")


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column in a type that is written to the output without loss; text where there is none."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)
        kind = column.type
    if t.is_dictionary(kind):
        return _plain(pc.cast(column, kind.value_type))
    if t.is_large_string(kind) or t.is_string_view(kind):
        return pc.cast(column, pa.string())
    if t.is_float16(kind):
        return pc.cast(column, pa.float32())
    if _carried(kind):
        return column
    try:
        return pc.cast(column, pa.string())
    except pa.ArrowException:
        return pa.chunked_array([pa.array([_shown(v) for v in column.to_pylist()], pa.string())])


def _carried(kind: pa.DataType) -> bool:
    if t.is_list(kind):
        return _carried(kind.value_type)
    if t.is_struct(kind):
        return all(_carried(kind.field(i).type) for i in range(kind.num_fields))
    if t.is_timestamp(kind):
        return kind.unit == "us" or (kind.tz is None and kind.unit != "ns") or kind.tz is None
    plain = (t.is_boolean, t.is_integer, t.is_float32, t.is_float64, t.is_string, t.is_binary, t.is_date32, t.is_null)
    return any(test(kind) for test in plain) or t.is_decimal128(kind)


def _shown(value: object) -> str | None:
    return None if value is None else str(value)


def _text_type(con: duckdb.DuckDBPyConnection, table: str, index: int, mark: bytes) -> tuple[pa.DataType, bool]:
    """The type that all cells of a column of text share, and whether they are all numbers.

    Whole numbers and numbers are those whose text comes back the same; of JSON, whose numbers have many spellings,
    those that are the same number. All else is text.
    """
    name = f"k{index}"
    whole, same, numeric = one_row(
        con,
        f"""
        SELECT bool_and(coalesce(try_cast({name} AS BIGINT)::VARCHAR = {name}, false)),
               bool_and(coalesce(try_cast({name} AS DOUBLE)::VARCHAR = {name}, false)),
               bool_and(regexp_full_match({name}, '{DECIMAL}'))
        FROM {table} WHERE {name} <> ''
    """,
    )
    if whole is None:
        return pa.string(), False
    if whole:
        return pa.int64(), True
    if mark == NUMBERS or (mark == b"" and same and numeric):
        return pa.float64(), True
    return pa.string(), mark != b"" or bool(numeric)


def _common_type(name: str, uses: list[tuple[_Group, int]]) -> pa.DataType:
    kinds = [group.types[at] for group, at in uses]
    marks = [group.marks[at] for group, at in uses]
    if all(mark is not None for mark in marks) and len(set(kinds)) > 1:
        # Text as it is written can always stay so; numbers of JSON are the same as floats where each of them is.
        return pa.float64() if set(marks) == {NUMBERS} else pa.string()
    common = pa.null()
    for (group, at), kind in zip(uses, kinds, strict=True):
        # Beside a column of typed numbers, text that is numbers is numbers too.
        if pa.types.is_string(kind) and at in group.numeric and _beside_numbers(kinds, marks):
            kind = pa.float64()
        try:
            merged = pa.unify_schemas(
                [pa.schema([("x", common)]), pa.schema([("x", kind)])], promote_options="permissive"
            )
        except pa.ArrowException:
            before, after = uses[0][0].files[0], group.files[0]
            where = before if before == after else f"{before} and {after}"
            raise SourceError(
                f"{where}: column {shown_name(name)!r} is {common} in one place and {kind} in another; "
                "give it one type, or leave the column out with keep"
            ) from None
        common = merged.field(0).type
    return pa.string() if pa.types.is_null(common) else common


def _beside_numbers(kinds: list[pa.DataType], marks: list[bytes | None]) -> bool:
    return any(mark is None and (t.is_integer(k) or t.is_floating(k)) for k, mark in zip(kinds, marks, strict=True))


def _apart(names: list[str], reserved: set[str], notices: list[str]) -> list[str]:
    """Output names for passed-through columns: none is one of the output's own, and no two differ by case alone.

    SQL would treat such names as the same column.
    """
    taken = {name.lower() for name in reserved}
    result = []
    for name in names:
        new = name if name.strip() else "column_unnamed"
        count = 1
        while new.lower() in taken:
            count += 1
            new = f"{name}_input" if count == 2 else f"{name}_input_{count - 1}"
        if new != name:
            notices.append(
                f"column {shown_name(name)!r} is passed through as {new!r}: the output uses that name itself"
            )
        taken.add(new.lower())
        result.append(new)
    return result
