"""Retrieval logs: every format gives the same pairs, ranked as trec_eval ranks, and a bad row costs itself only."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from test_plan import files_of, pairs_of, rejects_of

from jobs.config.job import JobConfig, parse_job
from jobs.errors import JobError, SourceError
from jobs.plan.plan import make_plan
from jobs.run.manifest import Plan, Shard, load_plan, read_shard
from jobs.storage.store import Store

QUERIES = {f"q{i}": f"what is thing number {i}" for i in range(6)}
DOCUMENTS = {f"d{i}": f"thing {i} is a " + "long " * (i * 7 % 30) + "thing" for i in range(20)}


def log_job(folder: Path, output: str = "run", **settings: Any) -> JobConfig:
    places = {name: str(folder / file) for name, file in settings.pop("files", FILES).items()}
    return parse_job({"model": "m", "output": str(folder / output), **places, **settings})


FILES = {"log": "run.trec", "queries": "queries.jsonl", "corpus": "corpus.jsonl"}


def planned(folder: Path, **settings: Any) -> tuple[Plan, list[Shard]]:
    job = log_job(folder, **settings)
    run = Store.open(job.output)
    plan = make_plan(job, run)
    assert load_plan(run) == plan
    return plan, [read_shard(run, plan, shard.index) for shard in plan.shards]


def ranking(folder: Path, **settings: Any) -> list[tuple[str, str, int, float | None]]:
    rows = pairs_of(planned(folder, **settings)[1])
    return sorted((row["text_a_id"], row["text_b_id"], row["rank"], row["log_score"]) for row in rows)


def write_texts(folder: Path) -> None:
    lines = [json.dumps({"_id": key, "text": text}) for key, text in QUERIES.items()]
    (folder / "queries.jsonl").write_text("\n".join(lines) + "\n")
    lines = [json.dumps({"_id": key, "title": "", "text": text}) for key, text in DOCUMENTS.items()]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Six queries with eight documents each, the rows in no order."""
    chance = random.Random(5)
    write_texts(tmp_path)
    rows = [
        f"{query} Q0 {document} 0 {chance.random():.6f} tag{query}"
        for query in QUERIES
        for document in chance.sample(sorted(DOCUMENTS), 8)
    ]
    chance.shuffle(rows)
    (tmp_path / "run.trec").write_text("\n".join(rows) + "\n")
    return tmp_path


def rows_of(folder: Path) -> list[list[str]]:
    return [line.split() for line in (folder / "run.trec").read_text().splitlines()]


# What is read ------------------------------------------------------------------------------------------------------


def test_a_run_is_ranked_by_score_and_cut_at_the_depth(log: Path) -> None:
    """A run's own order and rank column are not to be trusted: trec_eval does not either."""
    plan, shards = planned(log, depth=3)
    expected = []
    for query in QUERIES:
        best = sorted(((float(r[4]), r[2]) for r in rows_of(log) if r[0] == query), reverse=True)[:3]
        expected += [(query, document, rank, score) for rank, (score, document) in enumerate(best, 1)]
    rows = pairs_of(shards)
    found = [(row["text_a_id"], row["text_b_id"], row["rank"], row["log_score"]) for row in rows]
    assert sorted(found) == sorted(expected)
    assert {row["pair_id"] for row in rows} == {f"{query}:{document}" for query, document, *_ in expected}
    assert all(row["tag"] == f"tag{row['text_a_id']}" for row in rows)
    lines = (log / "run.trec").read_text().splitlines()
    assert all(lines[row["row"] - 1].startswith(f"{row['text_a_id']} Q0 {row['text_b_id']} ") for row in rows)
    assert [str(field.type) for field in plan.kept] == ["int32", "double", "string", "int32"]
    texts = {row["text_id"]: row["text"] for shard in shards for row in shard.texts.to_pylist()}
    assert all(texts[key] == (QUERIES | DOCUMENTS)[key] for key in texts)


