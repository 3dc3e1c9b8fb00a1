"""Record batches of an index's files, read one at a time and checked: from a memory map, or by range reads of S3."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from jobs.errors import RunError, StoreError
from jobs.index.format import CRC, contents_crc
from jobs.storage.store import LocalStore, Store

# An Arrow file: a magic with padding, the schema, record batches, the footer, its length and the magic.
MAGIC = b"ARROW1"
START = 8
END = struct.Struct("<i6s")
# The first reads of a file on S3: nearly always the whole schema, and the whole footer.
HEAD_BYTES = 8 << 10
TAIL_BYTES = 64 << 10
# The place of the record batches in the footer's table, and one of them: offset, bytes of metadata, bytes of the body.
RECORD_BATCHES = 3
BLOCK = np.dtype([("offset", "<i8"), ("metadata", "<i4"), ("", "<i4"), ("body", "<i8")])

# What Arrow and the reading of its footer raise for damaged bytes.
DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, IndexError, struct.error)


Problem = RunError | StoreError


class BlockFile(Protocol):
    """An Arrow IPC file of which single record batches are read."""

    schema: pa.Schema

    def __len__(self) -> int:
        """How many record batches the file has."""

    def range(self, place: int) -> tuple[str, int, int] | None:
        """The bytes to read for a record batch: name, start and end; None where the file is mapped into memory."""

    def batch(self, place: int, data: bytes | None) -> pa.RecordBatch | Problem:
        """A record batch, of its bytes unless the file is mapped; an error where it is damaged."""


def open_blocks(store: Store, names: Sequence[str]) -> list[BlockFile | Problem]:
    """Open files, all at once; an error stands in the place of one that is damaged or missing."""
    if isinstance(store, LocalStore):
        return [_mapped(store, name) for name in names]
    read = store.read_ranges([(name, *ends) for name in names for ends in ((0, HEAD_BYTES), (-TAIL_BYTES, None))])
    heads_tails = zip(read[::2], read[1::2], strict=True)
    return [_ranged(store, name, *both) for name, both in zip(names, heads_tails, strict=True)]


def read_batches(store: Store, wanted: Sequence[tuple[BlockFile, int]]) -> list[pa.RecordBatch | Problem]:
    """Read record batches of files, ``(file, place)``, all at once; an error stands in the place of a damaged one."""
    ranges = [file.range(place) for file, place in wanted]
    asked = [one for one in ranges if one is not None]
    answers = iter(store.read_ranges(asked) if asked else ())
    found: list[pa.RecordBatch | Problem] = []
    for (file, place), bounds in zip(wanted, ranges, strict=True):
        data = None if bounds is None else next(answers)
        found.append(data if isinstance(data, StoreError) else file.batch(place, data))
    return found


def damaged_file(store: Store, name: str, error: object) -> RunError:
    """An error of one line for a damaged file of an index."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return RunError(f"{store.describe_name(name)}: is damaged: {first}")


def _mapped(store: LocalStore, name: str) -> BlockFile | Problem:
    try:
        path = store.path(name)
        with store.guard("read", name):
            path.stat()
        return _MappedBlocks(store, name, pa.ipc.open_file(pa.memory_map(str(path))))
    except StoreError as error:
        return error
    except DAMAGE as error:
        return damaged_file(store, name, error)


class _MappedBlocks:
    """A file on this machine, mapped into memory: batches are views of it."""

    def __init__(self, store: Store, name: str, reader: pa.ipc.RecordBatchFileReader) -> None:
        self._store, self._name, self._reader = store, name, reader
        self.schema: pa.Schema = reader.schema

    def __len__(self) -> int:
        return int(self._reader.num_record_batches)

    def range(self, place: int) -> None:
        return None

    def batch(self, place: int, data: bytes | None) -> pa.RecordBatch | Problem:
        try:
            return checked(*self._reader.get_batch_with_custom_metadata(place))
        except DAMAGE as error:
            return damaged_file(self._store, f"{self._name}, batch {place}", error)


def _ranged(store: Store, name: str, head: bytes | StoreError, tail: bytes | StoreError) -> BlockFile | Problem:
    try:
        return _RangedBlocks(store, name, *(_bytes(one) for one in (head, tail)))
    except StoreError as error:
        return error
    except DAMAGE as error:
        return damaged_file(store, name, error)


class _RangedBlocks:
    """A file on S3: its schema and its footer are in memory, batches are read when they are asked for."""

    def __init__(self, store: Store, name: str, head: bytes, tail: bytes) -> None:
        self._store, self._name = store, name
        length, magic = END.unpack(tail[-END.size :])
        if magic != MAGIC or length <= 0:
            raise ValueError("does not end as an Arrow file does")
        wanted = length + END.size
        if len(tail) < wanted:
            tail = _bytes(*store.read_ranges([(name, -wanted, None)]))
        self._blocks = footer_blocks(tail[-wanted : -END.size])
        schema_end = int(self._blocks["offset"][0]) if len(self._blocks) else len(head)
        if len(head) < schema_end:
            head = _bytes(*store.read_ranges([(name, 0, schema_end)]))
        self._schema_message = head[START:schema_end]
        self.schema: pa.Schema = pa.ipc.read_schema(pa.py_buffer(self._schema_message))

    def __len__(self) -> int:
        return len(self._blocks)

    def range(self, place: int) -> tuple[str, int, int]:
        start, metadata, _, body = self._blocks[place].item()
        return self._name, start, start + metadata + body

    def batch(self, place: int, data: bytes | None) -> pa.RecordBatch | Problem:
        assert data is not None, "the file is not mapped"
        try:
            # A stream of this batch alone: read_record_batch would leave out its metadata.
            with pa.ipc.open_stream(pa.py_buffer(self._schema_message + data)) as reader:
                return checked(*reader.read_next_batch_with_custom_metadata())
        except (*DAMAGE, StopIteration) as error:
            return damaged_file(self._store, f"{self._name}, batch {place}", error)


def _bytes(answer: bytes | StoreError) -> bytes:
    if isinstance(answer, StoreError):
        raise answer
    return answer


def footer_blocks(footer: bytes) -> np.ndarray:
    """Return where the record batches of a file are, from the flatbuffer that its footer is: an array of ``BLOCK``.

    pyarrow does not expose them, and a reader on S3 needs them to ask for many batches at once.
    """
    (table,) = struct.unpack_from("<I", footer)
    (back,) = struct.unpack_from("<i", footer, table)
    (field,) = struct.unpack_from("<H", footer, table - back + 4 + 2 * RECORD_BATCHES)
    place = table + field
    (vector,) = struct.unpack_from("<I", footer, place)
    (count,) = struct.unpack_from("<I", footer, place + vector)
    return np.frombuffer(footer, BLOCK, count, place + vector + 4)


def checked(batch: pa.RecordBatch, metadata: pa.KeyValueMetadata | None) -> pa.RecordBatch:
    """Return ``batch``; raises an error of :data:`DAMAGE` where its values are not those that were written."""
    batch.validate(full=True)
    written = None if metadata is None else metadata.get(CRC)
    if written is None:
        raise ValueError("a record batch has no checksum")
    if int(written) != contents_crc(batch):
        raise ValueError("a record batch is not what was written (its checksum differs)")
    return batch
