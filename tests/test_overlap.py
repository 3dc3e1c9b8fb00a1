"""Runs that overlap: a worker that outlives its driver does no harm to whoever has the run directory next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_models import TinyModels

from jobs.config.job import JobConfig, parse_job
from jobs.engine.worker import Worker
from jobs.errors import RunError
from jobs.plan.plan import make_plan
from jobs.run.record import encoded_record, wipe
from jobs.run.tables import JOB_FILE, finished_shards
from jobs.storage.store import Store


def worker_of(job: JobConfig, run: Store) -> Worker:
    """A worker of a run that has begun: there is a plan, and a record of the job."""
    plan = make_plan(job, run)
    run.commit(JOB_FILE, encoded_record(job.model_dump(mode="json") | {"run": {}}))
    worker = Worker(job.model_dump(mode="json"), run.url, 1, "cpu", plan.pairs_file)
    worker.load()
    return worker


def settings_of(folder: Path, tiny: TinyModels, rows: list[str]) -> dict[str, Any]:
    """A job with a shard for each of some rows of two texts."""
    (folder / "in.csv").write_text("\n".join(["sentence1,sentence2", *rows]) + "\n")
    return {
        "model": str(tiny.folder("bert")),
        "input": str(folder / "in.csv"),
        "output": str(folder / "run"),
        "shards": len(rows),
        "quadrature": {"nodes": 2},
    }


def test_a_worker_of_a_run_that_was_thrown_away_writes_nothing_into_the_next(tmp_path: Path, tiny: TinyModels) -> None:
    """``--restart`` with another layer: parts of the old one would be taken for the new run's, by their names."""
    settings = settings_of(tmp_path, tiny, ["a dog,a cat", "red ball,rain", "rain falls,heat"])
    run = Store.open(tmp_path / "run")
    old = worker_of(parse_job(settings), run)
    assert old.run_shard(0).written
    wipe(run)
    with pytest.raises(RunError, match=r"job\.yaml was removed or replaced"):
        old.run_shard(1)
    new = worker_of(parse_job(settings | {"layer": -1}), run)
    with pytest.raises(RunError, match=r"job\.yaml was removed or replaced"):
        old.run_shard(1)
    assert finished_shards(run) == set()
    assert new.run_shard(1).written


def test_a_worker_that_comes_late_finds_another_run_and_leaves_it_alone(tmp_path: Path, tiny: TinyModels) -> None:
    """Hired by an old driver after ``--restart`` with another layer: it has seen no other job.yaml before."""
    settings = settings_of(tmp_path, tiny, ["a dog,a cat", "red ball,rain"])
    run = Store.open(tmp_path / "run")
    old, new = parse_job(settings), parse_job(settings | {"layer": -1})
    plan = make_plan(new, run)
    # Both have the same pairs, so that the plan's files have the same names.
    late = Worker(old.model_dump(mode="json"), run.url, 1, "cpu", plan.pairs_file)
    with pytest.raises(RunError, match="plan was replaced"):
        late.load()
    placed = Worker(old.model_dump(mode="json"), run.url, 1, "cpu")
    placed.load()
    run.commit(JOB_FILE, encoded_record(new.model_dump(mode="json") | {"run": {}}))
    for act in (late.load, lambda: placed.run_shard(0)):
        with pytest.raises(RunError, match=r"holds another job.*layer: -1 there, -2 now"):
            act()
    assert finished_shards(run) == set()
