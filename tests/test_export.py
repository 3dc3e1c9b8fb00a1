"""A run's rows in pandas and in datasets: the same values, and a clear word where a package is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from query_runs import LOG, QUERIES, small_log, write_run

from jobs.errors import ExportError
from jobs.run.reader import Run, open_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return open_run(write_run(tmp_path / "run", QUERIES, small_log()).url)


def test_pandas_gets_every_row_and_column(run: Run) -> None:
    """Would catch a lost column, rows of one shard only, or lists that became text."""
    table = run.to_table()
    frame = run.to_pandas()
    assert list(frame.columns) == table.column_names
    assert frame["pair_id"].tolist() == ["log:0", "log:1", "log:2", "log:3"]
    for name in ("score", "total", "rank"):
        np.testing.assert_array_equal(frame[name].to_numpy(), table[name].to_numpy())
    np.testing.assert_array_equal(frame["row_sums"][0], np.array(table["row_sums"][0].as_py(), np.float32))
    assert frame["top"][0][0]["value"] == table["top"][0][0]["value"].as_py()
    assert list(run.to_pandas(["pair_id", "score"]).columns) == ["pair_id", "score"]


def test_a_query_is_a_frame_in_rank_order(run: Run) -> None:
    result = run.query("q1")
    frame = result.to_pandas()
    assert frame[["rank", "document"]].to_numpy().tolist() == [[1, "d3"], [2, "d1"], [3, "d2"]]
    assert frame["relevance"].isna().tolist() == [False, True, False]
    assert str(frame["relevance"].dtype) == str(frame["log_score"].dtype) == "float64"
    for row, document in zip(frame.to_dict("records"), result, strict=True):
        np.testing.assert_array_equal(row["row_sums"], document.row_sums)
        assert [row["text"][span["start"] : span["end"]] for span in row["spans"]] == document.text.split()
        assert [cell["value"] for cell in row["top"]] == [cell.value for cell in document.cells]


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_datasets_gets_every_row_and_column(tmp_path: Path, format: str) -> None:
    """Would catch types that datasets does not take, and values that change on the way."""
    pytest.importorskip("datasets")
    run = open_run(write_run(tmp_path / "run", QUERIES, small_log(), format=format).url)
    found = run.to_datasets()
    assert found.column_names == run.to_table().column_names
    assert set(LOG.names) <= set(found.features)
    assert found.to_list() == run.to_table().to_pylist()
    assert found.filter(lambda row: row["text_a_id"] == "q1").num_rows == 3
    assert run.to_datasets(["pair_id"]).column_names == ["pair_id"]


def test_the_parts_open_with_datasets_as_they_are(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the README says of runs that do not fit into memory."""
    datasets = pytest.importorskip("datasets")
    parts = [str(path) for path in sorted(Path(run.url, "attributions").iterdir())]
    found = datasets.load_dataset("parquet", data_files=parts, split="train", cache_dir=str(tmp_path / "cache"))
    assert found.to_list() == run.to_table().to_pylist()


@pytest.mark.parametrize(("name", "call"), [("pandas", "to_pandas"), ("datasets", "to_datasets")])
def test_a_missing_package_is_told_with_the_extra_that_brings_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, call: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    message = rf"{name} is not installed: install it with pip install 'tokenpair\[export\]'"
    with pytest.raises(ExportError, match=message):
        getattr(run, call)()


def test_reading_a_query_needs_no_optional_package(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch pandas imported where only its types are meant."""
    for name in ("pandas", "datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "rank order" in str(run.query("q1"))
    with pytest.raises(ExportError):
        run.query("q1").to_pandas()
