"""The built-in example from end to end, on a few questions and documents, with the real model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs import demo
from jobs.demo import run_demo
from jobs.demo.questions import ANSWERS
from jobs.run.reader import open_run


def test_the_example_runs_and_is_shown_again_without_a_second_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch an example that loses pairs, prints no explanation, or computes everything again."""
    documents = [one for one in demo.standard_library_documents() if one.id.startswith("shutil.")]
    monkeypatch.setattr(demo, "standard_library_documents", lambda: documents)
    monkeypatch.setattr(demo, "QUESTIONS", demo.QUESTIONS[:2])
    folder = tmp_path / "a folder"
    assert run_demo(folder, False) == 0
    first = capsys.readouterr()
    assert first.out.count("Strongest word pairs") == 3
    assert "how do I copy a file" in first.out
    assert f"tokenpair show '{folder}/run' " in first.out
    assert f"tokenpair report '{folder}/run'" in first.out
    assert "Searching" in first.err

    pairs = pq.read_table(folder / "pairs.parquet")
    run = open_run(str(folder / "run"))
    table = run.to_table()
    assert run.finished
    assert sorted(table["pair_id"].to_pylist()) == sorted(pairs["pair_id"].to_pylist())
    assert set(pairs.column_names) >= {"question_id", "document_id", "rank", "retrieval_score"}
    found = {row["pair_id"]: row["relevance"] for row in table.to_pylist()}
    assert set(found.values()) == {0, 1}
    assert all((pair.split("/")[1] in ANSWERS[pair.split("/")[0]]) == bool(grade) for pair, grade in found.items())
    assert set(ANSWERS) >= {question for question, _ in demo.QUESTIONS}
    np.testing.assert_allclose(table["score"].to_numpy(), table["retrieval_score"].to_numpy(), atol=1e-5)

    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert run_demo(folder, True) == 0
    again = capsys.readouterr()
    assert again.err == ""
    assert again.out.split("\n3 of them")[1] == first.out.split("\n3 of them")[1]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
