"""Which queries got better or worse between two runs, through which words, and what is left out."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import pytrec_eval
from pair_runs import write_pairs
from query_runs import Ranked, write_run
from test_comparison import rows_of
from typer.testing import CliRunner

from jobs.analysis.comparison.compare import compare_runs
from jobs.cli import main as cli
from jobs.run.reader import Run, open_run

SCHEMA = pa.schema([("relevance", pa.int32())])
QUERIES = {"worse": "heated wing", "better": "boundary layer", "same": "hot jet"}
TEXTS = {"d1": "wing of a jet", "d2": "heated plate", "d3": "nothing at all"}
RELEVANT = {"worse": "d1", "better": "d2", "same": "d3"}
Cells = dict[tuple[str, str], float]


def row(query: str, document: str, score: float, cells: Cells | None = None) -> Ranked:
    judged = {"relevance": 2 if RELEVANT[query] == document else 0}
    if query == "same":
        judged = {"relevance": None} if document != "d3" else judged
    return Ranked(query, document, TEXTS[document], score, judged, cells or {})


def run_of(folder: Path, scores: dict[str, dict[str, float]], cells: dict[tuple[str, str], Cells] | None = None) -> Run:
    rows = [
        row(query, document, score, (cells or {}).get((query, document)))
        for query, documents in scores.items()
        for document, score in documents.items()
    ]
    queries = {query: QUERIES[query] for query in scores}
    return open_run(write_run(folder, queries, [rows], schema=SCHEMA, sums_to="score").url)


# The relevant document of "worse" comes last, so that a run can lack it and all other pairs keep their ids.
FIRST = {
    "better": {"d1": 0.9, "d2": 0.5, "d3": 0.1},
    "same": {"d1": 0.9, "d2": 0.5, "d3": 0.1},
    "worse": {"d2": 0.5, "d3": 0.1, "d1": 0.9},
}
SECOND = {
    "better": {"d1": 0.4, "d2": 0.8, "d3": 0.1},
    "same": {"d1": 0.8, "d2": 0.6, "d3": 0.2},
    "worse": {"d2": 0.5, "d3": 0.4, "d1": 0.2},
}


def of_query(scores: dict[str, dict[str, float]]) -> dict[str, float]:
    qrels = {q: {d: 2 if RELEVANT[q] == d else 0 for d in TEXTS if q != "same" or d == "d3"} for q in scores}
    found = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut_10"}).evaluate(scores)
    return {q: found[q]["ndcg_cut_10"] for q in scores}


def test_queries_are_compared_by_the_metric_of_trec_eval(tmp_path: Path) -> None:
    found = compare_runs(run_of(tmp_path / "1", FIRST), run_of(tmp_path / "2", SECOND)).rankings
    assert found is not None
    before, after = of_query(FIRST), of_query(SECOND)
    assert found.name == "nDCG@10"
    assert [one.query for one in found.queries] == ["worse", "same", "better"]
    for one in found.queries:
        assert (one.first, one.second) == pytest.approx((before[one.query], after[one.query]), abs=1e-9)
    assert [one.query for one in found.worse] == ["worse"]
    assert [one.query for one in found.better] == ["better"]
    assert found.difference == pytest.approx(np.mean([after[q] - before[q] for q in QUERIES]), abs=1e-9)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.difference < found.high


def test_documents_that_moved_are_named_with_their_ranks_and_judgments(tmp_path: Path) -> None:
    second = {**SECOND, "worse": {"d2": 0.5, "d3": 0.4}}  # the relevant document is not retrieved any more
    found = compare_runs(run_of(tmp_path / "1", FIRST), run_of(tmp_path / "2", second)).rankings
    assert found is not None
    (worse,) = found.worse
    moved = {one.document: (one.relevance, one.rank_1, one.rank_2, one.score_2) for one in worse.documents}
    assert moved["d1"] == (2, 1, None, None)
    assert moved["d2"][:3] == (0, 2, 1)
    assert worse.documents[0].document == "d1"


def test_words_are_those_whose_part_of_the_gap_changed(tmp_path: Path) -> None:
    """The word "wing" added .6 to the relevant document and .1 to the others; later it adds nothing to any."""
    before: dict[tuple[str, str], Cells] = {
        ("worse", "d1"): {("wing", "wing"): 0.6},
        ("worse", "d2"): {("wing", "plate"): 0.1},
    }
    first = run_of(tmp_path / "1", FIRST, before)
    second = run_of(tmp_path / "2", SECOND)
    found = compare_runs(first, second).rankings
    assert found is not None
    (worse,) = found.worse
    assert worse.against
    assert worse.words[0].word == "wing"

    def gap(run: Run) -> float:
        sums = {one.id: one.row_sums[run.query("worse").words.index("wing")] for one in run.query("worse")}
        return float(sums["d1"] - (sums["d2"] + sums["d3"]) / 2)

    assert worse.words[0].first == pytest.approx(gap(first), abs=1e-5)
    assert worse.words[0].second == pytest.approx(gap(second), abs=1e-5)


def test_a_query_that_shares_no_relevant_document_compares_all_of_them(tmp_path: Path) -> None:
    second = {**SECOND, "worse": {"d2": 0.5, "d3": 0.4}}
    cells: dict[tuple[str, str], Cells] = {("worse", "d2"): {("heated", "heated"): 0.9}}
    found = compare_runs(run_of(tmp_path / "1", FIRST), run_of(tmp_path / "2", second, cells)).rankings
    assert found is not None
    (worse,) = found.worse
    assert not worse.against
    assert worse.words[0].word == "heated"
    assert worse.words[0].second > worse.words[0].first


def test_queries_of_one_run_and_other_texts_are_left_out_and_counted(tmp_path: Path) -> None:
    first = run_of(tmp_path / "1", {q: FIRST[q] for q in ("better", "worse")})
    rows = [row(q, d, score) for q in ("better", "worse", "same") for d, score in SECOND[q].items()]
    queries = {**QUERIES, "better": "another question"}
    second = open_run(write_run(tmp_path / "2", queries, [rows], schema=SCHEMA).url)
    found = compare_runs(first, second).rankings
    assert found is not None
    assert [one.query for one in found.queries] == ["worse"]
    assert (found.low, found.high) == (None, None)
    assert "1 query with judgments in one run alone left out." in found.notes
    assert "1 query with another text in the second run left out." in found.notes


def test_the_command_prints_queries_words_and_what_it_cannot_say(tmp_path: Path) -> None:
    first, second = run_of(tmp_path / "1", FIRST), run_of(tmp_path / "2", SECOND)
    result = CliRunner().invoke(cli.app, ["compare", first.url, second.url, "--quiet"])
    assert result.exit_code == 0, result.stderr
    said = " ".join(result.stdout.split())
    assert "nDCG@10 over 3 judged queries" in said
    assert "1 better, 1 worse, 1 the same" in said
    assert "The interval contains 0" in said
    assert "d1 (relevance 2) 1 → 3" in said
    json_of = CliRunner().invoke(cli.app, ["compare", first.url, second.url, "--quiet", "--json"])
    plain: dict[str, Any] = json.loads(json_of.stdout)
    assert plain["rankings"]["queries"][0]["query"] == "worse"


def test_runs_without_judgments_or_of_pairs_say_so(tmp_path: Path) -> None:
    rows = [Ranked("q", "d1", "wing of a jet", 0.5, {"relevance": None})]
    runs = [open_run(write_run(tmp_path / name, {"q": "jet"}, [rows], schema=SCHEMA).url) for name in "12"]
    found = compare_runs(*runs)
    assert found.rankings is None
    assert "has no judgments" in found.no_rankings
    assert "Rankings are not compared. The run has no judgments" in " ".join(str(found).split())
    pairs = [write_pairs(tmp_path / name, [rows_of(random.Random(1), 3)]) for name in ("a", "b")]
    of_pairs = compare_runs(*pairs)
    assert "no rankings" in of_pairs.no_rankings
    assert "Rankings" not in str(of_pairs)
