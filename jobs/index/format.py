"""The parts of an index: Arrow IPC files of documents with the rows of their groups, rounded.

A document of G groups has G + 1 rows of D values; row j stands for ``scales[j] · rows[j]``. The first G are ĉ_j, what
a group adds to the embedding e, completed so that they sum to e (``attribution_core.pairs.completion``), and rounded.
The last row is the remainder e − Σ_j scales[j] · rows[j], rounded too: it has the error of the integral and of the
rounding. All G + 1 rows sum to e, with int8 to about the accuracy of float16.

Every record batch carries a CRC-32 of its contents, as custom metadata.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attribution_core.pairs.completion import Completion
from attribution_core.results import Contributions

Precision = Literal["int8", "float16", "float32"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
# Documents of a record batch: a reader fetches and checks one at a time.
BATCH = 64
CRC = b"crc32"
VERSION = b"1"
# Character offsets and counts take two bytes each, where all of a file are smaller than this, else four.
TWO_BYTES = 1 << 16
LARGEST_INT8 = 127
SMALLEST_SCALE = np.finfo(np.float16).smallest_subnormal

Array = NDArray[Any]
COMPLETION = Completion("score")


def part_schema(width: int, precision: Precision, *, small: bool = True) -> pa.Schema:
    """Return the schema of a part of rows with ``width`` values; ``small`` stores offsets and counts in two bytes."""
    offset = pa.uint16() if small else pa.int32()
    value = {"int8": pa.int8(), "float16": pa.float16(), "float32": pa.float32()}[precision]
    fields = [
        ("id", pa.string()),
        ("text", pa.string()),
        ("starts", pa.list_(offset)),
        ("ends", pa.list_(offset)),
        ("kinds", pa.list_(pa.uint8())),
        ("rows", pa.list_(pa.list_(value, width))),
        ("scales", pa.list_(pa.float16())),
        ("tokens", offset),
        ("nodes", offset),
        ("residual", pa.float16()),
        ("truncated", pa.bool_()),
        ("cut_at", offset),
        ("text_hash", pa.uint64()),
    ]
    return pa.schema(fields, metadata={b"tokenpair_index": VERSION})


def id_hash(text: str | bytes) -> int:
    """Return the 64-bit hash of an id or a text, or of its UTF-8: the first 8 bytes of the MD5, little end first.

    DuckDB's ``md5_number_upper`` is the same.
    """
    encoded = text.encode() if isinstance(text, str) else text
    return int.from_bytes(hashlib.md5(encoded, usedforsecurity=False).digest()[:8], "little")


def document_batch(
    contributions: Sequence[Contributions],
    ids: Sequence[str],
    *,
    precision: Precision = "int8",
    texts: bool = True,
) -> pa.RecordBatch:
    """Return documents as one record batch of a part, in their order.

    ``contributions`` are raw, as ``Attributor.contributions`` returns them: they are completed and rounded here.
    Without ``texts`` the column ``text`` is null. Pass :data:`BATCH` documents at a time, and the rest at a part's end
    (:func:`encoded_part`).
    """
    assert contributions, "a batch has documents"
    assert len(contributions) == len(ids), "each document has an id"
    read = [one.text for one in contributions]
    first = np.cumsum([0, *(text.group_count for text in read)])
    rows_XD, scales_X = _rounded_rows(contributions, first, precision)
    starts, ends = (np.concatenate([getattr(text, name) for text in read]) for name in ("start_G", "end_G"))
    counts: dict[str, list[int] | list[int | None]] = {
        "tokens": [len(text) for text in read],
        "nodes": [one.nodes for one in contributions],
        "cut_at": [text.cut_at for text in read],
    }
    largest = max(int(ends.max()), *(number or 0 for numbers in counts.values() for number in numbers))
    schema = part_schema(rows_XD.shape[1], precision, small=largest < TWO_BYTES)

    def lists(name: str, values: Array | pa.Array, offsets: Array) -> pa.Array:
        kind = schema.field(name).type
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), _typed(values, kind.value_type), type=kind)

    row_first = first + np.arange(len(first))
    width = schema.field("rows").type.value_type
    found: dict[str, Any] = {
        "id": pa.array(ids, pa.string()),
        "text": pa.array([text.text if texts else None for text in read], pa.string()),
        "starts": lists("starts", starts, first),
        "ends": lists("ends", ends, first),
        "kinds": lists("kinds", np.concatenate([text.kind_G for text in read]), first),
        "rows": lists("rows", pa.FixedSizeListArray.from_arrays(pa.array(rows_XD.ravel()), type=width), row_first),
        "scales": lists("scales", scales_X, row_first),
        "residual": [one.residual for one in contributions],
        "truncated": [text.truncated for text in read],
        "text_hash": [id_hash(text.text) for text in read],
        **counts,
    }
    arrays = [_typed(found[field.name], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _typed(values: Any, kind: pa.DataType) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, kind)


def _rounded_rows(contributions: Sequence[Contributions], first: Array, precision: Precision) -> tuple[Array, Array]:
    """Return the rows [X, D] and scales [X] of documents, G + 1 of each; ``first`` has the first group of each."""
    known_XD = np.concatenate([COMPLETION.completed(one) for one in contributions]).astype(np.float64)
    rows_XD, scales_X = rounded(known_XD, precision)
    sums_ND = np.add.reduceat(restored(rows_XD, scales_X), first[:-1], axis=0)
    remainders_ND = np.stack([one.embedding_D for one in contributions]) - sums_ND
    last_ND, last_N = rounded(remainders_ND, precision)
    # Behind the groups of each document.
    return np.insert(rows_XD, first[1:], last_ND, axis=0), np.insert(scales_X, first[1:], last_N)


def rounded(values_XD: Array, precision: Precision) -> tuple[Array, Array]:
    """Return rows [X, D] in the type of ``precision``, and their scales [X] in float16; int8 has 127 steps a side."""
    if precision != "int8":
        return values_XD.astype(precision), np.ones(len(values_XD), np.float16)
    wanted_X = np.abs(values_XD).max(axis=1) / LARGEST_INT8
    scales_X = np.maximum(wanted_X, SMALLEST_SCALE).astype(np.float16)
    # Never rounded down: the largest value would not fit.
    scales_X = np.where(scales_X < wanted_X, np.nextafter(scales_X, np.float16(np.inf)), scales_X)
    return np.rint(values_XD / scales_X.astype(np.float64)[:, None]).astype(np.int8), scales_X


def restored(rows_XD: Array, scales_X: Array) -> NDArray[np.float64]:
    """Return the values [X, D] of rows, ``scales · rows``, in float64."""
    return rows_XD.astype(np.float64) * scales_X.astype(np.float64)[:, None]


def no_documents(width: int, precision: Precision) -> pa.RecordBatch:
    """Return the batch of a part in which every document was rejected."""
    return pa.RecordBatch.from_pylist([], schema=part_schema(width, precision))


def encoded_part(batches: Sequence[pa.RecordBatch]) -> bytes:
    """Return the bytes of a part: an Arrow IPC file of ``batches``, all but the last of :data:`BATCH` documents."""
    assert batches, "a part has documents"
    assert all(len(batch) == BATCH for batch in batches[:-1]), "all but the last batch are full"
    assert len(batches[-1]) <= BATCH, "no batch has more"
    # Four bytes for all, where one batch needs them.
    schema = next((b.schema for b in batches if b.schema.field("cut_at").type == pa.int32()), batches[0].schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            same = batch.cast(schema)
            writer.write_batch(same, custom_metadata={CRC: b"%d" % contents_crc(same)})
    return sink.getvalue().to_pybytes()


def contents_crc(batch: pa.RecordBatch) -> int:
    """Return the CRC-32 of a batch's values, the same whichever version of Arrow wrote it."""
    crc = 0
    for column in batch.columns:
        for values in _buffers(column):
            crc = zlib.crc32(np.ascontiguousarray(values).data.cast("B"), crc)
    return crc


def _buffers(array: pa.Array) -> Iterator[Array]:
    """The numbers that an array of a batch is made of: which values are null, offsets, values."""
    kind = array.type
    assert array.offset == 0 or pa.types.is_integer(kind), "batches with lists are written and read whole"
    if array.null_count:
        yield array.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_fixed_size_list(kind):
        yield from _buffers(array.flatten())
    elif pa.types.is_list(kind):
        yield array.offsets.to_numpy()
        yield from _buffers(array.values)
    elif pa.types.is_string(kind):
        offsets = string_offsets(array)
        yield offsets
        yield string_bytes(array)[: offsets[-1]]
    else:
        yield array.drop_null().to_numpy(zero_copy_only=False)


def string_offsets(array: pa.Array) -> NDArray[np.int32]:
    """Where each string begins in :func:`string_bytes`, [N + 1]."""
    return np.frombuffer(array.buffers()[1], np.int32, len(array) + 1)


def string_bytes(array: pa.Array) -> NDArray[np.uint8]:
    """The UTF-8 bytes of all strings of an array, one behind the other."""
    data = array.buffers()[2]
    return np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
