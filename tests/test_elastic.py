"""Machines that come and go under a run: real raylets on this host, pretended work."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pretend_worker import Place, tried

from jobs import attempt, pool
from jobs.engine import Outcome
from jobs.status import read_status
from jobs.stores import Store

pytestmark = pytest.mark.slow
PATIENCE = 120.0


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray cluster of a head on which no worker runs; machines are added by the test."""
    import ray
    from ray.cluster_utils import Cluster

    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{here}:{here.parent}")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name, value in {**pool.RAY_ENVIRONMENT, **pool.ENVIRONMENT}.items():
        monkeypatch.setenv(name, value)
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    ray.init(address=found.address, log_to_driver=False, logging_level="ERROR")
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(pool, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(attempt, "SECONDS_BETWEEN_COUNTS", 0.5)
    return Place(tmp_path)


def pace(place: Place, seconds: float) -> None:
    """How long a shard takes from now on."""
    aside = place.faults / "slow.new"
    aside.write_text(str(seconds))
    aside.rename(place.faults / "slow")


class Running:
    """``place.run`` in a thread, so that the test can do something to the machines meanwhile."""

    def __init__(self, place: Place, **settings: Any) -> None:
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(place, settings), daemon=True)
        self._thread.start()

    def _run(self, place: Place, settings: dict[str, Any]) -> None:
        try:
            self.outcome = place.run(**settings)
        except BaseException as error:
            self.error = error

    def until(self, so: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not so():
            assert self._thread.is_alive(), f"it ended before {what}: {self.error or self.outcome}"
            assert time.monotonic() < end, f"waited in vain for: {what}"
            time.sleep(0.05)

    def end(self) -> Outcome:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "it hangs"
        assert self.outcome is not None, self.error
        return self.outcome


def starts(place: Place) -> int:
    return tried(place.faults).count("start") if (place.faults / "tried").exists() else 0


def committed(place: Place) -> int:
    return len(list((place.output / "attributions").glob("*")))


def test_machines_that_join_are_used_and_one_that_leaves_is_survived(cluster: Any, place: Place) -> None:
    # Would catch a crew counted once at the start, and shards lost with, or blamed for, their machine.
    first = cluster.add_node(num_cpus=1)
    pace(place, 8.0)
    running = Running(place, workers={"cpus": 1}, shards=24)
    running.until(lambda: committed(place) >= 1, "the first commit")
    assert starts(place) == 1
    cluster.add_node(num_cpus=2)
    running.until(lambda: starts(place) == 3, "two more workers")
    pace(place, 0.5)
    cluster.remove_node(first, allow_graceful=False)
    outcome = running.end()
    assert outcome.exit_code == 0
    assert outcome.workers == 3
    assert len(place.pair_ids()) == 24
    assert len(set(place.pair_ids())) == 24
    assert outcome.retries <= 3
    assert starts(place) == 3, "without room no other worker is asked for"


def test_more_workers_than_there_is_room_for_wait_for_machines(cluster: Any, place: Place) -> None:
    # What waits in Ray's queue is what an autoscaler brings machines for; here the test does.
    cluster.add_node(num_cpus=1)
    pace(place, 8.0)
    running = Running(place, workers={"cpus": 1, "min": 2, "max": 3}, shards=24)
    running.until(lambda: committed(place) >= 1, "the first commit")
    running.until(lambda: read_status(Store.open(place.output)).workers.get("waiting") == 2, "two that wait")
    cluster.add_node(num_cpus=4)
    running.until(lambda: starts(place) == 3, "two more workers")
    pace(place, 0.2)
    outcome = running.end()
    assert outcome.exit_code == 0
    assert outcome.workers == 3, "not more than the most, and no fewer"
    assert len(set(place.pair_ids())) == 24


def test_without_any_machine_the_run_ends_and_says_so(
    cluster: Any, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch a run that hangs for ever for a GPU that nobody brings."""
    monkeypatch.setattr(attempt, "PLACEMENT_SECONDS", 3.0)
    monkeypatch.setattr(attempt, "FIRST_COMPLAINT_SECONDS", 0.5)
    outcome = place.run(workers={"gpus": 0.5, "max": 2, "cpus": 1})
    assert outcome.exit_code == 1
    assert "no machine had room for a worker" in outcome.failed[0]
    assert "1 CPU and 0.5 GPU" in outcome.failed[0]
    assert any("2 workers waiting for a machine" in line for line in place.said)


def test_four_halves_of_two_gpus_are_four_workers(cluster: Any, place: Place) -> None:
    cluster.add_node(num_cpus=4, num_gpus=2)
    outcome = place.run(workers={"gpus": 0.5, "cpus": 1})
    assert (outcome.exit_code, outcome.workers) == (0, 4)
    assert len(set(place.pair_ids())) == 24


@pytest.fixture
def autoscaling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a cluster whose autoscaler brings up to three machines of one core; the head has none."""
    from ray._private.services import get_node_ip_address
    from s3_server import _free_ports

    (port,) = _free_ports(1)
    # What Ray takes for this machine's address: it puts that in place of 127.0.0.1 when it connects.
    address = f"{get_node_ip_address()}:{port}"
    types = {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {"resources": {"CPU": 1, "object_store_memory": 100 << 20}, "node_config": {}, "max_workers": 3},
    }
    provider = {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "gcs_address": address,
    }
    config = {
        "cluster_name": "elastic",
        "max_workers": 3,
        "idle_timeout_minutes": 0.1,
        "upscaling_speed": 100,
        "provider": provider,
        "auth": {"ssh_user": "nobody"},
        "available_node_types": types,
        "head_node_type": "ray.head.default",
    }
    # Ray's template of a node provider's settings, with everything that it insists on.
    config["worker_start_ray_commands"] = []
    for name in ("file_mounts", "docker"):
        config[name] = {}
    for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands", "setup_commands"):
        config[name] = []
    for name in (
        "head_setup_commands",
        "worker_setup_commands",
        "head_start_ray_commands",
        "worker_start_ray_commands",
    ):
        config[name] = []
    (tmp_path / "autoscaling.json").write_text(json.dumps(config))
    here = Path(__file__).parent
    more = {"PYTHONPATH": f"{here}:{here.parent}", "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    words = ["start", "--head", "--block", "--port", str(port), "--num-cpus", "0", "--include-dashboard", "false"]
    words += ["--node-ip-address", address.split(":")[0], "--autoscaling-config", str(tmp_path / "autoscaling.json")]
    words += ["--object-store-memory", str(100 << 20)]
    with open(tmp_path / "head.log", "wb") as log:
        head = subprocess.Popen(
            [str(Path(sys.executable).parent / "ray"), *words],
            env=kept | {**pool.RAY_ENVIRONMENT, **pool.ENVIRONMENT} | more,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _answers(address, head, tmp_path / "head.log")
        monkeypatch.setenv("RAY_ADDRESS", address)
        yield address
    finally:
        import psutil

        family = psutil.Process(head.pid).children(recursive=True) if head.poll() is None else []
        for process in [*family, head]:
            with contextlib.suppress(psutil.Error, OSError):
                process.kill()
        head.wait(10)


def _answers(address: str, head: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    host, port = address.split(":")
    while time.monotonic() < end:
        assert head.poll() is None, log.read_text(errors="replace")[-2000:]
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
            return
        time.sleep(0.2)
    raise AssertionError("the head does not answer: " + log.read_text(errors="replace")[-2000:])


def test_an_autoscaler_brings_the_machines_that_are_waited_for(autoscaling: str, place: Place) -> None:
    # Would catch a run that only uses what is there: at first there is no machine that could run a worker.
    pace(place, 3.0)
    running = Running(place, workers={"cpus": 1, "max": 3}, shards=24)
    running.until(lambda: starts(place) == 3, "three machines")
    pace(place, 0.1)
    outcome = running.end()
    assert (outcome.exit_code, outcome.workers) == (0, 3)
    assert len(set(place.pair_ids())) == 24
