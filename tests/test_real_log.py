"""A retrieval log at a real size: some hundred questions to the standard library's documentation, from run to rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jobs.config.job import load_job
from jobs.demo.documents import standard_library_documents
from jobs.demo.retrieval import demo_model, retrieve
from jobs.engine.driver import run_job
from jobs.run.reader import open_run

QUESTIONS = 300
DEPTH = 3


@pytest.mark.long
def test_a_log_of_some_hundred_questions_is_explained_whole(tmp_path: Path) -> None:
    """Would catch lost or doubled rows, wrong ranks, texts of other ids, and scores that are not the model's."""
    model = demo_model()
    documents = standard_library_documents()
    step = max(len(documents) // QUESTIONS, 1)
    questions = [(f"Q{n}", f"what does {one.id} do") for n, one in enumerate(documents[::step][:QUESTIONS])]
    found = retrieve(model, questions, documents, DEPTH).to_pylist()
    lines = [f"{r['question_id']} Q0 {r['document_id']} 0 {r['retrieval_score']:.7f} minilm\n" for r in reversed(found)]
    (tmp_path / "run.trec").write_text("".join(lines))
    for name, texts in (("queries", questions), ("corpus", [(one.id, one.text) for one in documents])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"_id": i, "text": t}) + "\n" for i, t in texts))
    files = {"log": "run.trec", "queries": "queries.jsonl", "corpus": "corpus.jsonl"}
    settings = {name: str(tmp_path / file) for name, file in files.items()}
    cheap = {"groups": "sentence", "layer": -1, "quadrature": {"tolerance": 1e-2}}
    job = load_job(None, {"model": str(model), "output": str(tmp_path / "run"), **settings, **cheap})
    outcome = run_job(job, quiet=True)
    assert outcome.exit_code == 0
    assert outcome.totals.agreement is not None
    assert outcome.totals.agreement.fits
    assert outcome.totals.agreement.alike >= 0.99 * outcome.totals.agreement.ordered
    rows = {row["pair_id"]: row for row in open_run(str(tmp_path / "run")).to_table().to_pylist()}
    assert len(rows) == len(found) == DEPTH * len(questions)
    for row in found:
        one = rows[f"{row['question_id']}:{row['document_id']}"]
        assert (one["text_a_id"], one["text_b_id"], one["rank"]) == (
            row["question_id"],
            row["document_id"],
            row["rank"],
        )
        assert one["score"] == pytest.approx(row["retrieval_score"], abs=1e-5)
    assert np.median([abs(row["error"]) for row in rows.values()]) < 1e-2
