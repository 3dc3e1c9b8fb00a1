"""Rows of Parquet and Arrow IPC files, batch by batch; every text is checked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.errors import SourceError
from jobs.sources.arrow_values import id_strings, is_id, is_text, shown_cell, sound_rows
from jobs.sources.columns import Chosen, ColumnChooser
from jobs.sources.files import InputFile
from jobs.sources.rows import ROLES, PairBatch, Reject, judged, row_text, shown_name

BATCH_ROWS = 8192
BATCH_BYTES = 32 << 20
# How files begin that bear an Arrow or Parquet file's name and are none, and what to do about them.
OTHER_FILES = {
    b"version https://git-lfs": "is a pointer of git-lfs, not the file itself; run git lfs pull",
    b"PARE": "is encrypted Parquet, which is not read; write it without encryption",
    b"FEA1": "is Feather of version 1, which is not read; write it as version 2 (Arrow IPC)",
    b"\x1f\x8b": "is packed with gzip; unpack it first",
    b"\x28\xb5\x2f\xfd": "is packed with zstd; unpack it first",
    b"PK\x03\x04": "is a zip archive; unpack it first",
}
PARQUET, IPC_FILE, IPC_STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
SHOWN_BYTES = 20


@dataclass(frozen=True)
class _Opened:
    """An open file: ``batches`` reads the columns of given names, or all of them."""

    schema: pa.Schema
    batches: Callable[[Sequence[str] | None], Iterator[pa.RecordBatch]]


def read_arrow(file: InputFile, chooser: ColumnChooser) -> Iterator[PairBatch]:
    """Batches of a Parquet file, or of an Arrow IPC file or stream; only the columns in use are looked at.

    Raises SourceError where the file is damaged or none of these, or where a column in use cannot be read.
    """
    with _opened(file) as source:
        chosen = _choose(file, source.schema, chooser)
        columns = list(dict.fromkeys([*chosen.used.values(), *chosen.kept]))
        start = 1
        for batch in source.batches(columns):
            yield _batch(file, chosen, batch, start)
            start += batch.num_rows


@contextlib.contextmanager
def _opened(file: InputFile) -> Iterator[_Opened]:
    """The opened file; its content decides the format, not its name. Only errors of decoding mean a damaged file."""
    with contextlib.ExitStack() as stack:
        with file.guard(), _supported(file):
            raw = stack.enter_context(file.open())
            opened = _parquet(stack, file, raw) if _is_parquet(file, raw) else _ipc(stack, file, raw)
        yield opened


def _is_parquet(file: InputFile, raw: BinaryIO) -> bool:
    """Whether a file is Parquet, else it is Arrow IPC; SourceError where it is neither."""
    if not file.size:
        raise SourceError(f"{file.url}: is empty (0 bytes)")
    head = raw.read(64)
    raw.seek(0)
    if head.startswith((PARQUET, IPC_FILE, IPC_STREAM)):
        return head.startswith(PARQUET)
    other = next((what for begin, what in OTHER_FILES.items() if head.startswith(begin)), None)
    if other is not None:
        raise SourceError(f"{file.url}: {other}")
    if file.kind != "parquet" and _is_old_stream(raw):
        return False
    called = "Parquet" if file.kind == "parquet" else "Arrow IPC"
    begin = head[:SHOWN_BYTES].decode("utf-8", "backslashreplace").encode("unicode_escape").decode()
    raise SourceError(f"{file.url}: is not {called}: it begins with '{begin}'")


def _is_old_stream(raw: BinaryIO) -> bool:
    """Whether this is a stream as Arrow wrote it before version 0.15, which begins with a length alone."""
    try:
        pa.ipc.open_stream(raw)
    except (pa.ArrowException, OSError, MemoryError):
        return False
    finally:
        raw.seek(0)
    return True


@contextlib.contextmanager
def _supported(file: InputFile) -> Iterator[None]:
    """Raise SourceError for a file that is undamaged but not supported."""
    try:
        yield
    except pa.ArrowNotImplementedError as error:
        why = str(error).split("\n", 1)[0]
        raise SourceError(
            f"{file.url}: is not supported by Arrow {pa.__version__}: {why}; write it in another form"
        ) from None


def _parquet(stack: contextlib.ExitStack, file: InputFile, raw: BinaryIO) -> _Opened:
    parquet = stack.enter_context(pq.ParquetFile(raw))
    footer = parquet.metadata
    total = sum(footer.row_group(at).total_byte_size for at in range(footer.num_row_groups))

    def batches(columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        size = _rows_a_batch(total, footer.num_rows)
        return _guarded(file, parquet.iter_batches(size, columns=None if columns is None else list(columns)))

    return _Opened(parquet.schema_arrow, batches)


def _ipc(stack: contextlib.ExitStack, file: InputFile, raw: BinaryIO) -> _Opened:
    if raw.read(len(IPC_FILE)) == IPC_FILE:
        reader = stack.enter_context(pa.ipc.open_file(raw))
        whole = (reader.get_batch(at) for at in range(reader.num_record_batches))
    else:
        raw.seek(0)
        reader = stack.enter_context(pa.ipc.open_stream(raw))
        whole = iter(reader)

    def batches(columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        for one in _guarded(file, whole):
            places = range(one.num_columns) if columns is None else [one.schema.names.index(name) for name in columns]
            one = one.select(list(places))
            size = _rows_a_batch(_bytes(one), one.num_rows)
            for offset in range(0, one.num_rows, size):
                yield one.slice(offset, size)

    return _Opened(reader.schema, batches)


def _guarded(file: InputFile, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    while True:
        with file.guard(), _supported(file):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _bytes(batch: pa.RecordBatch) -> int:
    try:
        return int(batch.nbytes)
    except pa.ArrowException:  # not known for every type
        return int(batch.get_total_buffer_size())


def _rows_a_batch(size: int, rows: int) -> int:
    return max(16, min(BATCH_ROWS, BATCH_BYTES * rows // max(1, size))) if rows else BATCH_ROWS


def _choose(file: InputFile, schema: pa.Schema, chooser: ColumnChooser) -> Chosen:
    chosen = chooser.choose(file.url, schema.names, [f.name for f in schema if is_text(f.type)])
    for role, name in chosen.used.items():
        kind = schema.field(name).type
        if role in ("a", "b") and not is_text(kind, binary=True):
            raise SourceError(f"{file.url}: column {shown_name(name)!r} holds {kind}, not text")
        if role not in ("a", "b") and not is_id(kind):
            raise SourceError(f"{file.url}: column {shown_name(name)!r} holds {kind}, not ids (text or whole numbers)")
    twice = next((name for name in chosen.kept if schema.names.count(name) > 1), None)
    if twice is not None:
        raise SourceError(
            f"{file.url}: there are two columns {shown_name(twice)!r}; rename one or leave it out with keep"
        )
    return chosen


def _batch(file: InputFile, chosen: Chosen, batch: pa.RecordBatch, start: int) -> PairBatch:
    names = batch.schema.names
    table, bad = _sound(file, batch, {names.index(name) for name in chosen.used.values()})
    ids = {role: name for role, name in chosen.used.items() if role not in ("a", "b")}
    texts = {name: table[name].combine_chunks() for name in chosen.used.values()}
    for name in ids.values():
        if not is_text(texts[name].type):
            texts[name], wrong = id_strings(texts[name], name)
            bad = wrong | bad
    rows = pa.array(range(start, start + len(table)), pa.int64())
    rejects = [
        Reject(file.name, start + at, _cell(texts.get(ids.get("id", "")), at), bad[at], _shown_row(batch, at))
        for at in sorted(bad)
    ]
    good = pa.array([at not in bad for at in range(len(table))], pa.bool_()) if bad else None
    cells: dict[str, pa.Array] = {}
    for role in ROLES:
        column = texts[chosen.used[role]] if role in chosen.used else pa.nulls(len(table), pa.string())
        cells[role] = column if good is None else column.filter(good)
    kept = table.select(list(chosen.kept))
    if good is not None:
        rows, kept = rows.filter(good), kept.filter(good)
    judgement = judged(file.name, rows, cells, chosen.used, kept, untyped=False)
    if not rejects:
        return judgement
    rejects = sorted([*rejects, *judgement.rejects], key=lambda reject: reject.row)
    return PairBatch(file.name, judgement.table, judgement.kept, False, rejects, judgement.names)


def _sound(file: InputFile, batch: pa.RecordBatch, texts: set[int]) -> tuple[pa.Table, dict[int, str]]:
    """:func:`sound_rows`; SourceError where the installed Arrow cannot convert a column."""
    try:
        return sound_rows(batch, texts)
    except pa.ArrowNotImplementedError:
        for at, field in enumerate(batch.schema):
            try:
                sound_rows(batch.select([at]), set())
            except pa.ArrowNotImplementedError:
                raise SourceError(
                    f"{file.url}: column {shown_name(field.name)!r} holds {field.type}, which Arrow {pa.__version__} "
                    "cannot convert; write it in another type, or leave it out with keep"
                ) from None
        raise


def _cell(column: pa.Array | None, at: int) -> str | None:
    return None if column is None else str(column[at].as_py()) if column[at].is_valid else None


def _shown_row(batch: pa.RecordBatch, at: int) -> str:
    """A row for the rejects, for values of any type."""
    columns = zip(batch.schema.names, batch.columns, strict=True)
    return row_text({name: shown_cell(column, at) for name, column in columns})


@dataclass(frozen=True)
class TextRows:
    """Rows of a table of texts, from row ``start`` (1) on: the columns asked for, as plain ones.

    ``bad`` has the reason of each row, by its place in the table, in which a value is no text or no id.
    """

    start: int
    table: pa.Table
    bad: dict[int, str]


def read_columns(file: InputFile, choose: Callable[[Sequence[str]], tuple[str, Sequence[str]]]) -> Iterator[TextRows]:
    """The columns of a Parquet or Arrow file that ``choose`` takes of its names: one of ids, and some of text."""
    with _opened(file) as source:
        key, texts = choose(source.schema.names)
        for name in (key, *texts):
            if source.schema.names.count(name) > 1:
                raise SourceError(f"{file.url}: there are two columns {shown_name(name)!r}; rename one")
            kind = source.schema.field(name).type
            if not (is_id(kind) if name == key else is_text(kind, binary=True)):
                what = "ids (text or whole numbers)" if name == key else "text"
                raise SourceError(f"{file.url}: column {shown_name(name)!r} holds {kind}, not {what}")
        names = list(dict.fromkeys([key, *texts]))
        start = 1
        for batch in source.batches(names):
            table, bad = _sound(file, batch, set(range(len(names))))
            if not is_text(table[key].type):
                column, wrong = id_strings(table[key].combine_chunks(), key)
                table = table.set_column(table.schema.get_field_index(key), key, column)
                bad = wrong | bad
            yield TextRows(start, table, bad)
            start += batch.num_rows
