"""Which worker takes which shard next, and when a shard is given up: pure policy."""

from __future__ import annotations

import random

import pytest

from jobs.engine.scheduler import CRASHES, EXCEPTIONS, MACHINES, Schedule


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
