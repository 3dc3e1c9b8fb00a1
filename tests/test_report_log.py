"""The report of a log as a diagnosis: its verdict, the queries that fail and why, and what is too little judged."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
from judged_runs import FAILING, WORDS, judged_log, query

from jobs.analysis.comparison.compare import compare_runs
from jobs.analysis.failures.result import Case, Failures, Kind, Rate, write_failures
from jobs.analysis.probes.result import Estimate, Probe, Probes, write_probes
from jobs.analysis.ranking.metrics import ranking_metrics
from jobs.analysis.statistics.compute import compute_statistics
from jobs.errors import RunError
from jobs.run.reader import Run, open_run
from jobs.storage.store import Store
from jobs.views.report.query_table import read_facts
from jobs.views.report.report import make_report

PARTS = ("verdict", "failing", "queries", "pairs", "findings", "trust", "method")


def reported(run: Run) -> str:
    compute_statistics(run, pipeline=None, resamples=100)
    return make_report(run, lambda line: None, called="runs/log")


def part(page: str, name: str) -> str:
    """The section of that id, as HTML."""
    following = "|".join(f'<section id="{one}"' for one in PARTS)
    found = re.search(rf'<section id="{name}".*?</section>\n(?={following}|</main>)', page, re.DOTALL)
    assert found is not None, f"no part {name}"
    return found[0]


def words(source: str) -> str:
    """The text of some HTML on one line."""
    plain = re.sub("<style>.*?</style>|<script.*?</script>|<[^>]+>", " ", source, flags=re.DOTALL)
    return " ".join(html.unescape(plain).split())


def rows(page: str, name: str) -> list[list[str]]:
    """The cells of the rows of the table in that part, without what they open to."""
    cells = re.findall(r'<tr class="row".*?</tr>', part(page, name), re.DOTALL)
    return [[words(cell) for cell in re.findall(r"<t[hd] .*?</t[hd]>", row, re.DOTALL)] for row in cells]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    run = judged_log(tmp_path_factory.mktemp("judged") / "run")
    return run, reported(run)


def test_the_verdict_has_the_metrics_and_says_what_to_do(judged: tuple[Run, str]) -> None:
    """Would catch a metric that is not the run's, and a sentence without a number, an action or a place to read on."""
    run, page = judged
    ranking = ranking_metrics(run, 100)
    assert ranking is not None
    best = ranking.measure("nDCG", "model")
    assert best is not None
    verdict = part(page, "verdict")
    assert "<dt title=" in verdict
    assert f"nDCG@{ranking.cutoff} is {best.value:.3f} ({best.low:.3f} to {best.high:.3f}) over 8 queries" in words(
        verdict
    )
    assert "Start with the worst queries: 0, 1, 2." in words(verdict)
    sentences = re.findall(r"<li>(.*?)</li>", verdict, re.DOTALL)
    assert 1 <= len(sentences) <= 5
    for one in sentences:
        assert re.search(r"\d", words(one)), one
        assert "<strong>" in one
        link = re.search(r'href="#([^"]+)"', one)
        assert link is not None
        assert f'id="{link[1]}"' in page


def test_the_queries_that_fail_come_worst_first_with_the_words_that_made_it(judged: tuple[Run, str]) -> None:
    """Would catch a good query among them, another order, or words of another document."""
    _, page = judged
    failing = rows(page, "failing")
    for at, cells in zip(FAILING, failing, strict=True):
        assert cells[0].startswith(f"{query(at)} query {at} ")
        assert cells[0].endswith("without effect: model")
    values = [float(cells[1]) for cells in failing]
    assert values == sorted(values)
    for at, cells in zip(FAILING, failing, strict=True):
        why = rf"wrong{at} at rank 1 is 0\.\d+ above the relevant right{at} at rank 2, by {WORDS[at]} \+0\.[12]\d"
        assert re.match(why, cells[-1]), cells[-1]
    opened = re.findall(r'<tr class="more".*?</section>', part(page, "failing"), re.DOTALL)
    assert len(opened) == len(FAILING)
    assert "Words of the query that wrong" not in words(page), "both documents have the same words of the query"
    for at, one in zip(FAILING, opened, strict=True):
        assert 'class="tokenpair-margin"' in one
        assert {f"wrong{at}", f"right{at}"} <= set(words(one).split())
    assert "3 of 8 judged queries are not ranked as well as they could be" in words(page)
    assert "tokenpair why runs/log 0 wrong0 right0" in words(page)