def test_ties_are_broken_by_document_id_as_trec_eval_does(log: Path) -> None:
    """Equal scores: the id that is larger byte by byte comes first, so d9 stands before d10."""
    (log / "run.trec").write_text("".join(f"q1 Q0 {d} 1 0.5 t\n" for d in ("d10", "d9", "d1", "d19")))
    assert [row[1] for row in sorted(ranking(log), key=lambda row: row[2])] == ["d9", "d19", "d10", "d1"]


def as_msmarco(folder: Path) -> None:
    ranked: dict[str, list[tuple[float, str]]] = {}
    for query, _, document, _, score, _ in rows_of(folder):
        ranked.setdefault(query, []).append((float(score), document))
    with open(folder / "run.tsv", "w", encoding="utf-8") as file:
        for query, documents in ranked.items():
            for rank, (_, document) in enumerate(sorted(documents, reverse=True), 1):
                file.write(f"{query}\t{document}\t{rank}\n")


def test_ms_marcos_three_columns_rank_without_scores(log: Path) -> None:
    as_msmarco(log)
    found = ranking(log, files=FILES | {"log": "run.tsv"}, depth=4, output="marco")
    assert [row[:3] for row in found] == [row[:3] for row in ranking(log, depth=4)]
    assert {row[3] for row in found} == {None}


def as_predictions(folder: Path, *, texts: bool = True) -> None:
    with open(folder / "predictions.jsonl", "w", encoding="utf-8") as file:
        for query in QUERIES:
            results = [{"corpus_id": r[2], "score": float(r[4])} for r in rows_of(folder) if r[0] == query]
            whole = {"query_id": query, "query": QUERIES[query], "results": results}
            file.write(json.dumps(whole if texts else {k: v for k, v in whole.items() if k != "query"}) + "\n")


def test_sentence_transformers_predictions_bring_their_queries(log: Path) -> None:
    as_predictions(log)
    files = {"log": "predictions.jsonl", "corpus": "corpus.jsonl"}
    assert ranking(log, files=files, output="predictions") == ranking(log)
    as_predictions(log, texts=False)
    with pytest.raises(SourceError, match="queries: is missing"):
        planned(log, files=files, output="without")


@pytest.mark.parametrize("shape", ["mteb 1", "mteb 2"])
def test_mteb_predictions_are_read_whole(log: Path, shape: str) -> None:
    scores: dict[str, Any] = {}
    for query, _, document, _, score, _ in rows_of(log):
        scores.setdefault(query, {})[document] = float(score)
    if shape == "mteb 2":
        scores = {"mteb_model_meta": {"model_name": "m", "revision": "r"}, "default": {"test": scores}}
    (log / "task_predictions.json").write_text(json.dumps(scores))
    files = FILES | {"log": "task_predictions.json"}
    assert ranking(log, files=files, output="mteb") == ranking(log)
    if shape == "mteb 2":
        both = scores | {"other": {"dev": {"q1": {"d1": 1.0}}}}
        (log / "task_predictions.json").write_text(json.dumps(both))
        with pytest.raises(SourceError, match="choose one with log_part: default/test, other/dev"):
            planned(log, files=files, output="two")
        assert ranking(log, files=files, output="one", log_part="other/dev") == [("q1", "d1", 1, 1.0)]


def test_the_predictions_that_the_evaluator_writes_are_read(log: Path, tiny: Any) -> None:
    """Against the library itself, not against our idea of its file."""
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    model = tiny.load("bert")
    relevant = {query: {"d1"} for query in QUERIES}
    evaluator = InformationRetrievalEvaluator(
        QUERIES, DOCUMENTS, relevant, write_predictions=True, show_progress_bar=False, batch_size=8
    )
    evaluator(model, output_path=str(log))
    (path,) = log.glob("*_predictions_cosine.jsonl")
    found = ranking(log, files={"log": path.name, "corpus": "corpus.jsonl"}, depth=2)
    assert len(found) == 2 * len(QUERIES)
    for query, document, _, score in found:
        ours = float(
            model.similarity(model.encode_query([QUERIES[query]]), model.encode_document([DOCUMENTS[document]]))
        )
        assert score == pytest.approx(ours, abs=1e-5)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_files_are_read_as_they_are(log: Path, suffix: str) -> None:
    plain = ranking(log)
    files = {}
    for name, file in FILES.items():
        data = (log / file).read_bytes()
        packed = gzip.compress(data) if suffix == ".gz" else pa.compress(data, "zstd", asbytes=True)
        (log / (file + suffix)).write_bytes(packed)
        files[name] = file + suffix
    assert ranking(log, files=files, output="packed") == plain


