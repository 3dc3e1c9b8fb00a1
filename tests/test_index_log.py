"""A log whose documents come from an index: the numbers of a direct run, and no document through the model."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_index_build import SETTINGS, corpus
from tiny_models import TinyModels, random_text

from attribution_core.contributions import Contributor
from attribution_core.errors import SettingError
from jobs.config.job import JobConfig, index_job, load_job
from jobs.engine.driver import Outcome, run_job
from jobs.engine.indexing import build_index
from jobs.errors import JobError, SourceError
from jobs.plan.estimate import plan_lines
from jobs.run.reader import Run, open_run

# Rounded to a byte, a cell of a random model's pair is off by less than this.
CELL = 3e-3


@pytest.fixture(scope="module")
def model(tiny: TinyModels) -> str:
    return str(tiny.folder("bert"))


@pytest.fixture
def log(rng: random.Random, tmp_path: Path) -> dict[str, str]:
    """Three queries with four of six documents each, as files; the documents' texts by id."""
    texts = corpus(rng, 6)
    queries = {f"q{i}": random_text(rng, words=4) for i in range(3)}
    for name, rows in (("queries", queries), ("corpus", texts)):
        write(tmp_path / f"{name}.jsonl", rows)
    ranks = [
        f"{query} Q0 {document} {rank} {9 - rank} x\n"
        for query in queries
        for rank, document in enumerate(rng.sample(sorted(texts), 4), 1)
    ]
    (tmp_path / "run.trec").write_text("".join(ranks))
    return texts


def write(path: Path, rows: Mapping[str, str]) -> None:
    lines = [json.dumps({"_id": key, "text": text}) + "\n" for key, text in rows.items()]
    path.write_text("".join(lines), encoding="utf-8")


def indexed(folder: Path, model: str, **settings: Any) -> None:
    places = {"model": model, "corpus": str(folder / "corpus.jsonl"), "output": str(folder / "index")}
    assert build_index(index_job(None, places | SETTINGS | settings), quiet=True).exit_code == 0


def log_job(folder: Path, model: str, output: str, **settings: Any) -> JobConfig:
    places = {name: str(folder / file) for name, file in (("log", "run.trec"), ("queries", "queries.jsonl"))}
    common = {"model": model, "output": str(folder / output), "layer": 1, "workers": {"ray": False}, "shards": 2}
    return load_job(None, places | common | settings)


def direct_job(folder: Path, model: str, **settings: Any) -> JobConfig:
    groups = {"query": "word", "document": "sentence"}
    own = {"corpus": str(folder / "corpus.jsonl"), "groups": groups, "quadrature": {"tolerance": 2e-2}}
    return log_job(folder, model, "direct", **own | settings)


def finished(job: JobConfig) -> Outcome:
    outcome = run_job(job, quiet=True)
    assert outcome.complete
    return outcome


def from_index(folder: Path, model: str, **settings: Any) -> Run:
    job = log_job(folder, model, "run", index=str(folder / "index"), **settings)
    finished(job)
    return open_run(job.output)


@pytest.mark.parametrize("values", ["int8", "float32"])
@pytest.mark.parametrize("sums_to", ["score", "difference"])
def test_every_figure_is_that_of_a_direct_run(
    sums_to: str, values: str, model: str, log: dict[str, str], tmp_path: Path
) -> None:
    """Would catch rows of another document, a reference counted twice, and a rounding error missing in ``error``."""
    indexed(tmp_path, model, values=values)
    finished(direct_job(tmp_path, model, store="full", sums_to=sums_to))
    run, direct = from_index(tmp_path, model, store="full", sums_to=sums_to), open_run(tmp_path / "direct")
    columns = ["pair_id", "error", "score"]
    names = direct.to_table(columns)["pair_id"].to_pylist()
    assert sorted(run.to_table(columns)["pair_id"].to_pylist()) == sorted(names)
    near = CELL if values == "int8" else 1e-3
    for name in names:
        one, other = run.pair(name), direct.pair(name)
        assert one.b.groups == other.b.groups
        assert one.b.text == log[name.split(":")[1]]
        assert one.b.way == "stored"
        np.testing.assert_allclose(one.matrix, other.matrix, atol=near)
        np.testing.assert_allclose(one.col_lift, other.col_lift, atol=2 * near)
        for field in ("score", "reference_a", "reference_b", "reference_ab"):
            assert getattr(one, field) == pytest.approx(getattr(other, field), abs=2e-4), field
        must_be = one.score if sums_to == "score" else one.score - one.reference_a - one.reference_b + one.reference_ab
        assert one.error == pytest.approx(one.total - must_be, abs=2e-6)


