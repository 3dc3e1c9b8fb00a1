"""Arrow columns as plain ones: no views, no dictionaries, no large types, and no value that could not be stored.

Few of Arrow's functions know the newer types, and readers do not check that text is UTF-8. Every column that a job uses
goes through here first; a bad value costs its row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as t

from jobs.sources.rows import shown_name

UUID = "arrow.uuid"


def bare_type(kind: pa.DataType) -> pa.DataType:
    """The type of a column's values, without extension, dictionary and run-length encoding."""
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = pa.string() if kind.extension_name == UUID else kind.storage_type
        elif t.is_dictionary(kind) or t.is_run_end_encoded(kind):
            kind = kind.value_type
        else:
            return kind


def is_text(kind: pa.DataType, *, binary: bool = False) -> bool:
    """Whether a column holds text; with ``binary`` also bytes, which may be text, and nulls alone."""
    kind = bare_type(kind)
    if t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind):
        return True
    return binary and (t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind) or t.is_null(kind))


def is_id(kind: pa.DataType) -> bool:
    """Whether a column may hold ids: text, whole numbers, or floats, which pandas makes of whole numbers with gaps."""
    kind = bare_type(kind)
    return is_text(kind, binary=True) or t.is_integer(kind) or t.is_floating(kind) or _is_whole_decimal(kind)


def _is_whole_decimal(kind: pa.DataType) -> bool:
    return bool(t.is_decimal(kind)) and kind.scale == 0


def sound_rows(table: pa.RecordBatch, texts: set[int]) -> tuple[pa.Table, dict[int, str]]:
    """The columns of ``table`` as plain ones, and the rows whose values are not valid with the reason of each.

    Columns at the places ``texts`` hold text, also where their type says bytes. The bad rows are null in the plain
    column. Raises ArrowNotImplementedError where a type cannot be read at all.
    """
    bad: dict[int, str] = {}
    columns = []
    for at, (name, column) in enumerate(zip(table.schema.names, table.columns, strict=True)):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            # Text is judged below, where a dictionary's value costs the rows that have it. What else is wrong must
            # not be touched before it is out of the way.
            if "UTF8" not in str(error):
                column = _without_invalid(column, name, bad)
        plain = plain_array(column)
        if at in texts and pa.types.is_binary(plain.type):
            plain = plain.view(pa.string())
        elif at in texts and pa.types.is_null(plain.type):
            plain = plain.cast(pa.string())
        columns.append(_without_bad_text(plain, name, bad))
    return pa.table(columns, names=table.schema.names), bad


def _without_invalid(column: pa.Array, name: str, bad: dict[int, str]) -> pa.Array:
    """The column with null for each value that its own type does not allow."""
    wrong = [at for at in range(len(column)) if not _allowed(column.slice(at, 1))]
    for at in wrong:
        bad.setdefault(at, f"column '{shown_name(name)}' holds a value that is none of {column.type}")
    return _with_nulls(column, wrong) if len(wrong) < len(column) else pa.nulls(len(column), pa.string())


def _allowed(one: pa.Array) -> bool:
    try:
        one.validate(full=True)
    except pa.ArrowInvalid as error:
        return "UTF8" in str(error)
    return True


def _without_bad_text(plain: pa.Array, name: str, bad: dict[int, str]) -> pa.Array:
    if _valid(plain):
        return plain
    wrong = list(_invalid(plain, 0))
    for at in wrong:
        bad.setdefault(at, f"invalid UTF-8 in column '{shown_name(name)}'")
    return _with_nulls(plain, wrong)


def _invalid(part: pa.Array, start: int) -> Any:
    """Places of the values that are not valid, by halves: they are few."""
    if _valid(part):
        return
    if len(part) == 1:
        yield start
        return
    half = len(part) // 2
    for offset, size in ((0, half), (half, len(part) - half)):
        # A slice of a nested column would be judged by all its values.
        yield from _invalid(part.take(pa.array(range(offset, offset + size))), start + offset)


def _valid(column: pa.Array) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _with_nulls(column: pa.Array, places: list[int]) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        return pa.DictionaryArray.from_arrays(_with_nulls(column.indices, places), column.dictionary, safe=False)
    parts, start = [], 0
    for at in places:
        parts += [column.slice(start, at - start), pa.nulls(1, column.type)]
        start = at + 1
    return pa.concat_arrays([*parts, column.slice(start)])


