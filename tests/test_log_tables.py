"""Tables of ids and texts: every format of them gives the same texts, titles are joined, bad rows are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.config.sections import TextColumns
from jobs.errors import SourceError
from jobs.sources import Reject, resolve_inputs
from jobs.sources.beir import with_beir
from jobs.sources.lines import read_blocks, read_lines
from jobs.sources.tables import read_texts

TEXTS = {"1": "a dog", "two": 'she said "yes", twice', "3": "naïve ☕ 日本語", "4": "", "5": "x\\y /z"}
TITLES = {"1": "Dogs", "two": "", "3": "Tea", "4": "only a title", "5": "T"}


def read(
    path: Path, *, titles: bool = True, notices: list[str] | None = None, **columns: Any
) -> tuple[dict[str, str], list[Reject]]:
    (file,) = resolve_inputs(str(path), any_name=True)
    texts: dict[str, str] = {}
    rejects: list[Reject] = []
    told: list[str] = [] if notices is None else notices
    for batch in read_texts(file, TextColumns(**columns), titles=titles, notices=told):
        texts |= dict(zip(*(batch.table[name].to_pylist() for name in ("id", "text")), strict=True))
        rejects += batch.rejects
    return texts, rejects


def write(folder: Path, kind: str, *, titles: bool = True) -> Path:
    """The texts as a table of that kind, under the names that such tables have."""
    path = folder / f"corpus.{kind}"
    rows = [{"_id": key, "title": TITLES[key], "text": text} for key, text in TEXTS.items()]
    if not titles:
        rows = [{k: v for k, v in row.items() if k != "title"} for row in rows]
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "arrow":
        with pa.ipc.new_file(str(path), pa.Table.from_pylist(rows).schema) as writer:
            writer.write_table(pa.Table.from_pylist(rows))
    else:
        frame = pa.Table.from_pylist(rows).to_pandas()
        frame.to_csv(path, sep="\t" if kind == "tsv" else ",", index=False)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "arrow", "csv", "tsv"])
def test_every_kind_of_table_gives_the_same_texts(tmp_path: Path, kind: str) -> None:
    """Title + " " + text as BEIR joins them, and one of the two alone where the other is missing."""
    notices: list[str] = []
    joined = {"1": "Dogs a dog", "two": TEXTS["two"], "3": "Tea " + TEXTS["3"], "4": "only a title", "5": "T x\\y /z"}
    assert read(write(tmp_path, kind), notices=notices) == (joined, [])
    assert notices[-1] == f"corpus.{kind}: a text is title + ' ' + text"
    # A TSV in which quotes are quoting is not the ordinary one.
    assert [notice.split(" (")[0] for notice in notices[:-1]] == (
        ["corpus.tsv: quotes around cells are read as in CSV"] if kind == "tsv" else []
    )
    assert read(write(tmp_path, kind), titles=False) == (TEXTS, [])
    assert read(write(tmp_path, kind, titles=False)) == (TEXTS, [])


def test_ms_marcos_tables_have_no_header_and_literal_quotes(tmp_path: Path) -> None:
    """A quote at the beginning of a passage must not swallow the passages behind it."""
    lines = ['0\t"Manhattan" was the name', '1\t"unclosed', "2\tit's\ttwo tabs", '3\t"whole"']
    (tmp_path / "collection.tsv").write_text("\n".join(lines) + "\n")
    texts, rejects = read(tmp_path / "collection.tsv")
    assert texts == {"0": '"Manhattan" was the name', "1": '"unclosed', "3": '"whole"'}
    assert [(one.row, one.reason) for one in rejects] == [(3, "wrong number of fields")]


def test_columns_are_taken_by_name_or_number(tmp_path: Path) -> None:
    (tmp_path / "docs.tsv").write_text("D1\thttp://x\tThe title\tThe body\n")
    with pytest.raises(SourceError, match=r"has 4 columns and no header .* \{id: 1, text: 2\}"):
        read(tmp_path / "docs.tsv")
    assert read(tmp_path / "docs.tsv", id=1, title=3, text=4)[0] == {"D1": "The title The body"}
    (tmp_path / "odd.jsonl").write_text('{"key": 7, "words": "x"}\n')
    with pytest.raises(SourceError, match=r"no columns have usual names of ids and texts.*'key', 'words'"):
        read(tmp_path / "odd.jsonl")
    assert read(tmp_path / "odd.jsonl", id="key", text="words")[0] == {"7": "x"}
    with pytest.raises(SourceError, match="there is no column 'word'"):
        read(tmp_path / "odd.jsonl", id="key", text="word")


def test_bad_rows_of_a_table_cost_themselves_only(tmp_path: Path) -> None:
    good = '{"_id": "%d", "text": "fine"}\n'
    bad = {
        "{broken\n": "not valid JSON",
        '["x"]\n': "not a JSON object",
        '{"text": "x"}\n': "no id in '_id'",
        '{"_id": true, "text": "x"}\n': "no id in '_id'",
        '{"_id": "a", "text": 3}\n': "column 'text' holds no text",
        '{"_id": "b", "text": "\\ud800"}\n': "text that is not Unicode (a lone surrogate)",
        '{"_id": "c", "text": "\xff"}\n': "invalid UTF-8",
    }
    data = b"".join((good % at).encode() + line.encode("latin-1") for at, line in enumerate(bad))
    (tmp_path / "corpus.jsonl").write_bytes(data + b'\n{"_id": "null", "text": null}\n')
    texts, rejects = read(tmp_path / "corpus.jsonl")
    assert texts == {str(at): "fine" for at in range(len(bad))} | {"null": ""}
    assert [(one.row, one.reason) for one in rejects] == [(2 * n, why) for n, why in enumerate(bad.values(), 1)]


def test_blocks_of_lines_lose_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    import jobs.sources.lines

    data = "\ufeffone\ntwo\n\nlonger than a block\nlast without a line feed".encode()
    for size in range(1, 40):
        monkeypatch.setattr(jobs.sources.lines, "BLOCK_BYTES", size)
        blocks = list(read_blocks(io.BytesIO(data)))
        assert all(block.endswith(b"\n") for block in blocks)
        if size >= 3:  # a byte-order mark that is cut in two is not looked for
            lines = [line.text for block in blocks for line in read_lines(io.BytesIO(block))]
            assert lines == ["one", "two", "", "longer than a block", "last without a line feed"]


def test_a_beir_folder_stands_for_its_files(tmp_path: Path) -> None:
    for name in ("queries.jsonl", "corpus.jsonl.gz", "qrels/dev.tsv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = with_beir({"beir": str(tmp_path), "queries": ["mine.tsv"], "corpus": None, "log": ["run"]})
    assert found["queries"] == ["mine.tsv"]
    assert found["corpus"] == str(tmp_path / "corpus.jsonl.gz")
    assert found["qrels"] == str(tmp_path / "qrels" / "dev.tsv")
    assert "beir" not in found
    (tmp_path / "qrels" / "train.tsv").touch()
    assert with_beir({"beir": str(tmp_path)})["qrels"] is None
    (tmp_path / "qrels" / "test.tsv").touch()
    assert with_beir({"beir": str(tmp_path)})["qrels"] == str(tmp_path / "qrels" / "test.tsv")
    (tmp_path / "queries.jsonl").unlink()
    with pytest.raises(Exception, match=r"has no queries\.jsonl"):
        with_beir({"beir": str(tmp_path)})