def test_white_space_of_any_kind_separates_the_columns(log: Path) -> None:
    """The quick way over blocks and the careful one over lines must not differ in what they take."""
    plain = ranking(log)
    text = (log / "run.trec").read_text()
    for number, other in enumerate(
        (text.replace(" ", "\t"), text.replace(" ", "  "), text.replace("\n", "\r\n"), f" {text}", "\ufeff" + text)
    ):
        (log / "other.trec").write_bytes(other.encode())
        assert ranking(log, files=FILES | {"log": "other.trec"}, output=f"other{number}") == plain, number


@pytest.mark.parametrize("kind", ["trec", "beir", "trec.gz"])
def test_judgments_pass_through_graded(log: Path, kind: str) -> None:
    first, second, third = (row[:3:2] for row in rows_of(log)[:3])
    if kind == "beir":
        text = "query-id\tcorpus-id\tscore\n" + "".join(f"{q}\t{d}\t{n}\n" for n, (q, d) in enumerate((first, second)))
    else:
        text = f"{first[0]} 0 {first[1]} 0\n{second[0]}  0 {second[1]}  1\n"
    text += f"{third[0]}\tnone\t3\n" if kind == "beir" else f"{third[0]} 0 none 3\n"
    path = log / f"qrels.{kind}"
    path.write_bytes(gzip.compress(text.encode()) if kind.endswith("gz") else text.encode())
    rows = pairs_of(planned(log, files=FILES | {"qrels": path.name})[1])
    judged = {(r["text_a_id"], r["text_b_id"]): r["relevance"] for r in rows if r["relevance"] is not None}
    assert judged == {tuple(first): 0, tuple(second): 1}
    assert len(rows) == 48


def test_ids_of_any_kind_give_pair_ids_that_differ(tmp_path: Path) -> None:
    """a:b with c, and a with b:c, are two pairs."""
    ids = ["a", "a:b", "a%3Ab", "b:c", "c", "ü/%", "1"]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"_id": i, "text": f"text {i}"}) + "\n" for i in ids))
    (tmp_path / "queries.jsonl").write_text((tmp_path / "corpus.jsonl").read_text())
    (tmp_path / "run.trec").write_text("".join(f"{a} Q0 {b} 1 1.0 t\n" for a in ids for b in ids))
    rows = pairs_of(planned(tmp_path)[1])
    assert len({row["pair_id"] for row in rows}) == len(ids) ** 2
    assert "1:a:b" in {row["pair_id"] for row in rows}


# Bad rows ----------------------------------------------------------------------------------------------------------


def test_a_bad_row_costs_itself_and_is_told_with_file_and_line(log: Path) -> None:
    lines = (log / "run.trec").read_text().splitlines()
    used = lines[0].split()
    bad = {
        "q1 Q0 d1 1 0.5": "wrong number of fields",
        "q1 Q0 d1 1 high t": "score is not a number",
        "q1 Q0 d1 1 nan t": "score is not a number",
        "q1 Q0 d1 1 1e999 t": "score is not a number",
        f"{used[0]} Q0 {used[2]} 1 0.1 t": "a second row for the same query and document",
        "q1 Q0 nowhere 1 0.5 t": "document id without text",
        "nobody Q0 d1 1 0.5 t": "query id without text",
        "q1 Q0 blank 1 0.5 t": "the document is empty",
        "silent Q0 d1 1 0.5 t": "the query is empty",
    }
    (log / "run.trec").write_text("\n".join([*lines, "", *bad]) + "\n")
    with open(log / "corpus.jsonl", "a", encoding="utf-8") as file:
        file.write('{"_id": "blank", "title": " ", "text": "\\n"}\n{broken\n')
    with open(log / "queries.jsonl", "a", encoding="utf-8") as file:
        file.write('{"_id": "silent", "text": ""}\n')
    plan, shards = planned(log, max_rejects=0.5)
    assert len(pairs_of(shards)) == len(lines)
    told = {(one["file"], one["row"]): one["reason"] for one in rejects_of(log, plan)}
    expected = {("run.trec", len(lines) + 2 + at): reason for at, reason in enumerate(bad.values())}
    assert told == expected | {("corpus.jsonl", len(DOCUMENTS) + 2): "not valid JSON"}
    assert "corpus.jsonl: 1 document is empty: blank" in plan.notices
    texts = {one["reason"]: one["row_text"] for one in rejects_of(log, plan)}
    assert json.loads(texts["document id without text"])["document"] == "nowhere"