def test_the_table_of_queries_has_every_query_with_its_metrics(judged: tuple[Run, str]) -> None:
    run, page = judged
    ranking = ranking_metrics(run, 100)
    assert ranking is not None
    table = rows(page, "queries")
    assert [cells[0] for cells in table] == [f"{query(at)} query {at}" for at in range(8)]
    wanted = {row["query"]: row[f"model nDCG@{ranking.cutoff}"] for row in ranking.per_query.to_pylist()}
    assert [float(cells[1]) for cells in table] == pytest.approx([wanted[str(at)] for at in range(8)], abs=0.0051)
    links = re.findall(r'<tr class="row" role="row" id="query=(\d)"><th[^>]*>\s*<a href="#failing=(\d)"', page)
    assert links == [(str(at), str(at)) for at in FAILING]


def kind(name: str, title: str, count: int, low: float, alarms: float, query_id: str) -> Kind:
    rate = Rate(collection="C", planted=50, controls=50, recognised=0.9, false_alarms=alarms)
    case = Case(query_id=query_id, document_id="d", text=f"case of {name}")
    return Kind(
        name=name, title=title, advice=f"do {name}", count=count, of=40, low=low, high=0.9, cases=(case,), rates=(rate,)
    )


def test_kinds_of_failure_and_edits_are_said_with_their_rates_and_only_where_they_are_sure(tmp_path: Path) -> None:
    """Would catch advice from a rule that finds no more than it finds by mistake, and an edit of five documents."""
    run = judged_log(tmp_path / "run")
    kinds = (
        kind("near_duplicates", "a copy above", 20, 0.35, 0.05, "1"),
        kind("sentence_would_win", "a sentence would win", 8, 0.1, 0.3, "2"),
        kind("behind_the_cut", "better behind the cut", 0, 0.0, 0.1, "7"),
    )
    failures = Failures(
        queries=8, judged=8, failing=3, looked_at=40, documents=24, cut=6, with_model=True, kinds=kinds,
        notes=("Something <b>else</b> was left out.",),
    )  # fmt: skip
    write_failures(run, failures)
    some = Estimate(value=0.4, low=0.3, high=0.5)
    edit = Probe(
        name="negate", title="negates a sentence", control="c", contradicts=True, pairs=30, skipped=0, change=some,
        control_change=some, difference=some, small=some, above=some, control_above=some, with_next=0, turned=None,
        control_turned=None,
    )  # fmt: skip
    few = edit.model_copy(update={"title": "changes a number", "pairs": 5})
    write_probes(run, Probes(model="m", similarity="cosine", pairs=30, of=8, seed=0, probes=(edit, few)))
    page = reported(open_run(run.url))
    verdict, failing = words(part(page, "verdict")), part(page, "failing")
    assert "A copy above in 20 of 40 failing queries (50%, 95 % interval 35% to 90%). do near_duplicates" in verdict
    assert "sentence would win" not in verdict
    assert "cut" not in verdict.replace("behind the cut", ""), "the kind knows that the cut does not matter"
    assert "An edit that negates a sentence changes the score" in verdict
    assert "changes a number" not in verdict
    cards = re.findall(r'<section class="kind" id="kind-([^"]+)".*?</section>', failing, re.DOTALL)
    assert cards == ["words-without-effect", "near-duplicates", "sentence-would-win", "behind-the-cut"]
    assert "no more often than the rule's false alarms" in words(failing)
    assert "On planted failures this rule: 90% recognised at 5% false alarms (C)." in words(failing)
    assert '<a href="#failing=1"><bdi>query 1, document d: case of near_duplicates</bdi></a>' in failing
    assert '<a href="#failing=7">' not in failing, "query 7 has no row"
    assert "Something &lt;b&gt;else" in failing
    assert "negates a sentence" in words(failing.split('id="probes"')[1])


