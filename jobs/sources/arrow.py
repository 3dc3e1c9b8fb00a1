"""Pairs from Parquet and Arrow IPC files, batch by batch, with every text checked to be one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from jobs.errors import SourceError
from jobs.sources.columns import Chosen, ColumnChooser
from jobs.sources.files import InputFile
from jobs.sources.rows import ROLES, PairBatch, Reject, judged, row_text, shown_name

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 8192
BATCH_BYTES = 32 << 20


def read_parquet(file: InputFile, chooser: ColumnChooser) -> Iterator[PairBatch]:
    """Batches of a Parquet file; only the columns in use are read."""
    import pyarrow.parquet as pq

    with file.guard(), file.open() as raw, pq.ParquetFile(raw) as parquet:
        chosen = _choose(file, parquet.schema_arrow, chooser)
        columns = list(dict.fromkeys([*chosen.used.values(), *chosen.kept]))
        total = sum(parquet.metadata.row_group(i).total_byte_size for i in range(parquet.metadata.num_row_groups))
        size = _rows_a_batch(total, parquet.metadata.num_rows)
        start = 1
        for batch in parquet.iter_batches(size, columns=columns):
            yield _batch(file, chosen, batch, start)
            start += batch.num_rows


def read_ipc(file: InputFile, chooser: ColumnChooser) -> Iterator[PairBatch]:
    """Batches of an Arrow IPC file or stream."""
    with file.guard(), file.open() as raw:
        chosen: Chosen | None = None
        start = 1
        for whole in _record_batches(raw):
            chosen = chosen or _choose(file, whole.schema, chooser)
            size = _rows_a_batch(whole.nbytes, whole.num_rows)
            for offset in range(0, whole.num_rows, size):
                part = whole.slice(offset, size)
                yield _batch(file, chosen, part, start)
                start += part.num_rows


def _record_batches(raw: BinaryIO) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    magic = raw.read(6)
    raw.seek(0)
    if magic == b"ARROW1":
        with pa.ipc.open_file(raw) as reader:
            for index in range(reader.num_record_batches):
                yield reader.get_batch(index)
    else:
        with pa.ipc.open_stream(raw) as reader:
            yield from reader


def _rows_a_batch(size: int, rows: int) -> int:
    return max(16, min(BATCH_ROWS, BATCH_BYTES * rows // max(1, size))) if rows else BATCH_ROWS


def _choose(file: InputFile, schema: pa.Schema, chooser: ColumnChooser) -> Chosen:
    chosen = chooser.choose(file.url, schema.names, [f.name for f in schema if _is_text(f.type)])
    for role, name in chosen.used.items():
        kind = schema.field(name).type
        if role in ("a", "b") and not _is_text(kind, binary=True):
            raise SourceError(f"{file.url}: column {shown_name(name)!r} holds {kind}, not text")
        if role not in ("a", "b") and not _is_id(kind):
            raise SourceError(f"{file.url}: column {shown_name(name)!r} holds {kind}, not ids (text or whole numbers)")
    twice = next((name for name in chosen.kept if schema.names.count(name) > 1), None)
    if twice is not None:
        raise SourceError(
            f"{file.url}: there are two columns {shown_name(twice)!r}; rename one or leave it out with keep"
        )
    return chosen


def _is_text(kind: pa.DataType, *, binary: bool = False) -> bool:
    import pyarrow.types as t

    if t.is_dictionary(kind):
        return _is_text(kind.value_type, binary=binary)
    if t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind):
        return True
    return binary and (t.is_binary(kind) or t.is_large_binary(kind) or t.is_null(kind))


def _is_id(kind: pa.DataType) -> bool:
    import pyarrow.types as t

    if t.is_dictionary(kind):
        return _is_id(kind.value_type)
    return _is_text(kind, binary=True) or t.is_integer(kind) or t.is_floating(kind)


def _batch(file: InputFile, chosen: Chosen, batch: pa.RecordBatch, start: int) -> PairBatch:
    import pyarrow as pa

    table = pa.Table.from_batches([batch])
    rows = pa.array(range(start, start + len(table)), pa.int64())
    table, rows, broken = _storable(file, chosen, table, rows)
    cells: dict[str, pa.Array] = {}
    for role in ROLES:
        name = chosen.used.get(role)
        cells[role] = pa.nulls(len(table), pa.string()) if name is None else strings(file, name, table[name])
    judgement = judged(file.name, rows, cells, chosen.used, table.select(list(chosen.kept)), untyped=False)
    if not broken:
        return judgement
    rejects = sorted([*broken, *judgement.rejects], key=lambda reject: reject.row)
    return PairBatch(file.name, judgement.table, judgement.kept, False, rejects, judgement.names)


def record_batches(file: InputFile) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet or Arrow file in batches of moderate size, all columns."""
    import pyarrow.parquet as pq

    with file.guard(), file.open() as raw:
        if file.kind == "parquet":
            with pq.ParquetFile(raw) as parquet:
                total = sum(parquet.metadata.row_group(i).total_byte_size for i in range(parquet.num_row_groups))
                yield from parquet.iter_batches(_rows_a_batch(total, parquet.metadata.num_rows))
            return
        for whole in _record_batches(raw):
            size = _rows_a_batch(whole.nbytes, whole.num_rows)
            for offset in range(0, whole.num_rows, size):
                yield whole.slice(offset, size)


