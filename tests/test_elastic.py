"""Machines that come and go under a run: real raylets on this host, pretended work."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pretend_worker import Place, tried

from jobs.cluster.environment import ENVIRONMENT
from jobs.cluster.session import ON_LOOPBACK, RAY_ENVIRONMENT
from jobs.engine import ray_crew, run_loop
from jobs.engine.driver import Outcome
from jobs.run.status import read_status
from jobs.storage.store import Store

PATIENCE = 180.0
HEAD_STARTS = 3


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray cluster of a head on which no worker runs; machines are added by the test."""
    import ray
    from ray.cluster_utils import Cluster

    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{here}:{here.parent}")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name, value in {**RAY_ENVIRONMENT, **ENVIRONMENT}.items():
        monkeypatch.setenv(name, value)
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    ray.init(address=found.address, log_to_driver=False, logging_level="ERROR")
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(ray_crew, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(run_loop, "SECONDS_BETWEEN_COUNTS", 0.5)
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


@pytest.mark.long
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
    monkeypatch.setattr(run_loop, "PLACEMENT_SECONDS", 3.0)
    monkeypatch.setattr(run_loop, "FIRST_COMPLAINT_SECONDS", 0.5)
    outcome = place.run(workers={"gpus": 0.5, "max": 2, "cpus": 1})
    assert outcome.exit_code == 1
    assert "no machine had room for a worker" in outcome.failed[0]
    assert "1 CPU and 0.5 GPU" in outcome.failed[0]
    assert any("2 workers waiting for a machine" in line for line in place.said)


@pytest.mark.long
def test_four_halves_of_two_gpus_are_four_workers(cluster: Any, place: Place) -> None:
    cluster.add_node(num_cpus=4, num_gpus=2)
    # Slow enough for the fourth to have started before the first has done all the work.
    pace(place, 1.0)
    outcome = place.run(workers={"gpus": 0.5, "cpus": 1}, shards=24)
    assert (outcome.exit_code, outcome.workers) == (0, 4)
    assert len(set(place.pair_ids())) == 24


@pytest.fixture
def autoscaling(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment for drivers of a cluster whose autoscaler brings up to three machines of one core.

    The head has no core. Processes of their own: a token or an address stays with a process that has used Ray.
    """
    from s3_server import _free_ports

    (port,) = _free_ports(1)
    address = f"127.0.0.1:{port}"
    (tmp_path / "autoscaling.json").write_text(json.dumps(_autoscaling_config(address)))
    here = Path(__file__).parent
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env = kept | {**RAY_ENVIRONMENT, **ENVIRONMENT, **ON_LOOPBACK}
    env |= {"PYTHONPATH": f"{here}:{here.parent}", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    words = ["start", "--head", "--block", "--port", str(port), "--num-cpus", "0", "--include-dashboard", "false"]
    words += ["--node-ip-address", "127.0.0.1", "--autoscaling-config", str(tmp_path / "autoscaling.json")]
    words += ["--object-store-memory", str(100 << 20)]
    command = [str(Path(sys.executable).parent / "ray"), *words]
    more = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    # On a busy machine Ray gives a head up that takes longer than half a minute.
    for _ in range(HEAD_STARTS):
        with open(tmp_path / "head.log", "wb") as log:
            head = subprocess.Popen(command, env=env | more, stdout=log, stderr=log, start_new_session=True)
        try:
            if _started(head, tmp_path / "head.log"):
                yield env | {"RAY_ADDRESS": address}
                return
        finally:
            _end(head)
    pytest.skip(
        "Ray gave its head up, which a busy machine makes it do: "
        + (tmp_path / "head.log").read_text(errors="replace")[-200:]
    )


def _started(head: subprocess.Popen[bytes], log: Path) -> bool:
    end = time.monotonic() + PATIENCE
    while head.poll() is None and time.monotonic() < end:
        if "Ray runtime started" in log.read_text(encoding="utf-8", errors="replace"):
            return True
        time.sleep(0.2)
    return False


def _end(head: subprocess.Popen[bytes]) -> None:
    """End the head and whatever stems from it: its session is its own."""
    import ray  # noqa: F401 - brings psutil along
    import psutil  # isort: skip

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid == head.pid or os.getsid(process.pid) == head.pid or head.pid in _parents(process):
                process.kill()
    head.wait(10)


def _parents(process: Any) -> set[int]:
    return {one.pid for one in process.parents()}


def _autoscaling_config(address: str) -> dict[str, Any]:
    """A cluster file of Ray whose machines are raylets on this host."""
    lists = ("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands", "setup_commands")
    lists += ("head_setup_commands", "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands")
    return {
        "cluster_name": "elastic",
        "max_workers": 3,
        "idle_timeout_minutes": 0.1,
        "upscaling_speed": 100,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": address,
            # All are at the same address of this host.
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "auth": {"ssh_user": "nobody"},
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": {"CPU": 1, "object_store_memory": 100 << 20}, "node_config": {}, "max_workers": 3},
        },
        "head_node_type": "ray.head.default",
        # Everything else that Ray insists on.
        **{name: {} for name in ("file_mounts", "docker")},
        **{name: [] for name in lists},
    }


DRIVER = """
import sys
from pretend_worker import PretendWorker
from jobs import load_job, run_job
outcome = run_job(load_job(sys.argv[1]), worker_class=PretendWorker)
print(outcome.workers)
sys.exit(outcome.exit_code)
"""


@pytest.mark.long
def test_an_autoscaler_brings_the_machines_that_are_waited_for(autoscaling: dict[str, str], place: Place) -> None:
    # Would catch a run that only uses what is there: at first there is no machine that could run a worker.
    pace(place, 3.0)
    job = place.faults.parent / "job.yaml"
    job.write_text(json.dumps(place.job(workers={"cpus": 1, "max": 3}, shards=24).model_dump(mode="json")))
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, job],
        env=autoscaling,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + PATIENCE
    while starts(place) < 3 and driver.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    pace(place, 0.1)
    told, errors = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 0, errors
    assert told.splitlines()[-1] == "3", told + errors
    assert len(set(place.pair_ids())) == 24
