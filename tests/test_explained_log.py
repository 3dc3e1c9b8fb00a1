"""A log explained by a real worker: whatever format it came in, the rows are the same and the scores the model's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sentence_transformers import SentenceTransformer
from test_logs import DOCUMENTS, FILES, QUERIES, as_predictions, rows_of
from test_logs import log as log
from tiny_models import TinyModels

from jobs.config.job import JobConfig, parse_job
from jobs.engine.worker import Worker
from jobs.plan.plan import make_plan
from jobs.run.reader import open_run
from jobs.run.totals import read_totals
from jobs.storage.store import Store

PROMPTS = {"query": "question: ", "document": "document, number three: "}


def explained(job: JobConfig) -> pa.Table:
    """Every shard by a plain worker in this process."""
    store = Store.open(job.output)
    plan = make_plan(job, store)
    worker = Worker(job.model_dump(mode="json"), job.output)
    worker.load()
    for index in range(len(plan.shards)):
        assert worker.run_shard(index).written
    return open_run(job.output).to_table().sort_by([("text_a_id", "ascending"), ("text_b_id", "ascending")])


@pytest.fixture(scope="module")
def model(tiny: TinyModels) -> Path:
    return tiny.folder("bert", prompts=PROMPTS, normalize=True)


def test_a_run_predictions_and_an_inline_table_give_the_same_attributions(log: Path, model: Path) -> None:
    """The way in must not change a number."""
    as_predictions(log)
    inline = [
        {"q": QUERIES[q], "d": DOCUMENTS[d], "qid": q, "did": d, "log_score": float(score)}
        for q, _, d, _, score, _ in rows_of(log)
    ]
    pq.write_table(pa.Table.from_pylist(inline), log / "inline.parquet")
    ways: dict[str, dict[str, Any]] = {
        "run": {name: str(log / file) for name, file in FILES.items()},
        "predictions": {"log": str(log / "predictions.jsonl"), "corpus": str(log / "corpus.jsonl")},
        "inline": {
            "input": str(log / "inline.parquet"),
            "columns": {"a": "q", "b": "d", "a_id": "qid", "b_id": "did"},
            "mode": "retrieval",
        },
    }
    common = {"model": str(model), "shards": 4, "store": "full"}
    tables = {name: explained(parse_job({**common, **way, "output": str(log / name)})) for name, way in ways.items()}
    loaded = SentenceTransformer(str(model), device="cpu")
    first = tables["run"]
    assert len(first) == 48
    for row in first.to_pylist()[::7]:
        a, b = QUERIES[row["text_a_id"]], DOCUMENTS[row["text_b_id"]]
        expected = float(loaded.similarity(loaded.encode_query([a]), loaded.encode_document([b])))
        assert row["score"] == pytest.approx(expected, abs=1e-5)
    for name in ("predictions", "inline"):
        other = tables[name]
        for column in ("text_a_id", "text_b_id", "rows", "cols", "log_score"):
            assert other[column].to_pylist() == first[column].to_pylist(), (name, column)
        for column in ("score", "total", "special"):
            np.testing.assert_allclose(other[column].to_numpy(), first[column].to_numpy(), atol=1e-5)
        for column in ("row_sums", "col_sums"):
            flat = (np.concatenate(table[column].to_pylist()) for table in (other, first))
            np.testing.assert_allclose(*flat, atol=1e-5)
        tops = [[[(c["i"], c["j"]) for c in row[:3]] for row in t["top"].to_pylist()] for t in (other, first)]
        assert tops[0] == tops[1]
    assert tables["predictions"]["rank"].to_pylist() == first["rank"].to_pylist()
    told = read_totals(Store.open(log / "run"), "parquet", "score").lines()
    assert any(line.startswith("log      ") and "another model" in line for line in told)


def test_prompt_tokens_are_marked_in_the_output_and_absent_from_top(log: Path, model: Path) -> None:
    places = {name: str(log / file) for name, file in FILES.items()}
    job = parse_job({"model": str(model), "output": str(log / "run"), **places, "depth": 2, "layer": 0})
    rows = explained(job).to_pylist()
    texts = {(one["role"], one["text_id"]): one for one in open_run(job.output).texts().to_pylist()}
    assert {one["prompt"] for one in texts.values()} == set(PROMPTS.values())
    for row in rows:
        sides = (
            ("i", "row_sums", texts["query", row["text_a_id"]]),
            ("j", "col_sums", texts["document", row["text_b_id"]]),
        )
        for place, sums, text in sides:
            assert "prompt" in text["kinds"]
            hidden = {at for at, kind in enumerate(text["kinds"]) if kind != "text"}
            assert not {cell[place] for cell in row["top"]} & hidden
            assert all(row[sums][at] == 0.0 for at in hidden)  # exactly: this is layer 0 of a BERT


def test_a_finished_log_is_resumed_and_another_corpus_is_refused(log: Path, model: Path) -> None:
    """The texts belong to the job as much as the run file does."""
    from jobs.engine.driver import run_job
    from jobs.errors import RunError

    places = {name: str(log / file) for name, file in FILES.items()}
    settings = {"model": str(model), "output": str(log / "run"), **places, "depth": 1}
    assert run_job(parse_job(settings), quiet=True).exit_code == 0
    assert run_job(parse_job(settings), quiet=True).already_finished
    with open(log / "corpus.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"_id": "more", "text": "more"}) + "\n")
    with pytest.raises(RunError, match=r"was planned from other input .*corpus\.jsonl"):
        run_job(parse_job(settings), quiet=True)
