"""The metrics of a log's ranking and of the model's equal pytrec_eval's, and what cannot be computed is named."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytrec_eval
from pair_runs import Row, attributed, words, write_pairs
from query_runs import LOG, Ranked, write_run
from test_logs import log_job
from test_stores import as_user
from tiny_models import TinyModels
from typer.testing import CliRunner

from jobs.analysis.ranking import metrics
from jobs.analysis.ranking.judgments import judgments
from jobs.analysis.ranking.metrics import planned_metrics, ranking_metrics, why_none
from jobs.analysis.ranking.result import Ranking
from jobs.analysis.resampling import BUCKETS, mean_intervals
from jobs.analysis.statistics.compute import compute_statistics
from jobs.cli.main import app
from jobs.config.job import JobConfig, parse_job
from jobs.errors import RunError
from jobs.plan.plan import make_plan
from jobs.run.manifest import MANIFEST, Plan, load_plan, read_judgments
from jobs.run.reader import Run, open_run
from jobs.run.record import is_own
from jobs.storage.store import Store
from jobs.views.report.charts import charts_of

FILES = {"log": "run.trec", "queries": "queries.jsonl", "corpus": "corpus.jsonl", "qrels": "qrels.trec"}
DOCUMENTS = [f"d{i}" for i in range(40)]
GRADES = (-1, 0, 0, 1, 1, 2, 3)
Log = dict[str, dict[str, float]]
Qrels = dict[str, dict[str, int]]


def random_log(seed: int, queries: int = 12) -> tuple[Log, Qrels]:
    """Few distinct scores, so many ties; q0 has no judgments, q1 only zeros, q2 is judged outside the log alone."""
    chance = random.Random(seed)
    log: Log = {}
    qrels: Qrels = {}
    for number in range(queries):
        documents = chance.sample(DOCUMENTS, chance.choice((3, 14, 25)))
        log[f"q{number}"] = {document: chance.randrange(6) / 4 for document in documents}
        qrels[f"q{number}"] = {document: chance.choice(GRADES) for document in chance.sample(DOCUMENTS, 15)}
        qrels[f"q{number}"] |= {chance.choice(DOCUMENTS): 2}
    del qrels["q0"]
    qrels["q1"] = dict.fromkeys(qrels["q1"], 0)
    qrels["q2"] = {document: 1 for document in DOCUMENTS if document not in log["q2"]}
    qrels["elsewhere"] = {"d1": 1}
    return log, qrels


def write_log(folder: Path, log: Log, qrels: Qrels) -> None:
    texts = {"queries": log, "corpus": DOCUMENTS}
    for name, ids in texts.items():
        lines = [json.dumps({"_id": one, "title": "", "text": f"text of {one}"}) for one in ids]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    rows = [f"{q} Q0 {d} 0 {score} t" for q, documents in log.items() for d, score in documents.items()]
    (folder / "run.trec").write_text("\n".join(rows) + "\n")
    lines = [f"{q} 0 {d} {grade}" for q, documents in qrels.items() for d, grade in documents.items()]
    (folder / "qrels.trec").write_text("\n".join(lines) + "\n")


def planned_log(folder: Path, **settings: Any) -> tuple[Store, Plan, JobConfig]:
    job = log_job(folder, **({"files": FILES} | settings))
    store = Store.open(job.output)
    return store, make_plan(job, store), job


def in_order(scores: dict[str, float]) -> list[str]:
    """trec_eval's order: by score, then by id, the largest first."""
    return sorted(scores, key=lambda document: (scores[document], document), reverse=True)


def expected(log: Log, qrels: Qrels, k: int, deep: int | None = None) -> dict[str, dict[str, float]]:
    """pytrec_eval's numbers of each query by our names; the scores it gets are the log's, ties too."""
    names = {f"nDCG@{k}": f"ndcg_cut_{k}", f"R@{k}": f"recall_{k}", f"AP@{k}": f"map_cut_{k}"}
    if deep is not None:
        names |= {f"R@{deep}": f"recall_{deep}", f"AP@{deep}": f"map_cut_{deep}"}
    whole = pytrec_eval.RelevanceEvaluator(qrels, set(names.values())).evaluate(log)
    first = {q: {d: scores[d] for d in in_order(scores)[:k]} for q, scores in log.items()}
    reciprocal = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(first)
    return {
        q: {ours: whole[q][theirs] for ours, theirs in names.items()}
        | {f"RR@{k}": reciprocal[q]["recip_rank"]}
        | {f"Judged@{k}": sum(d in qrels[q] for d in first[q]) / len(first[q])}
        for q in whole
    }


