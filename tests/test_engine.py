"""The engine: schedule and staffing as pure policy, and real Ray actors that fail on command."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pretend_worker import Place, command, tried

from attribution_core.errors import ModelError, TokenpairError
from jobs import pool
from jobs.config import Workers, load_job
from jobs.dataset import finished_shards, open_run
from jobs.engine import run_job
from jobs.errors import JobError, RunError, SourceError
from jobs.schedule import CRASHES, EXCEPTIONS, FAILED_STARTS, MACHINES, Schedule
from jobs.staffing import staffing
from jobs.stores import Store

GIB = 1 << 30


# --- the schedule, without Ray ---


def _simulate(shards: int, workers: int, poison: set[int], flaky: dict[int, int], seed: int) -> Schedule:
    """Run a schedule to its end: ``poison`` shards kill their worker, ``flaky`` ones raise so many times."""
    chance = random.Random(seed)
    schedule = Schedule(range(shards))
    hired = workers
    for worker in range(workers):
        schedule.join(worker)
    alive = set(range(workers))
    for _ in range(100_000):
        while schedule.assign() is not None:
            pass
        if schedule.finished:
            return schedule
        worker = chance.choice([w for w in sorted(alive) if schedule.in_flight(w)])
        doomed = [shard for shard in schedule.in_flight(worker) if shard in poison]
        shard = schedule.in_flight(worker)[0]
        if doomed:
            schedule.crashed(worker, "killed")
            alive.discard(worker)
            alive.add(hired)
            schedule.join(hired)
            hired += 1
        elif flaky.get(shard, 0):
            flaky[shard] -= 1
            schedule.raised(worker, shard, "odd")
        else:
            schedule.done(worker, shard)
    raise AssertionError("the schedule does not end")


@pytest.mark.parametrize("seed", range(20))
def test_only_the_shards_at_fault_fail(seed: int) -> None:
    # Would catch an innocent shard that fails because it was in flight beside a poisonous one.
    chance = random.Random(seed)
    poison = set(chance.sample(range(30), 3))
    flaky = {shard: chance.choice([1, EXCEPTIONS - 1, EXCEPTIONS]) for shard in set(range(30)) - poison}
    hopeless = {shard for shard, times in flaky.items() if times >= EXCEPTIONS}
    schedule = _simulate(30, chance.randint(1, 4), poison, flaky, seed)
    assert set(schedule.failed) == poison | hopeless


def test_a_shard_is_left_for_a_worker_that_is_still_starting() -> None:
    """The first worker to be ready would take both of two shards, and the second would have nothing to do."""
    schedule = Schedule(range(2))
    schedule.join("first")
    assert schedule.assign(expected=2) == ("first", 0)
    assert schedule.assign(expected=2) is None
    schedule.join("second")
    assert schedule.assign(expected=2) == ("second", 1)


def test_suspect_runs_alone_and_after_the_others() -> None:
    schedule = Schedule(range(4))
    schedule.join("w")
    assert [schedule.assign(), schedule.assign(), schedule.assign()] == [("w", 0), ("w", 1), None]
    schedule.crashed("w", "killed")
    schedule.join("v")
    assert [schedule.assign(), schedule.assign()] == [("v", 2), ("v", 3)]
    schedule.done("v", 2)
    assert schedule.assign() is None, "a suspect must not share its worker"
    schedule.done("v", 3)
    assert schedule.assign() == ("v", 0)
    assert schedule.assign() is None


def test_the_last_shards_go_to_whoever_is_done_first() -> None:
    # Would catch a worker that sits idle while another has two shards before it.
    schedule = Schedule(range(3))
    schedule.join("a")
    schedule.join("b")
    given = {schedule.assign(), schedule.assign()}
    assert given == {("a", 0), ("b", 1)}
    assert schedule.assign() is None
    schedule.done("b", 1)
    assert schedule.assign() == ("b", 2)


def test_while_there_is_plenty_a_worker_reads_ahead() -> None:
    schedule = Schedule(range(20))
    schedule.join("a")
    schedule.join("b")
    given = [schedule.assign() for _ in range(7)]
    assert [worker for one in given if one for worker in [one[0]]] == ["a", "b"] * 3
    assert given[6] is None


def test_shards_of_a_lost_machine_come_next_and_are_not_blamed() -> None:
    """A spot machine that goes away again and again must not fail the shards it happened to have."""
    schedule = Schedule(range(9))
    for lost in range(CRASHES + 1):
        schedule.join(lost)
        assert schedule.assign() == (lost, 0)
        schedule.crashed(lost, "its machine was lost", with_machine=True)
    assert not schedule.failed
    assert schedule.retries == CRASHES + 1
    for lost in range(100, 100 + MACHINES):
        if not schedule.failed:
            schedule.join(lost)
            schedule.assign()
            schedule.crashed(lost, "its machine was lost", with_machine=True)
    assert schedule.failed == {0: f"it lost {MACHINES} machines: its machine was lost"}


@pytest.mark.parametrize(
    ("asked", "resources", "count", "cpus", "gpus", "threads"),
    [
        (Workers(), {"CPU": 2, "memory": 20 * GIB}, 2, 1, 0, 1),
        (Workers(), {"CPU": 2, "memory": 4 * GIB}, 1, 2, 0, 2),
        (Workers(), {"CPU": 64, "memory": 500 * GIB}, 32, 2, 0, 2),
        (Workers(count=1), {"CPU": 2, "memory": 20 * GIB}, 1, 2, 0, 2),
        (Workers(count=4), {"CPU": 2, "memory": 20 * GIB}, 4, 0.5, 0, 1),
        (Workers(count=3, cpus=1), {"CPU": 2}, 3, 0.6666, 0, 1),
        (Workers(), {"CPU": 16, "GPU": 2}, 2, 8, 1, 8),
        (Workers(gpus=0.5), {"CPU": 16, "GPU": 2}, 4, 4, 0.5, 4),
        (Workers(gpus=0), {"CPU": 2, "GPU": 2}, 2, 1, 0, 1),
        (Workers(gpus=2), {"CPU": 16, "GPU": 5}, 2, 8, 2, 8),
    ],
)
def test_staffing_uses_what_there_is(
    asked: Workers, resources: dict[str, float], count: int, cpus: float, gpus: float, threads: int
) -> None:
    staff = staffing(asked, [resources], shards=100, memory=2 * GIB)
    assert (staff.most, staff.cpus, staff.gpus, staff.threads) == (count, cpus, gpus, threads)


def test_no_more_workers_than_shards() -> None:
    assert staffing(Workers(), [{"CPU": 8}], shards=3, memory=GIB).most == 3


@pytest.mark.parametrize(
    ("asked", "resources"), [(Workers(gpus=1), {"CPU": 2}), (Workers(count=3), {"CPU": 2, "GPU": 2})]
)
def test_more_gpus_than_there_are_is_refused(asked: Workers, resources: dict[str, float]) -> None:
    with pytest.raises(JobError, match="workers"):
        staffing(asked, [resources], shards=100, memory=GIB)


# --- real actors, pretended work ---


@pytest.fixture(scope="module", autouse=True)
def ray_running() -> Iterator[None]:
    here = Path(__file__).parent
    with pytest.MonkeyPatch.context() as patch:
        # The workers are processes of their own and must find pretend_worker.
        patch.setenv("PYTHONPATH", f"{here}:{here.parent}")
        patch.delenv("RAY_ADDRESS", raising=False)
        with pool.connected():
            yield


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "PAUSE_SECONDS", 0.01)


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
    outcome = place.run()
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
    outcome = place.run()
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
    with pytest.raises(RunError, match=r"layer: -2 there, -1 now.*quadrature\.nodes: None there, 8 now"):
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
    monkeypatch.setattr("jobs.plan.make_plan", lambda *_: pytest.fail("it was planned"))
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
    assert "1 pair of 2 texts in 1 shard, 1 row turned away so far" in place.said


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
    from jobs import engine

    monkeypatch.setattr(engine, "finished_shards", lambda run: finished_shards(run) - {4})
    outcome = place.run()
    assert set(outcome.failed) == {4}
    assert not open_run(place.output).finished


def test_job_file_of_a_run_is_the_same_job_again(place: Place) -> None:
    place.run()
    assert run_job(load_job(place.output / "job.yaml")).already_finished
