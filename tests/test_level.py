"""Jobs without word pairs (level: words): the same sums as with them, and what every reader of such a run says."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_models import TinyModels, random_text
from typer.testing import CliRunner

from attribution_core.display.pair import pair_html, pair_text
from jobs.analysis.comparison.compare import compare_runs
from jobs.analysis.failures.find import read_failures
from jobs.analysis.faithfulness.evaluate import evaluate_run
from jobs.analysis.statistics.compute import compute_statistics
from jobs.cli import main as cli
from jobs.config.job import parse_job
from jobs.engine.driver import run_job
from jobs.errors import JobError, RunError
from jobs.plan.plan import make_plan
from jobs.run.reader import Run, open_run
from jobs.run.tables import LIFTS, WORD_PAIRS
from jobs.storage.store import Store
from jobs.views.comparison.terminal import comparison_text
from jobs.views.faithfulness.terminal import faithfulness_text
from jobs.views.margin.page import margin_html
from jobs.views.query.page import query_html
from jobs.views.report.notebook import run_html

QUERIES, DOCUMENTS, DEPTH = 6, 14, 5
NO_PAIRS = "the run has no word pairs (level: words)"


@pytest.fixture(scope="module")
def made(tiny: TinyModels, tmp_path_factory: pytest.TempPathFactory, seed: int) -> dict[str, Any]:
    """A log with judgments, and its runs at both levels."""
    rng = random.Random(seed)
    folder = tmp_path_factory.mktemp("level")
    (folder / "qrels").mkdir()
    texts = {f"q{at}": random_text(rng, 6) for at in range(QUERIES)}
    corpus = {f"d{at}": random_text(rng, 14) for at in range(DOCUMENTS)}
    for name, of in (("queries", texts), ("corpus", corpus)):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in of.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    lines, judged = [], ["query-id\tcorpus-id\tscore"]
    for query in texts:
        ranked = rng.sample(sorted(corpus), DEPTH)
        lines += [f"{query} Q0 {document} {rank} {1 / rank:.4f} t" for rank, document in enumerate(ranked, 1)]
        judged += [f"{query}\t{ranked[2]}\t1", f"{query}\t{ranked[0]}\t0"]
    (folder / "run.trec").write_text("\n".join(lines) + "\n")
    (folder / "qrels" / "test.tsv").write_text("\n".join(judged) + "\n")
    settings = {
        "model": str(tiny.folder("bert", normalize=True)),
        "log": str(folder / "run.trec"),
        "queries": str(folder / "queries.jsonl"),
        "corpus": str(folder / "corpus.jsonl"),
        "qrels": str(folder / "qrels" / "test.tsv"),
        "quadrature": {"nodes": 8},
        "shards": 3,
        "workers": {"ray": False},
    }
    for level in ("pairs", "words"):
        job = parse_job(settings | {"level": level, "output": str(folder / level)})
        assert run_job(job, quiet=True).exit_code == 0
    return {"folder": folder, "settings": settings}


def run_of(made: dict[str, Any], level: str = "words") -> Run:
    return open_run(made["folder"] / level)


def rows_of(run: Run) -> dict[str, dict[str, Any]]:
    return {row["pair_id"]: row for row in run.to_table().to_pylist()}


def command(*words: str | Path) -> str:
    result = CliRunner().invoke(cli.app, list(map(str, words)))
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def same(run: Run, other: Run) -> None:
    """Both runs have the same pairs with the same sums, lifts and scores."""
    rows, others = rows_of(run), rows_of(other)
    assert len(rows) == QUERIES * DEPTH
    assert rows.keys() == others.keys()
    for pair_id, row in rows.items():
        for name in ("score", "total", "reference_ab", "row_sums", "col_sums", *LIFTS):
            np.testing.assert_allclose(row[name], others[pair_id][name], atol=2e-5, err_msg=f"{pair_id} {name}")


def test_a_job_without_word_pairs_has_the_sums_lifts_and_scores_of_one_with_them(made: dict[str, Any]) -> None:
    run = run_of(made)
    same(run, run_of(made, "pairs"))
    for row in rows_of(run).values():
        assert [row[name] for name in WORD_PAIRS] == [None] * len(WORD_PAIRS)
        assert row["top"] == []
    assert run.to_table().schema.equals(run_of(made, "pairs").to_table().schema)
    ways = {row["role"]: row["way"] for row in run.texts().to_pylist()}
    assert ways["document"] == "partner"
    assert not run.has_word_pairs
    assert run_of(made, "pairs").has_word_pairs


def test_a_job_resumes_at_its_level_alone(made: dict[str, Any], tmp_path: Path) -> None:
    """A shard that is missing is computed again; the other level is another job."""
    shutil.copytree(made["folder"] / "words", tmp_path / "words")
    (tmp_path / "words" / "_SUCCESS").unlink()
    (tmp_path / "words" / "attributions" / "part-00001.parquet").unlink()
    settings = made["settings"] | {"output": str(tmp_path / "words")}
    with pytest.raises(RunError, match="level: 'words' there, 'pairs' now"):
        run_job(parse_job(settings), quiet=True)
    outcome = run_job(parse_job(settings | {"level": "words"}), quiet=True)
    assert outcome.exit_code == 0
    assert 0 < outcome.pairs_now < QUERIES * DEPTH
    same(open_run(tmp_path / "words"), run_of(made))


def test_a_run_of_a_version_without_levels_is_one_of_word_pairs(made: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(made["folder"] / "pairs", tmp_path / "pairs")
    record = tmp_path / "pairs" / "job.yaml"
    lines = record.read_text().splitlines()
    record.write_text("\n".join(line for line in lines if line != "level: pairs") + "\n")
    assert len(record.read_text().splitlines()) == len(lines) - 1
    settings = made["settings"] | {"output": str(tmp_path / "pairs")}
    assert run_job(parse_job(settings), quiet=True).already_finished
    with pytest.raises(RunError, match="level: 'pairs' there, 'words' now"):
        run_job(parse_job(settings | {"level": "words"}), quiet=True)


def test_a_job_of_word_pairs_has_the_digest_of_versions_without_levels() -> None:
    """Plans record it: with another one, no run that an earlier version began could be finished."""
    settings = {"model": "some/model", "input": "s3://bucket/pairs.csv", "output": "s3://bucket/run"}
    job, words = parse_job(settings), parse_job(settings | {"level": "words"})
    assert job.digest() == "dc080748dfeb159ad985edec61e23dad"
    assert words.digest() != job.digest()
    assert words.identity()["level"] == "words"


def test_whole_matrices_of_no_word_pairs_are_a_contradiction(made: dict[str, Any]) -> None:
    with pytest.raises(JobError, match="store: full stores all word pairs, and level: words has none") as error:
        parse_job(made["settings"] | {"output": "run", "level": "words", "store": "full"})
    assert len(str(error.value).splitlines()) == 1


def test_a_plan_prices_both_levels(made: dict[str, Any], tmp_path: Path) -> None:
    """A text takes one direction a partner and one for its own embedding, where its groups are not fewer."""
    settings = {**made["settings"], "shards": 1}
    plans = {}
    for level in ("pairs", "words"):
        store = Store.open(tmp_path / level)
        plans[level] = make_plan(parse_job(settings | {"level": level, "output": str(tmp_path / level)}), store)
    assert plans["pairs"].other_levels["words"] == plans["words"].work
    assert plans["words"].other_levels["pairs"] == plans["pairs"].work
    rows = rows_of(run_of(made)).values()
    calibration = plans["words"].calibration
    moved = 0
    for side, role in (("a", "query"), ("b", "document")):
        rate = calibration.rates[role]
        partners: dict[str, set[str]] = {}
        for row in rows:
            ends = row["text_a_id"], row["text_b_id"]
            own, other = ends if side == "a" else ends[::-1]
            partners.setdefault(own, set()).add(other)
        lengths = {row["text_id"]: len(row["text"]) for row in run_of(made).texts().to_pylist() if row["role"] == role}
        for text_id, of in partners.items():
            tokens = min(-(-lengths[text_id] * 100 // rate.characters) + rate.extra, rate.limit)
            groups = max((tokens - rate.extra) * rate.groups // 100, 1)
            moved += tokens * min(groups, len(of) + 1, calibration.width)
    assert plans["words"].work.moved == moved
    assert moved < plans["pairs"].work.moved
    places = {name: str(made["settings"][name]) for name in ("model", "log", "queries", "corpus", "qrels")}
    flags = [word for name, place in places.items() for word in (f"--{name}", place)]
    assert "level pairs; level: words takes about " in command("plan", *flags)
    assert "level words; level: pairs takes about " in command("plan", *flags, "--level", "words")


def test_statistics_without_word_pairs_have_the_numbers_of_those_with_them(made: dict[str, Any]) -> None:
    """What needs single word pairs is left out with the reason; every other number is the same."""
    summaries = {level: compute_statistics(run_of(made, level), resamples=20) for level in ("words", "pairs")}
    words, pairs = summaries["words"].statistics, summaries["pairs"].statistics
    for name in ("concentration", "sufficiency"):
        assert not words[name].tables
        assert words[name].notes == (f"Word pairs are left out: {NO_PAIRS}.",)
    for name in ("matches", "strongest", "retrieval"):
        assert f"Word pairs are left out: {NO_PAIRS}." in words[name].notes
    assert not any("word pairs (level" in note for name in ("position", "ranking") for note in words[name].notes)
    assert {table.name for one in words.values() for table in one.tables} >= {
        *("word_kinds", "words_by_lift", "position_word", "ranking", "query_terms", "retrieval_rank"),
        *("retrieval_relevance", "convergence_nodes"),
    }
    stored = {level: run_of(made, level).statistics for level in ("words", "pairs")}
    table, other = (stored[level]["position"].table("position_word") for level in ("words", "pairs"))
    assert table["position"].to_pylist() == other["position"].to_pylist()
    table, other = (stored[level]["retrieval"].table("query_terms") for level in ("words", "pairs"))
    for name in ("mean", "mean_lift", "found_in"):
        np.testing.assert_allclose(table[name].to_numpy(), other[name].to_numpy(), atol=1e-4)
    measures = set(stored["words"]["retrieval"].table("retrieval_rank")["measure"].to_pylist())
    assert measures == {"score"}
    assert pairs["retrieval"].figures != words["retrieval"].figures
    shown = command("stats", run_of(made).url, "--all")
    assert "no word pairs stored (level: words)" in shown
    assert "nan" not in shown


def test_a_pair_is_printed_drawn_and_written_by_its_words(made: dict[str, Any], tmp_path: Path) -> None:
    run, other = run_of(made), run_of(made, "pairs")
    pair_id = run.first("pair_id", 1)[0]
    pair = run.pair(pair_id)
    assert np.isnan(pair.matrix).all()
    assert pair.special is None
    assert not pair.has_word_pairs
    np.testing.assert_allclose(pair.row_sums, other.pair(pair_id).row_sums, atol=2e-5)
    page, picture = tmp_path / "pair.html", tmp_path / "pair.png"
    shown = command("show", run.url, pair_id, "--html", page, "--png", picture)
    for text in (shown, pair_text(pair), pair_html(pair), page.read_text()):
        assert "Strongest words of query" in text
        assert "nan" not in text
    assert "No word pairs were computed (level: words)" in shown
    assert picture.stat().st_size > 10_000
    assert pair_id in command("show", run.url)


def test_a_query_and_the_notebook_show_the_run(made: dict[str, Any]) -> None:
    run, other = run_of(made), run_of(made, "pairs")
    result = run.query("q1")
    assert [one.id for one in result] == [one.id for one in other.query("q1")]
    assert result[0].top() == []
    for span, its in zip(result[0].spans, other.query("q1")[0].spans, strict=True):
        assert span.value == pytest.approx(its.value, abs=2e-5)
        assert span.query_word is None
    assert "nan" not in query_html(result)
    assert "The run has no word pairs (level: words)." in " ".join(str(result).split())
    assert "strongest word pairs" in " ".join(str(other.query("q1")).split())
    assert len(result.to_pandas()) == DEPTH
    assert "strongest word pair" not in run_html(run)
    assert "strongest word pair" in run_html(other)
    assert f"{QUERIES * DEPTH} attributed" in run_html(run)
    assert "pairs" in command("status", run.url)


def test_a_query_whose_text_is_not_written_yet_has_its_sums(made: dict[str, Any], tmp_path: Path) -> None:
    """Would catch sums of words that are called those of special tokens."""
    shutil.copytree(made["folder"] / "words", tmp_path / "words")
    shutil.rmtree(tmp_path / "words" / "texts")
    result = open_run(tmp_path / "words").query("q1")
    assert set(result.words) == {"…"}
    shown = str(result)
    assert "The query's own text is not written yet.\n" in shown
    assert "special tokens" not in shown


def test_a_margin_is_split_by_words_alone(made: dict[str, Any]) -> None:
    run, other = run_of(made), run_of(made, "pairs")
    margin, its = run.margin("q1"), other.margin("q1")
    assert margin.pairs == ()
    for name in ("query_words", "a_words", "b_words"):
        ours, theirs = ({(part.label, part.index): part.value for part in getattr(one, name)} for one in (margin, its))
        assert all(value == pytest.approx(theirs.get(key, 0.0), abs=1e-4) for key, value in ours.items())
    assert sum(part.value for part in margin.query_words) == pytest.approx(margin.difference, abs=1e-5)
    assert "The run has no word pairs (level: words), so none are compared." in margin.notes
    shown = command("why", run.url, "q1")
    assert "pairs that differ most" not in shown
    assert "What each word of the query adds" in shown
    assert "met most" not in margin_html(margin)
    assert "met most" in margin_html(its)


def test_a_report_of_a_run_without_word_pairs(made: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    command("report", run_of(made).url, "--output", page)
    text = page.read_text()
    assert "The run has no word pairs (level: words): point at a word to see what it adds." in text
    assert "Word pairs are left out" in text
    assert "words and special tokens" in text
    assert "top[1]" not in text
    data = json.loads(text.split('<script type="application/json" id="pairs-data">')[1].split("</script>")[0])
    assert data["pairs"]
    assert all(pair["rows"] == pair["cols"] == [] and pair["sums"][0] for pair in data["pairs"])


def test_evaluation_and_failures_need_no_word_pairs(made: dict[str, Any]) -> None:
    run = run_of(made)
    result = evaluate_run(run, sample=12, steps=2, orders=1, shapley=2)
    assert result.level == "words"
    assert {one.level for one in result.agreement} == {"words", "words of a", "words of b"}
    its = evaluate_run(run_of(made, "pairs"), sample=12, steps=2, orders=1, shapley=2)
    for one, other in zip(result.curves, its.curves, strict=True):
        if one.method == "attributions":
            assert one.advantage.mean == pytest.approx(other.advantage.mean, abs=0.05)
    said = faithfulness_text(result)
    assert "Word pairs are not judged: the run has no word pairs (level: words)." in said
    assert "words that sum to the score" in said
    assert "store: full" not in said
    for level in ("words", "pairs"):
        compute_statistics(run_of(made, level), only=["retrieval"], resamples=20)
    found, its_found = (
        [(kind.name, kind.count, kind.of) for kind in read_failures(run_of(made, level)).kinds]
        for level in ("words", "pairs")
    )
    assert found == its_found
    assert "inversions" in command("why", run.url, "--prove", "--sample", "2", "--quiet")


@pytest.mark.parametrize("swapped", [False, True])
def test_comparison_compares_words_alone(made: dict[str, Any], swapped: bool) -> None:
    runs = [run_of(made), run_of(made, "pairs")][:: -1 if swapped else 1]
    result = compare_runs(*runs)
    assert result.agreement["overlap"] is None
    distance = result.agreement["distance"]
    assert distance is not None
    assert distance.mean == pytest.approx(0.0, abs=1e-3)
    which = "second" if swapped else "first"
    assert f"Word pairs are not compared: the {which} run has none (level: words)." in comparison_text(result)


def test_sums_other_than_the_score_and_pairs_of_one_file(
    made: dict[str, Any], tmp_path: Path, tiny: TinyModels
) -> None:
    """Symmetric pairs by dot product whose word pairs sum to a difference: no lifts, and no queries."""
    rng = random.Random(1)
    texts = [random_text(rng, 5) for _ in range(6)]
    pairs = list(itertools.combinations(range(6), 2))
    table = pa.table({"a": [texts[i] for i, _ in pairs], "b": [texts[j] for _, j in pairs]})
    pq.write_table(table, tmp_path / "pairs.parquet")
    settings = {
        "model": str(tiny.folder("bert")),
        "input": str(tmp_path / "pairs.parquet"),
        "columns": {"a": "a", "b": "b"},
        "similarity": "dot",
        "sums_to": "difference",
        "quadrature": {"nodes": 8},
        "workers": {"ray": False},
    }
    runs = {}
    for level in ("pairs", "words"):
        output = str(tmp_path / level)
        assert run_job(parse_job(settings | {"level": level, "output": output}), quiet=True).exit_code == 0
        runs[level] = open_run(output)
    rows, others = rows_of(runs["words"]), rows_of(runs["pairs"])
    for pair_id, row in rows.items():
        for name in ("score", "total", "row_sums", "col_sums"):
            np.testing.assert_allclose(row[name], others[pair_id][name], rtol=1e-4, atol=1e-4)
        assert row["row_lift"] is None
    command("stats", runs["words"].url)
    command("report", runs["words"].url, "--output", tmp_path / "report.html")
    assert "words and special tokens" in command("show", runs["words"].url, runs["words"].first("pair_id", 1)[0])
