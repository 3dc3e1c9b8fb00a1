"""Parquet and Arrow as writers make them: every type of column, bad rows, and files that are not what they say."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_sources import reader, rejects, rows

from jobs.config.sections import TextColumns
from jobs.errors import SourceError
from jobs.sources import PairBatch, resolve_inputs
from jobs.sources.arrow_values import plain_array
from jobs.sources.tables import read_texts

WORDS = ["a dog", None, "ein Hund, länger als zwölf Zeichen", "日本語", "a dog"]


def dictionary(values: pa.Array) -> pa.Array:
    """Every value in a dictionary of its own type, with one that no row uses."""
    spare = pa.concat_arrays([values, values.slice(0, 1)])
    places = [None if value is None else at for at, value in enumerate(values.to_pylist())]
    return pa.DictionaryArray.from_arrays(pa.array(places, pa.int8()), spare)


def columns_of_text() -> dict[str, pa.Array]:
    plain, view = pa.array(WORDS), pa.array(WORDS, pa.string_view())
    raw = [None if word is None else word.encode() for word in WORDS]
    return {
        "string": plain,
        "large_string": plain.cast(pa.large_string()),
        "string_view": view,
        "binary": pa.array(raw, pa.binary()),
        "large_binary": pa.array(raw, pa.large_binary()),
        "binary_view": pa.array(raw, pa.binary_view()),
        "dictionary": dictionary(plain),
        "dictionary of views": dictionary(view),
        "dictionary of large strings": dictionary(plain.cast(pa.large_string())),
        "runs": pa.RunEndEncodedArray.from_arrays(pa.array([1, 2, 3, 4, 5], pa.int32()), plain),
        "runs of views": pa.RunEndEncodedArray.from_arrays(pa.array([1, 2, 3, 4, 5], pa.int16()), view),
        "json": pa.ExtensionArray.from_storage(pa.json_(), plain),
    }


def columns_to_keep() -> dict[str, tuple[pa.Array, list[Any]]]:
    """Columns of five rows and what their values are in plain Python."""
    view = pa.string_view()
    lists = [["x", None], None, [], ["länger als zwölf Zeichen"], ["y"]]
    records = [{"x": word, "n": at} for at, word in enumerate(WORDS)]
    records[3] = None  # type: ignore[call-overload]
    nested = [None if one is None else {"deep": [one]} for one in lists]
    whole = pa.struct([("deep", pa.list_view(pa.large_list(view)))])
    kinds = {
        "list_view": pa.array(lists, pa.list_view(pa.string())),
        "large_list_view": pa.array(lists, pa.large_list_view(pa.string())),
        "list of views": pa.array(lists, pa.list_(view)),
        "large_list": pa.array(lists, pa.large_list(pa.large_string())),
        "list_view of views": pa.array(lists, pa.list_view(view)),
    }
    found = {name: (column, lists) for name, column in kinds.items()}
    found["struct of views"] = (pa.array(records, pa.struct([("x", view), ("n", pa.int8())])), records)
    found["struct of lists"] = (pa.array(nested, whole), nested)
    places = pa.array([0, 1, 2, 3, 4], pa.int8())
    found["list of dictionaries"] = (
        pa.ListArray.from_arrays(pa.array([0, 2, 2, 3, 5, 5], pa.int32()), dictionary(pa.array(WORDS, view))),
        [WORDS[:2], [], [WORDS[2]], WORDS[3:], []],
    )
    found["dictionary of numbers"] = (
        pa.DictionaryArray.from_arrays(places, pa.array([5, 6, 7, 8, 9])),
        [5, 6, 7, 8, 9],
    )
    pairs = [[1.0, 2.0], None, [3.0, 4.0], [5.0, 6.0], [7.0, None]]
    found["vectors"] = (pa.array(pairs, pa.list_(pa.float32(), 2)), pairs)
    maps = [[("k", "v")], None, [], [("a", None)], [("b", "c")]]
    told = [None if one is None else [{"key": k, "value": v} for k, v in one] for one in maps]
    found["map"] = (pa.array(maps, pa.map_(pa.string(), view)), told)
    return found


def write(path: Path, table: pa.Table) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(table, path)
        return path
    opened = pa.ipc.new_stream if path.suffix == ".arrows" else pa.ipc.new_file
    with opened(str(path), table.schema) as writer:
        writer.write_table(table)
    return path


def batches(path: Path, **settings: Any) -> list[PairBatch]:
    return list(reader(path, **settings))


@pytest.mark.parametrize("kind", columns_of_text())
@pytest.mark.parametrize("suffix", [".arrow", ".arrows"])
def test_text_of_every_type_is_read(tmp_path: Path, kind: str, suffix: str) -> None:
    column = columns_of_text()[kind]
    path = write(tmp_path / f"pairs{suffix}", pa.table({"sentence1": column, "sentence2": column, "id": column}))
    found = batches(path, columns={"id": "id"})
    assert [one for batch in found for one in batch.table["a"].to_pylist()] == [word for word in WORDS if word]
    assert [one for batch in found for one in batch.table["id"].to_pylist()] == [word for word in WORDS if word]
    assert [(one.row, one.reason) for one in rejects(reader(path, columns={"id": "id"}))] == [
        (2, "column 'sentence1' is null")
    ]


@pytest.mark.parametrize("kind", columns_to_keep())
@pytest.mark.parametrize("suffix", [".arrow", ".parquet"])
def test_kept_columns_of_every_type_keep_their_values(tmp_path: Path, kind: str, suffix: str) -> None:
    column, values = columns_to_keep()[kind]
    table = pa.table({"sentence1": list("abcde"), "sentence2": ["x", "x", "x", "x", ""], "k": column})
    try:
        path = write(tmp_path / f"pairs{suffix}", table)
    except pa.ArrowNotImplementedError as error:
        pytest.skip(f"Arrow does not write it: {error}")
    (batch,) = batches(path)
    assert batch.kept["k"].to_pylist() == values[:4]
    (bad,) = batch.rejects
    assert (bad.row, bad.reason) == (5, "column 'sentence2' is empty")
    assert json.loads(bad.row_text)["sentence1"] == "e"


@pytest.mark.parametrize("kind", [*columns_to_keep(), *columns_of_text()])
@pytest.mark.parametrize(("start", "size"), [(0, 5), (1, 3), (2, 0), (4, 1)])
def test_a_slice_becomes_plain_as_the_whole_does(kind: str, start: int, size: int) -> None:
    column = columns_to_keep()[kind][0] if kind in columns_to_keep() else columns_of_text()[kind]
    assert plain_array(column.slice(start, size)).to_pylist() == plain_array(column).to_pylist()[start : start + size]


def broken(kind: pa.DataType) -> pa.Array:
    """Five texts of which the second is no UTF-8."""
    raw = pa.array([b"one", b"\xff" * 20, b"three", b"four", b"five"], pa.binary_view())
    if pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 3, 4]), raw.view(pa.string_view()))
    if pa.types.is_list(kind):
        texts = raw.cast(pa.binary()).view(pa.string())
        return pa.ListArray.from_arrays(pa.array([0, 1, 2, 3, 4, 5], pa.int32()), texts)
    if pa.types.is_struct(kind):
        return pa.StructArray.from_arrays([raw.view(pa.string_view())], ["x"])
    return raw.view(kind) if pa.types.is_string_view(kind) else raw.cast(pa.large_binary()).view(kind)


@pytest.mark.parametrize("kind", ["string_view", "large_string", "dictionary", "list", "struct"])
@pytest.mark.parametrize("suffix", [".arrow", ".parquet"])
def test_invalid_text_costs_its_row_in_every_type(tmp_path: Path, kind: str, suffix: str) -> None:
    kinds = {
        "string_view": pa.string_view(),
        "large_string": pa.large_string(),
        "dictionary": pa.dictionary(pa.int64(), pa.string_view()),
        "list": pa.list_(pa.string()),
        "struct": pa.struct([("x", pa.string_view())]),
    }
    table = pa.table({"sentence1": list("abcde"), "sentence2": list("vwxyz"), "k": broken(kinds[kind])})
    if kind == "dictionary" and suffix == ".parquet":
        table = table.set_column(2, "k", broken(kinds["large_string"]).dictionary_encode())
    path = write(tmp_path / f"pairs{suffix}", table)
    assert rows(reader(path)) == [("a", "v"), ("c", "x"), ("d", "y"), ("e", "z")]
    (bad,) = rejects(reader(path))
    assert (bad.row, bad.reason) == (2, "invalid UTF-8 in column 'k'")
    assert r"\\xff" in bad.row_text


def test_a_column_that_is_not_used_costs_nothing(tmp_path: Path) -> None:
    table = pa.table({"sentence1": list("abcde"), "sentence2": list("vwxyz"), "k": broken(pa.string_view())})
    for suffix in (".arrow", ".parquet"):
        assert len(rows(reader(write(tmp_path / f"pairs{suffix}", table), keep=[]))) == 5


def test_values_that_their_type_does_not_allow_cost_their_rows(tmp_path: Path) -> None:
    """A place beyond the dictionary's end."""
    column = pa.DictionaryArray.from_arrays(pa.array([0, 7, 1]), pa.array(["x", "y"]), safe=False)
    path = write(tmp_path / "pairs.arrow", pa.table({"sentence1": list("abc"), "sentence2": list("xyz"), "k": column}))
    (batch,) = batches(path)
    assert batch.kept["k"].to_pylist() == ["x", "y"]
    (bad,) = batch.rejects
    assert bad.row == 2
    assert "holds a value that is none of dictionary" in bad.reason


