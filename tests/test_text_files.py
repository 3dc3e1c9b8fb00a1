"""Text files as they come: wide encodings, old line ends, packing of every kind; kept columns as they were written."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from test_delimited import joined, read

from jobs.config.job import parse_job
from jobs.errors import SourceError
from jobs.plan.plan import make_plan
from jobs.run.manifest import read_shard
from jobs.sources import read_pairs, resolve_inputs
from jobs.storage.store import Store

# Encodings and packing ---------------------------------------------------------------------------------------------

TABLE = "sentence1\tsentence2\ncafé\tnaïve\n日本語の文\t中文句子\n"
PAIRS = [("café", "naïve"), ("日本語の文", "中文句子")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_wide_text_is_read_with_and_without_a_mark(tmp_path: Path, encoding: str) -> None:
    called = encoding[:6].upper()
    place = tmp_path / "a.tsv"
    assert read(place, TABLE.encode(encoding)) == (PAIRS, [], [f"a.tsv: is {called}, read as such"])
    assert read(place, gzip.compress(TABLE.encode(encoding)))[0] == PAIRS
    lines = "".join(json.dumps({"sentence1": a, "sentence2": b}, ensure_ascii=False) + "\n" for a, b in PAIRS)
    assert read(tmp_path / "a.jsonl", lines.encode(encoding))[0] == PAIRS
    chinese = "sentence1\tsentence2\n" + "一个女人在切菜\t有人在切洋葱\n" * 200
    assert len(read(place, chinese.encode(encoding))[0]) == 200


def test_nul_bytes_do_not_make_text_wide(tmp_path: Path) -> None:
    rows = [("a\x00b", "c"), ("d\x00\x00", "é"), ("\x00", "x"), ("日\x00本", "y")]
    assert read(tmp_path / "a.csv", joined([("sentence1", "sentence2"), *rows], ","))[0] == rows


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_lines_may_end_in_carriage_returns_alone(tmp_path: Path, name: str) -> None:
    data = b"sentence1,sentence2\ra,b\rc,d\re"
    packed = gzip.compress(data) if name.endswith("gz") else data
    assert read(tmp_path / name, packed)[:2] == ([("a", "b"), ("c", "d")], [(4, "wrong number of fields")])


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/"), data)
    return out.getvalue()


DATA = b"sentence1,sentence2\n" + b"a,b\n" * 5000
PACKED = {
    "gz": gzip.compress(DATA),
    "gz of two parts": gzip.compress(DATA[:1000]) + gzip.compress(DATA[1000:]),
    "bz2": bz2.compress(DATA),
    "xz": lzma.compress(DATA),
    "zst": pa.compress(DATA, "zstd", asbytes=True),
    "zip": zipped(**{"pairs.csv": DATA, "__MACOSX__._pairs.csv": b"x"}),
    "plain": DATA,
}


@pytest.mark.parametrize("packed", PACKED.values(), ids=PACKED)
def test_text_is_unpacked_by_what_the_file_holds(tmp_path: Path, packed: bytes) -> None:
    """Whatever its name says: also a name without a compression, and one with another."""
    for name in ("a.csv", "a.csv.gz", "a.csv.zst", "a.csv.bz2", "a.csv.xz", "a.csv.zip"):
        assert read(tmp_path / name, packed) == ([("a", "b")] * 5000, [], [])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv.bz2").write_bytes(packed)
    assert [file.name for file in resolve_inputs(str(tmp_path / "in"))] == ["a.csv.bz2"]


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zip"])
def test_damaged_packing_is_called_so(tmp_path: Path, kind: str) -> None:
    with pytest.raises(SourceError, match="damaged, cut short"):
        read(tmp_path / f"a.csv.{kind}", PACKED[kind][: len(PACKED[kind]) // 2])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (zipped(a=DATA, b=DATA), r"is a zip archive of 2 files \(a, b\); unpack it"),
        (
            zipped(**{"[Content_Types].xml": b"x", "xl__workbook.xml": b"x"}),
            r"Excel workbook \(\.xlsx\); save it as CSV",
        ),
        (zipped(), "is a zip archive of 0 files"),
        (gzip.compress(bz2.compress(DATA)), "is gzip of bzip2: packed twice"),
        (b"PAR1" + b"\0" * 100, r"is Parquet; name it \.parquet"),
        (gzip.compress(b"PAR1" + b"\0" * 100), "is gzip: its content is Parquet"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of git-lfs"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", "is a web page"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "is an Office file"),
        (b"\x1f\x8b\x00\xffjunk\xf0", "is named as gzip and is neither that nor text"),
    ],
    # Not of the bytes: packed ones have the time in them, and test processes must agree on names.
    ids=[
        "zip of two",
        "workbook",
        "empty zip",
        "packed twice",
        "Parquet",
        "packed Parquet",
        "git-lfs",
        "page",
        "Office",
        "junk",
    ],
)
def test_what_is_no_text_is_refused_with_the_true_reason(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(SourceError, match=said) as caught:
        read(tmp_path / "a.csv.gz", data)
    assert "a.csv.gz: " in str(caught.value)


# Kept columns ------------------------------------------------------------------------------------------------------

CELLS = {
    "zeros": ["007", "010", "1"],
    "signs": ["+5", "-0", "5"],
    "exponents": ["12e4", "1E5", "10"],
    "decimals": ["1.10", "2.0", "3"],
    "underscores": ["1_000", "2", "3"],
    "long": ["12345678901234567890", "1", "2"],
    "tweets": ["1234567890123456789", "9223372036854775807", "-9223372036854775808"],
    "beyond": ["9223372036854775808", "1", "2"],
    "flags": ["TRUE", "false", "True"],
    "dates": ["2024-01-02", "2024-1-2", "02.01.2024"],
    "spaces": [" 5", "6 ", "7"],
    "nothing": ["nan", "NULL", "inf"],
    "gaps": ["", "x", ""],
    "numbers with gaps": ["", "5", ""],
    "scores": ["0.5", "4.75", "-1.25"],
    "hex": ["0x10", "1f", "2"],
}


def planned(folder: Path) -> tuple[pa.Schema, list[dict[str, Any]]]:
    job = parse_job({"model": "m", "input": str(folder / "in"), "output": str(folder / "run"), "shards": 1})
    run = Store.open(job.output)
    plan = make_plan(job, run)
    return plan.kept, read_shard(run, plan, 0).pairs.select(plan.kept.names).to_pylist()


def test_kept_cells_of_csv_come_back_as_they_were_written(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with open(tmp_path / "in" / "a.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence1", "sentence2", *CELLS])
        writer.writerows([f"a{at}", "b", *(cells[at] for cells in CELLS.values())] for at in range(3))
    schema, rows = planned(tmp_path)
    for name, cells in CELLS.items():
        assert ["" if row[name] is None else str(row[name]) for row in rows] == cells
    numbers = {name: str(kind) for name, kind in zip(schema.names, schema.types, strict=True) if kind != pa.string()}
    assert numbers == {"tweets": "int64", "numbers with gaps": "int64", "scores": "double"}


def test_a_column_of_csv_files_that_differ_stays_text(tmp_path: Path) -> None:
    """Files with other columns are typed apart, and must not change each other's numbers."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("sentence1,sentence2,n,m\na,b,1,1\n")
    (tmp_path / "in" / "b.csv").write_text("sentence1,sentence2,n,m,more\nc,d,2.5,x,\n")
    schema, rows = planned(tmp_path)
    assert [[row["n"], row["m"]] for row in rows] == [["1", "1"], ["2.5", "x"]]
    assert schema.field("n").type == pa.string()


