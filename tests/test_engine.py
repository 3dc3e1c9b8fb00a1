"""The engine: real Ray actors that fail on command, with pretended work."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pretend_worker import COMPUTE_SECONDS, Place, StagedWorker, command, tried

from attribution_core.errors import ModelError, TokenpairError
from jobs.config.job import load_job
from jobs.engine import ray_crew
from jobs.engine.driver import run_job
from jobs.engine.scheduler import CRASHES, EXCEPTIONS, FAILED_STARTS
from jobs.errors import RunError, SourceError
from jobs.run.reader import open_run
from jobs.run.status import read_status
from jobs.run.tables import finished_shards
from jobs.storage.store import Store

# A worker that ends its process would end this one.
RAY: dict[str, Any] = {"workers": {"count": 1}}


@pytest.fixture(scope="module", autouse=True)
def ray_running() -> Iterator[None]:
    here = Path(__file__).parent
    with pytest.MonkeyPatch.context() as patch:
        # The workers are processes of their own and must find pretend_worker.
        patch.setenv("PYTHONPATH", f"{here}:{here.parent}")
        patch.delenv("RAY_ADDRESS", raising=False)
        with ray_crew.connected():
            yield


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_crew, "PAUSE_SECONDS", 0.01)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_every_pair_is_written_once_and_success_last(place: Place) -> None:
    outcome = place.run(workers={"count": 2})
    assert outcome.exit_code == 0
    assert open_run(place.output).finished
    assert len(place.pair_ids()) == 24
    assert len(set(place.pair_ids())) == 24
    assert outcome.totals.pairs == outcome.planned_pairs == 24
    assert sorted(set(tried(place.faults)) - {"start"}) == sorted(map(str, range(8))), "a shard was run twice"


def test_shard_that_raises_is_named_and_the_rest_done(place: Place) -> None:
    command(place.faults, "raise-2", 100)
    outcome = place.run()
    assert outcome.exit_code == 1
    assert set(outcome.failed) == {2}
    assert "ArithmeticError: shard 2 does not add up" in outcome.failed[2]
    assert tried(place.faults).count("2") == EXCEPTIONS
    assert finished_shards(Store.open(place.output)) == set(range(8)) - {2}
    assert not open_run(place.output).finished
    assert any("MISSING" in line and "shard 2" in line for line in outcome.lines())
    # The same command, once the cause is gone, does only what is missing.
    for token in (place.faults / "raise-2").iterdir():
        token.unlink()
    before = tried(place.faults)
    assert place.run().exit_code == 0
    assert tried(place.faults).count("2") == EXCEPTIONS + 1
    assert [what for what in tried(place.faults) if what not in ("2", "start")] == [
        what for what in before if what not in ("2", "start")
    ]
    assert len(set(place.pair_ids())) == 24


def test_shard_that_kills_its_process_fails_alone(place: Place) -> None:
    # Would catch a shard being failed for a neighbour's crash, and one that is retried for ever.
    command(place.faults, "crash-5", 100)
    outcome = place.run(**RAY)
    assert set(outcome.failed) == {5}
    assert "died" in outcome.failed[5]
    assert CRASHES <= tried(place.faults).count("5") <= CRASHES + 1
    assert finished_shards(Store.open(place.output)) == set(range(8)) - {5}


def test_passing_faults_leave_no_trace(place: Place) -> None:
    for fault in ("crash-0", "crash-6", "raise-3", "start"):
        command(place.faults, fault, 1)
    outcome = place.run(workers={"count": 2})
    assert outcome.exit_code == 0
    assert len(place.pair_ids()) == 24
    assert outcome.retries >= 3


def test_workers_that_cannot_start_end_the_run(place: Place) -> None:
    command(place.faults, "start", 100)
    outcome = place.run(**RAY)
    assert outcome.exit_code == 1
    assert set(outcome.failed) == set(range(8))
    assert tried(place.faults) == ["start"] * FAILED_STARTS


def test_refused_model_is_the_users_error_and_not_tried_again(place: Place) -> None:
    command(place.faults, "refuse", 100)
    with pytest.raises(ModelError, match="it is refused"):
        place.run()
    assert tried(place.faults) == ["start"]
    # Nothing that a later run with another setting would stumble over.
    for token in (place.faults / "refuse").iterdir():
        token.unlink()
    assert place.run(top_k=3).exit_code == 0


def test_model_that_one_worker_has_is_tried_again_for_the_next(place: Place) -> None:
    """A GPU without room, or a hub that was busy, under one late worker ended a run that others were computing."""
    command(place.faults, "crash-3", 1)
    command(place.faults, "refuse-later", 2)
    assert place.run(**RAY).exit_code == 0
    assert tried(place.faults).count("start") == 4
    assert sum("could not be started: ModelError: model pretend" in line for line in place.said) == 2


def test_model_that_no_later_worker_gets_leaves_the_rest_undone(place: Place) -> None:
    command(place.faults, "crash-3", 1)
    command(place.faults, "refuse-later", 100)
    outcome = place.run(**RAY)
    assert outcome.exit_code == 1
    assert "no worker could be started: ModelError" in outcome.failed[3]
    assert tried(place.faults).count("start") == 1 + FAILED_STARTS


def test_finished_run_is_left_alone(place: Place) -> None:
    place.run()
    before = {path: path.stat().st_mtime_ns for path in place.output.rglob("*") if path.is_file()}
    outcome = place.run()
    assert outcome.already_finished
    assert outcome.exit_code == 0
    assert "already finished" in outcome.lines()[0]
    assert before == {path: path.stat().st_mtime_ns for path in place.output.rglob("*") if path.is_file()}


def test_another_job_is_refused_and_says_what_differs(place: Place) -> None:
    place.run()
    with pytest.raises(RunError, match=r"layer: -2 there, -1 now.*quadrature\.nodes: not set there, 8 now"):
        place.run(layer=-1, quadrature={"nodes": 8})
    # Means are not the job.
    assert place.run(workers={"count": 2}, memory="1GiB").already_finished


def test_changed_input_and_changed_weights_are_refused(place: Place) -> None:
    command(place.faults, "raise-2", 100)
    place.run()
    (place.faults / "weights").write_text("ones")
    with pytest.raises(RunError, match="fingerprint zeros then, ones now"):
        place.run()
    (place.faults / "weights").unlink()
    with place.input.open("a") as file:
        file.write("one more,row,99\n")
    with pytest.raises(RunError, match=r"other input.*pairs\.csv: size"):
        place.run()


def test_finished_run_over_changed_input_is_refused(place: Place) -> None:
    """Would catch old rows being taken for those of the new input."""
    place.run()
    place.input.touch()
    assert place.run().already_finished, "the same content, only touched"
    whole = place.input.read_text()
    place.input.write_text(whole.replace("answer 7", "answer ?"))
    with pytest.raises(RunError, match=r"other input.*--restart.*pairs\.csv: other content, modified .* then, .* now"):
        place.run()
    place.input.write_text(whole + "one more,row,99\n")
    with pytest.raises(RunError, match=r"other input.*--restart.*pairs\.csv: size \d+ then, \d+ now"):
        place.run()
    outcome = place.run(restart=True)
    assert not outcome.already_finished
    assert outcome.totals.pairs == 25


def test_input_folder_that_holds_the_run_is_the_same_input_again(place: Place) -> None:
    place.run(input=str(place.input.parent))
    assert place.run(input=str(place.input.parent)).already_finished


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"layer": 77}, "layer 77 does not exist: the model has 6 layers"),
        ({"layer": -7}, "layer -7 does not exist"),
        ({"workers": {"gpus": 3}}, "workers.gpus: found 3"),
        ({"model": "/no/such/model"}, "no model folder /no/such/model"),
        ({"model": "no-such-owner/no-such-model"}, "no-such-owner/no-such-model"),
        ({"model": "a/b/c"}, "neither a folder nor"),
    ],
)
@pytest.mark.parametrize("restart", [False, True])
def test_what_shows_without_planning_is_told_before_it(
    place: Place, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], told: str, restart: bool
) -> None:
    # Planning a large input takes minutes, and --restart must not cost the old result for a typing mistake.
    monkeypatch.setattr("jobs.engine.driver.make_plan", lambda *_: pytest.fail("it was planned"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TokenpairError, match=told) as caught:
        place.run(restart=restart, **settings)
    assert "\n" not in str(caught.value)
    assert not place.output.exists()


def test_folder_without_a_model_is_told_before_planning(place: Place) -> None:
    (place.faults / "config.json").unlink()
    with pytest.raises(ModelError, match="holds no model"):
        place.run()
    assert not place.output.exists()


def test_layers_are_counted_where_the_first_module_is(place: Place) -> None:
    (place.faults / "modules.json").write_text('[{"path": "0_Transformer"}]')
    (place.faults / "0_Transformer").mkdir()
    (place.faults / "0_Transformer" / "config.json").write_text('{"n_layers": 3}')
    with pytest.raises(ModelError, match="the model has 3 layers"):
        place.run(layer=3)


def test_what_is_said_agrees_in_number(place: Place) -> None:
    place.input.write_text("sentence1,sentence2\nx,y\n,z\n")
    place.run(shards=1)
    assert "1 pair of 2 texts in 1 shard, 1 row rejected so far" in place.said


def test_finished_run_holds_no_empty_working_folder(place: Place) -> None:
    place.run()
    assert not (place.output / ".pending").exists()


def test_foreign_directory_is_refused_and_untouched(place: Place) -> None:
    place.output.mkdir()
    (place.output / "thesis.txt").write_text("mine")
    for restart in (False, True):
        with pytest.raises(RunError, match=r"not a run of tokenpair.*thesis\.txt"):
            place.run(restart=restart)
    assert [path.name for path in place.output.iterdir()] == ["thesis.txt"]


def test_restart_removes_the_runs_own_files_only(place: Place) -> None:
    place.run()
    (place.output / "notes.txt").write_text("mine")
    (place.output / "attributions" / "copy.parquet.bak").write_text("mine")
    assert place.run(restart=True, shards=4).exit_code == 0
    assert finished_shards(Store.open(place.output)) == set(range(4))
    assert (place.output / "notes.txt").read_text() == "mine"
    assert (place.output / "attributions" / "copy.parquet.bak").exists()


def test_mistyped_input_does_not_cost_the_old_result(place: Place) -> None:
    place.run()
    with pytest.raises(SourceError, match="there is no such file"):
        place.run(restart=True, input=str(place.input) + "x.csv")
    assert open_run(place.output).finished


def test_missing_part_is_seen_at_the_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    # A worker's word is not enough: what the store holds is compared with the plan.
    from jobs.engine import driver

    monkeypatch.setattr(driver, "finished_shards", lambda run: finished_shards(run) - {4})
    outcome = place.run()
    assert set(outcome.failed) == {4}
    assert not open_run(place.output).finished


def test_job_file_of_a_run_is_the_same_job_again(place: Place) -> None:
    place.run()
    assert run_job(load_job(place.output / "job.yaml")).already_finished


def test_reading_and_writing_overlap_computing_while_workers_fail(place: Place) -> None:
    """Would catch stages one after another, two shards computed at once in a process, and rows lost between them."""
    for fault in ("crash-3", "raise-5", "raise-11"):
        command(place.faults, fault, 1)
    outcome = place.run(**RAY, shards=24, worker_class=StagedWorker)
    assert outcome.exit_code == 0
    assert len(place.pair_ids()) == len(set(place.pair_ids())) == 24
    assert outcome.retries >= 3
    beside = computed = 0
    for log in (place.output / "logs").glob("worker-*"):
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        done = [one for one in lines if one["event"] == "committed"]
        spans = [_spans(one) for one in done]
        computing = sorted(span["compute"] for span in spans)
        for (_, end), (start, _) in itertools.pairwise(computing):
            assert start > end - COMPUTE_SECONDS / 2, "two shards were computed at once"
        computed += len(done)
        for at, span in enumerate(spans):
            others = [other[stage] for n, other in enumerate(spans) if n != at for stage in ("read", "write")]
            beside += any(_overlap(span["compute"], other) > 0.05 for other in others)
    # Shards that ran alone after a crash, and the last ones, have nothing beside them.
    assert beside >= computed / 2


def _spans(committed: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """From when to when a shard was read, computed and written."""
    end = datetime.fromisoformat(committed["time"]).timestamp()
    found: dict[str, tuple[float, float]] = {}
    for stage in ("write", "compute", "wait", "read"):
        start = end - committed[f"{stage}_seconds"]
        found[stage], end = (start, end), start
    return found


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    return min(one[1], other[1]) - max(one[0], other[0])


def test_changed_model_files_of_a_finished_run_are_noticed(place: Place) -> None:
    """Weights under the same name: no worker is started that could tell."""
    weights = place.faults / "model.safetensors"
    weights.write_bytes(b"0" * 1000)
    place.run()
    os.utime(weights, (1, 1))
    assert place.run().already_finished, "the same content, only touched"
    weights.write_bytes(b"0" * 500 + b"1" + b"0" * 499)
    with pytest.raises(RunError, match=r"other files of model.*--restart.*model\.safetensors: other content"):
        place.run()
    weights.write_bytes(b"0" * 999)
    with pytest.raises(RunError, match=r"model\.safetensors: size 1000 then, 999 now"):
        place.run()
    (place.faults / "README.md").write_text("a paper about it")
    weights.write_bytes(b"0" * 1000)
    assert place.run().already_finished


def test_a_run_leaves_its_log_and_tells_its_end(place: Place) -> None:
    command(place.faults, "raise-2", 100)
    command(place.faults, "crash-4", 1)
    outcome = place.run(**RAY)
    assert any(line.startswith("cost ") for line in outcome.lines())
    found = read_status(Store.open(place.output))
    assert (found.state, found.done, set(found.failed)) == ("incomplete", 7, {2})
    assert any("does not add up" in one["what"] for one in found.errors)
    (log,) = (place.output / "logs").glob("driver-*")
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert events[0] == "start"
    assert events[-1] == "end"
    assert {"planned", "cluster", "worker_ready", "shard_done", "shard_raised", "shard_failed", "worker_lost"} <= set(
        events
    )
    assert events.count("shard_done") == 7
    for token in (place.faults / "raise-2").iterdir():
        token.unlink()
    assert place.run().exit_code == 0
    assert read_status(Store.open(place.output)).state == "finished"


def test_metrics_add_up(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ray's Prometheus endpoint gets: names and tags are what dashboards are made of."""
    counted: dict[str, float] = {}

    class Metric:
        def __init__(self, name: str, description: str = "", tag_keys: tuple[str, ...] = ()) -> None:
            self.name, self.keys = name, tag_keys

        def inc(self, value: float, tags: dict[str, str]) -> None:
            assert value > 0, "Ray refuses to count nothing"
            assert set(tags) == set(self.keys)
            counted[self.name] = counted.get(self.name, 0.0) + value

        def set(self, value: float, tags: dict[str, str]) -> None:
            assert set(tags) == set(self.keys)
            counted[self.name] = value

    monkeypatch.setattr("ray.util.metrics.Counter", Metric)
    monkeypatch.setattr("ray.util.metrics.Gauge", Metric)
    command(place.faults, "raise-2", 1)
    place.run(**RAY)
    assert counted["tokenpair_pairs"] == 24
    assert counted["tokenpair_retries"] == 1
    assert counted["tokenpair_shards_left"] == 0
    assert counted["tokenpair_workers"] == 1