def test_a_fraction_among_ids_costs_its_row(tmp_path: Path) -> None:
    table = pa.table({"sentence1": list("abcd"), "sentence2": list("wxyz"), "n": [1.0, 2.5, None, float("nan")]})
    path = write(tmp_path / "pairs.parquet", table)
    (batch,) = batches(path, columns={"id": "n"})
    assert batch.table["id"].to_pylist() == ["1", None, None]
    assert [(one.row, one.reason) for one in batch.rejects] == [(2, "column 'n' holds 2.5, which is no id")]


def test_ids_may_be_decimals_without_fraction_and_uuids(tmp_path: Path) -> None:
    wide = pa.array(["7", "12345678901234567890123"]).cast(pa.decimal128(30, 0))
    raw = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(range(16)), bytes(16)], pa.binary(16)))
    table = pa.table({"sentence1": ["a", "b"], "sentence2": ["x", "y"], "n": wide, "u": raw})
    (batch,) = batches(write(tmp_path / "p.arrow", table), columns={"id": "n", "a_id": "u"})
    assert batch.table["id"].to_pylist() == ["7", "12345678901234567890123"]
    assert batch.table["a_id"].to_pylist()[0] == "00010203-0405-0607-0809-0a0b0c0d0e0f"


# Tables of queries and documents -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", columns_of_text())
def test_tables_of_texts_are_read_in_every_type(tmp_path: Path, kind: str) -> None:
    table = pa.table({"_id": list("12345"), "title": ["T", None, "", " ", "U"], "text": columns_of_text()[kind]})
    (file,) = resolve_inputs(str(write(tmp_path / "corpus.arrow", table)))
    (batch,) = read_texts(file, TextColumns(), titles=True, notices=[])
    assert batch.table["text"].to_pylist() == ["T a dog", "", WORDS[2], WORDS[3], "U a dog"]


