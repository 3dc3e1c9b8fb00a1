"""The report: made from the run's own numbers, bounded, the same however the run lies, and safe."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from display_pairs import pair_of
from query_runs import QUERIES, small_log
from query_runs import write_run as write_log
from report_runs import HOSTILE, write_run
from test_stores import as_user
from typer.testing import CliRunner

from attribution_core.results import PairAttribution
from jobs.analysis.statistics import tagging
from jobs.analysis.statistics.compute import compute_statistics
from jobs.analysis.statistics.schema import NAMES, read_summary
from jobs.cli.main import app
from jobs.errors import RunError
from jobs.run.reader import Run, open_run
from jobs.views.report import plots, report
from jobs.views.report.explorer import FULL, NOT_STORED, Explorer
from jobs.views.report.overview import read_overview
from jobs.views.report.report import make_report
from jobs.views.report.sampling import choose_pairs, choose_queries

if TYPE_CHECKING:
    from random import Random

    from s3_server import S3Server

WORDS = "coffee tea good bad wing layer bridge river the of not hot red station reader".split()  # noqa: SIM905


def made(rng: Random, count: int) -> tuple[list[PairAttribution], list[tuple[str, str, str]]]:
    """Pairs with scores that differ."""
    pairs, ids = [], []
    for at in range(count):
        a, b = (" ".join(rng.sample(WORDS, rng.randint(2, 8))) + f" {side}{at}" for side in "ab")
        pairs.append(PairAttribution(**{**vars(pair_of(a, b, seed=at)), "score": rng.random()}))
        ids.append((f"pair {at}", f"a{at}", f"b{at}"))
    return pairs, ids


def reported(run: Run, **more: Any) -> str:
    compute_statistics(run, pipeline=None, resamples=50)
    return make_report(run, lambda line: None, called="the/run", **more)


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="pairs-data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def cells_of(pair: dict[str, Any]) -> np.ndarray[Any, Any]:
    """The matrix that the page draws, as its script reads it."""
    shape = (len(pair["rows"]), len(pair["cols"]))
    if "cells" in pair:
        cells = np.full(shape, np.nan)
        for place, value in pair["cells"]:
            cells.flat[place] = value
        return cells
    shares = np.frombuffer(base64.b64decode(pair["matrix"]), "<i2").astype(float).reshape(shape)
    return np.where(shares == NOT_STORED, np.nan, shares / FULL * pair["scale"])


@pytest.mark.parametrize("store", ["full", "top"])
def test_the_explorer_s_numbers_are_the_run_s(tmp_path: Path, rng: Random, store: str) -> None:
    """Would catch a cell, a sum or a term that belongs to another pair or another word."""
    pairs, ids = made(rng, 30)
    run = write_run(tmp_path, pairs, ids, store=store)
    page = reported(run)
    assert ("estimated from the word pairs that were stored" in page) == (store == "top")
    data = data_of(page)
    assert len(data["pairs"]) >= 20
    for shown in data["pairs"]:
        pair = run.pair(shown["id"])
        wanted = pair.matrix[np.ix_(shown["rows"], shown["cols"])]
        np.testing.assert_allclose(cells_of(shown), wanted, atol=np.nanmax(np.abs(wanted)) / 30_000 + 1e-6)
        assert shown["score"] == pytest.approx(pair.score, rel=1e-4)
        for (g, told), text, sums in (
            (one, text, sums)
            for side, text, sums in ((0, pair.a, pair.row_sums), (1, pair.b, pair.col_sums))
            for one in shown["sums"][side]
        ):
            assert text.groups.kinds[g] == "text"
            assert told == pytest.approx(float(sums[g]), rel=1e-4, abs=1e-9)
        for side, text in ((0, pair.a), (1, pair.b)):
            pieces = data["texts"][shown["texts"][side]]["pieces"]
            assert "".join(piece if isinstance(piece, str) else piece[1] for piece in pieces) == text.text
            assert [piece[0] for piece in pieces if not isinstance(piece, str)] == list(range(1, len(text.groups) - 1))


def first_screen(page: str) -> str:
    """The words of the part that everybody reads, on one line."""
    found = re.search(r'<section id="trust".*?</section>', page, re.DOTALL)
    assert found is not None
    return html.unescape(" ".join(re.sub("<[^>]+>", " ", found[0]).split()))


def summing(rng: Random, count: int) -> tuple[list[PairAttribution], list[tuple[str, str, str]]]:
    """Pairs whose cells sum to their scores, with lifts."""
    pairs, ids = made(rng, count)
    lifted = {
        at: {
            "row_lift": np.linspace(-0.1, 0.1, len(one.a.groups)).astype(np.float32),
            "col_lift": np.linspace(0.2, -0.2, len(one.b.groups)).astype(np.float32),
        }
        for at, one in enumerate(pairs)
    }
    shifted = {at: one.matrix + np.float32(0.01) for at, one in enumerate(pairs)}
    for at, one in enumerate(pairs):
        matrix = shifted[at]
        total = float(matrix.sum(dtype=np.float64))
        numbers = {"matrix": matrix, "row_sums": matrix.sum(1), "col_sums": matrix.sum(0), "total": total}
        pairs[at] = PairAttribution(**{**vars(one), **numbers, **lifted[at], "score": total})
    return pairs, ids


def test_the_first_screen_says_what_the_sum_is(tmp_path: Path, rng: Random) -> None:
    """Would catch parts that do not add up to the score, and a page that speaks of what the run does not have."""
    pairs, ids = summing(rng, 20)
    run = write_run(tmp_path / "run", pairs, ids)
    page = reported(run)
    found = re.search(r"The sum is the score\. .*score ([\d.]+) = word pairs ([\d.]+) ([+−]) special tokens ([\d.]+)\.",
                      first_screen(page))  # fmt: skip
    assert found is not None, first_screen(page)
    score, words, special = (float(found[at]) * (-1 if (at, found[3]) == (4, "−") else 1) for at in (1, 2, 4))
    assert score == pytest.approx(np.mean([one.score for one in pairs]), abs=0.0051)
    own = [float(one.matrix[1:-1, 1:-1].sum(dtype=np.float64)) for one in pairs]
    assert words == pytest.approx(np.mean(own), abs=0.0051)
    assert words + special == pytest.approx(score, abs=0.011)
    said = html.unescape(re.sub("<(script|style)>.*?</(script|style)>|<[^>]+>", " ", page, flags=re.DOTALL))
    assert not re.search("blank|brought|brings|turned away|reference text|unanswered", said)


@pytest.mark.parametrize(
    ("sums_to", "headline", "said"),
    [
        (None, "The sum is not the score.", "what its score gains over reference texts"),
        ("difference", "The sum is not the score.", "one token, such as padding, stands in place of every word"),
        ("centred", "The sum is not the whole score.", "what sets its texts apart from average ones"),
    ],
)
def test_a_run_that_sums_to_something_else_says_to_what(
    tmp_path: Path, rng: Random, sums_to: str | None, headline: str, said: str
) -> None:
    """Would catch a run of an earlier version that has no report, or whose sums are called the score."""
    run = write_run(tmp_path / "run", *made(rng, 12), sums_to=sums_to)
    page = reported(run)
    assert headline in first_screen(page)
    assert said in first_screen(page)
    assert {pair["aim"] for pair in data_of(page)["pairs"]} == {"the sum"}
    assert all(pair["lifts"] is None for pair in data_of(page)["pairs"])


def test_the_explorer_has_the_lifts_of_the_run(tmp_path: Path, rng: Random) -> None:
    """Would catch lifts of the wrong text, and special tokens among them."""
    run = write_run(tmp_path, *summing(rng, 6))
    for shown in data_of(reported(run))["pairs"]:
        pair = run.pair(shown["id"])
        for side, lifts in enumerate((pair.row_lift, pair.col_lift)):
            assert lifts is not None
            assert [g for g, _ in shown["lifts"][side]] == list(range(1, len(lifts) - 1))
            for g, lift in shown["lifts"][side]:
                assert lift == pytest.approx(float(lifts[g]), rel=1e-4, abs=1e-9)
        assert shown["aim"] == "the score"


def test_statistics_of_another_version_are_made_again(tmp_path: Path, rng: Random) -> None:
    """Would catch a run of an earlier version that has no report, because of statistics beside it."""
    run = write_run(tmp_path / "run", *made(rng, 5))
    Path(run.url, "statistics").mkdir()
    Path(run.url, "statistics", "summary.json").write_text('{"version": 1, "run": {}}', encoding="utf-8")
    said: list[str] = []
    page = make_report(run, said.append, called="run")
    assert any("another version wrote them: computing them first" in line for line in said)
    assert ">Findings<" in page


def test_the_report_is_the_same_however_the_run_lies(tmp_path: Path, rng: Random) -> None:
    """Shards and their order are accidents of the job; a report that follows them cannot be compared."""
    pairs, ids = made(rng, 25)
    pages = []
    for name, shards, backwards in (("one", 1, False), ("many", 7, True)):
        run = write_run(tmp_path / name, pairs, ids, shards=shards, backwards=backwards)
        pages.append(reported(run, seed=3, pairs=12))
    assert pages[0] == pages[1]
    other = write_run(tmp_path / "other", pairs, ids)
    assert reported(other, seed=4, pairs=12) != pages[0]


def test_what_is_shown_is_the_extremes_and_some_by_chance(tmp_path: Path, rng: Random) -> None:
    pairs, ids = made(rng, 60)
    run = write_run(tmp_path, pairs, ids)
    chosen = dict(choose_pairs(run, 0, 32))
    by_score = [ids[at][0] for at in np.argsort([-pair.score for pair in pairs])]
    assert chosen["Highest scores"] == by_score[:8]
    assert chosen["Lowest scores"] == by_score[::-1][:8]
    assert len(set(chosen["Chosen at random"])) == 16
    assert chosen["Chosen at random"] != dict(choose_pairs(run, 1, 32))["Chosen at random"]


def test_a_log_shows_queries_relevance_and_links_to_pairs(tmp_path: Path) -> None:
    """Would catch a log whose documents are not ranked, or whose links lead nowhere."""
    write_log(tmp_path / "run", QUERIES, small_log())
    run = open_run(str(tmp_path / "run"))
    assert sorted(choose_queries(run, 0, 5)) == ["q1"]  # q2 has one document
    page = reported(run)
    ids = {pair["id"] for pair in data_of(page)["pairs"]}
    assert "hot wing design" in page
    linked = re.findall(r'href="#pair=(log%3A\d)"', page)
    assert linked
    assert {one.replace("%3A", ":") for one in linked} <= ids
    assert "Judged relevant, ranked last" in page
    assert ">All queries<" in page


def test_the_overview_is_computed_from_all_pairs(tmp_path: Path, rng: Random) -> None:
    pairs, ids = made(rng, 40)
    found = read_overview(write_run(tmp_path, pairs, ids), "parquet")
    scores = np.array([pair.score for pair in pairs])
    assert found.score == pytest.approx(scores.mean(), rel=1e-6)
    assert found.total == pytest.approx(np.mean([pair.total for pair in pairs]), rel=1e-5)
    assert sum(found.scores.counts) == 40
    assert found.scores.quartiles == pytest.approx(np.quantile(scores, (0.25, 0.5, 0.75)), abs=1e-6)
    assert all(low < high for low, high, _ in found.scores.bins)


def test_the_page_stays_within_its_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: Random) -> None:
    """Long texts and many of them must not make a page that no mail takes."""
    monkeypatch.setattr(report, "PAIRS_ROOM", 20_000)
    pairs, ids = made(rng, 60)
    run = write_run(tmp_path, pairs, ids)
    page = reported(run, pairs=60)
    data = data_of(page)
    assert 3 <= len(data["pairs"]) < 60
    assert sum(len(json.dumps(one)) for one in data["pairs"]) < 25_000
    assert all(one["pairs"] for one in data["lists"])
    assert f"{len(data['pairs'])} pairs" in page


def test_a_text_beyond_all_bounds_is_cut(rng: Random) -> None:
    explorer = Explorer(1_000_000)
    assert explorer.add(pair_of("coffee " * 30, "x" * 500_000))
    assert len(explorer.json([])) < 60_000


def test_the_policy_names_the_one_script(tmp_path: Path, rng: Random) -> None:
    """With another hash the page would be dead in every browser."""
    page = reported(write_run(tmp_path, *made(rng, 5)))
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', page)
    assert policy is not None
    assert f"script-src &#39;sha256-{digest}&#39;" in policy[1].replace("'", "&#39;")
    assert "default-src" in policy[1]
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    assert " on" not in "".join(re.findall(r"<[a-z]+( on[a-z]+=)", page))


def test_hostile_text_does_not_leave_its_place(tmp_path: Path, rng: Random) -> None:
    """Without a browser: no tag of the page comes from a text."""
    pairs, ids = made(rng, 4)
    pairs[0] = pair_of(HOSTILE, f"{HOSTILE} again")
    ids[1] = (HOSTILE, HOSTILE + "1", HOSTILE + "2")
    kept = {HOSTILE: [HOSTILE] * 4}
    rejects = [{"pair_id": HOSTILE, "file": HOSTILE, "row": 1, "reason": HOSTILE, "row_text": HOSTILE}]
    plain = reported(write_run(tmp_path / "plain", pairs[1:], [("p", "a", "b"), *ids[2:]]))
    page = reported(write_run(tmp_path / "run", pairs, ids, kept=kept, rejects=rejects, model=HOSTILE))
    for tag in ("script", "img", "b", "i", "iframe", "style"):
        assert len(re.findall(rf"<{tag}[\s>]", page)) == len(re.findall(rf"<{tag}[\s>]", plain)), tag


def test_statistics_that_are_missing_or_old_are_made_first(
    tmp_path: Path, rng: Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report of yesterday's pairs would say nothing of it."""
    monkeypatch.setattr(tagging, "chosen_pipeline", lambda name: None)
    pairs, ids = made(rng, 12)
    run = write_run(tmp_path / "run", pairs[:8], ids[:8])
    said: list[str] = []
    make_report(run, said.append, called="run")
    assert any("no statistics yet" in line for line in said)
    said.clear()
    make_report(run, said.append, called="run")
    assert said == []
    more = write_run(tmp_path / "more", pairs, ids)
    part = Path(more.url, "attributions", "part-00001.parquet").read_bytes()
    Path(run.url, "attributions", "part-00007.parquet").write_bytes(part)
    make_report(Run(run.store), said.append, called="run")
    assert any("has more rows" in line for line in said)