def strings(file: InputFile, name: str, column: pa.ChunkedArray) -> pa.Array:
    """A column of ids as text; SourceError where it holds fractions."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as t

    if t.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if t.is_floating(column.type):  # whole numbers with gaps, as pandas stores them
        try:
            column = pc.cast(column, pa.int64())
        except pa.ArrowInvalid:
            raise SourceError(f"{file.url}: column {shown_name(name)!r} holds fractions, not ids") from None
    return pc.cast(column, pa.string()).combine_chunks()


def _storable(
    file: InputFile, chosen: Chosen, table: pa.Table, rows: pa.Array
) -> tuple[pa.Table, pa.Array, list[Reject]]:
    """The rows whose every text is valid UTF-8 (files are not checked when they are written), and the others."""
    import pyarrow as pa
    import pyarrow.types as t

    texts = [chosen.used[role] for role in ("a", "b")]
    for name in texts:  # text in a column that says it is bytes
        kind = table[name].type
        if t.is_binary(kind) or t.is_large_binary(kind):
            table = table.set_column(table.schema.get_field_index(name), name, table[name].combine_chunks().view(
                pa.string() if t.is_binary(kind) else pa.large_string()))  # fmt: skip
    bad: dict[int, str] = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if _valid(column):
            continue
        for index in range(len(column)):
            if index not in bad and not _valid(column.slice(index, 1)):
                bad[index] = f"invalid UTF-8 in column '{shown_name(name)}'"
    if not bad:
        return table, rows, []
    rejects = []
    for index, reason in sorted(bad.items()):
        cells = {name: _lossy(table[name].slice(index, 1)) for name in table.column_names}
        pair_id = cells.get(chosen.used.get("id", ""))
        shown = None if pair_id is None else str(pair_id)
        rejects.append(Reject(file.name, rows[index].as_py(), shown, reason, row_text(cells)))
    good = pa.array([index not in bad for index in range(len(table))])
    return table.filter(good), rows.filter(good), rejects


def _valid(column: Any) -> bool:
    import pyarrow as pa

    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _lossy(column: pa.ChunkedArray) -> Any:
    import pyarrow as pa

    one = column.combine_chunks()
    try:
        return one[0].as_py()
    except UnicodeDecodeError:
        if pa.types.is_dictionary(one.type):
            one = one.dictionary_decode()
        raw = one.view(pa.large_binary() if pa.types.is_large_string(one.type) else pa.binary())[0].as_py()
        return raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else str(raw)
