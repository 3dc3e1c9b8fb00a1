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

from jobs.analysis.statistics.compute import compute_statistics
from jobs.analysis.statistics.schema import NAMES, Summary, read_summary
from jobs.cli.main import app
from jobs.errors import RunError
from jobs.run.reader import Run, open_run
from jobs.views.report.report import make_report
from jobs.views.statistics.terminal import print_summary

HOSTILE = "<script>alert('ü')</script> \x1b[2Jred \u202eabc"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Run:
    """A retrieval log of made-up pairs."""
    pairs = made_pairs(seed, 60, retrieval=True, sums_to="score")
    return write_made(tmp_path_factory.mktemp("log") / "run", pairs, sums_to="score")


@pytest.fixture(scope="module")
def summary(log: Run) -> Summary:
    return compute_statistics(log, pipeline=PIPELINE, resamples=20)


def command(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["stats", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_the_command_prints_every_statistic_and_writes_its_files(log: Run) -> None:
    code, out, _ = command(log.url, "--resamples", "20", "--all")
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


def test_by_default_about_ten_results_are_printed_with_what_to_do(log: Run, summary: Summary) -> None:
    """Would catch 300 lines of tables, a number that is not the statistic's, and an unfinished run that looks whole."""
    code, out, _ = command(log.url, "--resamples", "20")
    assert code == 0
    head, body, commands = out.strip().split("\n\n")
    assert head.startswith("60 pairs, ")
    results = re.split(r"\n(?=\S)", body)
    assert 6 <= len(results) <= 10
    words = " ".join(body.split())
    cut = summary.statistics["position"].figure("truncated_b")
    assert cut.value is not None
    assert cut.low is not None
    assert cut.high is not None
    assert f"{100 * cut.value:.1f} % of the pairs ({100 * cut.low:.1f} to {100 * cut.high:.1f} %)" in words
    assert "Split long documents into chunks." in words
    assert "max_nodes" in next(one for one in results if one.startswith("exactness"))
    assert f"tokenpair stats {log.url} --all" in commands
    assert f"tokenpair report {log.url}" in commands
    assert "–" not in words, "a number that is not defined is no result"


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


def planted(number: int, query: str, document: str, **lifts: float) -> Made:
    """A pair of a log whose query's words have the given lifts, 0 where none is given."""
    a = explained(query, "query")
    row_lift = np.array([lifts.get(label, 0.0) for label in a.groups.labels], np.float32)
    pair = pair_of(a, explained(document, "document"), {}, seed=number)
    pair = replace(pair, row_lift=row_lift, col_lift=np.zeros(len(pair.b.groups), np.float32))
    return Made(f"p{number}", f"q:{query}", f"d{number}", pair, {"rank": number, "relevance": 1})


def test_what_a_query_word_added_equals_its_row_sums(tmp_path: Path) -> None:
    # Would catch a word of one query counted for another.
    def one(number: int, document: str, **cells: float) -> Made:
        query = explained("hot wing design", "query")
        found = {(a, b): value for a, b, value in ((*key.split("_"), value) for key, value in cells.items())}
        pair = pair_of(query, explained(document, "document"), found, seed=number)  # type: ignore[arg-type]
        return Made(f"p{number}", "q", f"d{number}", pair, {"rank": number, "relevance": 1})

    pairs = [one(1, "a heated wing", hot_heated=0.4, wing_wing=0.9), one(2, "a wing", hot_a=0.3, wing_wing=0.5)]
    run = write_made(tmp_path / "run", pairs)
    compute_statistics(run, pipeline=None, only=["retrieval"], resamples=10)
    rows = {row["word"]: row for row in run.statistics.table("query_terms").to_pylist()}
    whole = sum(float(made.pair.row_sums[1:4].sum()) for made in pairs)
    for at, word in enumerate(("hot", "wing", "design"), 1):
        sums = [float(made.pair.row_sums[at]) for made in pairs]
        row = rows[word]
        assert (row["documents"], row["mean"]) == (2, pytest.approx(sum(sums) / 2, abs=1e-6))
        assert row["share"] == pytest.approx(sum(sums) / whole, abs=1e-5)
        assert row["best"] == pytest.approx(max(sums), abs=1e-6)
        assert row["pair_id"] == f"p{sums.index(max(sums)) + 1}"
        # Lifts are not in this run: what needs them is left out, and the reason is given.
        assert (row["mean_lift"], row["found_in"], row["without_effect"]) == (None, None, None)
    notes = run.statistics["retrieval"].statistic.notes
    assert notes == (
        "Words without effect are left out: they need lifts, and an earlier version of tokenpair made this run.",
    )


def test_words_without_effect_are_those_that_no_document_has_and_that_dilute_the_score(tmp_path: Path) -> None:
    # Would catch a word judged by one document, one whose stem is there, and punctuation or an article in the count.
    first, second = "zebra heated wings the . design layers", "engine"
    low = {"zebra": -0.05, "heated": -0.3, "wings": -0.1, "the": -0.2, ".": -0.2, "design": -0.01}
    pairs = [
        # heating and wing stand in a document each; layers dilutes one document alone; design hardly does.
        planted(1, first, "a heating pipe", **low, layers=-0.06),
        planted(2, first, "one wing", **low, layers=0.03),
        # A document of another query has the zebra, and that is no matter.
        planted(3, second, "zebra engine", engine=-0.4),
    ]
    run = write_made(tmp_path / "run", pairs, sums_to="score")
    compute_statistics(run, pipeline=PIPELINE, only=["retrieval"], resamples=10)
    found = run.statistics["retrieval"]
    (row,) = run.statistics.table("words_without_effect").to_pylist()
    assert (row["query_id"], row["word"], row["documents"]) == (f"q:{first}", "zebra", 2)
    assert row["mean_lift"] == pytest.approx(-0.05, abs=1e-6)
    terms = {row["word"]: row for row in run.statistics.table("query_terms").to_pylist()}
    assert {word for word, row in terms.items() if row["without_effect"]} == {"zebra"}
    assert {word: terms[word]["found_in"] for word in ("heated", "wings", "layers", "engine")} == {
        **{"heated": 1, "wings": 1},
        **{"layers": 0, "engine": 1},
    }
    assert terms["layers"]["mean_lift"] == pytest.approx(-0.015, abs=1e-6)
    asked = [row for row in terms.values() if row["content"]]
    assert found.figure("without_effect").value == pytest.approx(1 / len(asked))
    assert found.figure("queries_without_effect").value == 0.5
    assert found.figure("words_without_effect").value == 1
    assert f"of {len(asked)} content words in 2 queries: 1" in " ".join(str(found).split())
    assert "gained nothing from this word" in found.statistic.notes[0]
    assert "no word with the same stem or lemma" in found.statistic.notes[0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"similarity": "dot"}, "they need lifts, and a dot product has none"),
        ({}, "they need lifts, and an earlier version of tokenpair made this run"),
        ({"groups": "sentence"}, "they need words as groups"),
    ],
)
def test_without_lifts_or_words_it_says_in_one_line_what_is_missing(
    tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    made = planted(1, "zebra wing", "one wing", zebra=-0.05)
    if settings != {"groups": "sentence"}:
        made = replace(made, pair=replace(made.pair, row_lift=None, col_lift=None))
    run = write_made(tmp_path / "run", [made], **settings)  # type: ignore[arg-type]
    found = compute_statistics(run, pipeline=None, resamples=10)
    notes = found.statistics["retrieval"].notes
    assert [note for note in notes if "without effect" in note] == [f"Words without effect are left out: {said}."]
    assert "words_without_effect" not in {info.name for info in found.statistics["retrieval"].tables}
    if settings != {"groups": "sentence"}:
        assert any("Words by their lift are left out" in note for note in found.statistics["strongest"].notes)


def test_a_run_without_the_columns_of_lifts_opens(tmp_path: Path, seed: int) -> None:
    # A run of the version before has no such columns, and says nothing of what it sums to.
    run = write_made(tmp_path / "run", made_pairs(seed, 20, retrieval=True))
    (place,) = (tmp_path / "run" / "attributions").iterdir()
    pq.write_table(pq.read_table(place).drop_columns(["row_lift", "col_lift"]), place)
    code, out, _ = command(run.url, "--resamples", "10", "--all")
    assert code == 0
    words = " ".join(out.split())
    assert "sums_to: difference. The word pairs of two texts sum to f(a, b) − f(a, r)" in words
    assert "called the total" in words
    assert "Share of the total that the largest word pairs give" in words
    assert "Words without effect are left out" in words


def test_statistics_of_another_version_are_to_be_made_again(tmp_path: Path, seed: int) -> None:
    run = write_made(tmp_path / "run", made_pairs(seed, 5))
    compute_statistics(run, pipeline=None, only=["position"], resamples=10)
    place = tmp_path / "run" / "statistics" / "summary.json"
    plain = json.loads(place.read_text())
    del plain["run"]["sums_to"]
    place.write_text(json.dumps(plain | {"version": 1}))
    with pytest.raises(RunError, match="another version of tokenpair wrote it; compute it again"):
        _ = run.statistics
    assert command(run.url, "--only", "position", "--quiet", "--pipeline", "none")[0] == 0
    assert read_summary(run.store).run.sums_to == "difference"


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
        monkeypatch.setattr("jobs.analysis.statistics.batches.BUCKETS", buckets)
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
    assert {info.name for info in found.statistics["retrieval"].tables} == {"query_terms"}
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
