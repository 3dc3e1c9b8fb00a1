"""The result on disk: what was attributed is read back, by us and by others, and a kill never leaves half a shard."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from row_tables import attribution_row, attribution_table, summarise, text_row, text_table
from s3_server import S3Server
from test_plan import Killed, kill_after
from test_stores import as_user

from attribution_core.results import ExplainedText, PairAttribution
from attribution_core.text.grouping import Groups
from jobs.config.job import parse_job
from jobs.errors import RunError
from jobs.plan.plan import make_plan
from jobs.run.manifest import Plan, read_shard
from jobs.run.reader import open_run
from jobs.run.tables import attribution_schema, commit_shard, finished_shards, reject_schema, reject_table, text_schema
from jobs.storage.store import Store

KEPT = pa.schema([("label", pa.int64()), ("note", pa.string())])
TOP_K = 3


def explained(text: str, role: str = "text") -> ExplainedText:
    """``text`` as a model of one token a word would have read it."""
    words = text.split()
    starts, at = [], 0
    for word in words:
        starts.append(text.index(word, at))
        at = starts[-1] + len(word)
    groups = Groups(
        unit="word",
        labels=("[CLS]", *words),
        starts=(0, *starts),
        ends=(0, *(start + len(word) for start, word in zip(starts, words, strict=True))),
        kinds=("special", *(("text",) * len(words))),
        of_token=tuple(range(len(words) + 1)),
    )
    cut = len(text) > 20
    return ExplainedText(text, role, groups, groups.labels, "", cut, 20 if cut else None, 8, 1e-3, not cut, "forward")


def attributed(a: str, b: str, seed: int = 0) -> PairAttribution:
    """A made-up attribution of two texts."""
    left, right = explained(a), explained(b)
    matrix = np.random.default_rng(seed).normal(size=(len(left.groups), len(right.groups))).astype(np.float32)
    sums = matrix.sum(1), matrix.sum(0)
    return PairAttribution(left, right, matrix, *sums, 0.5, 0.1, 0.2, 0.3, float(matrix.sum()), 1e-4)


def planned(folder: Path, place: str, **settings: Any) -> tuple[Store, Plan]:
    """A run of six planned pairs and one planned reject, with its job.yaml."""
    rows = [
        ("1", "a dog barks", "the dog", 1, "x"),
        ("2", "a dog barks", "a cat", 2, ""),
        ("3", "tea ☕ time", "the dog", 3, "z"),
        ("4", "a very long text that is cut", "naïve", 4, "x"),
        ("5", "tea ☕ time", "a cat", 5, "x"),
        ("6", "x y z", "a cat", 6, "x"),
        ("7", "", "a cat", 7, "x"),
    ]
    text = "".join(",".join(map(str, row)) + "\n" for row in rows)
    (folder / "pairs.csv").write_text("id,sentence1,sentence2,label,note\n" + text)
    job = parse_job(
        {
            "model": "some/model",
            "input": str(folder / "pairs.csv"),
            "output": place,
            "columns": {"id": "id"},
            "shards": 3,
            "top_k": TOP_K,
            **settings,
        }
    )
    run = Store.open(job.output, job.storage)
    plan = make_plan(job, run)
    record = job.model_dump(mode="json") | {"run": {"layer": 4, "similarity": "cosine"}}
    run.commit("job.yaml", yaml.safe_dump(record).encode())
    return run, plan


def parts_of(run: Store, plan: Plan, index: int, store: str = "top") -> tuple[pa.Table, pa.Table, pa.Table]:
    """What a worker makes of a shard: its attributions, texts and rejects."""
    shard = read_shard(run, plan, index)
    by_id = {row["text_id"]: row for row in shard.texts.to_pylist()}
    rows = []
    for pair in shard.pairs.to_pylist():
        done = attributed(by_id[pair["text_a_id"]]["text"], by_id[pair["text_b_id"]]["text"], pair["ordinal"])
        ids = {name: pair[name] for name in ("pair_id", "text_a_id", "text_b_id")}
        rows.append(attribution_row(done, summarise(done, TOP_K), store=store, **ids))
    texts = [text_row(explained(row["text"]), key) for key, row in by_id.items() if row["owner"]]
    kept = shard.pairs.select(plan.kept.names)
    return attribution_table(rows, kept, store), text_table(texts), reject_table([])


def whole_run(folder: Path, place: str, **settings: Any) -> Store:
    run, plan = planned(folder, place, **settings)
    for shard in plan.shards:
        parts = parts_of(run, plan, shard.index, settings.get("store", "top"))
        assert commit_shard(run, shard.index, *parts, settings.get("format", "parquet"))
    run.commit("_SUCCESS", b"")
    return run


@pytest.fixture(params=["parquet", "arrow"])
def format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_attribution_columns_are_those_of_the_design() -> None:
    assert attribution_schema("full", KEPT).names == [
        *("pair_id", "text_a_id", "text_b_id"),
        *("score", "reference_a", "reference_b", "reference_ab", "total", "error"),
        *("positive", "negative", "special", "exact", "rows", "cols", "row_sums", "col_sums"),
        *("row_lift", "col_lift", "largest", "top"),
        *("matrix", "matrix_scale", "label", "note"),
    ]
    cell = attribution_schema().field("top").type.value_type
    assert {cell.field(i).name: str(cell.field(i).type) for i in range(5)} == {
        "i": "uint16",
        "j": "uint16",
        "a": "string",
        "b": "string",
        "value": "float",
    }


def test_a_run_opens_with_pyarrow_duckdb_and_pandas(tmp_path: Path, format: str) -> None:
    import duckdb
    import pandas as pd
    import pyarrow.dataset as ds

    whole_run(tmp_path, str(tmp_path / "run"), store="full", format=format)
    table = ds.dataset(tmp_path / "run" / "attributions", format=format).to_table()
    assert sorted(table["pair_id"].to_pylist()) == ["1", "2", "3", "4", "5", "6"]
    assert table.schema == attribution_schema("full", KEPT)
    con = duckdb.connect()
    if format == "parquet":
        source = f"'{tmp_path}/run/attributions/*.parquet'"
        frame = pd.read_parquet(tmp_path / "run" / "attributions")
    else:
        # DuckDB reads half floats from Parquet, but not from Arrow: there the matrix is left to pyarrow.
        con.register("parts", table.drop_columns("matrix"))
        source = "parts"
        frame = pd.concat([pd.read_feather(p) for p in sorted((tmp_path / "run" / "attributions").iterdir())])
    found = con.execute(f"SELECT sum(label), max(len(top)), max(top[1].value) FROM {source}").fetchall()[0]
    strongest = max(row[0]["value"] for row in table["top"].to_pylist())
    assert found == (21, TOP_K, pytest.approx(strongest))
    if format == "parquet":
        assert con.execute(f"SELECT sum(len(matrix)) = sum(rows * cols) FROM {source}").fetchall() == [(True,)]
    assert frame["label"].sum() == 21
    assert set(frame.columns) == set(table.column_names)


@pytest.mark.parametrize("store", ["top", "full"])
def test_a_pair_is_read_back(tmp_path: Path, format: str, store: str) -> None:
    run = open_run(whole_run(tmp_path, str(tmp_path / "run"), store=store, format=format).url)
    expected = attributed("tea ☕ time", "the dog", 2)
    pair = run.pair("3")
    assert pair.a.text == "tea ☕ time"
    assert pair.b.groups.labels == ("[CLS]", "the", "dog")
    assert (pair.a.groups.starts, pair.a.groups.ends) == (expected.a.groups.starts, expected.a.groups.ends)
    assert pair.a.groups.kinds == expected.a.groups.kinds
    assert pair.a.tokens == expected.a.tokens
    np.testing.assert_array_equal(pair.row_sums, expected.row_sums)
    np.testing.assert_array_equal(pair.col_sums, expected.col_sums)
    assert (pair.score, pair.error) == (0.5, pytest.approx(1e-4))
    assert (pair.layer, pair.similarity, pair.model) == (4, "cosine", "some/model")
    assert pair.extra == {"label": 3, "note": "z"}
    if store == "full":
        np.testing.assert_allclose(pair.matrix, expected.matrix, atol=1e-3 * np.abs(expected.matrix).max())
        assert pair.complete
    else:
        known = ~np.isnan(pair.matrix)
        assert known.sum() == TOP_K
        np.testing.assert_array_equal(pair.matrix[known], expected.matrix[known])
        assert pair.top(TOP_K) == expected.top(TOP_K)


def test_a_cut_text_is_marked(tmp_path: Path) -> None:
    run = open_run(whole_run(tmp_path, str(tmp_path / "run")).url)
    pair = run.pair("4")
    assert (pair.a.truncated, pair.a.cut_at, pair.a.converged) == (True, 20, False)
    assert (pair.b.truncated, pair.b.cut_at) == (False, None)


def test_every_text_is_there_once(tmp_path: Path, format: str) -> None:
    run = open_run(whole_run(tmp_path, str(tmp_path / "run"), format=format).url)
    texts = run.texts()
    assert texts.schema == text_schema()
    assert sorted(texts["text"].to_pylist()) == sorted(
        ["a dog barks", "tea ☕ time", "a very long text that is cut", "x y z", "the dog", "a cat", "naïve"]
    )


def test_rejects_of_the_plan_and_of_the_shards_are_one_table(tmp_path: Path, format: str) -> None:
    run, plan = planned(tmp_path, str(tmp_path / "run"), format=format)
    rows, texts, _ = parts_of(run, plan, 0)
    reject = {"pair_id": "1", "file": "pairs.csv", "row": 2, "reason": "no token to attribute", "row_text": "{}"}
    commit_shard(run, 0, rows.slice(1), texts, reject_table([reject]), format)
    found = open_run(run.url)
    assert found.rejects().schema == reject_schema()
    assert {(one["pair_id"], one["reason"]) for one in found.rejects().to_pylist()} == {
        ("7", "column 'sentence1' is empty"),
        ("1", "no token to attribute"),
    }
    with pytest.raises(RunError, match=r"'1' was rejected: no token to attribute \(pairs.csv, row 2\)"):
        found.pair("1")


def test_a_shard_of_which_no_row_is_left_is_still_finished(tmp_path: Path, format: str) -> None:
    run, plan = planned(tmp_path, str(tmp_path / "run"), format=format)
    empty = attribution_table([], plan.kept.empty_table())
    commit_shard(run, 0, empty, text_table([]), reject_table([]), format)
    assert finished_shards(run) == {0}
    assert open_run(run.url).to_table().schema == attribution_schema("top", plan.kept)


def test_a_worker_killed_between_any_two_files_leaves_no_finished_shard(tmp_path: Path, format: str) -> None:
    """`attributions` is written last; before it the shard is not done, after the rerun it is whole."""
    run, plan = planned(tmp_path, str(tmp_path / "run"), format=format)
    table, texts, _ = parts_of(run, plan, 0)
    rejects = reject_table([{"pair_id": "x", "file": "f", "row": 1, "reason": "r", "row_text": "t"}])
    for commits in range(3):
        dying = Store.open(run.url)
        kill_after(dying, commits)
        with pytest.raises(Killed):
            commit_shard(dying, 0, table, texts, rejects, format)
        assert finished_shards(run) == set()
    assert commit_shard(run, 0, table, texts, rejects, format)
    assert finished_shards(run) == {0}
    assert open_run(run.url).to_table().num_rows == len(table)
    assert not commit_shard(run, 0, table.slice(0, 0), texts, rejects, format)
    assert open_run(run.url).to_table().num_rows == len(table)


def test_an_unfinished_run_shows_what_is_there(tmp_path: Path) -> None:
    run, plan = planned(tmp_path, str(tmp_path / "run"))
    opened = open_run(run.url)
    assert not opened.finished
    assert opened.finished_shards() == set()
    assert opened.to_table().schema == attribution_schema("top", plan.kept)
    with pytest.raises(RunError, match="no pair '1'; the run is not finished"):
        opened.pair("1")
    last = plan.shards[-1].index
    commit_shard(run, last, *parts_of(run, plan, last))
    assert opened.finished_shards() == {last}
    assert opened.to_table().num_rows == plan.shards[-1].pairs


def test_columns_can_be_chosen(tmp_path: Path) -> None:
    run = open_run(whole_run(tmp_path, str(tmp_path / "run")).url)
    assert run.to_table(["pair_id", "label"]).column_names == ["pair_id", "label"]
    with pytest.raises(RunError, match="no column 'nope'; the columns are pair_id"):
        run.to_table(["nope"])


def test_questions_that_have_no_answer_are_one_clear_line(tmp_path: Path) -> None:
    run = open_run(whole_run(tmp_path, str(tmp_path / "run")).url)
    with pytest.raises(RunError, match=r"there is no pair '99'$"):
        run.pair("99")
    with pytest.raises(RunError, match="is not a run of tokenpair"):
        open_run(tmp_path / "elsewhere")
    (tmp_path / "run" / "attributions" / "part-00001.parquet").write_bytes(b"junk")
    with pytest.raises(RunError, match="damaged"):
        run.to_table()


def test_a_run_in_a_bucket_is_read_back(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, format: str
) -> None:
    as_user(monkeypatch, s3.admin)
    place = f"s3://{s3.bucket}/{uuid.uuid4().hex}"
    whole_run(tmp_path, place, format=format)
    run = open_run(place)
    assert run.finished
    assert run.to_table(["pair_id"]).num_rows == 6
    assert run.pair("5").b.text == "a cat"
    assert run.texts().num_rows == 7
    assert run.rejects().num_rows == 1
    as_user(monkeypatch, s3.read_only)
    assert open_run(place).pair("5").a.text == "tea ☕ time"