def check(result: Ranking | None, by: str, wanted: dict[str, dict[str, float]]) -> None:
    assert result is not None
    rows = {row["query"]: row for row in result.per_query.to_pylist()}
    assert set(rows) == set(wanted)
    for query, values in wanted.items():
        for name, value in values.items():
            assert rows[query][f"{by} {name}"] == pytest.approx(value, abs=1e-9), (query, name)
    means = {one.name: one for one in result.measures if one.ranking == by}
    assert set(means) == set(next(iter(wanted.values())))
    for name, one in means.items():
        assert one.value == pytest.approx(sum(row[name] for row in wanted.values()) / len(wanted), abs=1e-9)
        assert one.low is not None
        assert one.high is not None
        assert one.low <= one.value <= one.high
        assert one.queries == result.queries == len(wanted)


@pytest.mark.parametrize(
    ("depth", "k", "deep"), [(None, 10, 25), (20, 10, 20), (10, 10, None), (4, 4, None), (100, 10, 25)]
)
@pytest.mark.parametrize("seed", range(2))
def test_a_plans_metrics_equal_those_of_pytrec_eval(
    tmp_path: Path, seed: int, depth: int | None, k: int, deep: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "ROWS_AT_ONCE", 30)  # several portions
    log, qrels = random_log(seed)
    write_log(tmp_path, log, qrels)
    store, plan, _ = planned_log(tmp_path, **({} if depth is None else {"depth": depth}))
    cut = log if depth is None else {q: {d: s[d] for d in in_order(s)[:depth]} for q, s in log.items()}
    result = planned_metrics(store, plan, depth)
    check(result, "log", expected(cut, qrels, k, deep))
    assert result is not None
    assert (result.cutoff, result.depth) == (k, min(depth or 25, 25))


def test_the_worst_query_is_first_and_those_without_relevant_documents_last(tmp_path: Path) -> None:
    log, qrels = random_log(1)
    write_log(tmp_path, log, qrels)
    store, plan, _ = planned_log(tmp_path)
    result = planned_metrics(store, plan, None)
    assert result is not None
    rows = result.per_query.to_pylist()
    assert rows[-1]["query"] == "q1"
    values = [row["log nDCG@10"] for row in rows[:-1]]
    assert values == sorted(values)
    assert rows[0]["query"] == "q2"
    assert (rows[0]["relevant"], rows[0]["judged"]) == (len(qrels["q2"]),) * 2
    assert result.notes == (
        "1 query of 12 without judgments left out.",
        "1 judged query is not in the log and left out, as trec_eval does without -c.",
        "1 judged query has no relevant document and counts with 0, as in trec_eval.",
    )


# Judgments -----------------------------------------------------------------------------------------------------------


def test_judgments_of_documents_outside_the_log_are_stored(tmp_path: Path) -> None:
    log, qrels = random_log(2)
    write_log(tmp_path, log, qrels)
    store, plan, _ = planned_log(tmp_path, depth=2)
    table = read_judgments(store, plan)
    assert table is not None
    rows = [(q, d, grade) for q in sorted(log) for d, grade in sorted(qrels.get(q, {}).items())]
    assert sorted(zip(*table.to_pydict().values(), strict=True)) == sorted(rows)
    assert load_plan(store) == plan
    again, other, _ = planned_log(tmp_path, depth=2, output="again")
    assert other.judgments_file == plan.judgments_file is not None
    assert again.read(plan.judgments_file) == store.read(plan.judgments_file)


