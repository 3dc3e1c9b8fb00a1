"""What `submit` says of a run directory that holds a run already; nothing here needs a cluster."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from row_tables import attribution_table, text_table

from jobs.cluster.client import ClusterJob
from jobs.cluster.submit import Submitted, submit
from jobs.config.job import JobConfig, load_job
from jobs.errors import ClusterError, RunError
from jobs.plan.plan import make_plan
from jobs.run.event_log import state_file
from jobs.run.manifest import Plan
from jobs.run.record import encoded_record
from jobs.run.tables import JOB_FILE, SUCCESS, commit_shard, reject_table
from jobs.run.totals import Totals
from jobs.storage.store import Store

START = "20260102T030405Z-00ff"


class Stub:
    """A cluster that fails the test where anything is started on it."""

    place, ray_version = "http://nowhere", "0"

    def jobs(self, name: str = "") -> list[ClusterJob]:
        return []

    def submit(self, *_: Any) -> bool:
        raise StartedError

    def job(self, id: str) -> ClusterJob:
        return ClusterJob(id, "STOPPED", None, "", {})

    def forget(self, id: str) -> None:
        pass


class StartedError(Exception):
    pass


@pytest.fixture
def job(tmp_path: Path) -> JobConfig:
    source = tmp_path / "pairs.csv"
    source.write_text("sentence1,sentence2\n" + "".join(f"question {i},answer {i}\n" for i in range(24)), "utf-8")
    settings = {"model": "nobody/has-this", "input": str(source), "output": str(tmp_path / "läufe 1"), "shards": 8}
    return load_job(None, settings)


@pytest.fixture
def begun(job: JobConfig) -> tuple[Store, Plan]:
    """A run that has a plan, a record of its job, and one of eight shards."""
    store = Store.open(job.output)
    plan = make_plan(job, store)
    record = job.model_dump(mode="json") | {"run": {"inputs": plan.inputs, "fingerprint": "f", "model_files": []}}
    store.commit(JOB_FILE, encoded_record(record))
    commit_shard(store, 3, attribution_table([], None), text_table([]), reject_table([]))
    return store, plan


def state(store: Store, phase: str, seconds_ago: float, **more: Any) -> None:
    updated = (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat()
    known = {"version": 1, "start": START, "phase": phase, "host": "far", "process": 7, "updated": updated}
    store.replace(state_file(START), json.dumps(known | more).encode())


def submitted(job: JobConfig, said: list[str], **more: Any) -> Submitted:
    say: Callable[[str], None] = said.append
    return submit(job, Stub(), say, **more)  # type: ignore[arg-type]


def test_a_finished_run_is_told_and_not_submitted(job: JobConfig, begun: tuple[Store, Plan]) -> None:
    begun[0].commit(SUCCESS, json.dumps(asdict(Totals(pairs=24))).encode())
    said: list[str] = []
    done = submitted(job, said)
    assert done.finished is not None
    assert done.finished.totals is not None
    assert done.finished.totals.pairs == 24
    assert said == []
    with pytest.raises(StartedError):
        submitted(job, said, restart=True)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("phase", ["planning", "starting", "running"])
def test_a_run_that_is_computed_elsewhere_is_not_submitted(
    job: JobConfig, begun: tuple[Store, Plan], phase: str, restart: bool
) -> None:
    state(begun[0], phase, 3.0)
    with pytest.raises(ClusterError, match=r"is being computed already on far \(process 7\)") as caught:
        submitted(job, [], restart=restart)
    assert "1 of 8 shards done" in str(caught.value)
    assert f"tokenpair status {job.output}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_that_has_only_begun_to_plan_elsewhere_is_seen(job: JobConfig) -> None:
    state(Store.open(job.output), "planning", 1.0)
    with pytest.raises(ClusterError, match="is being computed already"):
        submitted(job, [])


@pytest.mark.parametrize(
    ("phase", "age", "more", "why"),
    [
        ("stopped", 5, {"reason": "SIGTERM"}, "stopped by SIGTERM"),
        ("failed", 5, {"reason": "no room"}, "ended by an error: no room"),
        ("incomplete", 5, {}, "ended with shards missing"),
        ("running", 4000, {}, "not finished, and no driver computes it"),
    ],
)
def test_a_run_that_was_left_goes_on_and_it_is_said(
    job: JobConfig, begun: tuple[Store, Plan], phase: str, age: float, more: dict[str, str], why: str
) -> None:
    state(begun[0], phase, age, **more)
    said: list[str] = []
    with pytest.raises(StartedError):
        submitted(job, said)
    assert f"note: going on with {job.output}, 1 of 8 shards done ({why})" in said


def test_another_jobs_run_is_told_before_anything_starts(job: JobConfig, begun: tuple[Store, Plan]) -> None:
    other = load_job(None, job.model_dump(mode="json") | {"layer": -1})
    with pytest.raises(RunError, match="layer: -2 there, -1 now"):
        submitted(other, [])
    begun[0].commit(SUCCESS, b"{}")
    Path(job.input[0]).write_text("sentence1,sentence2\nnew,text\n", "utf-8")  # type: ignore[index]
    with pytest.raises(RunError, match="was planned from other input"):
        submitted(job, [])


def test_a_place_that_only_the_cluster_can_read_is_left_to_its_check(
    job: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    far = load_job(None, job.model_dump(mode="json") | {"output": "s3://bucket/run"})
    with pytest.raises(StartedError):
        submitted(far, [])


def test_a_fresh_place_says_nothing(job: JobConfig) -> None:
    said: list[str] = []
    with pytest.raises(StartedError):
        submitted(job, said)
    assert not any("going on" in one for one in said)
