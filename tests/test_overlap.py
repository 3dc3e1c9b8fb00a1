"""Runs that overlap: a worker that outlives its driver does no harm to whoever has the run directory next."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import TinyModels

from jobs.config import JobConfig, parse_job
from jobs.dataset import JOB_FILE, finished_shards
from jobs.errors import RunError
from jobs.plan import make_plan
from jobs.record import encoded_record, wipe
from jobs.stores import Store
from jobs.worker import Worker


def worker_of(job: JobConfig, run: Store) -> Worker:
    """A worker of a run that has begun: there is a plan, and a record of the job."""
    plan = make_plan(job, run)
    run.commit(JOB_FILE, encoded_record(job.model_dump(mode="json") | {"run": {}}))
    worker = Worker(job.model_dump(mode="json"), run.url, 1, "cpu", plan.pairs_file)
    worker.load()
    return worker


def test_a_worker_of_a_run_that_was_thrown_away_writes_nothing_into_the_next(tmp_path: Path, tiny: TinyModels) -> None:
    """``--restart`` with another layer: parts of the old one would be taken for the new run's, by their names."""
    (tmp_path / "in.csv").write_text("sentence1,sentence2\na dog,a cat\nred ball,rain\nrain falls,heat\n")
    settings = {
        "model": str(tiny.folder("bert")),
        "input": str(tmp_path / "in.csv"),
        "output": str(tmp_path / "run"),
        "shards": 3,
        "quadrature": {"nodes": 2},
    }
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
    (tmp_path / "in.csv").write_text("sentence1,sentence2\na dog,a cat\nred ball,rain\n")
    settings = {
        "model": str(tiny.folder("bert")),
        "input": str(tmp_path / "in.csv"),
        "output": str(tmp_path / "run"),
        "shards": 2,
        "quadrature": {"nodes": 2},
    }
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
