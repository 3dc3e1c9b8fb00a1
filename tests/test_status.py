"""``tokenpair status`` and the logs of a run: what the run directory says of a run, to somebody who only reads it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from row_tables import attribution_table, text_table
from s3_server import S3Server
from typer.testing import CliRunner

from jobs.cli import main as cli
from jobs.config.job import StorageOptions, load_job
from jobs.errors import RunError, StoreError
from jobs.plan.plan import make_plan
from jobs.run import event_log
from jobs.run.event_log import EventLog, driver_log, new_start, state_file, worker_log
from jobs.run.manifest import Plan
from jobs.run.record import check_ours, is_own
from jobs.run.status import ALIVE_SECONDS, read_status
from jobs.run.tables import SUCCESS, commit_shard, reject_table
from jobs.storage.store import LocalStore, Store

START = "20260102T030405Z-00ff"


@pytest.fixture
def run(tmp_path: Path) -> tuple[Store, Plan]:
    """A planned run of 8 shards and 24 pairs."""
    source = tmp_path / "pairs.csv"
    source.write_text("\n".join(["sentence1,sentence2", *(f"question {i},answer {i}" for i in range(24))]) + "\n")
    settings = {"model": "nobody/has-this", "input": str(source), "output": str(tmp_path / "run"), "shards": 8}
    store = Store.open(tmp_path / "run")
    return store, make_plan(load_job(None, settings), store)


def commit(store: Store, plan: Plan, shard: int) -> None:
    commit_shard(store, shard, attribution_table([], None), text_table([]), reject_table([]))


def write_state(store: Store, *, start: str = START, seconds_ago: float = 1.0, **fields: Any) -> None:
    updated = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    state = {"version": 1, "start": start, "phase": "running", "host": "far", "process": 7} | fields
    store.replace(state_file(start), json.dumps(state | {"updated": updated.isoformat()}).encode())


def test_what_is_done_is_what_is_committed(run: tuple[Store, Plan]) -> None:
    # Would catch a status that believes the driver rather than the store.
    store, plan = run
    commit(store, plan, 2)
    commit(store, plan, 5)
    shards = {"running": [2, 3], "failed": {"5": "odd", "6": "ArithmeticError: no"}}
    write_state(store, shards=shards, rate=2.0, retries=3, workers={"ready": 1})
    found = read_status(store)
    assert (found.state, found.shards, found.done) == ("running", 8, 2)
    assert found.running == [3]
    assert found.failed == {6: "ArithmeticError: no"}
    assert (found.pairs, found.pairs_done) == (24, plan.shards[2].pairs + plan.shards[5].pairs)
    assert found.seconds_left == pytest.approx((24 - found.pairs_done) / 2.0)
    text = "\n".join(found.lines())
    for part in ("running on far (process 7)", "2 of 8 done", "1 running", "1 failed", "2.0 pairs/s", "shard 6"):
        assert part in text


@pytest.mark.parametrize(
    ("phase", "seconds_ago", "state"),
    [
        ("planning", 1, "planning"),
        ("running", 1, "running"),
        ("running", ALIVE_SECONDS + 5, "lost"),
        ("starting", 10_000, "lost"),
        ("stopped", 10_000, "stopped"),
        ("incomplete", 10_000, "incomplete"),
        ("failed", 10_000, "failed"),
    ],
)
def test_a_driver_that_is_silent_is_not_at_work(
    run: tuple[Store, Plan], phase: str, seconds_ago: float, state: str
) -> None:
    store, _ = run
    write_state(store, phase=phase, seconds_ago=seconds_ago, rate=9.0)
    found = read_status(store)
    assert found.state == state
    if state != "running":
        assert found.seconds_left is None


def test_of_two_starts_the_one_at_work_speaks(run: tuple[Store, Plan]) -> None:
    store, _ = run
    write_state(store, start="20260102T000000Z-0001", host="old")
    write_state(store, start="20260103T000000Z-0002", host="new", phase="stopped", seconds_ago=500)
    assert read_status(store).host == "old"
    write_state(store, start="20260104T000000Z-0003", host="newest")
    found = read_status(store)
    assert (found.host, found.drivers) == ("newest", 2)


def test_finished_run_tells_its_totals(run: tuple[Store, Plan]) -> None:
    store, _ = run
    store.commit(SUCCESS, b'{"pairs": 24, "texts": 48}')
    found = read_status(store)
    assert found.state == "finished"
    assert any("24 attributed" in line for line in found.lines())


def test_folder_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run of tokenpair"):
        read_status(Store.open(tmp_path))
    result = CliRunner().invoke(cli.app, ["status", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr.startswith("tokenpair: error: ")


@pytest.mark.parametrize(
    "state",
    [
        "[]",
        "null",
        "{",
        '{"phase": 3}',
        '{"shards": [], "workers": 5, "errors": {"a": 1}, "rate": "x"}',
        '{"phase": "running", "updated": "soon", "rate": NaN}',
        '{"shards": {"failed": {"x": 1}, "running": ["a"]}}',
        '{"shards": {"failed": {"²": "odd"}}}',
        json.dumps({"shards": {"failed": {"9" * 5000: "odd"}}}),
        json.dumps({"rate": 10**400, "retries": -(10**400)}),
    ],
)
def test_a_state_that_is_none_does_no_harm(run: tuple[Store, Plan], state: str) -> None:
    """A run directory may have been written by anybody."""
    store, _ = run
    store.replace(state_file(START), state.encode())
    assert read_status(store).done == 0
    result = CliRunner().invoke(cli.app, ["status", store.url, "--json"])
    assert result.exit_code == 0, result.stderr
    json.loads(result.stdout)


def test_a_rate_that_is_almost_none_tells_no_end(run: tuple[Store, Plan]) -> None:
    store, _ = run
    write_state(store, rate=5e-324)
    found = read_status(store)
    assert found.seconds_left is None
    assert found.lines()


def test_escape_sequences_of_a_state_do_not_reach_the_terminal(run: tuple[Store, Plan]) -> None:
    store, _ = run
    write_state(store, host="\x1b[31mred", errors=[{"time": "t", "what": "\x1b]0;x\x07"}])
    for words in ([], ["--json"]):
        assert "\x1b" not in CliRunner().invoke(cli.app, ["status", store.url, *words]).output


# --- the journal ---


def lines(store: Store, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in store.read(name).splitlines()]


def test_lines_are_there_at_once_and_the_state_soon(tmp_path: Path) -> None:
    # Would catch a log that is lost with its process.
    store = Store.open(tmp_path)
    written = EventLog(Store.open(tmp_path), driver_log(START), state_file(START))
    written.log("start", shards=3)
    assert [one["event"] for one in lines(store, driver_log(START))] == ["start"]
    written.state({"phase": "running"})
    end = time.monotonic() + 10
    while not store.exists(state_file(START)) and time.monotonic() < end:
        time.sleep(0.05)
    assert json.loads(store.read(state_file(START)))["phase"] == "running"
    written.log("end")
    written.state({"phase": "finished"})
    written.close()
    assert [one["event"] for one in lines(store, driver_log(START))] == ["start", "end"]
    assert json.loads(store.read(state_file(START)))["phase"] == "finished"


def test_no_secret_gets_into_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very+secret/0123")
    written = EventLog(Store.open(tmp_path), driver_log(START), state_file(START))
    written.log("failed", reason="said very+secret/0123 twice: very+secret/0123")
    written.state({"errors": ["very+secret/0123"]})
    written.close()
    for path in (tmp_path / "logs").iterdir():
        assert "very+secret" not in path.read_text()
        assert "(hidden)" in path.read_text()


def test_a_full_disk_stops_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise StoreError("cannot write: no space left on device")

    def broken(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LocalStore, "replace", full)
    monkeypatch.setattr(event_log.os, "write", broken)
    written = EventLog(Store.open(tmp_path), driver_log(START), state_file(START))
    written.log("start")
    written.state({"phase": "running"})
    written.close()


def test_no_failure_ends_the_thread_that_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run would go on and look lost."""
    replace, failures = LocalStore.replace, [RuntimeError("of a library")]

    def fail_first(*given: Any) -> None:
        if failures:
            raise failures.pop()
        replace(*given)

    monkeypatch.setattr(LocalStore, "replace", fail_first)
    monkeypatch.setattr(event_log, "LOCAL_SECONDS", 0.05)
    store = Store.open(tmp_path)
    written = EventLog(Store.open(tmp_path), driver_log(START), state_file(START))
    written.state({"phase": "running"})
    end = time.monotonic() + 10
    while not store.exists(state_file(START)) and time.monotonic() < end:
        time.sleep(0.05)
    written.close()
    assert not failures
    assert store.exists(state_file(START))


