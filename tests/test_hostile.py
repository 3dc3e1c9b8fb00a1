"""Run directories and inputs from somebody hostile: they may make a command fail; nothing outside changes."""

from __future__ import annotations

import base64
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_models import TinyModels
from typer.testing import CliRunner

from jobs.cli import main as cli
from jobs.config.job import JobConfig, load_job
from jobs.config.yaml import read_yaml
from jobs.engine.worker import Worker
from jobs.errors import RunError, StoreError
from jobs.run.manifest import MANIFEST, load_plan
from jobs.run.reader import open_run
from jobs.run.record import read_record, wipe
from jobs.run.tables import finished_shards
from jobs.storage.store import LocalStore, Store


def fails_in_a_line(*words: str | Path) -> str:
    """The command ends with a user's error in one line; what it said."""
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    assert result.exit_code in (1, 2), result.output
    assert result.exit_code == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert "bug in tokenpair" not in result.stderr
    return result.stderr


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that is none of a run's business, with files named as a run's own."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in ("part-00000.parquet", "pairs-00ff.parquet", "manifest.json", "anything.txt", "0" * 32):
        (folder / name).write_text("precious")
        os.utime(folder / name, (1, 1))
    return folder


def untouched(folder: Path) -> bool:
    return len(list(folder.iterdir())) == 5 and all(one.read_text() == "precious" for one in folder.iterdir())


@pytest.mark.parametrize("linked", ["plan", "attributions", "texts", "rejects", "statistics", "logs", ".pending"])
def test_folders_that_are_links_are_refused(tmp_path: Path, outside: Path, linked: str) -> None:
    """`--restart` would remove, and a shard would write, where the link points."""
    root = tmp_path / "run"
    root.mkdir()
    (root / linked).symlink_to(outside)
    run = LocalStore(root)
    acts: list[Callable[[], object]] = [
        lambda: run.commit(f"{linked}/new.parquet", b"x"),
        lambda: run.replace(f"{linked}/part-00000.parquet", b"x"),
        lambda: run.remove(f"{linked}/part-00000.parquet"),
        lambda: run.read(f"{linked}/part-00000.parquet"),
        lambda: run.list(linked),
    ]
    acts += [lambda: wipe(run)] if linked != ".pending" else [run.check_writable, lambda: run.commit("x", b"x")]
    for act in acts:
        with pytest.raises(StoreError, match="is a link"):
            act()
    assert untouched(outside)


def test_a_file_that_is_a_link_is_neither_read_nor_written_through(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("precious")
    root = tmp_path / "run"
    root.mkdir()
    (root / "job.yaml").symlink_to(secret)
    run = LocalStore(root)
    for act in (
        lambda: run.read("job.yaml"),
        lambda: run.replace("job.yaml", b"x"),
        lambda: run.commit("job.yaml", b""),
    ):
        with pytest.raises(StoreError, match="is a link"):
            act()
    assert secret.read_text() == "precious"


def test_a_part_that_is_a_link_is_no_part(tmp_path: Path) -> None:
    """It would count as a finished shard, and a report would hold rows of another file of its reader."""
    private = tmp_path / "private.parquet"
    pq.write_table(pa.table({"pair_id": ["precious"]}), private)
    root = tmp_path / "run"
    (root / "attributions").mkdir(parents=True)
    (root / "attributions" / "part-00000.parquet").symlink_to(private)
    run = LocalStore(root)
    assert run.list("attributions") == []
    assert finished_shards(run) == set()
    assert run.dataset("attributions", "parquet", pa.schema([("pair_id", pa.string())])).count_rows() == 0


@pytest.mark.parametrize("name", ["../x", "plan/../../x", "/etc/x", "a/../../../x", ".."])
def test_names_never_leave_the_run_directory(tmp_path: Path, name: str) -> None:
    run = LocalStore(tmp_path / "run")
    for act in (run.read, run.remove, run.exists, run.open_input, lambda one: run.commit(one, b"x")):
        with pytest.raises(StoreError, match="not a name inside"):
            act(name)


def test_a_journal_is_not_written_through_a_link(tmp_path: Path, outside: Path) -> None:
    from jobs.run.event_log import EventLog, driver_log, new_start, state_file

    root = tmp_path / "run"
    root.mkdir()
    (root / "logs").symlink_to(outside)
    start = new_start()
    journal = EventLog(LocalStore(root), driver_log(start), state_file(start))
    journal.state({"phase": "running"})
    journal.log("started")
    journal.close()
    assert untouched(outside)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "3", '{"pairs": "many"}', '{"rejected": 3}', '{"median_error": {}}', '{"odd": 1}']
)
def test_odd_totals_and_states_do_not_stop_who_looks(tmp_path: Path, text: str) -> None:
    root = tmp_path / "run"
    (root / "logs").mkdir(parents=True)
    (root / "logs" / "state-x.json").write_text(text)
    (root / "_SUCCESS").write_text(text)
    result = CliRunner().invoke(cli.app, ["status", str(root)])
    assert result.exit_code == 0, result.stderr
    assert "state    finished" in result.stdout


