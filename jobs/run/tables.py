"""The tables of a run on disk: their Arrow schemas, their rows, and the commit of a shard.

pyarrow is imported inside functions, because ``tokenpair status`` of a finished run does not need it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attribution_core.results import ExplainedText, Floats, PairAttribution
from jobs.storage.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

    from attribution_core.topk import PairSums

SUCCESS = "_SUCCESS"
JOB_FILE = "job.yaml"
# The largest job.yaml that is read; it grows with the number of input files.
JOB_FILE_MOST_BYTES = 64 << 20
MANIFEST = "plan/manifest.json"
# Columns for cosine similarity: null for dot product, absent in runs of plan version 4 and older.
LIFTS = ("row_lift", "col_lift")
SUFFIXES = {"parquet": ".parquet", "arrow": ".arrow"}


def attribution_schema(store: str = "top", kept: pa.Schema | None = None) -> pa.Schema:
    """Return the schema of ``attributions``, with one row for each pair.

    ``kept`` has the columns passed through, which come last. ``store="full"`` adds the matrix of all word pairs.
    """
    import pyarrow as pa

    cell = pa.struct(
        [("i", pa.uint16()), ("j", pa.uint16()), ("a", pa.string()), ("b", pa.string()), ("value", pa.float32())]
    )
    single = ("score", "reference_a", "reference_b", "reference_ab", "total", "error")
    fields = [(name, pa.string()) for name in ("pair_id", "text_a_id", "text_b_id")]
    fields += [(name, pa.float32()) for name in (*single, "positive", "negative", "special", "exact")]
    fields += [("rows", pa.int32()), ("cols", pa.int32())]
    fields += [(name, pa.list_(pa.float32())) for name in ("row_sums", "col_sums", *LIFTS, "largest")]
    fields += [("top", pa.list_(cell))]
    if store == "full":
        fields += [("matrix", pa.list_(pa.float16())), ("matrix_scale", pa.float32())]
    return pa.schema([*fields, *(kept if kept is not None else [])])


def text_schema() -> pa.Schema:
    """Return the schema of ``texts``, with one row for each distinct (text, role).

    ``starts`` and ``ends`` are character offsets in ``text``.
    """
    import pyarrow as pa

    words, offsets = pa.list_(pa.string()), pa.list_(pa.int32())
    return pa.schema(
        [
            ("text_id", pa.string()),
            ("role", pa.string()),
            ("text", pa.string()),
            ("groups", words),
            ("starts", offsets),
            ("ends", offsets),
            ("kinds", words),
            ("tokens", words),
            ("truncated", pa.bool_()),
            ("cut_at", pa.int32()),
            ("nodes", pa.int32()),
            ("residual", pa.float32()),
            ("converged", pa.bool_()),
            ("way", pa.string()),
            ("prompt", pa.string()),
        ]
    )


def reject_schema() -> pa.Schema:
    """Return the schema of ``rejects``: file and row number (from 1) of each rejected row, the reason, its text."""
    import pyarrow as pa

    names = {"pair_id": pa.string(), "file": pa.string(), "row": pa.int64()}
    return pa.schema([*names.items(), ("reason", pa.string()), ("row_text", pa.string())])


def stored_lift(row: dict[str, Any], name: str) -> Floats | None:
    """Return the lift [G] of a row's G groups, from one of the columns ``LIFTS``; None if the run has none."""
    return None if row.get(name) is None else np.asarray(row[name], np.float32)


def reserved_names() -> set[str]:
    """Return the column names of ``attributions`` that a column passed through must not have."""
    return set(attribution_schema("full").names)


def attribution_row(
    pair: PairAttribution, sums: PairSums, *, pair_id: str, text_a_id: str, text_b_id: str, store: str = "top"
) -> dict[str, Any]:
    """Return a row of ``attributions`` without the columns passed through."""
    rows, cols = pair.matrix.shape
    row: dict[str, Any] = {
        "pair_id": pair_id,
        "text_a_id": text_a_id,
        "text_b_id": text_b_id,
        "score": pair.score,
        "reference_a": pair.reference_a,
        "reference_b": pair.reference_b,
        "reference_ab": pair.reference_ab,
        "total": pair.total,
        "error": pair.error,
        "positive": sums.positive,
        "negative": sums.negative,
        "special": sums.special,
        "exact": sums.exact,
        "rows": rows,
        "cols": cols,
        "row_sums": np.asarray(sums.row_sums, np.float32),
        "col_sums": np.asarray(sums.col_sums, np.float32),
        **{name: getattr(pair, name) for name in LIFTS},
        "largest": [float(value) for value in sums.largest],
        "top": [cell._asdict() for cell in sums.top],
    }
    if store == "full":
        # float16 has values from 6e-8 to 65504. Scaled to at most 1, the large values keep 11 bits of precision.
        scale = float(np.abs(pair.matrix).max(initial=0.0)) or 1.0
        row["matrix"] = (pair.matrix / scale).astype(np.float16).ravel()
        row["matrix_scale"] = scale
    return row


