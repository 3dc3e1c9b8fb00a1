"""How many workers run and what each asks for: pure policy."""

from __future__ import annotations

import random

import pytest

from jobs.cluster.resources import worker_resources
from jobs.config.job import Workers, load_job
from jobs.errors import JobError

GIB = 1 << 30
TWO = {"CPU": 2.0, "memory": 20.0 * GIB}
GPU = {"CPU": 8.0, "GPU": 1.0}
HEAD = {"memory": 8.0 * GIB}  # no cores: nothing runs there


def test_without_a_most_the_crew_follows_the_machines() -> None:
    staff = worker_resources(Workers(), [HEAD, TWO], 100, GIB, grows=True)
    assert [staff.wanted(nodes, 100) for nodes in ([TWO], [TWO, TWO], [TWO] * 5, [])] == [2, 4, 10, 1]
    assert staff.wanted([TWO] * 5, 3) == 3, "more workers than shards"


def test_between_least_and_most() -> None:
    staff = worker_resources(Workers(min=3), [TWO], 100, GIB, grows=True)
    assert [staff.wanted(nodes, 100) for nodes in ([TWO], [TWO, TWO])] == [3, 4]
    # With a most the queue asks the autoscaler for machines, whatever there is now.
    staff = worker_resources(Workers(min=2, max=6), [TWO], 100, GIB, grows=True)
    assert [staff.wanted(nodes, 100) for nodes in ([TWO], [TWO] * 9, [])] == [6, 6, 6]
    assert staff.cpus == 1, "those that wait for machines must not squeeze into this one"
    assert worker_resources(Workers(count=4), [TWO], 100, GIB, grows=True).wanted([TWO] * 9, 100) == 4


def test_on_one_machine_nothing_is_waited_for() -> None:
    assert worker_resources(Workers(max=6), [TWO], 100, GIB).most == 2
    assert worker_resources(Workers(max=1), [TWO], 100, GIB).threads == 2
    assert worker_resources(Workers(min=4), [TWO], 100, GIB).most == 4


def test_a_worker_fits_on_one_machine() -> None:
    # Would catch a worker that asks for the cores of the whole cluster and is never placed.
    staff = worker_resources(Workers(count=1), [TWO] * 4, 100, GIB, grows=True)
    assert (staff.cpus, staff.threads) == (2, 2)
    assert worker_resources(Workers(count=5), [TWO] * 3, 100, GIB, grows=True).cpus == 1


def test_gpus_that_an_autoscaler_may_bring_are_waited_for() -> None:
    staff = worker_resources(Workers(), [TWO], 100, GIB, grows=True, ceiling={"CPU": 64, "GPU": 8})
    assert (staff.gpus, staff.wanted([TWO], 100), staff.wanted([TWO, GPU, GPU], 100)) == (1, 1, 2)
    assert worker_resources(Workers(gpus=0), [TWO], 100, GIB, grows=True, ceiling={"GPU": 8}).gpus == 0
    with pytest.raises(JobError, match=r"Ray sees no GPU here; with workers\.max"):
        worker_resources(Workers(gpus=1), [TWO], 100, GIB, grows=True)
    assert worker_resources(Workers(gpus=1, max=3), [TWO], 100, GIB, grows=True).wanted([TWO], 100) == 3
    # Cores alone are no reason to wait for a GPU.
    assert worker_resources(Workers(max=3), [TWO], 100, GIB, grows=True).gpus == 0


def test_a_fraction_is_of_one_gpu() -> None:
    staff = worker_resources(Workers(gpus=0.3), [{"CPU": 16.0, "GPU": 2.0}], 100, GIB, grows=True)
    assert staff.wanted([{"CPU": 16.0, "GPU": 2.0}], 100) == 6


@pytest.mark.parametrize("seed", range(30))
def test_whatever_is_there_the_first_workers_fit(seed: int) -> None:
    """What is asked for so many workers can be placed: no hole in sharing out cores of unlike machines."""
    chance = random.Random(seed)
    nodes = [{"CPU": float(chance.randint(1, 32)), "memory": 400.0 * GIB} for _ in range(chance.randint(1, 5))]
    asked = Workers(
        count=chance.choice([None, 1, chance.randint(1, 40)]), cpus=chance.choice([None, chance.randint(1, 8)])
    )
    staff = worker_resources(asked, nodes, 1000, GIB)
    assert staff.most is not None
    assert staff.cpus > 0
    assert sum(int(node["CPU"] / staff.cpus + 1e-6) for node in nodes) >= staff.most
    assert staff.cpus < 1 or staff.cpus == int(staff.cpus), "Ray takes no fraction above one"


def test_count_beside_min_or_max_is_refused() -> None:
    given = {"model": "m", "input": "x.csv", "output": "o"}
    for workers, told in (({"count": 2, "max": 3}, "workers.count"), ({"min": 3, "max": 2}, "workers.max")):
        with pytest.raises(JobError, match=told):
            load_job(None, given | {"workers": workers})
    assert load_job(None, given | {"workers": {"min": 2, "max": 2}}).workers.max == 2


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
def test_workers_use_what_there_is(
    asked: Workers, resources: dict[str, float], count: int, cpus: float, gpus: float, threads: int
) -> None:
    staff = worker_resources(asked, [resources], shards=100, memory=2 * GIB)
    assert (staff.most, staff.cpus, staff.gpus, staff.threads) == (count, cpus, gpus, threads)


def test_no_more_workers_than_shards() -> None:
    assert worker_resources(Workers(), [{"CPU": 8}], shards=3, memory=GIB).most == 3


@pytest.mark.parametrize(
    ("asked", "resources"), [(Workers(gpus=1), {"CPU": 2}), (Workers(count=3), {"CPU": 2, "GPU": 2})]
)
def test_more_gpus_than_there_are_is_refused(asked: Workers, resources: dict[str, float]) -> None:
    with pytest.raises(JobError, match="workers"):
        worker_resources(asked, [resources], shards=100, memory=GIB)
