"""What a job's cells sum to: the score, the paper's difference or what is centred; recorded, resumed, never mixed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from test_completion import sample, static_with_a_zero
from tiny_models import TinyModels, random_text

from attribution_core import Attributor, SettingError
from jobs.config.job import JobConfig, load_job
from jobs.engine.worker import Worker
from jobs.errors import JobError, RunError
from jobs.plan.plan import make_plan
from jobs.run.manifest import load_plan
from jobs.run.reader import open_run
from jobs.run.record import check_same_job, encoded_record, make_record, read_record
from jobs.storage.store import Store


def job_of(folder: Path, rows: list[tuple[str, str]], model: Path, name: str = "run", **settings: Any) -> JobConfig:
    source = folder / "pairs.parquet"
    if not source.exists():
        pq.write_table(pa.table({"sentence1": [a for a, _ in rows], "sentence2": [b for _, b in rows]}), source)
    given = {"model": str(model), "input": str(source), "output": str(folder / name), "shards": 2}
    return load_job(None, given | settings)


def computed(job: JobConfig) -> Any:
    """The whole job by one worker, as the engine has it done, with its record; the opened run."""
    store = Store.open(job.output)
    plan = make_plan(job, store)
    worker = Worker(job.model_dump(mode="json"), job.output)
    facts = worker.load()
    if not store.exists("job.yaml"):
        store.commit("job.yaml", encoded_record(make_record(job, facts, plan.inputs, [])))
    worker = Worker(job.model_dump(mode="json"), job.output)
    worker.load()
    for index in range(len(plan.shards)):
        worker.run_shard(index)
    return open_run(job.output)


@pytest.fixture
def rows(rng: random.Random) -> list[tuple[str, str]]:
    texts = sample(rng, 70)
    return [(texts[at], texts[at + 1]) for at in range(0, 68, 2)]


def test_rows_sum_to_the_score_and_carry_the_lift(
    tmp_path: Path, rows: list[tuple[str, str]], tiny: TinyModels
) -> None:
    """What is written is what the Attributor says, and the run says what it sums to."""
    run = computed(job_of(tmp_path, rows, tiny.folder("bert")))
    assert run.sums_to == "score"
    table = run.to_table()
    error = np.abs(table["total"].to_numpy() - table["score"].to_numpy())
    assert error.max() <= 1e-2
    attributor = Attributor(str(tiny.folder("bert")))
    for row in table.slice(0, 3).to_pylist():
        pair = run.pair(row["pair_id"])
        expected = attributor.attribute(pair.a.text, pair.b.text)
        assert pair.sums_to == "score"
        np.testing.assert_allclose(pair.row_lift, expected.row_lift, atol=1e-4)
        np.testing.assert_allclose(pair.col_lift, expected.col_lift, atol=1e-4)
        np.testing.assert_allclose(pair.row_sums, expected.row_sums, atol=1e-4)
        assert sum(row["row_lift"]) == pytest.approx(0.0, abs=1e-2)


def test_every_worker_centres_on_the_same_mean(
    tmp_path: Path, rows: list[tuple[str, str]], tiny: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean is computed once and committed; whoever comes later reads it, also where its own would differ."""
    job = job_of(tmp_path, rows, tiny.folder("bert"), sums_to="centred")
    calls: list[str] = []
    original = Attributor.mean_embedding

    def counting(self: Attributor, texts: Any, role: Any) -> Any:
        calls.append(role)
        return original(self, texts, role) + np.float32(1e-3 * len(calls))

    monkeypatch.setattr(Attributor, "mean_embedding", counting)
    run = computed(job)
    assert calls == ["text"]
    plan = load_plan(Store.open(job.output))
    assert plan is not None
    assert plan.centre_file is not None
    stored = json.loads(next((tmp_path / "run" / "plan").glob("mean-*.json")).read_bytes())
    sampled = pq.read_table(tmp_path / "run" / plan.centre_file)
    assert len(set(sampled["text"].to_pylist())) == len(sampled) >= 50
    for row in run.to_table().slice(0, 5).to_pylist():
        pair = run.pair(row["pair_id"])
        model = Attributor(str(tiny.folder("bert"))).encoder.model
        e_a, e_b = (model.encode(text).astype(np.float64) for text in (pair.a.text, pair.b.text))
        o = np.array(stored["text"])
        expected = (e_a - o) @ (e_b - o) / (np.linalg.norm(e_a) * np.linalg.norm(e_b))
        assert pair.total == pytest.approx(float(expected), abs=1e-2)
        assert pair.error == pytest.approx(pair.total - float(expected), abs=1e-4)