@pytest.mark.parametrize("column", ["_id", "title", "text"])
def test_an_invalid_text_costs_its_row_in_tables_of_texts(tmp_path: Path, column: str) -> None:
    cells = {"_id": pa.array(list("12345")), "title": pa.array(list("TUVWX")), "text": pa.array(list("abcde"))}
    table = pa.table(cells | {column: broken(pa.string_view())})
    (file,) = resolve_inputs(str(write(tmp_path / "corpus.parquet", table)))
    (batch,) = read_texts(file, TextColumns(), titles=True, notices=[])
    assert batch.table["row"].to_pylist() == [1, 3, 4, 5]
    assert [(one.row, one.reason) for one in batch.rejects] == [(2, f"invalid UTF-8 in column '{column}'")]


def test_a_table_of_texts_without_text_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "corpus.parquet", pa.table({"_id": ["1"], "text": [["a", "list"]]}))
    (file,) = resolve_inputs(str(path))
    with pytest.raises(SourceError, match=r"corpus\.parquet: column 'text' holds list<.*>, not text"):
        list(read_texts(file, TextColumns(), titles=True, notices=[]))


# Files that are not what they say ------------------------------------------------------------------------------------


def test_damaged_is_said_of_damaged_files_alone(tmp_path: Path) -> None:
    table = pa.table({"sentence1": ["x"] * 1000, "sentence2": [str(at) for at in range(1000)]})
    for name in ("cut.parquet", "cut.arrow", "cut.arrows"):
        data = write(tmp_path / name, table).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(SourceError, match="damaged, cut short"):
            batches(tmp_path / name)
    whole = write(tmp_path / "whole.parquet", table).read_bytes()
    other = {
        "lfs.parquet": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of git-lfs"),
        "zip.parquet": (gzip.compress(whole), "packed with gzip"),
        "page.parquet": (b"<!DOCTYPE html><html>Not found", "is not Parquet: it begins with '<!DOCTYPE html>"),
        "csv.arrow": (b"sentence1,sentence2\nx,y\n", "is not Arrow IPC"),
        "none.parquet": (b"", "is empty"),
    }
    for name, (data, said) in other.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SourceError, match=said) as caught:
            batches(tmp_path / name)
        assert "damaged," not in str(caught.value)


def test_a_file_is_read_by_what_it_holds(tmp_path: Path) -> None:
    table = pa.table({"sentence1": ["x"], "sentence2": ["y"]})
    write(tmp_path / "a.parquet", table).rename(tmp_path / "b.arrow")
    write(tmp_path / "a.arrows", table).rename(tmp_path / "c.parquet")
    assert rows(reader(tmp_path / "b.arrow")) == rows(reader(tmp_path / "c.parquet")) == [("x", "y")]


def test_kept_columns_reach_the_output_as_they_are(tmp_path: Path) -> None:
    """Through the plan, where DuckDB takes them."""
    from test_logs import pairs_of

    from jobs.config.job import parse_job
    from jobs.plan.plan import make_plan
    from jobs.run.manifest import read_shard
    from jobs.storage.store import Store

    kept = {f"k{at}": column for at, (column, _) in enumerate(columns_to_keep().values())}
    path = write(tmp_path / "p.arrow", pa.table({"sentence1": list("abcde"), "sentence2": list("vwxyz"), **kept}))
    job = parse_job({"model": "m", "input": str(path), "output": str(tmp_path / "run")})
    run = Store.open(job.output)
    plan = make_plan(job, run)
    found = pairs_of([read_shard(run, plan, shard.index) for shard in plan.shards])
    found.sort(key=lambda row: row["ordinal"])
    for at, (_, values) in enumerate(columns_to_keep().values()):
        assert [row[f"k{at}"] for row in found] == values, plan.kept.field(f"k{at}")