def test_numbers_of_jsonl_are_the_same_numbers_or_text(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    written = {
        "whole": ["1", "9223372036854775807"],
        "large": ["123456789012345678901", "1"],
        "odd": ["9007199254740993", "0.5"],
        "digits": ["0.1234567890123456789", "0.5"],
        "decimal": ["1.10", "2"],
        "huge": ["1e400", "1"],
        "nested": ['[1.10, {"x": 12345678901234567890}]', "[]"],
    }
    lines = []
    for at in range(2):
        members = ", ".join(f'"{name}": {cells[at]}' for name, cells in written.items())
        lines.append(f'{{"sentence1": "a{at}", "sentence2": "b", {members}}}')
    (tmp_path / "in" / "a.jsonl").write_text("\n".join(lines))
    schema, rows = planned(tmp_path)
    got = {name: [row[name] for row in rows] for name in written}
    for name in ("large", "odd", "digits", "huge", "nested"):
        assert got[name] == written[name]
    assert got["whole"] == [1, 2**63 - 1]
    assert got["decimal"] == [1.1, 2.0]
    assert str(schema.field("decimal").type) == "double"


def test_rejects_show_the_numbers_of_jsonl_as_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"sentence1": "", "sentence2": "b", "n": 12345678901234567890, "d": 1.10}\n')
    reader = read_pairs(parse_job({"model": "m", "input": str(tmp_path / "a.jsonl"), "output": "/nonexistent/run"}))
    (reject,) = [one for batch in reader for one in batch.rejects]
    assert '"n": 12345678901234567890, "d": 1.10' in reject.row_text


def test_an_id_of_many_digits_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"sentence1": "a", "sentence2": "b", "id": 12345678901234567890123}\n')
    job = {"model": "m", "input": str(tmp_path / "a.jsonl"), "output": "/nonexistent/run", "columns": {"id": "id"}}
    (batch,) = read_pairs(parse_job(job))
    assert batch.table["id"].to_pylist() == ["12345678901234567890123"]
