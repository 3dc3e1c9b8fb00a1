"""A run directory: files are whole or absent, the first writer wins, failures are one clear line."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from row_tables import attribution_table, text_table
from s3_server import S3Server

from jobs.config.job import StorageOptions
from jobs.errors import StoreError
from jobs.run.tables import attribution_schema, commit_shard, reject_table
from jobs.run.totals import read_totals
from jobs.storage.store import LocalStore, S3Store, Store

# Whatever a store does holds for names that an address would have to escape.
FOLDER = "Läufe + 50% #1 日本/?&=[x] run"
SECRETS = ("adminsecret0123456789", "readersecret0123456789", "not-the-secret")


def as_user(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "local":
        return Store.open(tmp_path / FOLDER)
    server: S3Server = request.getfixturevalue("s3")
    as_user(monkeypatch, server.admin)
    return Store.open(f"s3://{server.bucket}/{uuid.uuid4().hex}/{FOLDER}", StorageOptions())


def test_first_writer_of_a_name_wins(store: Store) -> None:
    """A second writer that replaced a part would mix two runs."""
    assert store.commit("attributions/part-00000.parquet", b"first")
    assert not store.commit("attributions/part-00000.parquet", b"second")
    assert store.read("attributions/part-00000.parquet") == b"first"


def test_of_many_writers_at_once_exactly_one_wins(store: Store) -> None:
    won: list[int] = []

    def write(number: int) -> None:
        if store.commit("part", str(number).encode() * 100_000):
            won.append(number)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.read("part") == str(won[0]).encode() * 100_000


def test_a_large_local_file_is_committed_once(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(1 << 20) * 3)
    assert store.commit_file("plan/texts", path)
    path.write_bytes(b"other")
    assert not store.commit_file("plan/texts", path)
    assert len(store.read("plan/texts")) == 3 << 20


def test_names_are_listed_relative_to_the_run_and_only_of_the_folder(store: Store) -> None:
    for name in ("b/2", "b/1", "b/deep/3", "c"):
        store.commit(name, b"x")
    assert store.list("b") == ["b/1", "b/2"]
    assert store.list("") == ["c"]
    assert store.list("nothing") == []


def test_an_empty_file_is_read_up_to_a_size(store: Store) -> None:
    """A finished training's _SUCCESS is empty, and S3 has no first bytes of it to give."""
    store.commit("_SUCCESS", b"")
    assert store.read("_SUCCESS", most=10) == b""


def test_replace_and_remove(store: Store) -> None:
    store.replace("state", b"one")
    store.replace("state", b"two")
    assert store.read("state") == b"two"
    assert store.exists("state")
    store.remove("state")
    store.remove("state")
    assert not store.exists("state")


def test_input_is_seekable(store: Store) -> None:
    store.commit("file", bytes(range(100)))
    with store.open_input("file") as file:
        file.seek(90)
        assert file.read(5) == bytes(range(90, 95))


def test_a_missing_name_is_one_line_with_its_place(store: Store) -> None:
    with pytest.raises(StoreError, match=r"cannot read .*run/absent") as caught:
        store.read("absent")
    assert "\n" not in str(caught.value)


def test_checking_for_permission_leaves_no_file(store: Store) -> None:
    store.check_writable()
    assert store.list("") == []


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "/etc/outside"])
def test_no_name_leads_out_of_the_run(store: Store, name: str) -> None:
    with pytest.raises(StoreError, match="not a name inside"):
        store.replace(name, b"x")


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers run in another folder than the command."""
    monkeypatch.chdir(tmp_path)
    assert Store.open("run").url == str(tmp_path / "run")


def test_what_a_killed_writer_leaves_is_not_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(tmp_path)
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        store.commit("texts/part-00000.parquet", b"x")
    monkeypatch.undo()
    (tmp_path / ".pending" / "left").write_bytes(b"half a par")
    assert store.list("texts") == []
    assert store.commit("texts/part-00000.parquet", b"whole")


def test_a_process_killed_at_any_moment_leaves_whole_parts(tmp_path: Path) -> None:
    script = (
        "import sys; from jobs.storage.store import Store; s = Store.open(sys.argv[1])\n"
        "for i in range(100000): s.commit(f'parts/{i:05d}', bytes([i % 251]) * 300_000)"
    )
    root = Path(__file__).parent.parent
    for pause in (0.0, 0.011, 0.023):
        run = tmp_path / str(pause)
        process = subprocess.Popen([sys.executable, "-c", script, str(run)], cwd=root)
        end = time.monotonic() + 30
        while not (run / "parts" / "00003").exists() and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
        store = Store.open(run)
        names = store.list("parts")
        assert len(names) >= 4
        for number, name in enumerate(names):
            assert store.read(name) == bytes([number % 251]) * 300_000


def test_without_hard_links_a_part_is_still_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    store = Store.open(tmp_path)
    assert store.commit("part", b"first")
    assert not store.commit("part", b"second")
    assert store.read("part") == b"first"


def test_a_read_only_folder_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        # The superuser may write anywhere, so the refusal is made by hand.
        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(errno.EACCES, "no")

        monkeypatch.setattr(Path, "mkdir", refuse)
    else:
        tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match=r"cannot write to .*permission denied"):
        LocalStore(tmp_path / "run").check_writable()


def test_a_file_in_place_of_the_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(StoreError, match="is a file"):
        Store.open(tmp_path / "run")


@pytest.mark.parametrize("url", ["gs://bucket/run", "https://host/run"])
def test_other_protocols_are_refused(url: str) -> None:
    with pytest.raises(StoreError, match="not supported"):
        Store.open(url)


def test_a_login_in_the_location_is_refused_and_not_repeated() -> None:
    with pytest.raises(StoreError) as caught:
        Store.open("s3://key:hushhush@bucket/run")
    assert "hushhush" not in str(caught.value)


def broken(server: S3Server) -> Iterator[tuple[str, dict[str, str], str, str]]:
    there = f"s3://{server.bucket}/run"
    dead = server.admin | {"AWS_ENDPOINT_URL": "http://user:hushhush@127.0.0.1:9"}
    yield "wrong secret", server.wrong, there, "access key or its secret is not accepted"
    yield "unknown key", server.admin | {"AWS_ACCESS_KEY_ID": "nobody"}, there, "access key or its secret"
    yield "read-only key", server.read_only, there, "no permission"
    yield "missing bucket", server.admin, "s3://there-is-none/run", "no bucket 'there-is-none'"
    yield "no server", dead, there, r"no answer from the S3 endpoint http://127.0.0.1:9"
    yield "no URL", server.admin | {"AWS_ENDPOINT_URL": "nonsense"}, there, "is not a URL"
    yield "no profile", server.admin | {"AWS_PROFILE": "nobody"}, there, "no AWS profile 'nobody'"
    bare = {"AWS_ENDPOINT_URL": server.endpoint, "AWS_EC2_METADATA_DISABLED": "true", "HOME": "/nonexistent"}
    yield "no keys", bare, there, "no S3 credentials"


def test_each_s3_failure_is_one_line_within_seconds_and_holds_no_secret(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A botocore traceback, or minutes of retries, is what a user got before."""
    for case, variables, url, told in broken(s3):
        as_user(monkeypatch, variables)
        start = time.monotonic()
        with pytest.raises(StoreError, match=told) as caught:
            Store.open(url, StorageOptions()).check_writable()
        assert time.monotonic() - start < 15, case
        assert "\n" not in str(caught.value), case
        assert not any(secret in str(caught.value) for secret in (*SECRETS, "hushhush")), case
        assert caught.value.__cause__ is None, case


