"""Lists of a run: `show` without an id, and `rejects` as text, JSON and CSV, of local runs and of runs in a bucket."""

from __future__ import annotations

import csv
import io
import json
import shlex
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from pair_runs import Row, attributed, words, write_pairs
from s3_server import S3Server
from typer.testing import CliRunner

from jobs.cli import main as cli
from jobs.run.tables import JOB_FILE, SUCCESS, write_rejects
from jobs.run.tables import reject_table as table_of
from jobs.storage.store import Store

EVIL = "\x1b[31mred\x07 [bold]not markup[/bold] \u202e"
SPACED = "Läufe + 50% #1 日本/run"


def tokenpair(*words: str | Path) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def made(place: str | Path, ids: tuple[str, ...] = ("pairs.csv:2", "pairs.csv:3"), **settings: Any) -> str:
    shards = [
        [Row(id, attributed(words(f"coffee is good {n}"), words(f"a red dog {n}"), [[0.1] * 4] * 4, 0.25 + n / 10))]
        for n, id in enumerate(ids)
    ]
    return write_pairs(place, shards, **settings).url


def rejected(place: str | Path, count: int = 30) -> list[dict[str, Any]]:
    """Rows in two parts that are not in the order of the files; the second of the plan."""
    rows = [
        {
            "pair_id": f"f{n % 2}.csv:{n}" if n % 3 else None,
            "file": f"f{n % 2}.csv",
            "row": n,
            "reason": "column 'a' is empty" if n % 4 else f"wrong number of fields {EVIL}",
            "row_text": f"{EVIL},{n}",
        }
        for n in range(count, 0, -1)
    ]
    run = Store.open(str(place))
    write_rejects(run, 0, [table_of(rows[::2])], "parquet")
    write_rejects(run, "plan", [table_of(rows[1::2])], "parquet")
    return rows


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "local":
        return str(tmp_path / SPACED)
    server: S3Server = request.getfixturevalue("s3")
    for name, value in server.admin.items():
        monkeypatch.setenv(name, value)
    return f"s3://{server.bucket}/{uuid.uuid4().hex}/{SPACED}"


def test_show_without_an_id_lists_pairs_and_says_how_one_is_shown(place: str) -> None:
    made(place)
    result = tokenpair("show", place)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "2 pairs:"
    assert any(" ".join(line.split()) == "pairs.csv:3 0.350 coffee is good 1 a red dog 1" for line in lines)
    # The command that is offered shows that pair.
    command = shlex.split(lines[-1].removeprefix("One pair"))
    assert command[0] == "tokenpair"
    assert "coffee is good 0" in tokenpair(*command[1:]).stdout


def test_the_first_are_listed_and_how_many_there_are(tmp_path: Path) -> None:
    run = made(tmp_path / "run", tuple(f"p{n}" for n in range(14)), finished=False)
    shown = tokenpair("show", run, "--top", "3").stdout
    assert [n for n in range(14) if f"p{n} " in shown] == [0, 1, 2]
    assert "the run is not finished" in shown


@pytest.mark.parametrize("odd", ["-5", "a b'c", "日本:1", "x" * 70])
def test_ids_can_be_copied(odd: str, tmp_path: Path) -> None:
    run = made(tmp_path / "r", (odd, "other"))
    result = tokenpair("show", run)
    assert odd in result.stdout
    command = shlex.split(result.stdout.splitlines()[-1].removeprefix("One pair"))
    assert "coffee is good 0" in tokenpair(*command[1:]).stdout


def test_the_command_is_not_one_that_cannot_be_typed(tmp_path: Path) -> None:
    run = made(tmp_path / "r", ("\x1b[2J", "other"))
    result = tokenpair("show", run)
    assert "\x1b" not in result.stdout
    assert result.stdout.splitlines()[-1].endswith(" other")