def test_too_many_unreadable_rows_stop_the_job_with_the_counts(log: Path) -> None:
    """A run in another format must not end as a run over what happened to fit."""
    with open(log / "run.trec", "a", encoding="utf-8") as file:
        file.write("only three fields\n" * 2)
    with pytest.raises(
        SourceError, match=r"run\.trec: 2 of 50 rows \(4\.0%\) .*max_rejects 0\.01.*2 × wrong number"
    ) as e:
        planned(log)
    assert "\n" not in str(e.value)
    assert planned(log, max_rejects=0.05)[0].rejected == {"wrong number of fields": 2}


def test_missing_texts_are_unlimited_unless_a_limit_is_set(log: Path) -> None:
    kept = (log / "corpus.jsonl").read_text().splitlines()[:10]
    (log / "corpus.jsonl").write_text("\n".join(kept) + "\n")
    plan, _ = planned(log)
    missing = plan.rejected["document id without text"]
    assert plan.pairs + missing == 48
    with pytest.raises(SourceError, match=rf"{missing} of 48 rows .*max_missing 0\.1 .*document id without text"):
        planned(log, max_missing=0.1, output="limited")


def test_a_log_without_any_text_says_so(log: Path) -> None:
    (log / "corpus.jsonl").write_text('{"_id": "other", "text": "x"}\n')
    with pytest.raises(SourceError, match="no row of the log can be attributed: 48 × document id without text"):
        planned(log)


def test_mixed_up_queries_and_corpus_are_recognised_by_their_ids(log: Path) -> None:
    with pytest.raises(SourceError, match="queries and corpus look swapped"):
        planned(log, files=FILES | {"queries": "corpus.jsonl", "corpus": "queries.jsonl"})