def attribution_table(rows: Sequence[dict[str, Any]], kept: pa.Table | None = None, store: str = "top") -> pa.Table:
    """Return rows of :func:`attribution_row` as a table.

    ``kept`` has the columns passed through, of the same pairs in the same order.
    """
    import pyarrow as pa

    own = attribution_schema(store)
    table = pa.table({f.name: pa.array([row[f.name] for row in rows], f.type) for f in own}, schema=own)
    if kept is not None:
        for field in kept.schema:
            table = table.append_column(field, kept[field.name])
    return table


def text_row(text: ExplainedText, text_id: str) -> dict[str, Any]:
    """Return a row of ``texts``."""
    row = {
        name: getattr(text, name)
        for name in text_schema().names
        if name not in ("text_id", "groups", "starts", "ends", "kinds")
    }
    groups = text.groups
    return row | {
        "text_id": text_id,
        "groups": groups.labels,
        "starts": groups.starts,
        "ends": groups.ends,
        "kinds": groups.kinds,
    }


def text_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Return rows of :func:`text_row` as a table."""
    import pyarrow as pa

    return pa.Table.from_pylist(list(rows), schema=text_schema())


def reject_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Return rejects, each with pair_id, file, row, reason and row_text, as a table."""
    import pyarrow as pa

    return pa.Table.from_pylist(list(rows), schema=reject_schema())


def part_name(folder: str, part: int | str, format: str) -> str:
    """Return the file name of a part: of a shard by its number, of the rejects of planning by ``plan``."""
    label = f"{part:05d}" if isinstance(part, int) else part
    return f"{folder}/part-{label}{SUFFIXES[format]}"


def encoded(table: pa.Table, format: str) -> bytes:
    """Return the table as the bytes of a Parquet or Arrow IPC file, compressed with zstd."""
    sink = io.BytesIO()
    _write_tables(sink, [table], table.schema, format)
    return sink.getvalue()


def _write_tables(sink: Any, tables: Iterable[pa.Table], schema: pa.Schema, format: str) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if format == "arrow":
        writer: Any = pa.ipc.new_file(sink, schema, options=pa.ipc.IpcWriteOptions(compression="zstd"))
    else:
        writer = pq.ParquetWriter(sink, schema, compression="zstd")
    written = 0
    with writer:
        for table in tables:
            writer.write_table(table.cast(schema))
            written += len(table)
    return written


def commit_shard(
    run: Store, index: int, attributions: pa.Table, texts: pa.Table, rejects: pa.Table, format: str = "parquet"
) -> bool:
    """Write the parts of a shard, ``attributions`` last, because its existence marks the shard as done.

    Returns False if another process committed the shard first.
    """
    for folder, table in (("texts", texts), ("rejects", rejects)):
        if len(table):
            run.commit(part_name(folder, index, format), encoded(table, format))
    return run.commit(part_name("attributions", index, format), encoded(attributions, format))


def write_rejects(run: Store, part: int | str, tables: Iterable[pa.Table], format: str) -> None:
    """Replace one part of ``rejects``, or remove it if the tables have no row."""
    sink = io.BytesIO()
    name = part_name("rejects", part, format)
    if _write_tables(sink, tables, reject_schema(), format):
        run.replace(name, sink.getvalue())
    elif run.exists(name):
        run.remove(name)


def finished_shards(run: Store) -> set[int]:
    """Return the numbers of the shards whose ``attributions`` are written."""
    pattern = re.compile(r"attributions/part-(\d+)\.(?:parquet|arrow)")
    return {int(match[1]) for name in run.list("attributions") if (match := pattern.fullmatch(name))}