def test_no_document_goes_through_the_model(
    model: str, log: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch an index that is read and computed again all the same."""
    indexed(tmp_path, model)
    roles: list[str] = []
    original = Contributor.contributions

    def watched(self: Contributor, texts: Any, **keywords: Any) -> Any:
        roles.extend(text.role for text in texts)
        return original(self, texts, **keywords)

    monkeypatch.setattr(Contributor, "contributions", watched)
    from_index(tmp_path, model)
    assert roles
    assert set(roles) == {"query"}


def test_level_words_takes_documents_from_an_index_too(model: str, log: dict[str, str], tmp_path: Path) -> None:
    indexed(tmp_path, model)
    finished(direct_job(tmp_path, model, level="words"))
    run, direct = from_index(tmp_path, model, level="words"), open_run(tmp_path / "direct")
    for name in direct.to_table(["pair_id"])["pair_id"].to_pylist():
        one, other = run.pair(name), direct.pair(name)
        np.testing.assert_allclose(one.col_sums, other.col_sums, atol=3 * CELL)
        np.testing.assert_allclose(one.row_sums, other.row_sums, atol=3 * CELL)


def test_a_document_that_the_index_lacks_costs_its_pairs(model: str, log: dict[str, str], tmp_path: Path) -> None:
    """Would catch an old text's contributions under a new text, and a run that stops at one missing document."""
    first = sorted(log)[0]
    write(tmp_path / "corpus.jsonl", {key: text for key, text in log.items() if key != first})
    indexed(tmp_path, model)
    changed = sorted(log)[1]
    write(tmp_path / "corpus.jsonl", log | {changed: "Changed since. Quite another text."})
    run = from_index(tmp_path, model, corpus=str(tmp_path / "corpus.jsonl"))
    there = {name.split(":")[1] for name in run.to_table(["pair_id"])["pair_id"].to_pylist()}
    assert there
    assert not there & {first, changed}
    assert {row["reason"] for row in run.rejects().to_pylist()} == {
        "the index has no such document, or another text of it"
    }


def test_a_damaged_document_costs_its_pairs(model: str, log: dict[str, str], tmp_path: Path) -> None:
    indexed(tmp_path, model, shards=3)
    job = log_job(tmp_path, model, "run", index=str(tmp_path / "index"), corpus=str(tmp_path / "corpus.jsonl"))
    parts = sorted((tmp_path / "index/generations/00001/documents").iterdir())
    data = bytearray(parts[0].read_bytes())
    data[len(data) // 2] ^= 0xFF
    parts[0].write_bytes(bytes(data))
    assert run_job(job, quiet=True).complete
    run = open_run(job.output)
    assert run.to_table(["pair_id"]).num_rows > 0
    assert any("damaged" in row["reason"] for row in run.rejects().to_pylist())


def test_an_index_of_other_settings_is_refused(
    model: str, log: dict[str, str], tmp_path: Path, tiny: TinyModels
) -> None:
    indexed(tmp_path, model)
    with pytest.raises(SourceError, match="layer: 1 there, 0 now"):
        from_index(tmp_path, model, layer=0)
    with pytest.raises(SourceError, match="groups of a document: 'sentence' there, 'word' now"):
        from_index(tmp_path, model, groups="word")
    other = str(tiny.folder("bert", seed=3))
    with pytest.raises(SettingError, match="the model's weights"):
        from_index(tmp_path, other)
    with pytest.raises(JobError, match="index: found without log"):
        load_job(None, {"model": model, "input": "p.csv", "output": "o", "index": "i", "mode": "retrieval"})


def test_an_index_without_texts_needs_the_corpus(model: str, log: dict[str, str], tmp_path: Path) -> None:
    indexed(tmp_path, model, texts=False)
    with pytest.raises(SourceError, match="stores no texts; give the corpus"):
        from_index(tmp_path, model)
    assert from_index(tmp_path, model, corpus=str(tmp_path / "corpus.jsonl")).finished


def test_a_run_keeps_to_the_state_it_was_planned_with(model: str, log: dict[str, str], tmp_path: Path) -> None:
    """Would catch a resumed run with documents of two states of its index."""
    indexed(tmp_path, model)
    run = from_index(tmp_path, model)
    assert run.plan is not None
    assert run.plan.index_snapshot == 1
    write(tmp_path / "corpus.jsonl", log | {"new": "One more."})
    indexed(tmp_path, model)
    (tmp_path / "run/_SUCCESS").unlink()
    for part in (tmp_path / "run/attributions").iterdir():
        part.unlink()
    again = from_index(tmp_path, model)
    assert again.plan is not None
    assert again.plan.index_snapshot == 1


def test_plan_says_what_an_index_would_save(model: str, log: dict[str, str], tmp_path: Path) -> None:
    lines = list(plan_lines(lambda output: direct_job(tmp_path, model).model_copy(update={"output": output}), None))
    assert any(line.startswith("index ") and "operations" in line for line in lines)
    indexed(tmp_path, model)
    job = log_job(tmp_path, model, "run", index=str(tmp_path / "index"))
    saved = list(plan_lines(lambda output: job.model_copy(update={"output": output}), None))
    assert not any(line.startswith(("index ", "level ")) for line in saved)