def test_mixed_up_files_are_recognised_where_ids_are_numbers_that_overlap(tmp_path: Path) -> None:
    """Query 1 and document 1 are in nearly every collection."""
    for name, count in (("queries", 10), ("corpus", 200)):
        lines = [json.dumps({"_id": str(i), "text": f"{name} {i}"}) for i in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "run.trec").write_text("".join(f"{i % 10} Q0 {i} 1 0.5 t\n" for i in range(200)))
    assert planned(tmp_path)[0].pairs == 200
    with pytest.raises(SourceError, match="queries and corpus look swapped"):
        planned(tmp_path, files=FILES | {"queries": "corpus.jsonl", "corpus": "queries.jsonl"}, output="mixed")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("run.txt", "q 0 d 1\n", r"4 fields \(as in qrels\)"),
        ("run.txt", "query-id\tcorpus-id\tscore\nq1\td1\t3\n", r"3 fields \(as in qrels\)"),
        ("run.txt", "q1 d1 high\n", "3 fields and the third is neither a rank nor a score"),
        ("run.json", '{"_id": "d1", "text": "x"}\n', "not a log but a table of texts"),
        ("run.txt", "a b\n", "2 fields; a TREC run has 6"),
        ("run.txt", "", "has no rows"),
        ("run.json", '{"x": 1}', "holds no rankings as MTEB writes them"),
        ("run.json", "{oops", "is not valid JSON"),
        ("run.parquet", "", "log is read from text files"),
    ],
)
def test_what_is_no_log_is_told_so(log: Path, name: str, text: str, said: str) -> None:
    (log / name).write_text(text)
    with pytest.raises(SourceError, match=said):
        planned(log, files=FILES | {"log": name})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"input": "x.csv"}, "log: found beside input"),
        ({"corpus": None}, "corpus: is missing; give the file or folder"),
        ({"mode": "symmetric"}, "allowed for a log: retrieval"),
        ({"log": None}, "input: is missing"),
        ({"prompts": {"text": "x: "}}, "prompts.text: found 'x: '; allowed in retrieval mode: query and document"),
        ({"depth": 0}, "depth: found 0"),
        ({"max_rejects": 2}, "max_rejects: found 2; allowed: the largest accepted share"),
    ],
)
def test_settings_that_make_no_log_are_told_so(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        log_job(tmp_path, **changes)


# What is taken of it -----------------------------------------------------------------------------------------------


def test_a_sample_is_whole_queries_and_the_same_for_the_same_seed(log: Path) -> None:
    """The sample must not depend on the order of rows, and another seed must give another one."""
    first = ranking(log, sample=2, output="s0")
    assert len({row[0] for row in first}) == 2
    assert len(first) == 16
    lines = (log / "run.trec").read_text().splitlines()
    (log / "run.trec").write_text("\n".join(reversed(lines)) + "\n")
    assert ranking(log, sample=2, output="s1") == first
    others = [ranking(log, sample=2, seed=seed, output=f"s{seed + 2}") for seed in range(1, 6)]
    assert any(other != first for other in others)


def test_a_limit_takes_the_best_documents_of_the_first_queries(log: Path) -> None:
    rows = pairs_of(planned(log, limit=11)[1])
    first, second = list(dict.fromkeys(row[0] for row in rows_of(log)))[:2]
    ranks = sorted((row["text_a_id"] != first, row["rank"]) for row in rows)
    assert ranks == [(False, rank) for rank in range(1, 9)] + [(True, rank) for rank in range(1, 4)]
    assert {row["text_a_id"] for row in rows} == {first, second}


def test_plain_pairs_are_sampled_by_their_first_text(tmp_path: Path) -> None:
    lines = [f"question {i % 10},answer {i}" for i in range(50)]
    (tmp_path / "p.csv").write_text("\n".join(["sentence1,sentence2", *lines]) + "\n")
    job = parse_job({"model": "m", "input": str(tmp_path / "p.csv"), "output": str(tmp_path / "run"), "sample": 3})
    plan = make_plan(job, Store.open(job.output))
    assert plan.pairs == 15


def test_sample_seed_and_depth_belong_to_the_jobs_identity(log: Path) -> None:
    one = log_job(log).identity()
    for changes in ({"sample": 2}, {"seed": 1}, {"depth": 5}, {"titles": False}, {"prompts": {"query": "x"}}):
        assert log_job(log, **changes).identity() != one


def test_the_same_log_gives_the_same_bytes(log: Path) -> None:
    """DuckDB's threads finish in any order."""
    seen = []
    for number in range(3):
        planned(log, output=f"run{number}", shards=5)
        seen.append(files_of(log / f"run{number}"))
    assert seen[0] == seen[1] == seen[2]


def test_blocks_of_any_size_give_the_same_plan(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import jobs.plan.log_staging
    import jobs.sources.lines

    whole, _ = planned(log, depth=4)
    monkeypatch.setattr(jobs.sources.lines, "BLOCK_BYTES", 100)
    monkeypatch.setattr(jobs.plan.log_staging, "FLUSH_BYTES", 200)
    assert planned(log, depth=4, output="pieces")[0] == whole


def test_a_log_in_a_bucket_equals_the_local_one(s3: Any, monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
    from test_stores import as_user

    from jobs.storage.s3 import open_s3

    local, _ = planned(log)
    as_user(monkeypatch, s3.admin)
    system = open_s3(None)
    for file in FILES.values():
        system.put_file(str(log / file), f"{s3.bucket}/log/{file}")
    places = {name: f"s3://{s3.bucket}/log/{file}" for name, file in FILES.items()}
    job = parse_job({"model": "m", "output": str(log / "far"), **places})
    plan = make_plan(job, Store.open(job.output))
    assert (plan.pairs_file, plan.texts_file) == (local.pairs_file, local.texts_file)