def test_every_link_of_the_page_leads_somewhere(judged: tuple[Run, str]) -> None:
    """Would catch a link to a part that this run does not have."""
    _, page = judged
    body = page.split('<script type="application/json"')[0]
    ids = set(re.findall(r' id="([^"]+)"', body))
    pairs = set(re.findall(r'"id":"([^"]+)","title"', page))
    for target in re.findall(r'href="#([^"]+)"', body):
        assert target in ids or target.removeprefix("pair=").replace("%3A", ":") in pairs, target


def test_parts_stand_in_the_order_of_a_diagnosis(judged: tuple[Run, str]) -> None:
    order = re.findall(r'^<section id="(\w+)"', judged[1], re.MULTILINE)
    assert [one for one in order if one in PARTS] == list(PARTS)
    assert re.search(r'<section id="method"[^>]*>\s*<details>', judged[1])


def test_a_log_without_judgments_lists_what_may_fail_and_what_is_missing(tmp_path: Path) -> None:
    """Would catch a report that has no failures where nothing is judged, or that makes some up."""
    run = judged_log(tmp_path / "run", judged=())
    page = reported(run)
    verdict = words(part(page, "verdict"))
    assert "no judgments" in verdict
    assert "qrels" in verdict
    assert "nDCG" not in page
    failing = words(part(page, "failing"))
    assert "Queries that may fail" in failing
    assert "tokenpair compare runs/log OTHER_RUN --output runs/log/comparison" in failing
    assert all("without effect" in cells[1] for cells in rows(page, "failing"))


def test_a_stored_comparison_says_where_a_second_run_disagrees(tmp_path: Path) -> None:
    run, other = judged_log(tmp_path / "run", judged=()), judged_log(tmp_path / "other", judged=(), backwards=True)
    compare_runs(run, other, sample=1, output=Store.open(f"{run.url}/comparison"))
    page = reported(open_run(run.url))
    failing = part(page, "failing")
    assert f"8 of 8 have another first document in {other.url}" in words(failing)
    assert "OTHER_RUN" not in failing
    by_query = {cells[0]: cells[1] for cells in rows(page, "failing")}
    assert "the second run has other0 first, and this one wrong0" in by_query[f"{query(0)} query 0"]
    assert "the second run has other5 first, and this one right5" in by_query[f"{query(5)} query 5"]
    assert failing.count('class="tokenpair-margin"') == 8
    Path(run.url, "comparison", "pairs.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunError, match="comparison: is damaged"):
        make_report(open_run(run.url), lambda line: None, called="x")


def test_what_is_too_little_judged_is_said_and_not_drawn(tmp_path: Path) -> None:
    """Would catch a metric of two queries, or a bar of two documents, that looks like a result."""
    page = reported(judged_log(tmp_path / "run", judged=(0, 5)))
    verdict = words(part(page, "verdict"))
    assert "How good the ranking is, is open: too few judged queries (2)." in verdict
    assert "nDCG@10 too few judged queries (2)" in verdict
    findings = part(page, "findings")
    assert "not drawn: relevant, too few judged pairs (2)" in findings
    assert "too few judged pairs (6)" in words(findings)
    drawn = re.findall(r'aria-label="(By relevance[^"]*)"', findings)
    assert all("relevant:" not in one.replace("not judged:", "") for one in drawn)


def test_pairs_that_are_no_log_have_no_queries(tmp_path: Path) -> None:
    import random

    from test_report import made
    from test_report import write_run as write_pairs

    run = write_pairs(tmp_path / "run", *made(random.Random(1), 12))
    page = reported(run)
    order = re.findall(r'^<section id="(\w+)"', page, re.MULTILINE)
    assert order == ["verdict", "pairs", "findings", "trust", "method"]
    assert read_facts(run, 0, []) == (0, [])


def test_a_large_log_of_long_documents_stays_below_two_megabytes(tmp_path: Path) -> None:
    """Would catch margins, pairs or a table of queries that grow with the run."""
    filler = " ".join(f"{WORDS[at % 8]}{at}" for at in range(250))
    run = judged_log(tmp_path / "run", 500, filler=filler)
    count, facts = read_facts(run, 0, ["7", "499"], 10)
    assert count == 500
    assert len(facts) == 10
    assert {"7", "499"} <= {one.id for one in facts}
    page = reported(run)
    assert len(page.encode()) < 2_000_000
    assert "400 of 500 queries: the failing ones, and others at random." in words(page)