def test_a_report_completes_statistics_and_says_that_they_are_of_a_sample(tmp_path: Path, rng: Random) -> None:
    # Would catch a page with one section of eight, and findings of ten pairs that read as if they were of all.
    run = write_run(tmp_path / "run", *made(rng, 8))
    compute_statistics(run, only=["concentration"], pipeline=None, sample=5, resamples=50)
    told: list[str] = []
    page = make_report(run, told.append, called="runs/x")
    assert any("computing the statistics that are missing: parts_of_speech, matches" in line for line in told)
    found = read_summary(run.store)
    assert set(found.statistics) == set(NAMES)
    assert (found.run.pairs, found.run.resamples) == (5, 50)
    assert page.count("The statistics are of 5 of the 8 pairs, chosen at random.") == 2


def test_statistics_of_other_settings_are_not_removed_without_a_word(tmp_path: Path, rng: Random) -> None:
    run = write_run(tmp_path / "run", *made(rng, 8))
    told: list[str] = []
    for seed, only in ((0, ["concentration", "matches"]), (0, ["position"]), (1, ["position"])):
        assert not told
        compute_statistics(run, only=only, pipeline=None, seed=seed, resamples=20, echo=told.append)
    assert told == ["removed, for they were of other pairs or made with other settings: concentration, matches"]