def test_flags_of_a_store_are_part_of_the_command(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.admin.items():
        monkeypatch.setenv(name, value)
    place = f"s3://{s3.bucket}/{uuid.uuid4().hex}"
    made(place)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    result = tokenpair("show", place, "--endpoint-url", s3.endpoint)
    command = shlex.split(result.stdout.splitlines()[-1].removeprefix("One pair"))
    assert "coffee is good 0" in tokenpair(*command[1:]).stdout


def test_a_log_names_a_query(tmp_path: Path) -> None:
    texts = words("hot wing", "query"), words("a wing of a jet", "document")
    run = write_pairs(
        tmp_path / "r", [[Row("log:0", attributed(*texts, [[0.1] * 5] * 2))]], mode="retrieval", log=["x"]
    )
    last = tokenpair("show", run.url).stdout.splitlines()[-1]
    assert shlex.split(last.removeprefix("One query")) == ["tokenpair", "show", run.url, "--query=hot wing"]


def test_runs_without_a_pair_say_where_to_look(tmp_path: Path) -> None:
    run = Store.open(tmp_path / "run")
    run.commit(JOB_FILE, b"model: m\n")
    before = tokenpair("show", run.url)
    assert before.exit_code == 2
    assert f"tokenpair status {run.url}" in before.stderr
    run.commit(SUCCESS, b"{}")
    assert f"tokenpair rejects {run.url}" in tokenpair("show", run.url).stderr


def test_rejects_are_counted_by_reason_and_listed_in_the_order_of_files(place: str) -> None:
    made(place)
    rows = rejected(place)
    result = tokenpair("rejects", place)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == f"{len(rows)} rows rejected."
    counts = Counter(row["reason"] for row in rows)
    (commonest, most), (_, fewer) = counts.most_common()
    assert lines[1] == f"{most} × {commonest}"
    assert lines[2].startswith(f"{fewer} × wrong number of fields")
    expected = sorted((row["file"], row["row"]) for row in rows)[:10]
    assert [line for line in lines if line.startswith("f") and ":" in line[:7]] == [f"{f}:{r}" for f, r in expected]
    assert "\x1b" not in result.stdout
    assert "\u202e" not in result.stdout
    assert "[bold]" in result.stdout, "shown as it stands, not read as markup"
    every = shlex.split(lines[-1].removeprefix("All of them"))
    assert len(list(csv.DictReader(io.StringIO(tokenpair(*every[1:]).stdout)))) == len(rows)


def test_json_and_csv_hold_every_row_as_it_was_written(tmp_path: Path) -> None:
    made(tmp_path / "r")
    rows = sorted(rejected(tmp_path / "r"), key=lambda row: (row["file"], row["row"]))
    printed = tokenpair("rejects", tmp_path / "r", "--format", "json").stdout
    assert printed.isascii()
    found = json.loads(printed)
    assert found["rejected"] == len(rows)
    assert found["reasons"] == dict(Counter(row["reason"] for row in rows))
    assert found["rows"] == rows
    listed = list(csv.DictReader(io.StringIO(tokenpair("rejects", tmp_path / "r", "--format", "csv").stdout)))
    assert listed == [{name: "" if row[name] is None else str(row[name]) for name in row} for row in _ordered(rows)]


def _ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in ("file", "row", "pair_id", "reason", "row_text")} for row in rows]


def test_reasons_are_searched_and_rows_cut_to_the_number_asked_for(tmp_path: Path) -> None:
    made(tmp_path / "r")
    rows = rejected(tmp_path / "r")
    found = json.loads(tokenpair("rejects", tmp_path / "r", "--format", "json", "--reason", "WRONG number").stdout)
    assert sorted(row["row"] for row in found["rows"]) == sorted(row["row"] for row in rows if row["row"] % 4 == 0)
    assert len(json.loads(tokenpair("rejects", tmp_path / "r", "--format", "json", "--top", "2").stdout)["rows"]) == 2
    assert "No rejected row has" in tokenpair("rejects", tmp_path / "r", "--reason", "100%_").stdout


def test_a_run_without_rejects_says_so(tmp_path: Path) -> None:
    assert tokenpair("rejects", made(tmp_path / "r")).stdout == "No row was rejected.\n"


def test_wrong_ways_to_ask_are_one_line_each(tmp_path: Path) -> None:
    run = made(tmp_path / "r")
    for words_, part in (
        (("rejects", run, "--format", "xml"), "--format: found 'xml'; allowed: table, json or csv"),
        (("rejects", str(tmp_path)), "is not a run of tokenpair"),
        (("show", run, "--html", str(tmp_path / "x.html")), "--html and --png draw a pair or a query"),
    ):
        result = tokenpair(*words_)
        assert result.exit_code == 2
        assert part in result.stderr
        assert result.stderr.count("\n") == 1


def test_rejects_that_tokenpair_did_not_write_are_one_line(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    run = made(tmp_path / "r")
    (tmp_path / "r" / "rejects").mkdir()
    pq.write_table(pa.table({"other": [1]}), tmp_path / "r" / "rejects" / "part-plan.parquet")
    result = tokenpair("rejects", run)
    assert result.exit_code == 2, result.stderr
    assert result.stderr.count("\n") == 1
