"""Small jobs run in this process: the same commits, retries, resume and summary as with Ray, without its start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pretend_worker import Place, command, tried

from attribution_core.errors import ModelError
from jobs.config.job import JobConfig, load_job
from jobs.config.sections import Workers
from jobs.engine import local_crew
from jobs.engine.placement import in_this_process
from jobs.errors import JobError
from jobs.plan.plan import make_plan
from jobs.run.reader import open_run
from jobs.storage.store import Store

HERE = {"workers": {"ray": False}}


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever asks for Ray in this file fails."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(local_crew, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("jobs.cluster.session.ray_session", lambda: pytest.fail("Ray was started"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_every_pair_is_written_once(place: Place) -> None:
    outcome = place.run(**HERE)
    assert (outcome.exit_code, outcome.workers) == (0, 1)
    assert len(place.pair_ids()) == len(set(place.pair_ids())) == 24
    assert open_run(place.output).finished
    assert tried(place.faults) == sorted([*map(str, range(8)), "start"]), "a shard was run twice"


def test_a_shard_that_raises_is_tried_again_and_then_named(place: Place) -> None:
    command(place.faults, "raise-2", 1)
    command(place.faults, "raise-5", 100)
    outcome = place.run(**HERE)
    assert (outcome.exit_code, list(outcome.failed)) == (1, [5])
    assert "shard 5 does not add up" in outcome.failed[5]
    assert len(place.pair_ids()) == 21
    for token in (place.faults / "raise-5").iterdir():
        token.unlink()
    again = place.run(**HERE)
    assert (again.exit_code, again.pairs_now) == (0, 3), "only the missing shard"
    assert len(set(place.pair_ids())) == 24


def test_a_model_that_is_refused_ends_the_run_with_its_reason(place: Place) -> None:
    command(place.faults, "refuse", 1)
    with pytest.raises(ModelError, match="it is refused"):
        place.run(**HERE)


def test_a_worker_that_cannot_start_is_tried_four_times(place: Place) -> None:
    command(place.faults, "start", 100)
    outcome = place.run(**HERE)
    assert outcome.exit_code == 1
    assert all("no room on this machine" in reason for reason in outcome.failed.values())
    assert tried(place.faults) == ["start"] * 4


def test_a_worker_that_starts_late_does_all_the_work(place: Place) -> None:
    command(place.faults, "start", 2)
    assert place.run(**HERE).exit_code == 0
    assert len(place.pair_ids()) == 24


def test_phases_are_said_when_they_begin(place: Place) -> None:
    place.run(**HERE)
    assert [line.split(":")[0] for line in place.said if not line.startswith("note")] == [
        "planning",
        "24 pairs of 48 texts in 8 shards",
        "loading the model",
        "attributing",
    ]


def test_ctrl_c_ends_at_once_and_the_same_command_goes_on(place: Place) -> None:
    (place.faults / "slow").write_text("600")
    code = f"""
from pathlib import Path
from pretend_worker import PretendWorker
from jobs import load_job, run_job
job = load_job(None, {place.job(**HERE).model_dump(mode="json")!r})
run_job(job, worker_class=PretendWorker, echo=lambda line: print(line, flush=True))
"""
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here.parent}"}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert any("attributing" in line for line in iter(process.stdout.readline, ""))
    process.send_signal(signal.SIGINT)
    # The shard in hand takes ten minutes: it is not waited for.
    assert process.wait(timeout=120) != 0
    (place.faults / "slow").unlink()
    assert place.run(**HERE).exit_code == 0
    assert len(set(place.pair_ids())) == 24


def _decision(job: JobConfig, folder: Path) -> bool:
    return in_this_process(job, make_plan(job, Store.open(folder)))


def test_only_small_jobs_that_ask_for_nothing_else_run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the plan's own estimate: a large model or many pairs go to Ray, and so does any setting of ``workers``."""
    model = tmp_path / "model"
    model.mkdir()
    (tmp_path / "pairs.csv").write_text("sentence1,sentence2\n" + "\n".join(f"a {i},b {i}" for i in range(50)) + "\n")

    def decided(**settings: object) -> bool:
        given = {"model": str(model), "input": str(tmp_path / "pairs.csv"), "output": str(tmp_path / "run")}
        return _decision(load_job(None, given | settings), tmp_path / "plan")

    small = '{"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128}'
    (model / "config.json").write_text(small)
    assert decided()
    assert decided(workers={"ray": False})
    assert not decided(workers={"ray": True})
    for asked in ({"count": 1}, {"max": 2}, {"cpus": 1}):
        assert not decided(workers=asked)
    assert decided(workers={"ray": False, "cpus": 1})
    monkeypatch.setattr("jobs.engine.placement.SECONDS_A_PAIR", 2.0)
    assert not decided(), "too many pairs"
    monkeypatch.undo()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert not decided(), "a cluster is asked for"
    monkeypatch.delenv("RAY_ADDRESS")
    (model / "config.json").write_text('{"hidden_size": 8192, "num_hidden_layers": 80, "intermediate_size": 32768}')
    assert not decided(layer=0), "too much work"


def test_several_workers_need_ray() -> None:
    with pytest.raises(JobError, match="ask for one worker"):
        load_job(None, {"model": "m", "input": "i.csv", "output": "o", "workers": {"ray": False, "count": 2}})
    assert Workers(ray=False, count=1).ray is False


def test_the_crew_ends_its_thread(place: Place) -> None:
    import threading

    before = threading.active_count()
    place.run(**HERE)
    deadline = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before