def test_judgments_are_stored_in_a_bucket_and_removed_with_their_run(
    s3: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_log(tmp_path, *random_log(2))
    local, plan, _ = planned_log(tmp_path)
    as_user(monkeypatch, s3.admin)
    job = parse_job(log_job(tmp_path, files=FILES).model_dump() | {"output": f"s3://{s3.bucket}/judged"})
    store = Store.open(job.output)
    far = make_plan(job, store)
    assert far.judgments_file == plan.judgments_file
    table = read_judgments(store, far)
    assert table is not None
    assert table.equals(read_judgments(local, plan), check_metadata=True)
    assert all(is_own(name) for name in store.list("plan"))


def test_a_damaged_file_of_judgments_is_named(tmp_path: Path) -> None:
    write_log(tmp_path, *random_log(2))
    store, plan, _ = planned_log(tmp_path)
    assert plan.judgments_file is not None
    for data in (b"junk", (tmp_path / "run" / plan.pairs_file).read_bytes()):
        store.replace(plan.judgments_file, data)
        with pytest.raises(RunError, match=r"judgments-.*is damaged"):
            read_judgments(store, plan)


def test_the_first_of_two_judgments_counts_as_in_the_rows(tmp_path: Path) -> None:
    log = {"q0": {"d1": 2.0, "d2": 1.0}}
    write_log(tmp_path, log, {"q0": {"d1": 3, "d2": 0}})
    with open(tmp_path / "qrels.trec", "a", encoding="utf-8") as file:
        file.write("q0 0 d1 0\nq0 0 d2 5\nq0 0 d1 1\n")
    store, plan, _ = planned_log(tmp_path)
    table = read_judgments(store, plan)
    assert table is not None
    assert table.to_pydict() == {"query": ["q0", "q0"], "document": ["d1", "d2"], "relevance": [3, 0]}


def test_a_sample_keeps_the_judgments_of_its_queries_alone(tmp_path: Path) -> None:
    log, qrels = random_log(3)
    write_log(tmp_path, log, qrels)
    store, plan, _ = planned_log(tmp_path, sample=5)
    queries = set(pq.read_table(tmp_path / "run" / plan.pairs_file)["text_a_id"].to_pylist())
    assert len(queries) == 5
    table = read_judgments(store, plan)
    assert table is not None
    assert set(table["query"].to_pylist()) == queries & set(qrels)
    deepest = max(len(log[q]) for q in queries)
    check(planned_metrics(store, plan, None), "log", expected({q: log[q] for q in queries}, qrels, 10, deepest))


def test_a_job_without_qrels_has_no_judgments_and_no_metrics(tmp_path: Path) -> None:
    write_log(tmp_path, *random_log(4))
    files = {name: file for name, file in FILES.items() if name != "qrels"}
    store, plan, _ = planned_log(tmp_path, files=files)
    assert plan.judgments_file is None
    assert planned_metrics(store, plan, None) is None


def test_a_plan_of_an_older_version_still_opens(tmp_path: Path) -> None:
    write_log(tmp_path, *random_log(5))
    store, plan, job = planned_log(tmp_path)
    manifest = json.loads(store.read(MANIFEST))
    del manifest["judgments_file"]
    store.replace(MANIFEST, json.dumps(manifest).encode())
    older = load_plan(store)
    assert older is not None
    assert older.judgments_file is None
    assert older.pairs_file == plan.pairs_file
    assert make_plan(job, store) == older


# Runs ----------------------------------------------------------------------------------------------------------------


def log_run(
    folder: Path, log: Log, qrels: Qrels, *, planned: bool = True, seed: int = 0, done: float = 1.0
) -> tuple[Run, Log]:
    """A run of the log's first ten documents a query, and the model's scores, which have ties."""
    write_log(folder, log, qrels)
    if planned:
        planned_log(folder, depth=10)
    chance = random.Random(seed)
    rows, scores = [], {}
    for query, documents in log.items():
        scores[query] = {document: chance.randrange(5) / 8 for document in in_order(documents)[:10]}
        for rank, (document, score) in enumerate(scores[query].items(), 1):
            kept = {"rank": rank, "log_score": 0.0, "tag": "t", "relevance": qrels.get(query, {}).get(document)}
            rows.append(Ranked(query, document, f"text of {document}", score, kept))
    rows = rows[: int(len(rows) * done)]
    store = write_run(
        folder / "run", {q: f"text of {q}" for q in log}, [rows[::2], rows[1::2]], finished=done == 1.0, schema=LOG
    )
    return open_run(store.url), scores


@pytest.mark.parametrize("seed", range(2))
def test_a_runs_metrics_are_those_of_both_orders(tmp_path: Path, seed: int) -> None:
    log, qrels = random_log(seed)
    run, scores = log_run(tmp_path, log, qrels, seed=seed)
    result = ranking_metrics(run)
    check(result, "log", expected({q: {d: log[q][d] for d in scores[q]} for q in log}, qrels, 10))
    check(result, "model", expected(scores, qrels, 10))
    assert result is not None
    assert set(result.per_query["text"].to_pylist()) == {f"text of {q}" for q in set(log) & set(qrels)}
    assert result.measure("nDCG", "model") in result.measures


def test_the_same_seed_gives_the_same_intervals(tmp_path: Path) -> None:
    run, _ = log_run(tmp_path, *random_log(0))
    first, second = ranking_metrics(run), ranking_metrics(run)
    assert first is not None
    assert second is not None
    assert first.measures == second.measures
    other = ranking_metrics(run, seed=1)
    assert other is not None
    assert other.measures != first.measures


def test_a_run_without_stored_judgments_takes_those_of_its_rows(tmp_path: Path) -> None:
    log, qrels = random_log(1)
    run, scores = log_run(tmp_path, log, qrels, planned=False)
    of_rows = {q: {d: qrels[q][d] for d in scores[q] if d in qrels[q]} for q in log if q in qrels}
    wanted = expected(scores, {q: grades for q, grades in of_rows.items() if grades}, 10)
    for values in wanted.values():
        del values["R@10"]
    result = ranking_metrics(run)
    check(result, "model", wanted)
    assert result is not None
    assert "R cannot be computed" in result.notes[-1]


def test_queries_of_an_unfinished_run_need_all_their_documents(tmp_path: Path) -> None:
    log, qrels = random_log(2)
    run, scores = log_run(tmp_path, log, qrels, done=0.5)
    rows = run.to_table(["text_a_id"])["text_a_id"].to_pylist()
    whole = [query for query in log if rows.count(query) == len(scores[query])]
    assert 2 < len(whole) < len(log) - 2
    result = ranking_metrics(run)
    check(result, "model", expected({q: scores[q] for q in whole}, qrels, 10))
    assert result is not None
    assert result.notes[0] == (
        f"{len(log) - len(whole)} queries of {len(log)} left out: not all of the documents are computed yet."
    )


def test_a_log_without_ranks_has_the_models_metrics(tmp_path: Path) -> None:
    rows = [
        Ranked("q1", f"d{at}", f"text {at}", 0.1 * at, {"relevance": grade}) for at, grade in enumerate((1, 0, 0, 0))
    ]
    schema = pa.schema([("relevance", pa.float64())])
    run = open_run(write_run(tmp_path / "run", {"q1": "a query"}, [rows], schema=schema).url)
    result = ranking_metrics(run)
    assert result is not None
    assert {one.ranking for one in result.measures} == {"model"}
    assert result.per_query["model RR@10"].to_pylist() == [0.25]
    assert result.notes[0] == "The run has no ranks, so these are of the model's order alone."
    assert (result.measures[0].low, result.measures[0].high) == (None, None)


def test_rows_that_could_not_be_used_are_counted(tmp_path: Path) -> None:
    log, qrels = {"q0": {f"d{at}": 10.0 - at for at in range(6)}}, {"q0": {"d3": 1}}
    write_log(tmp_path, log, qrels)
    lines = (tmp_path / "corpus.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["_id"] != "d1"]
    (tmp_path / "corpus.jsonl").write_text("\n".join(kept) + "\n")
    store, plan, _ = planned_log(tmp_path, max_missing=0.5)
    result = planned_metrics(store, plan, None)
    assert result is not None
    assert result.per_query["log RR@10"].to_pylist() == pytest.approx([1 / 3])
    assert result.notes[0] == "1 row of the log could not be used: the documents below move up a rank."


def test_what_cannot_be_computed_is_named(tmp_path: Path) -> None:
    pair = attributed(words("one two"), words("three four"), np.array([[0.1, 0.2], [0.3, 0.4]]))
    run = write_pairs(tmp_path / "pairs", [[Row("p1", pair)]])
    assert judgments(run) is None
    assert ranking_metrics(run) is None
    assert "is of pairs of texts and not a retrieval log" in why_none(run)
    schema = pa.schema([("relevance", pa.float64())])
    for name, grade in (("grades", 0.5), ("none", None)):
        rows = [Ranked("q1", "d1", "text", 0.5, {"relevance": grade})]
        log = open_run(write_run(tmp_path / name, {"q1": "a query"}, [rows], schema=schema).url)
        assert ranking_metrics(log) is None
        assert "has no judgments" in why_none(log)


def test_intervals_of_many_queries_are_as_wide_as_their_mean_varies() -> None:
    values = np.random.default_rng(1).random((3 * BUCKETS, 2))
    mean, low, high = mean_intervals(values, 1000, 0)
    assert mean == pytest.approx(values.mean(0), abs=1e-12)
    assert high - low == pytest.approx(2 * 1.96 * values.std(0) / len(values) ** 0.5, rel=0.15)


# Where they are printed ----------------------------------------------------------------------------------------------


def test_plan_prints_the_metrics_of_the_log_without_a_run(tmp_path: Path, tiny: TinyModels) -> None:
    log, qrels = random_log(6)
    write_log(tmp_path, log, qrels)
    places = [word for name, file in FILES.items() for word in (f"--{name}", str(tmp_path / file))]
    result = CliRunner().invoke(app, ["plan", "--model", str(tiny.folder("bert")), *places, "--depth", "10"])
    assert result.exit_code == 0, result.stderr
    wanted = expected({q: {d: s[d] for d in in_order(s)[:10]} for q, s in log.items()}, qrels, 10)
    lines = [line.split() for line in result.stdout.splitlines()]
    for name in ("nDCG@10", "R@10", "RR@10", "AP@10", "Judged@10"):
        mean = sum(row[name] for row in wanted.values()) / len(wanted)
        assert [line[1] for line in lines if line[0] == name] == [f"{mean:.3f}"]
    assert "worst queries by nDCG@10: q2 (0.000), " in result.stdout
    assert "1 judged query is not in the log" in result.stdout


def test_the_statistic_has_the_same_numbers_and_the_worst_queries(tmp_path: Path) -> None:
    run, _ = log_run(tmp_path, *random_log(0))
    result = ranking_metrics(run, resamples=50, seed=3)
    assert result is not None
    compute_statistics(run, only=["ranking"], pipeline=None, resamples=50, seed=3)
    found = run.statistics["ranking"]
    for one in result.measures:
        figure = found.figure(f"{one.ranking}_{one.name}")
        assert (figure.value, figure.low, figure.high) == (one.value, one.low, one.high)
    assert found.table("ranking_queries").equals(result.per_query)
    assert found.statistic.notes == result.notes
    said = str(found)
    assert "RR@10 (MRR)" in said
    assert said.index("\nq2 ") < said.index("\nq1 ")
    assert "<svg" in str(charts_of(found.statistic, found.tables, run.statistics.summary.run))


def test_the_statistic_says_that_a_sample_of_pairs_leaves_it_whole(tmp_path: Path) -> None:
    run, _ = log_run(tmp_path, *random_log(0))
    compute_statistics(run, only=["ranking"], pipeline=None, resamples=5, sample=20)
    assert any("of all pairs of the run" in note for note in run.statistics["ranking"].statistic.notes)


def test_the_statistic_of_pairs_says_that_there_is_none(tmp_path: Path) -> None:
    pair = attributed(words("one two"), words("three four"), np.array([[0.1, 0.2], [0.3, 0.4]]))
    run = write_pairs(tmp_path / "pairs", [[Row("p1", pair)]])
    compute_statistics(run, only=["ranking"], pipeline=None, resamples=5)
    assert "is of pairs of texts and not a retrieval log" in str(run.statistics["ranking"]).replace("\n", " ")
