"""The benchmark of a whole job: its checks pass on a good run, and each of them fails on a run that is not good."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

sys.path.append(str(Path(__file__).parent / "benchmarks"))
from million import disk, main, sample
from million_pairs import sentences, write_pairs
from whole_run import PHASES, CheckError, Commits, Place, check_rows, compare_rows, phases

PAIRS = 300


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one job that the script ran in one process, without Ray."""
    folder = tmp_path_factory.mktemp("million")
    main(["--pairs", str(PAIRS), "--no-ray", "--no-stats", "--shards", "3", "--output", str(folder)])
    return folder


@pytest.fixture
def broken(job: Path, tmp_path: Path) -> Place:
    """A copy of its run directory, for a test to damage."""
    shutil.copytree(job / "run-0", tmp_path / "run")
    return disk(tmp_path)("run")


def change(place: Place, folder: str, change: Any) -> None:
    """Rewrite the first part of a table."""
    path = Path(place.path) / folder / "part-00000.parquet"
    pq.write_table(change(pq.read_table(path)), path)


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)


def test_a_job_of_the_script_is_whole(job: Path) -> None:
    place = disk(job)("run-0")
    assert check_rows(place, job / "pairs.parquet") == (PAIRS, 0)
    assert compare_rows(place, place) == PAIRS
    assert place.parts() == place.shards()
    (events,) = place.starts()
    commits = Commits.of(events)
    assert (len(commits.times), sum(commits.pairs)) == (place.shards(), PAIRS)
    assert commits.times[0] <= commits.when(0.1) <= commits.when(1.0) == commits.times[-1]
    began, exited = events[0]["time"] - 1, events[-1]["time"] + 2
    seconds = phases(events, began, exited)
    assert len(seconds) == len(PHASES)
    assert sum(one or 0 for one in seconds) == pytest.approx(exited - began)
    assert min(one for one in seconds if one is not None) >= 0


def test_phases_of_a_killed_start_end_where_it_was_killed(job: Path) -> None:
    (events,) = disk(job)("run-0").starts()
    killed = [event for event in events if event["event"] != "end"]
    seconds = phases(killed, events[0]["time"], events[-1]["time"] + 5)
    assert seconds[-2:] == [None, None]
    assert sum(one or 0 for one in seconds) == pytest.approx(events[-1]["time"] + 5 - events[0]["time"])


def test_a_missing_part_is_noticed(job: Path, broken: Place) -> None:
    lost = len(pq.read_table(f"{broken.path}/attributions/part-00000.parquet"))
    Path(broken.path, "attributions/part-00000.parquet").unlink()
    with pytest.raises(CheckError, match=f"{lost} pairs are missing"):
        check_rows(broken, job / "pairs.parquet")
    with pytest.raises(CheckError, match=f"{lost} pairs are in one of them alone"):
        compare_rows(disk(job)("run-0"), broken)
    shutil.rmtree(f"{broken.path}/attributions")
    with pytest.raises(CheckError, match="no file in attributions"):
        check_rows(broken, job / "pairs.parquet")


def test_a_pair_that_is_there_twice_or_is_strange_is_noticed(job: Path, broken: Place) -> None:
    change(broken, "attributions", lambda table: pa.concat_tables([table, table.slice(0, 1)]))
    with pytest.raises(CheckError, match="0 pairs are missing, 1 are there more than once, and 0 are not in the input"):
        check_rows(broken, job / "pairs.parquet")
    change(broken, "attributions", lambda t: with_column(t, "pair_id", pa.array(["x", *t["pair_id"].to_pylist()[1:]])))
    with pytest.raises(CheckError, match="1 are not in the input"):
        check_rows(broken, job / "pairs.parquet")


@pytest.mark.parametrize("wrong", [2e-4, float("nan"), None])
@pytest.mark.parametrize("column", ["error", "total"])
def test_a_sum_that_is_not_the_score_is_noticed(job: Path, broken: Place, column: str, wrong: float | None) -> None:
    def moved(table: pa.Table) -> pa.Table:
        first = None if wrong is None else (table[column][0].as_py() if column == "total" else 0) + wrong
        return with_column(table, column, pa.array([first, *table[column].to_pylist()[1:]], pa.float32()))

    change(broken, "attributions", moved)
    with pytest.raises(CheckError, match="1 of 300 pairs do not sum to their score"):
        check_rows(broken, job / "pairs.parquet")


def test_a_pair_with_the_texts_of_another_is_noticed(job: Path, broken: Place) -> None:
    change(broken, "attributions", lambda t: with_column(t, "text_a_id", pa.array(t["text_a_id"].to_pylist()[::-1])))
    with pytest.raises(CheckError, match="do not have the two texts of the input"):
        check_rows(broken, job / "pairs.parquet")


def test_another_score_is_noticed(job: Path, broken: Place) -> None:
    change(broken, "attributions", lambda t: with_column(t, "score", pc.add(t["score"], pa.scalar(3e-6, pa.float32()))))
    with pytest.raises(CheckError, match="scores differ"):
        compare_rows(disk(job)("run-0"), broken)


def test_only_tied_word_pairs_may_differ(job: Path, broken: Place) -> None:
    def cells(change: Any) -> Any:
        def changed(table: pa.Table) -> pa.Table:
            rows = table["top"].to_pylist()
            change(rows[0])
            return with_column(table, "top", pa.array(rows, table.schema.field("top").type))

        return changed

    good = disk(job)("run-0")
    # The weakest cell is exchanged for one of the same strength elsewhere.
    change(broken, "attributions", cells(lambda row: row[-1].update(i=999, value=-row[-1]["value"])))
    assert compare_rows(good, broken) == PAIRS
    change(broken, "attributions", cells(lambda row: row[0].update(i=998)))
    with pytest.raises(CheckError, match="other strongest word pairs"):
        compare_rows(good, broken)


def test_the_pairs_are_distinct_and_the_same_every_time(tmp_path: Path) -> None:
    texts = sentences([])
    assert len(set(texts)) == len(texts) > 9000
    one = pq.read_table(write_pairs(tmp_path / "one.parquet", 5000, texts))
    assert one.equals(pq.read_table(write_pairs(tmp_path / "other.parquet", 5000, texts)))
    assert len(one.group_by(["sentence1", "sentence2"]).aggregate([])) == 5000
    crowded = pq.read_table(write_pairs(tmp_path / "crowded.parquet", 50, texts[:10]))
    assert len(crowded.group_by(["sentence1", "sentence2"]).aggregate([])) == 50
    with pytest.raises(SystemExit, match="too few"):
        write_pairs(tmp_path / "more.parquet", 51, texts[:10])


def test_sentences_are_read_from_the_first_two_columns(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text('a,"b, c",1\na,d,2\n', encoding="utf-8")
    assert sentences([tmp_path / "pairs.csv"]) == ["a", "b, c", "d"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_memory_is_that_of_the_processes() -> None:
    seen = sample(os.getpid(), {os.getpid()})
    assert 10 < seen.driver <= seen.driver_peak
    assert seen.worker_peak == seen.driver_peak
    assert sample(os.getpid(), set()).worker == 0.0