# --- YAML ---


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: !!python/object/apply:os.system ['touch HACKED']", "could not determine a constructor"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
        ("a: !ruby/object:X {}", "could not determine a constructor"),
        ("a: &a {b: *a}", "the alias *a"),
        ("a: &a [1, 2]\nb: [*a, *a]", "the alias *a"),
        ("<<: &m {x: 1}\nb: {<<: *m}", "the alias *m"),
        ("[" * 100_000, ""),
        ("{a: " * 100_000, ""),
        ("a: 1\na: 2", "'a' is given twice"),
        ("\x00", ""),
    ],
)
def test_yaml_gives_plain_values_or_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        read_yaml(text)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "HACKED").exists()


def test_a_page_of_aliases_costs_nothing() -> None:
    """Ten levels of ten aliases stand for ten thousand million values."""
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i} {{{', '.join(f'k{j}: *a{i - 1}' for j in range(10))}}}" for i in range(1, 11)]
    began = time.monotonic()
    with pytest.raises(ValueError, match="alias"):
        read_yaml("\n".join(lines))
    assert time.monotonic() - began < 2


def test_what_a_run_writes_twice_can_be_read_again() -> None:
    from jobs.run.record import encoded_record

    same = {"file": "x", "size": 1}
    assert read_yaml(encoded_record({"inputs": [same, same]})) == {"inputs": [same, same]}


@pytest.mark.parametrize(
    "text",
    [
        "run: 3",
        "run: {inputs: hello}",
        "run: {inputs: [1, 2]}",
        "[1, 2]",
        "run: !!python/object/new:os.system [true]",
        "run: &a {b: *a}",
    ],
)
def test_a_record_that_tokenpair_did_not_write_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(RunError, match="was not written by a run of tokenpair"):
        read_record(Store.open(tmp_path))


def test_a_huge_record_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "job.yaml", "wb") as file:
        file.truncate(1 << 40)  # a hole: nothing is on the disk
    began = time.monotonic()
    with pytest.raises(StoreError, match="is larger than 64 MiB"):
        read_record(Store.open(tmp_path))
    assert time.monotonic() - began < 10


# --- plans ---


def planned(tmp_path: Path, tiny: TinyModels) -> tuple[Path, JobConfig]:
    from jobs.plan.plan import make_plan

    pairs = tmp_path / "pairs.csv"
    pairs.write_text("sentence1,sentence2\n" + "\n".join(f"word {i},other {i}" for i in range(8)) + "\n")
    folder = tmp_path / "run"
    job = load_job(None, {"model": str(tiny.folder("bert")), "input": str(pairs), "output": str(folder), "shards": 2})
    make_plan(job, Store.open(job.output))
    return folder, job


