"""Folders as other programs leave them: partitions in folders' names, and what the library datasets saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from s3_server import S3Server
from test_sources import reader, rows
from test_stores import as_user

from jobs.config.sections import TextColumns
from jobs.errors import SourceError
from jobs.sources import resolve_inputs
from jobs.sources.tables import read_texts

TABLE = pa.table(
    {
        "sentence1": ["a", "b", "c", "d"],
        "sentence2": ["w", "x", "y", "z"],
        "lang": ["en", None, "zh/Hant %", "en"],
        "year": [2024, 2024, -3, 7],
        "month": ["01", "02", "02", "11"],
    }
)
SHARED = ["lang", "year", "month"]


def table_of(place: Path | str, **settings: Any) -> pa.Table:
    """What is read, sorted by the first text: texts, ids and kept columns."""
    found = []
    for batch in reader(place, **settings):
        columns = {name: batch.table[name] for name in ("a", "b", "id", "a_id", "b_id")}
        found.append(pa.table(columns | {name: batch.kept[name] for name in batch.kept.column_names}))
    return pa.concat_tables(found).sort_by("a")


def partitioned(folder: Path, format: str = "parquet") -> Path:
    """The table as pyarrow itself partitions it."""
    partitioning = pads.partitioning(TABLE.select(SHARED).schema, flavor="hive")
    pads.write_dataset(TABLE, folder, format=format, partitioning=partitioning)
    return folder


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_partitions_are_kept_columns(tmp_path: Path, format: str) -> None:
    folder = partitioned(tmp_path / "ds", format)
    found = table_of(folder)
    assert found.select(SHARED).to_pylist() == TABLE.select(SHARED).to_pylist()
    assert [str(found.schema.field(name).type) for name in SHARED] == ["string", "int64", "string"]
    source = reader(folder)
    assert len(rows(source)) == 4
    assert source.notices == ["columns from the folders' names: 'lang', 'year', 'month'"]
    assert table_of(folder, keep=[]).column_names == ["a", "b", "id", "a_id", "b_id"]


def test_a_plain_folder_below_a_partition_hides_nothing(tmp_path: Path) -> None:
    """Above what the inputs share one ends the search: such a name may be there for another reason."""
    places = {"topic=a/a.csv": "a", "topic=b/x/a.csv": "b", "topic=b/x/y/z.csv": "c", "topic=c/w/a.csv": "d"}
    for place, text in places.items():
        path = tmp_path / "rate=0.1" / "runs" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"sentence1,sentence2\n{text},one more\n", "utf-8")
    found = table_of(tmp_path / "rate=0.1" / "runs")
    assert found["topic"].to_pylist() == ["a", "b", "b", "c"]
    assert "rate" not in found.column_names


def test_partitions_are_read_in_whatever_way_the_files_are_named(tmp_path: Path) -> None:
    folder = partitioned(tmp_path / "ds")
    places = [str(folder / "lang=en"), str(folder / "*" / "*" / "*" / "*.parquet"), str(folder / "lang=en" / "**")]
    for place in places:
        assert "en" in table_of(place)["lang"].to_pylist()
    (one,) = (folder / "lang=en" / "year=7").rglob("*.parquet")
    assert table_of(one).select(SHARED).to_pylist() == [{"lang": "en", "year": 7, "month": 11}]  # of one file, a number


def test_partitions_may_be_ids_and_chosen_by_keep(tmp_path: Path) -> None:
    found = table_of(partitioned(tmp_path / "ds"), columns={"a_id": "year", "b_id": "lang"}, keep=["month"])
    assert found["a_id"].to_pylist() == ["2024", "2024", "-3", "7"]
    assert found["b_id"].to_pylist() == ["en", None, "zh/Hant %", "en"]
    assert found.column_names[-1] == "month"
    assert "lang" not in found.column_names
    with pytest.raises(SourceError, match=r"columns\.a: 'lang' is a folder's name, the same text for every row"):
        list(reader(tmp_path / "ds", columns={"a": "lang", "b": "sentence1"}))


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_partitions_of_text_files_are_kept_as_well(tmp_path: Path, kind: str) -> None:
    for key, text in (("n=1", "p"), ("n=20", "q")):
        folder = tmp_path / key
        folder.mkdir()
        line = f"sentence1,sentence2,k\n{text},y,1\n"
        if kind == "jsonl":
            line = f'{{"sentence1": "{text}", "sentence2": "y", "k": 1}}\n'
        (folder / f"part.{kind}").write_text(line)
    found = table_of(tmp_path)
    assert [str(value) for value in found["n"].to_pylist()] == ["1", "20"]
    assert found.column_names[-2:] == ["k", "n"]


def test_the_files_own_column_is_taken_before_the_folders(tmp_path: Path) -> None:
    for name, year in (("same", [2024, 2024]), ("other", [2024, 1999])):
        folder = tmp_path / name / "year=2024"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"sentence1": ["a", "b"], "sentence2": ["x", "y"], "year": year}), folder / "p.parquet")
        source = reader(tmp_path / name)
        (batch,) = source
        assert batch.kept["year"].to_pylist() == year
        said = "column 'year' is both in the files and in their folders' names, and differs in 1 row: the files' values"
        assert source.notices == ([] if name == "same" else [f"{said} are used"])


def test_partitions_in_a_bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from jobs.storage.s3 import open_s3

    as_user(monkeypatch, s3.admin)
    folder = partitioned(tmp_path / "ds")
    system = open_s3(None)
    for path in folder.rglob("*.parquet"):
        system.put_file(str(path), f"{s3.bucket}/hive/{path.relative_to(folder).as_posix()}")
    found = table_of(f"s3://{s3.bucket}/hive")
    assert found.select(SHARED).to_pylist() == TABLE.select(SHARED).to_pylist()
    assert table_of(f"s3://{s3.bucket}/hive/lang=en/year=7")["month"].to_pylist() == [11]


# What datasets saves -----------------------------------------------------------------------------------------------


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    library = pytest.importorskip("datasets")
    library.disable_progress_bars()
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return library


def saved(datasets: Any, folder: Path, count: int = 3) -> Path:
    """A saved dataset in two files beside which ``map`` left a third."""
    cells = {"sentence1": [f"a{at}" for at in range(count)], "sentence2": ["x"] * count}
    datasets.Dataset.from_dict(cells).save_to_disk(str(folder), num_shards=2)
    datasets.load_from_disk(str(folder)).map(lambda row: {"n": len(row["sentence1"])})
    assert len(list(folder.glob("*.arrow"))) == 3
    return folder


def test_a_saved_dataset_is_the_files_of_its_state(datasets: Any, tmp_path: Path) -> None:
    folder = saved(datasets, tmp_path / "ds")
    pairs = [("a0", "x"), ("a1", "x"), ("a2", "x")]
    assert rows(reader(folder)) == pairs
    assert rows(reader(str(folder / "*.arrow"))) == rows(reader(str(folder / "*"))) == pairs
    assert rows(reader(tmp_path)) == pairs
    (left,) = folder.glob("cache-*.arrow")
    assert len(rows(reader(left))) == 3  # asked for by its name
    (folder / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(SourceError, match=r"state\.json: names data-00001-of-00002\.arrow, which is not in the folder"):
        reader(folder)


def test_splits_are_chosen_by_their_folder(datasets: Any, tmp_path: Path) -> None:
    one = datasets.Dataset.from_dict({"sentence1": ["p"], "sentence2": ["q"]})
    other = datasets.Dataset.from_dict({"sentence1": ["r"], "sentence2": ["s"]})
    folder = tmp_path / "all"
    datasets.DatasetDict({"train": one, "test": other}).save_to_disk(str(folder))
    said = f"{folder}: holds the splits train, test; give the folder of one, such as {folder}/train"
    for place in (folder, tmp_path):
        with pytest.raises(SourceError) as caught:
            reader(place)
        assert str(caught.value) == said
    assert rows(reader(folder / "test")) == [("r", "s")]
    assert rows(reader(str(folder / "*"))) == [("r", "s"), ("p", "q")]
    datasets.DatasetDict({"train": one}).save_to_disk(str(tmp_path / "single"))
    assert rows(reader(tmp_path / "single")) == [("p", "q")]


def test_a_cache_of_datasets_is_read_without_what_map_left(datasets: Any, tmp_path: Path) -> None:
    """As load_dataset keeps it: no state, files named by their split."""
    folder = saved(datasets, tmp_path / "ds")
    (folder / "state.json").unlink()
    assert len(rows(reader(folder))) == 3


def test_a_saved_dataset_may_be_the_corpus(datasets: Any, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    datasets.Dataset.from_dict({"_id": ["1", "2"], "text": ["a", "b"]}).save_to_disk(str(folder))
    datasets.load_from_disk(str(folder)).map(lambda row: row | {"n": 1})
    (file,) = resolve_inputs(str(folder), any_name=True)
    (batch,) = read_texts(file, TextColumns(), titles=True, notices=[])
    assert batch.table["id"].to_pylist() == ["1", "2"]


def test_saved_datasets_in_a_bucket(
    datasets: Any, s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from jobs.storage.s3 import open_s3

    as_user(monkeypatch, s3.admin)
    folder = saved(datasets, tmp_path / "ds")
    system = open_s3(None)
    for path in folder.iterdir():
        system.put_file(str(path), f"{s3.bucket}/saved/train/{path.name}")
        system.put_file(str(path), f"{s3.bucket}/saved/test/{path.name}")
    (tmp_path / "splits.json").write_text('{"splits": ["train", "test"]}')
    system.put_file(str(tmp_path / "splits.json"), f"{s3.bucket}/saved/dataset_dict.json")
    assert len(rows(reader(f"s3://{s3.bucket}/saved/test"))) == 3
    assert len(rows(reader(f"s3://{s3.bucket}/saved/test/*.arrow"))) == 3
    with pytest.raises(SourceError, match="holds the splits train, test; give the folder of one"):
        reader(f"s3://{s3.bucket}/saved")