def test_a_link_in_place_of_a_log_is_not_followed(tmp_path: Path) -> None:
    """A run directory chosen by somebody hostile must not make a run write elsewhere."""
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (tmp_path / "run" / "logs").mkdir(parents=True)
    (tmp_path / "run" / driver_log(START)).symlink_to(mine)
    written = EventLog(Store.open(tmp_path / "run"), driver_log(START))
    written.log("start")
    written.close()
    assert mine.read_text() == "mine"


def test_logs_are_a_runs_own_files(tmp_path: Path) -> None:
    start = new_start()
    for name in (driver_log(start), worker_log(start, 12), state_file(start), driver_log(start)[:-5] + "1.jsonl"):
        assert is_own(name), name
    for name in ("logs/notes.txt", "logs/driver.jsonl", "logs/state-x.json"):
        assert not is_own(name), name
    # What a start left that never got to its job.yaml is no stranger's.
    store = Store.open(tmp_path)
    store.replace(state_file(start), b"{}")
    check_ours(store)


def test_on_s3_a_log_is_replaced_in_bounded_segments(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.admin.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(event_log, "REMOTE_SECONDS", 0.05)
    monkeypatch.setattr(event_log, "SEGMENT_BYTES", 2000)
    url, storage = f"s3://{s3.bucket}/journal-{new_start()}", StorageOptions(endpoint_url=s3.endpoint)
    written = EventLog(Store.open(url, storage), worker_log(START, 1), state_file(START))
    for number in range(60):
        written.log("committed", shard=number, more="x" * 100)
        time.sleep(0.01)
    written.state({"phase": "finished"})
    written.close()
    store = Store.open(url, storage)
    names = [name for name in store.list("logs") if "worker" in name]
    assert len(names) > 2
    assert all(is_own(name) for name in names)
    found = [one["shard"] for name in names for one in lines(store, name)]
    assert sorted(found) == list(range(60))
    assert json.loads(store.read(state_file(START)))["phase"] == "finished"


def test_status_of_a_run_that_is_stopped_by_a_signal(tmp_path: Path) -> None:
    """From another process: planning, then the words of a start that was stopped."""
    code = f"""
import time
from jobs.engine import driver
from jobs.engine.signals import stoppable
from jobs.storage.store import Store
with stoppable(), driver._reported(Store.open({str(tmp_path)!r}), {START!r}):
    print("there", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=dict(os.environ), text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    store = Store.open(tmp_path)
    end = time.monotonic() + 10
    while not store.exists(state_file(START)) and time.monotonic() < end:
        time.sleep(0.05)
    found = read_status(store)
    assert (found.state, found.process) == ("planning", process.pid)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=20)
    found = read_status(store)
    assert (found.state, found.reason) == ("stopped", "SIGTERM")