def test_the_sample_follows_the_seed_and_needs_fifty_texts(
    tmp_path: Path, rows: list[tuple[str, str]], tiny: TinyModels
) -> None:
    names = [
        make_plan(job, Store.open(job.output)).centre_file
        for job in (
            job_of(tmp_path, rows, tiny.folder("bert"), name, sums_to="centred", seed=seed)
            for name, seed in (("one", 0), ("again", 0), ("other", 1))
        )
    ]
    assert names[0] == names[1]
    assert names[0] != names[2]
    few = job_of(tmp_path, rows, tiny.folder("bert"), "few", sums_to="centred", limit=20)
    with pytest.raises(SettingError, match=r"needs 50 distinct texts or more; there are (\d+)"):
        make_plan(few, Store.open(few.output))


def test_a_text_that_embeds_to_zero_is_rejected_and_costs_no_other(tmp_path: Path, rng: random.Random) -> None:
    """A division by zero would fill rows with NaN, or end the shard."""
    static_with_a_zero(tmp_path / "model")
    rows = [(random_text(rng, 3), random_text(rng, 4)) for _ in range(6)]
    rows[2] = (rows[2][0], "coffee")
    run = computed(job_of(tmp_path, rows, tmp_path / "model"))
    table = run.to_table()
    assert len(table) == 5
    assert all(np.isfinite(table[name].to_numpy()).all() for name in ("score", "total", "error"))
    (reject,) = run.rejects().to_pylist()
    assert reject["reason"] == "b: its embedding is zero, so it has no cosine with any text"
    assert reject["row"] == 3
    assert "coffee" in reject["row_text"]


def test_reference_and_sums_are_part_of_a_runs_identity(
    tmp_path: Path, rows: list[tuple[str, str]], tiny: TinyModels
) -> None:
    """Going on with other settings would mix rows that do not compare."""
    job = job_of(tmp_path, rows, tiny.folder("bert"), reference="unk")
    run = computed(job)
    assert run.job["run"]["reference"] == {"text": "[UNK] (unknown token)"}
    store = Store.open(job.output)
    record = read_record(store)
    assert record is not None
    check_same_job(store, record, job)
    for change in ({"reference": "pad"}, {"sums_to": "difference"}):
        other = job_of(tmp_path, rows, tiny.folder("bert"), **({"reference": "unk"} | change))
        (name,) = change
        with pytest.raises(RunError, match=f"holds another job .*{name}:"):
            check_same_job(store, record, other)
    with pytest.raises(JobError, match=r"sums_to: found 'total'; allowed: score, difference"):
        job_of(tmp_path, rows, tiny.folder("bert"), sums_to="total")


def as_written_before(folder: Path) -> None:
    """A run directory as the version before wrote it: differences, no lifts, a plan of version 4."""
    manifest = json.loads((folder / "plan" / "manifest.json").read_bytes())
    manifest["version"] = 4
    del manifest["centre_file"]
    (folder / "plan" / "manifest.json").write_text(json.dumps(manifest))
    record = yaml.safe_load((folder / "job.yaml").read_bytes())
    for name in ("sums_to", "reference"):
        del record[name]
    (folder / "job.yaml").write_text(yaml.safe_dump(record))
    for part in (folder / "attributions").glob("*.parquet"):
        pq.write_table(pq.read_table(part).drop_columns(["row_lift", "col_lift"]), part)


def test_a_run_of_the_version_before_opens_and_is_not_gone_on_with(
    tmp_path: Path, rows: list[tuple[str, str]], tiny: TinyModels
) -> None:
    """Its rows stay readable as differences; rows of this version beside them would not compare."""
    job = job_of(tmp_path, rows, tiny.folder("bert"), sums_to="difference")
    run = computed(job)
    totals = run.to_table()["total"].to_pylist()
    as_written_before(tmp_path / "run")
    old = open_run(tmp_path / "run")
    assert old.sums_to == "difference"
    assert old.to_table()["total"].to_pylist() == totals
    pair = old.pair(old.to_table()["pair_id"][0].as_py())
    assert (pair.sums_to, pair.row_lift, pair.col_lift) == ("difference", None, None)
    assert "both references" in str(pair)
    store = Store.open(job.output)
    record = read_record(store)
    assert record is not None
    for asked in ("score", "difference"):
        with pytest.raises(RunError, match="was begun by an earlier version, whose attributions sum to a difference"):
            check_same_job(store, record, job_of(tmp_path, rows, tiny.folder("bert"), sums_to=asked))