def test_the_endpoint_can_stand_in_the_job(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    as_user(monkeypatch, {name: value for name, value in s3.admin.items() if name != "AWS_ENDPOINT_URL"})
    store = Store.open(f"s3://{s3.bucket}/elsewhere", StorageOptions(endpoint_url=s3.endpoint, region="us-east-1"))
    store.check_writable()


def test_passing_failures_are_tried_again(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A conflict (409) of two conditional writes or a busy server must not cost a finished shard."""
    as_user(monkeypatch, s3.admin)
    store = Store.open(f"s3://{s3.bucket}/{uuid.uuid4().hex}", StorageOptions())
    assert isinstance(store, S3Store)
    put, failures = store._fs.pipe_file, [OSError(errno.EBUSY, "409"), ConnectionResetError()]

    def fail_first(*args: object, **keywords: object) -> None:
        if failures:
            raise failures.pop()
        put(*args, **keywords)

    monkeypatch.setattr(store._fs, "pipe_file", fail_first)
    assert store.commit("part", b"x")
    assert store.read("part") == b"x"


def test_patience_ends(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    as_user(monkeypatch, s3.admin)
    store = Store.open(f"s3://{s3.bucket}/run", StorageOptions())
    assert isinstance(store, S3Store)
    store.patience = 0.5

    def busy(*_: object, **__: object) -> None:
        raise OSError(errno.EBUSY, "slow down")

    monkeypatch.setattr(store._fs, "pipe_file", busy)
    with pytest.raises(StoreError, match="busy"):
        store.commit("part", b"x")


def test_a_store_that_is_away_for_a_moment_costs_neither_a_worker_nor_the_summary(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that started during an outage used up the starts of a run, and its last step failed at once."""
    as_user(monkeypatch, s3.admin)
    url = f"s3://{s3.bucket}/{uuid.uuid4().hex}"
    zeros = {field.name: [] if pa.types.is_list(field.type) else 0 for field in attribution_schema()}
    rows = [zeros | {"pair_id": "p", "text_a_id": "a", "text_b_id": "b"}]
    commit_shard(Store.open(url), 0, attribution_table(rows), text_table([]), reject_table([]))

    def away() -> None:
        os.killpg(s3.process.pid, signal.SIGSTOP)
        threading.Timer(2, os.killpg, (s3.process.pid, signal.SIGCONT)).start()

    monkeypatch.setattr("jobs.storage.s3.READ_SECONDS", 0.5)
    away()
    store = Store.open(url, patient=True)
    away()
    assert read_totals(store, "parquet", "score").pairs == 1


def test_a_connection_that_breaks_prints_no_traceback_of_a_library(s3: S3Server, tmp_path: Path) -> None:
    """aiohttp's half of a broken request was told by asyncio, with its traceback, though the write was tried again."""
    code = f"""
from jobs.storage.store import Store
import asyncio
store = Store.open("s3://{s3.bucket}/quiet")
async def broken():
    raise ConnectionResetError("Cannot write to closing transport")
async def lose():
    asyncio.ensure_future(broken())
    await asyncio.sleep(0.1)
asyncio.run_coroutine_threadsafe(lose(), store._fs.loop).result()
import gc
gc.collect()
print("went on")
"""
    env = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")} | s3.admin
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("went on\n", "")