def test_the_command_writes_into_the_run_and_elsewhere(tmp_path: Path, rng: Random) -> None:
    run = write_run(tmp_path / "run", *made(rng, 6), finished=False)
    compute_statistics(run, pipeline=None, resamples=50)
    for more, place in (
        ([], tmp_path / "run" / "report.html"),
        (["--output", str(tmp_path / "x.html")], tmp_path / "x.html"),
    ):
        done = CliRunner().invoke(app, ["report", run.url, *more])
        assert done.exit_code == 0, done.output
        assert str(place) in done.output.replace("\n", "")
        page = place.read_text(encoding="utf-8")
        assert page.startswith("<!doctype html>")
        assert "The run is not finished" in page
    assert CliRunner().invoke(app, ["report", str(tmp_path / "nothing")]).exit_code == 2


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_a_run_in_a_bucket_gets_its_report_there(s3: S3Server, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    """Everything is read through the store, and the page goes where the run is."""
    as_user(monkeypatch, s3.admin)
    place = f"s3://{s3.bucket}/{uuid.uuid4().hex}"
    store = write_log(place, QUERIES, small_log(), format=format)
    compute_statistics(Run(store), pipeline=None, resamples=20)
    done = CliRunner().invoke(app, ["report", place])
    assert done.exit_code == 0, done.output
    page = store.read("report.html").decode()
    assert len(data_of(page)["pairs"]) == 4


def test_a_run_without_pairs_is_refused(tmp_path: Path) -> None:
    write_log(tmp_path / "run", {}, [])
    with pytest.raises(RunError, match="no pair to report"):
        make_report(open_run(str(tmp_path / "run")), lambda line: None, called="run")


def test_a_run_shows_itself_in_a_notebook(tmp_path: Path, rng: Random) -> None:
    """Would catch a display that fails on a fresh run, or that lets a text become markup."""
    pairs, ids = made(rng, 8)
    ids[0] = ("<script>alert(1)</script>", "a0", "b0")
    run = write_run(tmp_path / "<b>run", pairs, ids, finished=False)
    page = run._repr_html_()
    assert "8 attributed" in page
    assert "The run is not finished" in page
    assert "<script" not in page
    assert "<b>run" not in page
    assert "strongest word pair, and what it adds to the score" in page
    empty = write_log(tmp_path / "empty", {}, [])
    assert "0 attributed" in Run(empty)._repr_html_()


def test_plots_say_what_they_show_and_survive_odd_numbers() -> None:
    """Would catch a plot that divides by zero, or that nobody can hear."""
    odd = [
        plots.Bar("<b>", 0.0),
        plots.Bar("up", 2.0, 1.0, 3.0, 0.5),
        plots.Bar("down", -1.0),
        plots.Bar("no", float("nan")),
    ]
    svg = str(plots.bars("Some <bars>", odd, mark="even"))
    assert 'aria-label="Some &lt;bars&gt;. ' in svg
    assert "<b>" not in svg
    assert "nan" not in svg
    for bins in ([(0.0, 0.0, 5)], [(0.0, 1.0, 0), (1.0, 2.0, 0)]):
        assert "<svg" in plots.histogram("h", bins, "u")
    flat = plots.curves(
        "c", [plots.Line("one", [(1, 0.0)]), plots.Line("two", [(1, 0.0)], [(1, 0.0, 0.0)])], "x", log_x=True
    )
    assert "nan" not in flat
