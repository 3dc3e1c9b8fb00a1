"""The tables of a run on disk: their Arrow schemas, their rows, and the commit of a shard.

pyarrow is imported inside functions, because ``tokenpair status`` of a finished run does not need it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attribution_core.results import Floats
from attribution_core.text.grouping import KINDS
from jobs.storage.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

    from attribution_core.pairs.columns import PairColumns, Ragged
    from attribution_core.results import Contributions

SUCCESS = "_SUCCESS"
JOB_FILE = "job.yaml"
# The largest job.yaml that is read; it grows with the number of input files.
JOB_FILE_MOST_BYTES = 64 << 20
MANIFEST = "plan/manifest.json"
# The folder whose part marks a shard as done: of a job's pairs, and of the documents of an index.
RESULT_OF = {"pairs": "attributions", "index": "documents"}
RESULTS = tuple(RESULT_OF.values())
# Columns for cosine similarity: null for dot product, absent in runs of plan version 4 and older.
LIFTS = ("row_lift", "col_lift")
# Columns that need word pairs.
WORD_PAIRS = ("positive", "negative", "special", "exact", "largest")
# Columns of runs of late-interaction models alone.
LATE = ("matches", "ties", "interactions", "interactions_scale")
SUFFIXES = {"parquet": ".parquet", "arrow": ".arrow"}


def attribution_schema(store: str = "top", kept: pa.Schema | None = None, *, late: bool = False) -> pa.Schema:
    """Return the schema of ``attributions``, with one row for each pair.

    In a run of ``level: words`` the columns ``WORD_PAIRS`` are null, and ``top`` is empty.
    ``kept`` has the columns passed through, which come last. ``store="full"`` adds the matrix of all word pairs.
    ``late`` adds what runs of late-interaction models have beside: ``LATE``, and the interaction of each word pair.
    """
    import pyarrow as pa

    met = [("i", pa.uint16()), ("j", pa.uint16()), ("a", pa.string()), ("b", pa.string())]
    cell = pa.struct([*met, ("value", pa.float32()), *([("interaction", pa.float32())] if late else [])])
    match = pa.struct([*met, ("token_i", pa.uint16()), ("token_j", pa.uint16()), ("value", pa.float32())])
    single = ("score", "reference_a", "reference_b", "reference_ab", "total", "error")
    fields = [(name, pa.string()) for name in ("pair_id", "text_a_id", "text_b_id")]
    fields += [(name, pa.float32()) for name in (*single, "positive", "negative", "special", "exact")]
    fields += [("rows", pa.int32()), ("cols", pa.int32())]
    fields += [(name, pa.list_(pa.float32())) for name in ("row_sums", "col_sums", *LIFTS, "largest")]
    fields += [("top", pa.list_(cell))]
    if late:
        fields += [("matches", pa.list_(match)), ("ties", pa.int32())]
    if store == "full":
        for name in ("matrix", *(["interactions"] if late else [])):
            fields += [(name, pa.list_(pa.float16())), (f"{name}_scale", pa.float32())]
    return pa.schema([*fields, *(kept if kept is not None else [])])


def has_matches(schema: pa.Schema) -> bool:
    """Return whether ``attributions`` of this schema are of a late-interaction model.

    A column passed through may be called ``matches`` as well; the fields of ``top`` are always tokenpair's own.
    """
    return "top" in schema.names and schema.field("top").type.value_type.get_field_index("interaction") >= 0


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


def reserved_names(*, late: bool) -> set[str]:
    """Return the column names of ``attributions`` that a column passed through must not have.

    ``late`` says whether the run is of a late-interaction model.
    """
    return set(attribution_schema("full", late=late).names)


def attribution_table(columns: PairColumns, ids: pa.Table, store: str = "top") -> pa.Table:
    """Return the rows of ``attributions`` of some pairs, without the columns passed through.

    ``ids`` has the pairs' columns pair_id, text_a_id and text_b_id.
    """
    import pyarrow as pa

    count = len(columns)
    found: dict[str, Any] = {name: ids[name] for name in ("pair_id", "text_a_id", "text_b_id")}
    single = ("score", "reference_a", "reference_b", "reference_ab", "total", "error")
    for name in single:
        found[name] = pa.array(getattr(columns, name), pa.float32())
    found["rows"], found["cols"] = (np.diff(lists.first) for lists in (columns.row_sums, columns.col_sums))
    for name in ("row_sums", "col_sums", *LIFTS):
        lists = getattr(columns, name)
        found[name] = pa.nulls(count, pa.list_(pa.float32())) if lists is None else _lists(lists.first, lists.values)
    late = columns.match_value is not None
    schema = attribution_schema(store, late=late)
    if columns.largest is None:
        found |= {name: pa.nulls(count, schema.field(name).type) for name in WORD_PAIRS}
        found["top"] = pa.array([[]] * count, schema.field("top").type)
    else:
        found |= {name: getattr(columns, name) for name in WORD_PAIRS}
        found["largest"] = _lists(np.arange(count + 1) * columns.largest.shape[1], columns.largest.ravel())
        found["top"] = _top(columns)
    if late:
        found["matches"] = _matches(columns)
        found["ties"] = columns.ties
    if store == "full":
        found |= _scaled("matrix", columns.cells, count)
        found |= _scaled("interactions", columns.interactions, count) if late else {}
    return pa.table([_typed(found[field.name], field.type) for field in schema], schema=schema)


def _top(columns: PairColumns) -> pa.Array:
    """The strongest cells with their words, a list a pair."""
    import pyarrow as pa

    found = (columns.top_i, columns.top_j, columns.top_value)
    i, j, value = (one for one in found if one is not None)  # all are there where sums were asked for
    more = {"value": pa.array(value.values)}
    if columns.top_interaction is not None:
        more["interaction"] = pa.array(columns.top_interaction.values)
    return _met(columns, i.first, i.values, j.values, more)


def _matches(columns: PairColumns) -> pa.Array:
    """Where each scored output token of the first text found its nearest one of the second, a list a pair."""
    import pyarrow as pa

    found = (columns.match_i, columns.match_j, columns.match_value)
    i, j, value = (one for one in found if one is not None)  # a late-interaction model has all three
    of_token = np.concatenate([one.text.of_token_S for one in columns.texts])
    first = np.concatenate([[0], np.cumsum([len(one.text) for one in columns.texts])]).astype(np.int64)
    pair = np.repeat(np.arange(len(columns)), np.diff(i.first))
    in_a, in_b = (of_token[first[texts[pair]] + at.values] for texts, at in ((columns.a, i), (columns.b, j)))
    tokens = {f"token_{name}": pa.array(at.values, pa.uint16()) for name, at in (("i", i), ("j", j))}
    return _met(columns, i.first, in_a, in_b, tokens | {"value": pa.array(value.values, pa.float32())})


def _met(columns: PairColumns, first: Any, i: Any, j: Any, more: dict[str, pa.Array]) -> pa.Array:
    """Lists of groups that met, with their words: pair p has ``[first[p]:first[p + 1]]`` of ``i``, ``j``, ``more``."""
    import pyarrow as pa

    labels = pa.array([label for one in columns.texts for label in one.text.labels], pa.string())
    start = np.concatenate([[0], np.cumsum([one.text.group_count for one in columns.texts])]).astype(np.int64)
    pair = np.repeat(np.arange(len(columns)), np.diff(first))
    a, b = (labels.take(pa.array(start[texts[pair]] + at)) for texts, at in ((columns.a, i), (columns.b, j)))
    named = {"i": pa.array(i, pa.uint16()), "j": pa.array(j, pa.uint16()), "a": a, "b": b, **more}
    met = pa.StructArray.from_arrays(list(named.values()), names=list(named))
    return pa.ListArray.from_arrays(pa.array(first, pa.int32()), met)


def _scaled(name: str, cells: Ragged | None, count: int) -> dict[str, Any]:
    """Matrices in float16, each divided by its largest absolute value: large values then keep 11 bits."""
    import pyarrow as pa

    assert cells is not None, "matrices were asked for"
    scale = np.maximum.reduceat(np.abs(cells.values), cells.first[:-1]) if count else np.zeros(0, np.float32)
    scale = np.where(scale > 0, scale, np.float32(1))
    scaled = (cells.values / np.repeat(scale, np.diff(cells.first))).astype(np.float16)
    return {name: _lists(cells.first, scaled, pa.float16()), f"{name}_scale": scale}


def text_table(texts: Sequence[Contributions], text_ids: Sequence[str]) -> pa.Table:
    """Return the rows of ``texts``, one for each text."""
    import pyarrow as pa

    read = [one.text for one in texts]
    of_groups = np.concatenate([[0], np.cumsum([text.group_count for text in read], dtype=np.int64)])
    of_tokens = np.concatenate([[0], np.cumsum([len(text) for text in read], dtype=np.int64)])
    none = np.zeros(0, np.int32)
    kinds = pa.array(KINDS, pa.string()).take(pa.array(np.concatenate([none, *(text.kind_G for text in read)])))
    found = {
        "text_id": text_ids,
        "groups": _lists(of_groups, [label for text in read for label in text.labels], pa.string()),
        "starts": _lists(of_groups, np.concatenate([none, *(text.start_G for text in read)]), pa.int32()),
        "ends": _lists(of_groups, np.concatenate([none, *(text.end_G for text in read)]), pa.int32()),
        "kinds": pa.ListArray.from_arrays(pa.array(of_groups, pa.int32()), kinds),
        "tokens": _lists(of_tokens, [token for text in read for token in text.tokens], pa.string()),
    }
    for name in ("role", "text", "truncated", "cut_at", "prompt"):
        found[name] = [getattr(text, name) for text in read]
    for name in ("nodes", "residual", "converged", "way"):
        found[name] = [getattr(one, name) for one in texts]
    schema = text_schema()
    return pa.table([_typed(found[field.name], field.type) for field in schema], schema=schema)


def _lists(first: Any, values: Any, type: Any = None) -> pa.Array:
    """A list array of flat ``values``; list k is ``values[first[k]:first[k + 1]]``."""
    import pyarrow as pa

    return pa.ListArray.from_arrays(pa.array(first, pa.int32()), pa.array(values, type or pa.float32()))


def _typed(values: Any, type: Any) -> Any:
    import pyarrow as pa

    return values.cast(type) if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values, type)


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


def commit_documents(run: Store, index: int, part: bytes, rejects: pa.Table, format: str = "parquet") -> bool:
    """Write the documents of a shard of an index, ``part``, as the last of its files; as :func:`commit_shard`."""
    if len(rejects):
        run.commit(part_name("rejects", index, format), encoded(rejects, format))
    return run.commit(part_name(RESULT_OF["index"], index, "arrow"), part)


def result_part(task: str, index: int, format: str) -> str:
    """Return the name of the part that marks shard ``index`` of a job as done; documents are always Arrow files."""
    return part_name(RESULT_OF[task], index, "arrow" if task == "index" else format)


def write_rejects(run: Store, part: int | str, tables: Iterable[pa.Table], format: str) -> None:
    """Replace one part of ``rejects``, or remove it if the tables have no row."""
    sink = io.BytesIO()
    name = part_name("rejects", part, format)
    if _write_tables(sink, tables, reject_schema(), format):
        run.replace(name, sink.getvalue())
    elif run.exists(name):
        run.remove(name)


def finished_shards(run: Store) -> set[int]:
    """Return the numbers of the shards whose ``attributions``, or documents of an index, are written."""
    pattern = re.compile(r"\w+/part-(\d+)\.(?:parquet|arrow)")
    names = (name for folder in RESULTS for name in run.list(folder))
    return {int(match[1]) for name in names if (match := pattern.fullmatch(name))}
