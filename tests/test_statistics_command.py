"""``tokenpair stats`` and the displays of its results."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from display_pairs import explained, pair_of
from query_runs import QUERIES, small_log
from query_runs import write_run as write_log
from rich.console import Console
from statistics_oracle import PIPELINE
from statistics_runs import Made, made_pairs, write_made
from typer.testing import CliRunner

from jobs.cli import app
from jobs.dataset import open_run
from jobs.errors import RunError
from jobs.opened_run import Run
from jobs.report.making import make_report
from jobs.statistics.computing import compute_statistics
from jobs.statistics.schema import NAMES, Summary, read_summary
from jobs.statistics.terminal import print_summary

HOSTILE = "<script>alert('ü')</script> \x1b[2Jred \u202eabc"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Run:
    """A retrieval log of made-up pairs."""
    return write_made(tmp_path_factory.mktemp("log") / "run", made_pairs(seed, 60, retrieval=True))


@pytest.fixture(scope="module")
def summary(log: Run) -> Summary:
    return compute_statistics(log, pipeline=PIPELINE, resamples=20)


def command(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["stats", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_the_command_prints_every_statistic_and_writes_its_files(log: Run) -> None:
    code, out, _ = command(log.url, "--resamples", "20")
    assert code == 0
    found = read_summary(log.store)
    assert list(found.statistics) == list(NAMES)
    for statistic in found.statistics.values():
        assert statistic.title in out
        for info in statistic.tables:
            table = pq.read_table(f"{log.url}/{info.file}")
            assert len(table) == info.rows
            assert list(info.columns) == table.column_names
            for name, meaning in info.columns.items():
                assert meaning, f"{info.name}.{name} says nothing of itself"
                assert table.schema.field(name).metadata[b"meaning"].decode() == meaning


def test_the_summary_is_plain_json_without_nan(log: Run, summary: Summary) -> None:
    plain = json.loads(log.store.read("statistics/summary.json"), parse_constant=lambda name: pytest.fail(name))
    assert plain["run"]["mode"] == "retrieval"
    assert plain["run"]["gold"] == "relevance"


def test_only_some_statistics_can_be_made_and_the_others_stay(log: Run, summary: Summary) -> None:
    code, out, _ = command(log.url, "--only", "position", "--resamples", "20")
    assert code == 0
    assert "Position" in out
    assert "Concentration" not in out
    assert read_summary(log.store) == summary


def test_quiet_prints_nothing_and_what_is_out_of_date_goes(tmp_path: Path, seed: int) -> None:
    # Would catch tables of other pairs that stay beside a summary that does not know them.
    run = write_made(tmp_path / "run", made_pairs(seed, 20))
    compute_statistics(run, pipeline=None, only=["concentration"], resamples=10)
    assert command(run.url, "--only", "position", "--quiet", "--pipeline", "none", "--seed", "1")[1:] == ("", "")
    found = read_summary(run.store)
    assert list(found.statistics) == ["position"]
    assert {name for name in run.store.list("statistics") if name.endswith(".parquet")} == {
        info.file for info in found.statistics["position"].tables
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "colour"], "--only colour: there is no such statistic; there are concentration, "),
        (["--gold", "tag"], "--gold tag: is no column of numbers; there are rank, relevance"),
        (["--pipeline", "no_such"], "--pipeline no_such: cannot be loaded"),
    ],
)
def test_a_mistake_is_one_line(log: Run, arguments: list[str], said: str) -> None:
    code, _, error = command(log.url, *arguments)
    assert code == 2
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_a_run_without_pairs_or_statistics_says_so(tmp_path: Path, seed: int) -> None:
    run = write_made(tmp_path / "run", made_pairs(seed, 1), [], finished=False)
    code, _, error = command(run.url)
    assert code == 2
    assert "no text has been attributed yet" in error
    with pytest.raises(RunError, match="has no statistics yet"):
        _ = run.statistics


def test_pairs_whose_texts_are_not_written_yet_are_left_out_and_counted(tmp_path: Path, seed: int) -> None:
    pairs = made_pairs(seed, 20)
    run = write_made(tmp_path / "run", pairs, [range(10), range(10, 20)], finished=False)
    run.store.remove("texts/part-00000.parquet")
    found = compute_statistics(run, pipeline=None, only=["concentration"], resamples=10)
    assert 0 < found.run.pairs < 20
    assert found.notes[0].startswith("The run is not finished")
    assert f"{20 - found.run.pairs} pairs are left out" in found.notes[1]


def test_what_a_query_word_brought_equals_its_row_sums(tmp_path: Path) -> None:
    # Would catch a word of one query counted for another, and an answered word called unanswered.
    def one(number: int, document: str, **cells: float) -> Made:
        query = explained("hot wing design", "query")
        found = {(a, b): value for a, b, value in ((*key.split("_"), value) for key, value in cells.items())}
        pair = pair_of(query, explained(document, "document"), found, seed=number)  # type: ignore[arg-type]
        return Made(f"p{number}", "q", f"d{number}", pair, {"rank": number, "relevance": 1})

    pairs = [one(1, "a heated wing", hot_heated=0.4, wing_wing=0.9), one(2, "a wing", hot_a=0.3, wing_wing=0.5)]
    run = write_made(tmp_path / "run", pairs)
    compute_statistics(run, pipeline=None, only=["retrieval"], resamples=10)
    rows = {row["word"]: row for row in run.statistics.table("query_terms").to_pylist()}
    for at, word in enumerate(("hot", "wing", "design"), 1):
        sums = [float(made.pair.row_sums[at]) for made in pairs]
        lifts = [float(made.pair.row_sums[at] * 3 / made.pair.row_sums[1:4].sum()) for made in pairs]
        row = rows[word]
        assert (row["documents"], row["mean"]) == (2, pytest.approx(sum(sums) / 2, abs=1e-6))
        assert row["best_lift"] == pytest.approx(max(lifts), abs=1e-5)
        assert row["pair_id"] == f"p{lifts.index(max(lifts)) + 1}"
        assert row["answered"] == (max(lifts) >= 0.5)
    assert run.statistics.table("unanswered_words").to_pylist() == [{"word": "design", "asked": 1, "unanswered": 1}]


ROWS_OF_A_LOG = ["concentration", "matches", "position", "sufficiency", "retrieval"]


def test_documents_of_one_query_count_once_in_an_interval(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Four copies of every document say no more of the queries than one, in whatever parts they lie.
    made = made_pairs(seed, 60, retrieval=True)
    once = list({one.a_id: one for one in made}.values())
    four = [replace(one, pair_id=f"{one.pair_id}:{n}") for n in range(4) for one in once]
    parts = [range(0, len(four), 2), range(1, len(four), 2)]
    for buckets in (2000, 7):
        monkeypatch.setattr("jobs.statistics.reading.BUCKETS", buckets)
        runs = [write_made(tmp_path / f"once{buckets}", once), write_made(tmp_path / f"four{buckets}", four)]
        runs.append(write_made(tmp_path / f"parts{buckets}", four[::-1], parts))
        for run in runs:
            compute_statistics(run, pipeline=None, only=ROWS_OF_A_LOG, resamples=50)
        for name in ("concentration", "matches", "position_word", "sufficiency", "retrieval_relevance"):
            one, many, again = (run.statistics.table(name) for run in runs)
            assert many.equals(again)
            for column in one.column_names:
                if column.endswith(("low", "high")):
                    wanted = [np.nan if end is None else end for end in one[column].to_pylist()]
                    found = [np.nan if end is None else end for end in many[column].to_pylist()]
                    assert found == pytest.approx(wanted, abs=1e-4, nan_ok=True), (name, column)
    assert "bootstrap interval over queries" in str(runs[0].statistics)


def test_one_pair_has_no_interval(tmp_path: Path, seed: int) -> None:
    run = write_made(tmp_path / "run", made_pairs(seed, 1))
    found = compute_statistics(run, pipeline=None, resamples=20)
    assert {one.low for statistic in found.statistics.values() for one in statistic.figures} == {None}
    assert run.statistics.table("concentration")["low"].null_count == 6
    printed = str(run.statistics)
    assert "half of the" in printed
    assert printed.count("±") == 1


def test_a_column_of_text_named_like_one_of_a_log_is_left_alone(tmp_path: Path) -> None:
    # Anybody's table may have a column "relevance" that says "high".
    schema = pa.schema([("rank", pa.string()), ("relevance", pa.string())])
    rows = [replace(row, kept={"rank": "first", "relevance": "high"}) for row in small_log()[1]]
    store = write_log(tmp_path / "run", QUERIES, [rows], schema=schema)
    found = compute_statistics(Run(store), pipeline=None, resamples=20)
    assert {info.name for info in found.statistics["retrieval"].tables} == {"query_terms", "unanswered_words"}
    assert "q1" in make_report(Run(store), lambda line: None, called="run")


def test_statistics_show_themselves(log: Run, summary: Summary) -> None:
    found = open_run(log.url).statistics
    assert len(found) == len(NAMES)
    assert str(found["concentration"]) in str(found)
    page = found["retrieval"]._repr_html_()
    assert "By relevance" in page
    assert "Concentration" not in page
    with pytest.raises(RunError, match="no statistic 'colour'"):
        _ = found["colour"]


def test_hostile_words_are_printed_and_shown_as_text(tmp_path: Path) -> None:
    pair = pair_of(explained(HOSTILE), explained("<b>x & y</b>"), {("<script>alert('ü')</script>", "<b>x"): 0.9})
    run = write_made(tmp_path / "run", [Made(f"{HOSTILE}:1", "a", "b", pair, {"label": 1.0})])
    compute_statistics(run, pipeline=PIPELINE, resamples=10)
    found = run.statistics
    file = io.StringIO()
    for options in ({"color_system": None}, {"color_system": "truecolor", "force_terminal": True}):
        print_summary(found.summary, found.tables(), console=Console(file=file, width=100, **options))  # type: ignore[arg-type]
    assert "\x1b[2J" not in file.getvalue()
    assert "\u202e" not in file.getvalue()
    page = found._repr_html_()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<b>x" not in page


@pytest.mark.parametrize("width", [40, 80, 200])
def test_tables_fit_the_terminal(log: Run, summary: Summary, width: int) -> None:
    file = io.StringIO()
    print_summary(summary, log.statistics.tables(), console=Console(file=file, width=width, color_system=None))
    assert max(map(len, file.getvalue().splitlines())) <= width
    assert re.search(r"█", file.getvalue())
