"""Delimited text: how a file is written is decided once, from all of it; what writers write comes back as it was."""

from __future__ import annotations

import csv
import gzip
import io
import random
from pathlib import Path
from typing import Any

import pytest

from jobs.config.job import load_job, parse_job
from jobs.config.sections import TextColumns
from jobs.errors import JobError, SourceError
from jobs.sources import read_pairs, resolve_inputs
from jobs.sources.dialect import Asked, decided, say_once
from jobs.sources.headers import looks_headerless
from jobs.sources.log import read_qrels
from jobs.sources.tables import read_texts

ROWS = [("A cat sat.", "A cat was sitting."), ("It rains.", "Rain is falling."), ("Go now.", "Leave at once.")]
LITERAL = "quotes are ordinary characters and stay in the texts"
AS_CSV = "quotes around cells are read as in CSV"


def read(
    place: Path, data: bytes | str, **settings: Any
) -> tuple[list[tuple[str, str]], list[tuple[int, str]], list[str]]:
    """Pairs, rejects (line, reason) and notices of a file with that content."""
    place.write_bytes(data if isinstance(data, bytes) else data.encode())
    reader = read_pairs(parse_job({"model": "m", "input": str(place), "output": "/nonexistent/run", **settings}))
    pairs, rejects = [], []
    for batch in reader:
        pairs += list(zip(batch.table["a"].to_pylist(), batch.table["b"].to_pylist(), strict=True))
        rejects += [(one.row, one.reason) for one in batch.rejects]
    return pairs, rejects, [notice.split(" (set delimiter")[0] for notice in reader.notices]


def joined(rows: list[tuple[str, ...]], sign: str) -> str:
    return "".join(sign.join(row) + "\n" for row in rows)


# Quotes ------------------------------------------------------------------------------------------------------------

PLAIN = {
    "opens in one cell, closes in the next": [("Nobody came.", "None came."), ('"We wait; he said.', 'We stay."')],
    "left open for lines": [*ROWS[:1], ('"Left open', "x"), ("y", "z"), ('closed later"', "w"), *ROWS[1:]],
    "around a cell and within another": [('"All well."', "Fine."), ('"Not yet" she said.', "She said not yet.")],
    "never closed": [*ROWS, ('"Never closed', "x"), *ROWS],
    "inches": [('A 5" disk', "small"), ('"So."', "It is so.")],
}