def _changed(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda found: found | {key: value}


@pytest.mark.parametrize(
    "change",
    [
        _changed("pairs_file", "../../secret.parquet"),
        _changed("pairs_file", "/etc/passwd"),
        _changed("texts_file", "plan/../../secret.parquet"),
        _changed("pairs_file", 7),
        _changed("shards", [1, 2]),
        _changed("shards", {"a": 1}),
        _changed("shards", [{"__class__": "x"}]),
        _changed("kept", base64.b64encode(b"\x80\x04junk").decode()),
        _changed("kept", "not base64 é"),
        _changed("calibration", None),
        _changed("version", "9" * 5000),
        lambda found: [found],
        lambda found: 3,
    ],
)
def test_manifests_from_elsewhere_name_nothing_outside(
    tmp_path: Path, tiny: TinyModels, change: Callable[[dict[str, Any]], Any]
) -> None:
    """A name such as ../../x in a manifest must not make a worker read what lies there."""
    folder, job = planned(tmp_path, tiny)
    pq.write_table(pa.table({"pair_id": ["secret"]}), tmp_path / "secret.parquet")
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps(change(json.loads(manifest.read_text()))))
    worker = Worker(job.model_dump(mode="json"), str(folder))
    worker._store = Store.open(folder)
    from jobs.run.manifest import read_shard

    with pytest.raises((RunError, StoreError)):
        read_shard(worker._store, worker._planned(), 0)


def test_a_deep_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan").mkdir()
    (tmp_path / MANIFEST).write_text("[" * 200_000)
    with pytest.raises(RunError, match="is not a plan"):
        load_plan(Store.open(tmp_path))


# --- parts ---


def _weird(chance: random.Random) -> pa.Table:
    """A table with the names of `attributions` and types of nobody's choosing."""
    kinds: list[Any] = [
        pa.array([{"a": 1}]),
        pa.array([[[1]]]),
        pa.array([None], pa.null()),
        pa.array([2**62]),
        pa.array([b"\xff\xfe"]),
        pa.array(["\x1b[31m../../x"]),
        pa.array([1.5], pa.float64()),
        pa.array(["x"]).dictionary_encode(),
    ]
    names = ["text_a_id", "text_b_id", "score", "rows", "cols", "top", "row_sums", "total", "error", "special"]
    columns = {name: chance.choice(kinds) for name in chance.sample(names, chance.randrange(1, len(names)))}
    return pa.table({"pair_id": ["p"], **columns})


def test_parts_with_odd_columns_fail_in_a_line(tmp_path: Path, rng: random.Random) -> None:
    root = tmp_path / "run"
    (root / "attributions").mkdir(parents=True)
    (root / "job.yaml").write_text("model: m\nrun: {}\n")
    for _ in range(40):
        pq.write_table(_weird(rng), root / "attributions" / "part-00000.parquet")
        said = fails_in_a_line("show", root, "p")
        assert "\x1b" not in said


@pytest.mark.parametrize("rows", [-1, 10**9, 2**31 - 1])
def test_a_part_cannot_ask_for_all_memory(tmp_path: Path, rows: int) -> None:
    from jobs.run.tables import attribution_schema, text_schema

    root = tmp_path / "run"
    for folder in ("attributions", "texts"):
        (root / folder).mkdir(parents=True)
    (root / "job.yaml").write_text("model: m\nrun: {}\n")
    row = {field.name: None for field in attribution_schema()}
    row |= {"pair_id": "p", "text_a_id": "a", "text_b_id": "a", "rows": rows, "cols": rows, "top": []}
    pq.write_table(pa.Table.from_pylist([row], attribution_schema()), root / "attributions/part-00000.parquet")
    text = {field.name: [] if pa.types.is_list(field.type) else None for field in text_schema()}
    text |= {"text_id": "a", "role": "text", "text": "a"}
    pq.write_table(pa.Table.from_pylist([text], text_schema()), root / "texts/part-00000.parquet")
    with pytest.raises(RunError, match="did not write"):
        open_run(root).pair("p")


def test_files_that_are_no_parquet_fail_in_a_line(tmp_path: Path, rng: random.Random) -> None:
    root = tmp_path / "run"
    (root / "attributions").mkdir(parents=True)
    (root / "job.yaml").write_text("model: m\nrun: {}\n")
    for data in (b"", b"PAR1", rng.randbytes(500), b"PAR1" + rng.randbytes(200) + b"\xff\xff\xff\x7fPAR1"):
        (root / "attributions" / "part-00000.parquet").write_bytes(data)
        fails_in_a_line("show", root, "p")
