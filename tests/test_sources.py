"""Readers: every format gives the same rows, and one bad row costs that row only."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3_server import S3Server
from test_stores import as_user

from jobs.config.job import parse_job
from jobs.errors import SourceError
from jobs.sources import PairReader, Reject, read_pairs

PAIRS = [("a dog", "ein Hund"), ('she said "yes", twice', "tab\tand\nline"), ("naïve ☕", "日本語")]


def reader(place: Path | str | list[str], **settings: Any) -> PairReader:
    places = place if isinstance(place, list) else [str(place)]
    return read_pairs(parse_job({"model": "m", "input": places, "output": "/nonexistent/run", **settings}))


def rows(source: PairReader) -> list[tuple[str, str]]:
    return [pair for batch in source for pair in zip(*(batch.table[s].to_pylist() for s in "ab"), strict=True)]


def rejects(source: PairReader) -> list[Reject]:
    return [reject for batch in source for reject in batch.rejects]


def write(folder: Path, name: str, table: pa.Table) -> Path:
    """``table`` in the format that ``name`` says."""
    path = folder / name
    kind = name.split(".")[1]
    if kind == "parquet":
        pq.write_table(table, path)
    elif kind in ("arrow", "arrows"):
        opened = pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream
        with opened(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    else:
        if kind == "jsonl":
            text = "".join(json.dumps(row) + "\n" for row in table.to_pylist())
        else:
            separator = "," if kind == "csv" else "\t"
            frame = table.to_pandas()
            text = frame.to_csv(sep=separator, index=False)
        data = text.encode()
        if name.endswith(".gz"):
            data = gzip.compress(data)
        if name.endswith(".zst"):
            data = pa.compress(data, "zstd", asbytes=True)
        path.write_bytes(data)
    return path


FORMATS = ["parquet", "arrow", "arrows", "jsonl", "csv", "tsv", "jsonl.gz", "csv.gz", "tsv.zst", "jsonl.zst"]


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    table = pa.table({"sentence1": [a for a, _ in PAIRS], "sentence2": [b for _, b in PAIRS], "label": [1, 2, 3]})
    source = reader(write(tmp_path, f"pairs.{kind}", table))
    assert rows(source) == PAIRS
    # A TSV in which quotes are quoting is not the ordinary one.
    assert [notice.split(" (")[0] for notice in source.notices] == (
        [f"pairs.{kind}: quotes around cells are read as in CSV"] if kind.startswith("tsv") else []
    )


@pytest.mark.parametrize("kind", ["parquet", "arrow", "jsonl.zst", "csv.gz"])
def test_an_input_in_a_bucket_is_read(s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    from jobs.storage.s3 import open_s3

    as_user(monkeypatch, s3.admin)
    table = pa.table({"sentence1": [a for a, _ in PAIRS], "sentence2": [b for _, b in PAIRS]})
    place = f"{s3.bucket}/input/{kind}/pairs.{kind}"
    open_s3(None).put_file(str(write(tmp_path, f"pairs.{kind}", table)), place)
    assert rows(reader(f"s3://{place}")) == PAIRS
    assert rows(reader(f"s3://{s3.bucket}/input/{kind}/*")) == PAIRS
    assert rows(reader(f"s3://{s3.bucket}/input/{kind}/")) == PAIRS


def test_a_missing_object_and_a_missing_bucket_are_told_apart(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    as_user(monkeypatch, s3.admin)
    with pytest.raises(SourceError, match="no such file or folder"):
        reader(f"s3://{s3.bucket}/nowhere.csv")
    with pytest.raises(Exception, match="no bucket 'there-is-none'"):
        reader("s3://there-is-none/x.csv")


def test_bad_jsonl_lines_cost_themselves_only(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    good = b'{"sentence1": "x", "sentence2": "y"}\n'
    bad = {
        b"{broken\n": "not valid JSON",
        b'["x", "y"]\n': "not a JSON object",
        b'{"sentence1": 3, "sentence2": "y"}\n': "column 'sentence1' holds a number, not text",
        b'{"sentence1": "x", "sentence2": ["y"]}\n': "column 'sentence2' holds a list, not text",
        b'{"sentence1": null, "sentence2": "y"}\n': "column 'sentence1' is null",
        b'{"sentence1": "x"}\n': "no field 'sentence2'",
        b'{"sentence1": "", "sentence2": "y"}\n': "column 'sentence1' is empty",
        b'{"sentence1": " \\u00a0\\t", "sentence2": "y"}\n': "column 'sentence1' holds only white space",
        b'{"sentence1": "\xff", "sentence2": "y"}\n': "invalid UTF-8",
        b'{"sentence1": "\\ud800", "sentence2": "y"}\n': "text that is not Unicode (a lone surrogate)",
        b"[" * 100_000 + b"\n": "not valid JSON",
        b'{"sentence1": "' + b"x" * (17 << 20) + b'"}\n': "line longer than 16 MiB",
    }
    path.write_bytes(good + b"".join(line + good for line in bad))
    assert len(rows(reader(path))) == len(bad) + 1
    turned_away = rejects(reader(path))
    assert [one.reason for one in turned_away] == list(bad.values())
    assert [one.row for one in turned_away] == [2 * i + 2 for i in range(len(bad))]
    assert {one.file for one in turned_away} == {"pairs.jsonl"}
    assert all(len(one.row_text) < 5000 for one in turned_away)


def test_bad_csv_rows_cost_themselves_only(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    bad = {
        b"one field\n": "wrong number of fields",
        b"x,y,z\n": "wrong number of fields",
        b'x,"never closed\n': "quotes that do not match",
        b'"a"b,c\n': "quotes that do not match",
        b"\xff,y\n": "invalid UTF-8",
        b",y\n": "column 'sentence1' is empty",
        b"x,   \n": "column 'sentence2' holds only white space",
    }
    good = b'"x","y"\n'
    path.write_bytes(b"\xef\xbb\xbfsentence1,sentence2\r\n" + good + b"".join(line + good for line in bad) + b"\n\nx,y")
    assert rows(reader(path)) == [("x", "y")] * (len(bad) + 2)
    turned_away = rejects(reader(path))
    assert [one.reason for one in turned_away] == list(bad.values())
    assert [one.row for one in turned_away] == [2 * i + 3 for i in range(len(bad))]


def test_quoted_cells_and_nul_bytes_survive(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    long = "word " * 100_000
    path.write_text(f'sentence1,sentence2\n"a ""b"", c\nd",e\nnul\x00byte,f\n{long},g\n')
    assert rows(reader(path)) == [('a "b", c\nd', "e"), ("nul\x00byte", "f"), (long, "g")]
    assert [batch.table["row"].to_pylist() for batch in reader(path)] == [[2, 4, 5]]


def test_invalid_text_in_parquet_is_turned_away(tmp_path: Path) -> None:
    """Parquet readers do not check that text is UTF-8, and a later step would stop on it."""
    broken = pa.array([b"fine", b"\xff\xfe", b"fine", None, b""]).view(pa.string())
    other = pa.array(["p", "q", "r", "s", "t"])
    table = pa.table(
        {"sentence1": broken, "sentence2": other, "note": pa.array([b"x", b"x", b"\xff", b"x", b"x"]).view(pa.string())}
    )
    pq.write_table(table, tmp_path / "pairs.parquet")
    source = tmp_path / "pairs.parquet"
    assert rows(reader(source)) == [("fine", "p")]
    assert [(one.row, one.reason) for one in rejects(reader(source))] == [
        (2, "invalid UTF-8 in column 'sentence1'"),
        (3, "invalid UTF-8 in column 'note'"),
        (4, "column 'sentence1' is null"),
        (5, "column 'sentence1' is empty"),
    ]


@pytest.mark.parametrize(
    "kind",
    [pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int32(), pa.string())],
    ids=["large_string", "string_view", "binary", "dictionary"],
)
def test_all_kinds_of_text_columns_are_text(tmp_path: Path, kind: pa.DataType) -> None:
    one = pa.array(["p", "q", "p"])
    column = one.dictionary_encode() if pa.types.is_dictionary(kind) else one.cast(kind)
    path = write(tmp_path, "pairs.arrow", pa.table({"a": column, "b": column}))
    assert rows(reader(path, columns={"a": "a", "b": "b"})) == [("p", "p"), ("q", "q"), ("p", "p")]


def test_ids_may_be_whole_numbers(tmp_path: Path) -> None:
    table = pa.table({"sentence1": ["x", "y"], "sentence2": ["p", "q"], "n": [1, 2], "f": [7.0, None]})
    batch = next(iter(reader(write(tmp_path, "p.parquet", table), columns={"id": "n", "a_id": "f"})))
    assert batch.table["id"].to_pylist() == ["1", "2"]
    assert batch.table["a_id"].to_pylist() == ["7", None]
    assert batch.kept.num_columns == 0


def test_without_names_the_first_text_columns_are_taken_and_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("n,question,answer,more\n1,who?,me,x\n2,why?,so,y\n")
    source = reader(path)
    assert rows(source) == [("who?", "me"), ("why?", "so")]
    assert source.notices == [
        "uses the first text columns: 'question' as a and 'answer' as b (set columns.a and columns.b to choose others)"
    ]


def test_without_header_columns_go_by_number(tmp_path: Path) -> None:
    path = tmp_path / "log.tsv"
    path.write_text("1\twho?\tme\n2\twhy?\tso\n")
    source = reader(path, header=False, columns={"a": 2, "b": 3})
    batch = next(iter(source))
    assert batch.table["a"].to_pylist() == ["who?", "why?"]
    assert batch.kept.column_names == ["column_1"]


def test_semicolons_and_tabs_in_a_csv_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("sentence1;sentence2\nx;y\n")
    source = reader(path)
    assert rows(source) == [("x", "y")]
    assert source.notices == ["pairs.csv: columns are separated by semicolons (set delimiter or quotes to change this)"]


def test_a_folder_is_read_in_order_without_what_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name, text in {"b.csv": "2", "a.csv": "1", "deep/c.csv": "3", "_old.csv": "no", ".x.csv": "no"}.items():
        (tmp_path / name).write_text(f"sentence1,sentence2\nx{text},y\n")
    (tmp_path / "README.md").write_text("hello")
    (tmp_path / "state.json").write_text("{}")
    source = reader(tmp_path)
    assert [file.name for file in source.files] == ["a.csv", "b.csv", "deep/c.csv"]
    assert [a for a, _ in rows(source)] == ["x1", "x2", "x3"]
    assert [file.name for file in reader(str(tmp_path / "*.csv")).files] == ["_old.csv", "a.csv", "b.csv"]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sentence1,sentence2\nx,y\n")
    assert rows(reader([str(tmp_path / "a.csv"), str(tmp_path / "*.csv")])) == [("x", "y")]


def unreadable(folder: Path) -> list[tuple[str, str, dict[str, Any]]]:
    (folder / "junk.parquet").write_bytes(b"this is no Parquet file" * 10)
    (folder / "junk.arrow").write_bytes(b"this is no Arrow file" * 10)
    (folder / "empty.parquet").write_bytes(b"")
    (folder / "cut.csv.gz").write_bytes(gzip.compress(b"sentence1,sentence2\n" + b"x,y\n" * 9999)[:-20])
    (folder / "cut.csv.zst").write_bytes(
        pa.compress(b"sentence1,sentence2\n" + b"x,y\n" * 9999, "zstd", asbytes=True)[:-5]
    )
    (folder / "empty.csv").write_text("")
    (folder / "header.csv").write_text("sentence1,sentence2\n")
    (folder / "list.json").write_text("[\n{}]")
    (folder / "one.csv").write_text("only\nx\n")
    (folder / "pairs.csv").write_text("q,d\nx,y\n")
    (folder / "notes.txt").write_text("x")
    pq.write_table(pa.table({"sentence1": [1], "sentence2": ["x"]}), folder / "number.parquet")
    damaged = "damaged, cut short, or another format"
    return [
        *((name, damaged, {}) for name in ("cut.csv.gz", "cut.csv.zst")),
        ("junk.parquet", "is not Parquet: it begins with 'this is no Parquet f'", {}),
        ("junk.arrow", "is not Arrow IPC: it begins with 'this is no Arrow fil'", {}),
        ("empty.parquet", "is empty", {}),
        *((name, "has no rows", {}) for name in ("empty.csv", "header.csv")),
        ("list.json", "JSON array", {}),
        ("one.csv", "no two text columns.*columns are 'only'", {}),
        ("pairs.csv", "no column 'nope'; the columns are 'q', 'd'", {"columns": {"a": "nope"}}),
        ("pairs.csv", "no column 'label'", {"columns": {"a": "q", "b": "d"}, "keep": ["label"]}),
        ("notes.txt", "has no known format", {}),
        ("absent.csv", "no such file or folder", {}),
        ("*.absent", "no input file there", {}),
        ("number.parquet", "column 'sentence1' holds int64, not text", {}),
    ]


def test_what_cannot_be_read_is_one_line_with_its_file(tmp_path: Path) -> None:
    for name, told, settings in unreadable(tmp_path):
        with pytest.raises(SourceError, match=told) as caught:
            list(reader(tmp_path / name, **settings))
        assert name.lstrip("*") in str(caught.value)
        assert "\n" not in str(caught.value)


def test_every_further_file_must_have_the_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("q,d\nx,y\n")
    (tmp_path / "b.csv").write_text("q,doc\nx,y\n")
    with pytest.raises(SourceError, match=r"b\.csv: columns\.b: there is no column 'd'"):
        list(reader(tmp_path))


def test_batches_are_bounded(tmp_path: Path) -> None:
    """A reader that took the whole file would not survive a corpus."""
    path = tmp_path / "long.jsonl"
    line = json.dumps({"sentence1": "x" * 1_000_000, "sentence2": "y"}) + "\n"
    path.write_text(line * 60)
    sizes = [len(batch) for batch in reader(path)]
    assert sum(sizes) == 60
    assert max(sizes) <= 20


def test_the_run_directory_is_no_input_of_itself(tmp_path: Path) -> None:
    (tmp_path / "run" / "attributions").mkdir(parents=True)
    (tmp_path / "run" / "attributions" / "part-00000.csv").write_text("a,b\nno,no\n")
    (tmp_path / "pairs.csv").write_text("sentence1,sentence2\nx,y\n")
    job = parse_job({"model": "m", "input": str(tmp_path), "output": str(tmp_path / "run")})
    assert rows(read_pairs(job)) == [("x", "y")]


def test_random_bytes_end_in_rows_rejects_or_one_line(tmp_path: Path) -> None:
    """Whatever a file holds, no traceback reaches the user."""
    chance = random.Random(5)
    pieces = [b"a", b",", b'"', b"\n", b"\r\n", b"\t", b"{", b"}", b"[", b"null", b"\xff", b"\x00", b" ", b"1", b";"]
    pieces += [b'{"sentence1":"x","sentence2":"y"}\n', b"x,y\n", b"\xef\xbb\xbf", b'"a ""b"""', b"\\ud800", b"9" * 30]
    for number in range(400):
        kind = chance.choice(["csv", "tsv", "jsonl", "csv.gz", "parquet", "arrow"])
        head = b"sentence1,sentence2\n" if chance.random() < 0.7 else b""
        path = tmp_path / f"{number}.{kind}"
        path.write_bytes(head + b"".join(chance.choice(pieces) for _ in range(chance.randrange(60))))
        told = ""
        try:
            for batch in reader(path):
                assert len(batch.table) == len(batch.kept) or not batch.kept.num_columns
        except SourceError as error:
            told = str(error)
        assert "\n" not in told