def plain_array(column: pa.Array) -> pa.Array:
    """The values of ``column`` in string, binary, list, struct or a type of fixed width; text is not checked here."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        if kind.extension_name == UUID:
            return pa.array([None if one is None else str(one) for one in column.to_pylist()], pa.string())
        return plain_array(column.storage)
    if t.is_dictionary(kind):
        return plain_array(column.dictionary).take(column.indices)
    if t.is_run_end_encoded(kind):
        return plain_array(column.values).take(_run_of_each(column))
    if t.is_string_view(kind):
        return column.view(pa.binary_view()).cast(pa.binary()).view(pa.string())
    if t.is_large_string(kind):
        return column.view(pa.large_binary()).cast(pa.binary()).view(pa.string())
    if t.is_binary_view(kind) or t.is_large_binary(kind) or t.is_fixed_size_binary(kind):
        return column.cast(pa.binary())
    if t.is_map(kind):
        return _list_of(column, pa.StructArray.from_arrays([column.keys, column.items], ["key", "value"]))
    if t.is_list_view(kind) or t.is_large_list_view(kind):
        return _list_of_view(column)
    if t.is_large_list(kind) or t.is_fixed_size_list(kind):
        column = column.cast(pa.list_(kind.value_field))
        return _list_of(column, column.values)
    if t.is_list(kind):
        return _list_of(column, column.values)
    if t.is_struct(kind):
        names = [kind.field(at).name for at in range(kind.num_fields)]
        if not names:
            return column
        parts = [plain_array(column.field(at)) for at in range(kind.num_fields)]
        return pa.StructArray.from_arrays(parts, names, mask=column.is_null())
    return column


def _list_of(column: pa.Array, values: pa.Array) -> pa.Array:
    """A list of the plain form of ``values``, with the bounds of ``column``; only the values in use are converted."""
    if not len(column):
        return pa.array([], pa.list_(plain_array(values.slice(0, 0)).type))
    offsets = column.offsets
    first, last = offsets[0].as_py(), offsets[-1].as_py()
    inner = plain_array(values.slice(first, last - first))
    moved = pc.cast(pc.subtract(offsets, offsets[0]), pa.int32())
    return pa.ListArray.from_arrays(moved, inner, mask=column.is_null())


def _list_of_view(column: pa.Array) -> pa.Array:
    """A list view, whose lists may overlap and lie in any order, as a list; Arrow's own cast errs on slices."""
    sizes = pc.if_else(column.is_valid(), column.sizes, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    starts = pc.fill_null(column.offsets, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    ends = np.cumsum(sizes)
    places = np.arange(sizes.sum()) + np.repeat(starts - (ends - sizes), sizes)
    offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
    return pa.ListArray.from_arrays(offsets, plain_array(column.values).take(pa.array(places)), mask=column.is_null())


def _run_of_each(column: pa.Array) -> pa.Array:
    """Which value of a run-end encoded column each row has."""
    rows = np.arange(column.offset, column.offset + len(column))
    return pa.array(np.searchsorted(column.run_ends.to_numpy(), rows, side="right"))


def shown_cell(column: pa.Array, at: int) -> Any:
    """A value of any column for the rejects, with what is no text escaped."""
    one = column.slice(at, 1)
    if not _allowed(one):
        return "(not valid)"
    plain = plain_array(one)
    return _readable(plain.view(_bytes_type(plain.type))[0].as_py())


def _bytes_type(kind: pa.DataType) -> pa.DataType:
    if t.is_string(kind):
        return pa.binary()
    if t.is_list(kind):
        return pa.list_(pa.field(kind.value_field.name, _bytes_type(kind.value_type), kind.value_field.nullable))
    if t.is_struct(kind):
        fields = [kind.field(at) for at in range(kind.num_fields)]
        return pa.struct([pa.field(one.name, _bytes_type(one.type), one.nullable) for one in fields])
    return kind


def _readable(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, list):
        return [_readable(one) for one in value]
    if isinstance(value, dict):
        return {name: _readable(one) for name, one in value.items()}
    return value


def id_strings(column: pa.Array, name: str) -> tuple[pa.Array, dict[int, str]]:
    """A plain column of ids as text, and why some rows have none: fractions are no ids."""
    bad: dict[int, str] = {}
    if t.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        whole = pc.and_(pc.equal(column, pc.floor(column)), pc.less(pc.abs(column), 2.0**63))
        for at in pc.indices_nonzero(pc.invert(pc.fill_null(whole, True))).to_pylist():
            bad[at] = f"column '{shown_name(name)}' holds {column[at].as_py():g}, which is no id"
        column = pc.cast(pc.if_else(whole, column, pa.scalar(None, column.type)), pa.int64())
    return pc.cast(column, pa.string()), bad