@pytest.mark.parametrize("rows", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("sign", ["\t", ",", ";", "|"], ids=["tab", "comma", "semicolon", "bar"])
def test_quotes_that_are_no_quoting_stay_and_merge_nothing(
    tmp_path: Path, sign: str, rows: list[tuple[str, str]]
) -> None:
    rows = [tuple(cell.replace(sign, ":") for cell in row) for row in rows]  # type: ignore[misc]
    name = "pairs.tsv" if sign == "\t" else "pairs.csv"
    pairs, rejects, notices = read(tmp_path / name, joined([("sentence1", "sentence2"), *rows], sign))
    assert (pairs, rejects) == (rows, [])
    assert len(notices) == 1
    assert notices[0].endswith(LITERAL)


@pytest.mark.parametrize("sign", ["\t", ",", ";", "|"], ids=["tab", "comma", "semicolon", "bar"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("header", [True, False])
def test_what_a_csv_writer_writes_comes_back(tmp_path: Path, sign: str, quoting: Any, header: bool) -> None:
    """Delimiters, doubled quotes and line feeds in cells, by the standard library's writer."""
    chance = random.Random(7)
    pieces = ["word", "two words", sign, '"', "\n", "\r\n", "5", ".", "said", "é"]
    for attempt in range(30):
        rows = [
            (f"a{at} " + "".join(chance.choices(pieces, k=chance.randrange(6))), f"b{at} " + chance.choice(pieces))
            for at in range(chance.randrange(3, 30))
        ]
        rows.append((f'say "yes"{sign} twice', f"a\nline{sign}"))
        out = io.StringIO()
        writer = csv.writer(out, delimiter=sign, quoting=quoting, lineterminator=chance.choice(["\n", "\r\n"]))
        writer.writerows([("sentence1", "sentence2"), *rows] if header else rows)
        name = f"{attempt}.{'tsv' if sign == chr(9) else 'csv'}"
        told = {} if header else {"header": False, "columns": {"a": 1, "b": 2}}
        pairs, rejects, _ = read(tmp_path / name, out.getvalue(), **told)
        assert (pairs, rejects) == (rows, [])


def test_random_tsv_without_quoting_is_split_at_tabs(tmp_path: Path) -> None:
    """A line with one tab is a row whatever its quotes are, as soon as a row shows that they are no quoting."""
    chance = random.Random(8)
    for attempt in range(60):
        cells = ['"', "word", " ", '""', ".", "she said"]
        rows = [
            tuple(f"{chance.choice(cells)}{at}" + "".join(chance.choices(cells, k=4)) for _ in "ab")
            for at in range(chance.randrange(1, 40))
        ]
        rows.append(('"Well" he said', 'a 5" disk'))
        pairs, rejects, _ = read(tmp_path / f"{attempt}.tsv", joined([("sentence1", "sentence2"), *rows], "\t"))
        assert (pairs, rejects) == (rows, [])


def test_one_bad_row_does_not_unquote_a_quoted_file(tmp_path: Path) -> None:
    rows = [('"a, b"', '"c ""d"""')] * 3 + [('"open', "x")] + [('"e, f"', '"g"')]
    pairs, rejects, notices = read(tmp_path / "pairs.csv", joined([("sentence1", "sentence2"), *rows], ","))
    assert pairs == [("a, b", 'c "d"')] * 3 + [("e, f", "g")]
    assert (rejects, notices) == ([(5, "quotes that do not match")], [])


def test_quoted_tsv_is_read_as_csv_and_said(tmp_path: Path) -> None:
    """As R, QUOTE_ALL and pandas write it, and with an unquoted header in a long file."""
    text = '"sentence1"\t"sentence2"\t"n"\n"Well."\t"Good."\t1\n"a"\t"b"\t2\n'
    assert read(tmp_path / "r.tsv", text) == ([("Well.", "Good."), ("a", "b")], [], [f"r.tsv: {AS_CSV}"])
    long = "sentence1\tsentence2\n" + '"a"\t"b"\n' * 50
    assert read(tmp_path / "long.tsv", long) == ([("a", "b")] * 50, [], [f"long.tsv: {AS_CSV}"])
    assert read(tmp_path / "told.tsv", long, quotes="none")[::2] == ([('"a"', '"b"')] * 50, [])


def test_backslashes_before_quotes_as_spark_writes_them(tmp_path: Path) -> None:
    text = 'sentence1,sentence2\n"He said \\"hi\\", twice",x\n"C:\\\\new \\d",y\n'
    pairs, rejects, notices = read(tmp_path / "spark.csv", text)
    assert (pairs, rejects) == ([('He said "hi", twice', "x"), ("C:\\new \\d", "y")], [])
    assert notices == ['spark.csv: a quote within a cell is written \\"']


def test_the_whole_file_decides_and_not_its_beginning(tmp_path: Path) -> None:
    """Quotes that stand in the middle of a large file alone decide for every row of it."""
    filler = "".join(f"the sentence of number {at} goes here,another text {at}\n" for at in range(60_000))
    place = tmp_path / "pairs.csv"
    for middle, quoted in (('"Open,x\ny,z\nclosed",w\n"No" he said,so\n', False), ('"a, b","c ""d"""\n' * 3, True)):
        for packed in (False, True):
            data = ("sentence1,sentence2\n" + filler + middle + filler).encode()
            assert len(data) > 5 << 20
            place.write_bytes(gzip.compress(data, 1) if packed else data)
            (file,) = resolve_inputs(str(place))
            first, again = (decided(file, Asked(), [])[0] for _ in range(2))
            assert first == again
            assert (first.quoted, first.width) == (quoted, 2)


def test_the_dialect_can_be_told(tmp_path: Path) -> None:
    text = 'sentence1:sentence2\n"a":"b:c"\n'
    assert read(tmp_path / "a.csv", text, delimiter=":", quotes="csv")[0] == [("a", "b:c")]
    assert read(tmp_path / "a.tsv", 'sentence1,sentence2\n"x",y\n', delimiter="comma", quotes="none") == (
        [('"x"', "y")],
        [],
        [],
    )
    for bad in ({"delimiter": "::"}, {"delimiter": '"'}, {"quotes": "maybe"}):
        with pytest.raises(JobError, match="allowed: "):
            parse_job({"model": "m", "input": "x", "output": "y", **bad})
    log = {"log": "run", "queries": "q.tsv", "corpus": "c.csv", "corpus_columns": {"quotes": "csv"}}
    job = parse_job({"model": "m", "output": "y", "quotes": "none", "delimiter": "tab", **log})
    assert (job.query_columns.quotes, job.corpus_columns.quotes, job.corpus_columns.delimiter) == ("none", "csv", "tab")


# Delimiters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rows", "sign", "called"),
    [
        ("pairs.csv", [("A one, big", "B one"), ("C, d", "E")], "\t", "tabs"),
        ("pairs.csv", [("Hello, world", "Hallo, Welt"), ("A, b", "C, d")], ";", "semicolons"),
        ("pairs.csv", [("1,5 litres", "2,5 litres"), ("3,0 feet", "4,1 feet")], ";", "semicolons"),
        ("pairs.csv", [("one, two", "x"), ("y", "z")], "|", "bars (|)"),
        ("pairs.tsv", [("one", "x"), ("y", "z")], ",", "commas"),
        ("pairs.csv", [("one; two", "x; y"), ("y", "z")], ",", None),
    ],
)
def test_the_delimiter_is_what_every_line_has(
    tmp_path: Path, name: str, rows: list[tuple[str, str]], sign: str, called: str | None
) -> None:
    notices = [] if called is None else [f"{name}: columns are separated by {called}"]
    told = {"header": False, "columns": {"a": 1, "b": 2}}
    assert read(tmp_path / name, joined(rows, sign), **told) == (rows, [], notices)
    named = joined([("sentence1", "sentence2"), *rows], sign)
    assert read(tmp_path / name, named) == (rows, [], notices)


def test_a_bad_first_row_does_not_set_the_width(tmp_path: Path) -> None:
    text = "one cell too, many, here\n" + joined(ROWS, ",")
    assert read(tmp_path / "a.csv", text, header=False, columns={"a": 1, "b": 2})[:2] == (
        ROWS,
        [(1, "wrong number of fields")],
    )


def test_excels_line_with_the_delimiter_is_no_row(tmp_path: Path) -> None:
    for first in ("sep=;\r\n", '"sep=;"\n', "\ufeffsep=;\n"):
        pairs, rejects, _ = read(tmp_path / "a.csv", first + "sentence1;sentence2\na, b;c\nd;e;f\n")
        assert (pairs, rejects) == ([("a, b", "c")], [(4, "wrong number of fields")])


def test_a_notice_is_given_once_for_many_files(tmp_path: Path) -> None:
    for at in range(4):
        (tmp_path / f"{at}.csv").write_text("sentence1;sentence2\nx;y\n")
    reader = read_pairs(parse_job({"model": "m", "input": str(tmp_path), "output": "/nonexistent/run"}))
    assert sum(len(batch) for batch in reader) == 4
    assert [notice.split(" (")[0] for notice in reader.notices] == [
        "0.csv and 3 more files: columns are separated by semicolons"
    ]
    notices = ["a: x"]
    say_once(notices, "b", "x")
    say_once(notices, "c", "y")
    assert notices == ["a and 1 more file: x", "c: y"]


# Headers -----------------------------------------------------------------------------------------------------------

HEADERLESS = {
    "sentences": "A plane is taking off.,An air plane is taking off.\nA man plays.,A man is playing a flute.\n",
    "sentences and scores": "A plane takes off,An air plane takes off,5.0\nA man plays,A man is playing,3.8\n",
    "numbered ids": "q1,big dog,large dog\nq2,cat,small cat\nq3,old cow,cow\n",
    "whole numbers as ids": "1,big dog,large dog\n2,cat,small cat\n",
    "one row": "A plane is taking off.,An air plane is taking off.\n",
    "dates": "2024-01-02,big dog,large dog\n2024-02-03,cat,small cat\n",
    "Chinese": "他在弹吉他。,一个男人在弹吉他。\n一个女人在切菜。,有人在切洋葱。\n",
    "quoted": '"Well, it rains again today.","It is raining, again."\n"No, it does not.","It is dry, I think."\n',
}
HEADED = {
    "usual names": "sentence1,sentence2\nA plane is taking off.,An air plane is taking off.\n",
    "other languages": "Frage,Antwort\nWie geht es dir heute?,Sehr gut und dir?\nWas ist das hier?,Das ist ein Haus.\n",
    "short cells": "big,large\nsmall,little\nold,aged\n",
    "a survey's questions": "Timestamp,How old are you?,How did you like the course? Please explain.\n"
    "2023/01/01 10:00:00,ten,It was nice.\n2023/01/02 10:00:00,two,Not at all.\n",
    "pandas without names": "0,1,2\nA plane is taking off.,An air plane is taking off.,5\nA man plays.,A flute,3\n",
    "pandas with an index": ",first,second\n0,A plane is taking off.,It takes off.\n1,A man plays.,He plays.\n",
    "years": "the query,the answer,2019\nhow do I do this today,you do it with that tool,7\nwhat is that for,so,8\n",
    "an index and questions": ",What do you think of this course?,Why do you think so? Please explain.\n"
    "0,It was nice.,The room was warm.\n1,Not much.,It was far too long.\n",
    "units": "text (de),text (en),score (0 to 5)\nEin Haus steht dort.,A house stands there.,5\nNein.,No.,4\n",
    "numbered names": "text_1,text_2\nA plane is taking off.,It takes off.\nA man plays.,He plays.\n",
}


@pytest.mark.parametrize("text", HEADERLESS.values(), ids=HEADERLESS)
def test_a_first_row_of_data_is_no_header(tmp_path: Path, text: str) -> None:
    with pytest.raises(SourceError, match=r"looks headerless: add --no-header") as caught:
        read(tmp_path / "dev.csv", text)
    assert "\n" not in str(caught.value)
    rows = list(csv.reader(io.StringIO(text)))
    by_number = {"a": len(rows[0]) - 1, "b": len(rows[0])} if len(rows[0]) == 2 else {"a": 2, "b": 3}
    assert len(read(tmp_path / "dev.csv", text, header=False, columns=by_number)[0]) == len(rows)
    if len(rows) > 1:
        read(tmp_path / "dev.csv", text, header=True)  # who says that there is one is believed


@pytest.mark.parametrize("text", HEADED.values(), ids=HEADED)
def test_a_header_is_not_taken_for_a_row(tmp_path: Path, text: str) -> None:
    rows = list(csv.reader(io.StringIO(text)))
    assert len(read(tmp_path / "dev.csv", text)[0]) == len(rows) - 1


def test_names_that_the_job_has_are_a_header() -> None:
    rows = [["7", "8"], ["9", "10"]]
    assert looks_headerless(["5", "6"], rows, [])
    assert not looks_headerless(["5", "6"], rows, ["5"])


def test_a_header_that_is_read_as_a_row_is_said(tmp_path: Path) -> None:
    pairs, _, notices = read(tmp_path / "a.csv", "sentence1,sentence2\na,b\n", header=False, columns={"a": 1, "b": 2})
    assert pairs == [("sentence1", "sentence2"), ("a", "b")]
    assert notices == ["a.csv: its first line looks like a header, and is read as a row (header: false)"]


def test_a_header_that_was_looked_for_is_recorded_as_one() -> None:
    """A job without the setting is the job of earlier versions, whose setting was true."""
    settings = {"model": "m", "input": "x", "output": "y"}
    open_, told = parse_job(settings), parse_job(settings | {"header": True})
    assert open_.digest() == told.digest()
    assert open_.identity() == told.identity()
    assert open_.digest() != parse_job(settings | {"header": False}).digest()
    sent = told.model_dump(mode="json", exclude_defaults=True)
    assert load_job(None, sent | {"output": "y"}).header is True


def test_columns_of_one_name_are_all_kept(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sentence1,sentence2,x,x\na,b,1,2\n")
    reader = read_pairs(parse_job({"model": "m", "input": str(tmp_path / "a.csv"), "output": "/nonexistent/run"}))
    assert [batch.kept.to_pylist() for batch in reader] == [[{"x": "1", "x_2": "2"}]]
    assert reader.notices == ["a.csv: a second column 'x' is called 'x_2'"]
    with pytest.raises(SourceError, match="there are two columns 'sentence1'"):
        read(tmp_path / "b.csv", "sentence1,sentence1,sentence2\na,b,c\n")


# Files of a log ----------------------------------------------------------------------------------------------------

GRADES = [("q1", "d 1", 1), ("q2", "d2", 0)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("qrels.tsv", "query-id\tcorpus-id\tscore\nq1\td 1\t1\nq2\td2\t0\n"),
        ("qrels.tsv", '"query-id"\t"corpus-id"\t"score"\n"q1"\t"d 1"\t1\n"q2"\t"d2"\t0\n'),
        ("qrels.csv", "query-id,corpus-id,score\nq1,d 1,1\nq2,d2,0\n"),
        ("qrels.csv", 'sep=;\nquery-id;corpus-id;score\n"q1";"d 1";1\nq2;d2;0\n'),
        ("qrels.txt", "q1\t0\td 1\t1\nq2\t0\td2\t0\n"),
        ("qrels.txt", "q1 0 d2 1\nq2  0  d2\t0\n"),
        ("qrels.txt", "q1 0 a,b,c 1\nq2 0 d,e,f 0\n"),
    ],
)
def test_judgments_are_read_by_the_same_reader(tmp_path: Path, name: str, text: str) -> None:
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / name).write_bytes(text.encode(encoding))
        (file,) = resolve_inputs(str(tmp_path / name), any_name=True)
        found = list(read_qrels(file))
        rows = [tuple(row.values()) for batch in found for row in batch.table.to_pylist()]
        if "a,b,c" in text:
            assert rows == [("q1", "a,b,c", 1), ("q2", "d,e,f", 0)]
        elif "d2 1" in text:
            assert rows == [("q1", "d2", 1), ("q2", "d2", 0)]
        else:
            assert rows == GRADES
        assert not any(batch.rejects for batch in found)


def texts(place: Path, data: str, **columns: Any) -> tuple[dict[str, str], list[int], list[str]]:
    """Texts by id, rejected lines and notices of a table of texts."""
    place.write_text(data, encoding="utf-8")
    (file,) = resolve_inputs(str(place), any_name=True)
    notices: list[str] = []
    found, rejects = {}, []
    for batch in read_texts(file, TextColumns(**columns), titles=False, notices=notices):
        found |= dict(zip(batch.table["id"].to_pylist(), batch.table["text"].to_pylist(), strict=True))
        rejects += [one.row for one in batch.rejects]
    return found, rejects, [notice.split(" (set delimiter")[0] for notice in notices]


@pytest.mark.parametrize("header", ["", "id\ttext\n"])
def test_quotes_in_queries_tsv_are_ordinary_and_merge_nothing(tmp_path: Path, header: str) -> None:
    rows = {"1": '"open', "2": "x", "3": 'closed"', "4": '"So" he said', "5": '"all of it"'}
    data = header + "".join(f"{key}\t{text}\n" for key, text in rows.items())
    assert texts(tmp_path / "queries.tsv", data) == (rows, [], [f"queries.tsv: {LITERAL}"])


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_quoted_cells_in_queries_csv_are_read_as_csv(tmp_path: Path, sign: str, header: bool) -> None:
    rows = {"1": f"what{sign} a cat", "2": 'see "this" dog', "3": "a\nb", "4": "plain"}
    out = io.StringIO()
    csv.writer(out, delimiter=sign).writerows(([("id", "text")] if header else []) + list(rows.items()))
    assert texts(tmp_path / "queries.csv", out.getvalue())[:2] == (rows, [])


def test_a_table_of_texts_can_be_told_how_it_is_written(tmp_path: Path) -> None:
    data = "a:1\nb:2\n"
    assert texts(tmp_path / "q.txt", data, delimiter=":")[0] == {"a": "1", "b": "2"}
    assert texts(tmp_path / "q.tsv", "1\tx\n2\ty\n", header=True, id="1", text="x")[0] == {"2": "y"}
    assert texts(tmp_path / "q.tsv", "id\ttext\n1\tx\n", header=False)[0] == {"id": "text", "1": "x"}
    assert texts(tmp_path / "q.tsv", "key\tquery\n1\tx\n")[0] == {"1": "x"}


def test_json_lines_under_another_name_are_called_so(tmp_path: Path) -> None:
    place = tmp_path / "pairs.csv"
    place.write_text('{"sentence1": "A cat.", "sentence2": "A dog."}\n' * 3, "utf-8")
    job = load_job(None, {"model": "m", "input": str(place), "output": "o"})
    with pytest.raises(SourceError, match="holds JSON Lines"):
        list(read_pairs(job))
