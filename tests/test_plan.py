"""The plan: every good pair once, expensive texts whole in one shard, the same bytes every time, safe to kill."""

from __future__ import annotations

import hashlib
import json
import random
import statistics
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3_server import S3Server
from test_stores import as_user

from jobs.config.job import JobConfig, parse_job
from jobs.errors import RunError, SourceError, StoreError
from jobs.plan.plan import make_plan
from jobs.plan.sharding import default_shards, text_cost
from jobs.run.manifest import Plan, Shard, load_plan, read_shard
from jobs.storage.store import Store


def job_of(folder: Path, **settings: Any) -> JobConfig:
    return parse_job({"model": "m", "input": str(folder / "in"), "output": str(folder / "run"), **settings})


def planned(folder: Path, **settings: Any) -> tuple[Plan, list[Shard]]:
    job = job_of(folder, **settings)
    run = Store.open(job.output)
    plan = make_plan(job, run)
    assert load_plan(run) == plan
    return plan, [read_shard(run, plan, shard.index) for shard in plan.shards]


def pairs_of(shards: list[Shard]) -> list[dict[str, Any]]:
    return sorted((row for shard in shards for row in shard.pairs.to_pylist()), key=lambda row: row["ordinal"])


def files_of(run: Path) -> dict[str, str]:
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file()
    }


def put(folder: Path, name: str, text: str) -> None:
    (folder / "in").mkdir(exist_ok=True)
    (folder / "in" / name).write_text(text)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of 60 queries with 10 of 200 documents each, in two files of two formats."""
    chance = random.Random(3)
    documents = [f"document {i} " + "word " * chance.randrange(5, 400) for i in range(200)]
    rows = [
        {"q": f"query {q} about things", "d": document, "rank": rank, "note": None if q < 30 else f"n{q}"}
        for q in range(60)
        for rank, document in enumerate(chance.sample(documents, 10))
    ]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.Table.from_pylist(rows[:300]), tmp_path / "in" / "one.parquet", row_group_size=70)
    (tmp_path / "in" / "two.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[300:]))
    return tmp_path


LOG = {"columns": {"a": "q", "b": "d"}, "mode": "retrieval"}


def test_every_pair_is_in_exactly_one_shard(log: Path) -> None:
    plan, shards = planned(log, **LOG, shards=7)
    pairs = pairs_of(shards)
    assert [row["ordinal"] for row in pairs] == list(range(600))
    assert len({row["pair_id"] for row in pairs}) == 600
    assert pairs[0]["pair_id"] == "one.parquet:1"
    assert pairs[-1]["pair_id"] == "two.jsonl:300"
    assert plan.pairs == 600
    assert [shard.pairs for shard in plan.shards] == [len(shard.pairs) for shard in shards]
    assert [shard.texts for shard in plan.shards] == [len(shard.texts) for shard in shards]


def test_every_document_is_in_one_shard_with_all_its_partners(log: Path) -> None:
    _, shards = planned(log, **LOG, shards=7)
    homes = Counter(text for shard in shards for text in set(shard.pairs["text_b_id"].to_pylist()))
    assert set(homes.values()) == {1}
    for shard in shards:
        queries, documents = set(shard.pairs["text_a_id"].to_pylist()), set(shard.pairs["text_b_id"].to_pylist())
        held = {(row["role"], row["text_id"]) for row in shard.texts.to_pylist()}
        assert held == {("query", q) for q in queries} | {("document", d) for d in documents}


def test_every_text_has_one_owner(log: Path) -> None:
    """Two owners would write a text twice, none would lose it."""
    plan, shards = planned(log, **LOG, shards=7)
    owned = Counter((row["role"], row["text_id"]) for s in shards for row in s.texts.to_pylist() if row["owner"])
    held = {(row["role"], row["text_id"]) for s in shards for row in s.texts.to_pylist()}
    assert set(owned) == held
    assert set(owned.values()) == {1}
    assert plan.texts == len(held)


def test_shards_cost_about_the_same(log: Path) -> None:
    plan, _ = planned(log, **LOG, shards=7)
    costs = [shard.cost for shard in plan.shards]
    assert len(costs) == 7
    # No cut can be nearer to the ideal than half a text, and queries are computed in several shards.
    assert max(costs) < 1.2 * sum(costs) / 7 + text_cost(tokens=503, groups=60, width=384)


def test_a_text_id_is_the_hash_of_the_text(log: Path) -> None:
    _, shards = planned(log, **LOG)
    for row in shards[0].texts.to_pylist():
        assert row["text_id"] == hashlib.sha256(row["text"].encode()).hexdigest()[:20]


def test_in_symmetric_mode_both_sides_share_texts(tmp_path: Path) -> None:
    put(tmp_path, "p.csv", "sentence1,sentence2\nx,y\ny,x\nx,x\n")
    plan, shards = planned(tmp_path)
    assert plan.texts == 2
    assert {row["role"] for shard in shards for row in shard.texts.to_pylist()} == {"text"}


def test_in_retrieval_mode_a_text_has_a_role_a_side(tmp_path: Path) -> None:
    put(tmp_path, "p.csv", "sentence1,sentence2\nx,x\n")
    plan, shards = planned(tmp_path, mode="retrieval")
    assert plan.texts == 2
    assert [row["role"] for row in shards[0].texts.to_pylist()] == ["query", "document"]


def test_the_same_input_gives_the_same_bytes(log: Path) -> None:
    """DuckDB's threads finish in any order; a rerun after a crash must find the same parts."""
    seen = []
    for number in range(3):
        job = parse_job({"model": "m", "input": str(log / "in"), "output": str(log / f"run{number}"), **LOG})
        make_plan(job, Store.open(job.output))
        seen.append(files_of(log / f"run{number}"))
    assert seen[0] == seen[1] == seen[2]


def test_a_plan_does_not_depend_on_when_rows_are_flushed(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import jobs.plan.pairs_database

    whole, _ = planned(log, **LOG)
    monkeypatch.setattr(jobs.plan.pairs_database, "FLUSH_ROWS", 50)
    job = parse_job({"model": "m", "input": str(log / "in"), "output": str(log / "again"), **LOG})
    assert make_plan(job, Store.open(job.output)) == whole


def test_pass_through_columns_arrive_with_their_pairs(log: Path) -> None:
    plan, shards = planned(log, **LOG, shards=5)
    assert plan.kept == pa.schema([("rank", pa.int64()), ("note", pa.string())])
    pairs = pairs_of(shards)
    assert [row["rank"] for row in pairs] == [i % 10 for i in range(600)]
    assert [row["note"] for row in pairs] == [None if i < 300 else f"n{i // 10}" for i in range(600)]


def test_types_of_csv_columns_are_told_from_all_their_cells(tmp_path: Path) -> None:
    """A number only where every cell's text comes back the same."""
    put(tmp_path, "a.csv", "sentence1,sentence2,n,f,g,zip,mixed,e\nx,y,1,0.5,0.5,007,1,\nx,z,,1e3,4.0,123,2,\n")
    put(tmp_path, "b.csv", "sentence1,sentence2,n,f,g,zip,mixed,e\nx,w,-3,2,-1.25,9,n/a,\n")
    plan, shards = planned(tmp_path)
    assert dict(zip(plan.kept.names, map(str, plan.kept.types), strict=True)) == {
        "n": "int64",
        "f": "string",
        "g": "double",
        "zip": "string",
        "mixed": "string",
        "e": "string",
    }
    assert [[row[c] for c in ("n", "f", "g", "zip", "mixed", "e")] for row in pairs_of(shards)] == [
        [1, "0.5", 0.5, "007", "1", ""],
        [None, "1e3", 4.0, "123", "2", ""],
        [-3, "2", -1.25, "9", "n/a", ""],
    ]


def test_types_of_several_files_are_promoted(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl", '{"sentence1": "x", "sentence2": "y", "n": 1, "l": [1]}\n')
    put(tmp_path, "b.jsonl", '{"sentence1": "x", "sentence2": "z", "n": 1.5, "only": true}\n')
    plan, shards = planned(tmp_path)
    assert plan.kept == pa.schema([("n", pa.float64()), ("l", pa.string()), ("only", pa.bool_())])
    assert [[row[c] for c in plan.kept.names] for row in pairs_of(shards)] == [[1.0, "[1]", None], [1.5, None, True]]


def test_types_without_a_common_one_name_column_and_files(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl", '{"sentence1": "x", "sentence2": "y", "label": 1}\n')
    put(tmp_path, "b.jsonl", '{"sentence1": "x", "sentence2": "y", "label": "one"}\n')
    with pytest.raises(SourceError, match=r"a\.jsonl and b\.jsonl: column 'label' is int64 .* string"):
        planned(tmp_path)


def test_rich_types_pass_through(tmp_path: Path) -> None:
    import datetime
    import decimal

    values: dict[str, Any] = {
        "u8": pa.array([7], pa.uint8()),
        "f32": pa.array([0.1], pa.float32()),
        "half": pa.array([0.5], pa.float16()),
        "when": pa.array([datetime.datetime(2020, 1, 2, 3, 4, 5, 678901)], pa.timestamp("us")),
        "zone": pa.array([datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)], pa.timestamp("us", "Europe/Berlin")),
        "day": pa.array([datetime.date(2020, 1, 2)]),
        "price": pa.array([decimal.Decimal("1.23")]),
        "raw": pa.array([b"\x00\xff"]),
        "list": pa.array([[1, None, 3]]),
        "nest": pa.array([{"a": [{"b": "c"}]}]),
        "word": pa.array(["x"]).dictionary_encode(),
        "took": pa.array([datetime.timedelta(seconds=1)]),
        "nothing": pa.nulls(1),
    }
    (tmp_path / "in").mkdir()
    table = pa.table({"sentence1": ["x"], "sentence2": ["y"], **values})
    pq.write_table(table, tmp_path / "in" / "p.parquet")
    _, shards = planned(tmp_path)
    got = shards[0].pairs
    assert got.schema.field("u8").type == pa.uint8()
    assert got.schema.field("nest").type == table.schema.field("nest").type
    expected = table.to_pylist()[0]
    row = got.to_pylist()[0]
    for name in values:
        if name != "took":
            assert row[name] == expected[name], name
    assert isinstance(row["took"], str)


def test_names_of_the_output_are_kept_apart(tmp_path: Path) -> None:
    put(tmp_path, "p.csv", "sentence1,sentence2,score,Score,score_input,file,k0,weird \"' name\nx,y,1,2,3,4,5,6\n")
    plan, shards = planned(tmp_path)
    assert plan.kept.names == [
        "score_input",
        "Score_input_2",
        "score_input_input",
        "file_input",
        "k0",
        "weird \"' name",
    ]
    assert list(pairs_of(shards)[0].values())[-6:] == [1, 2, 3, 4, 5, 6]
    assert any("'score' is passed through as 'score_input'" in notice for notice in plan.notices)


def test_kept_columns_can_be_chosen(tmp_path: Path) -> None:
    put(tmp_path, "p.csv", "sentence1,sentence2,a,b\nx,y,1,2\n")
    plan, _ = planned(tmp_path, keep=["b"])
    assert plan.kept.names == ["b"]


def rejects_of(folder: Path, plan: Plan) -> list[dict[str, Any]]:
    table = Store.open(folder / "run").dataset("rejects", "parquet").to_table()
    assert table.num_rows == sum(plan.rejected.values())
    return table.to_pylist()


def test_a_second_row_with_a_given_id_is_turned_away(tmp_path: Path) -> None:
    put(tmp_path, "p.csv", 'id,sentence1,sentence2\n1,x,y\n2,x,"z ""q"""\n1,x,w\n2,v,v\n,x,x\n,x,x\n')
    plan, shards = planned(tmp_path, columns={"id": "id"})
    assert [row["pair_id"] for row in pairs_of(shards)] == ["1", "2", "p.csv:6", "p.csv:7"]
    turned_away = rejects_of(tmp_path, plan)
    assert [(one["pair_id"], one["file"], one["row"]) for one in turned_away] == [("1", "p.csv", 4), ("2", "p.csv", 5)]
    assert json.loads(turned_away[0]["row_text"]) == {"sentence1": "x", "sentence2": "w", "id": "1"}
    assert "w" not in {row["text"] for shard in shards for row in shard.texts.to_pylist()}


def test_equal_rows_without_ids_are_two_pairs_of_one_text(tmp_path: Path) -> None:
    put(tmp_path, "p.csv", "sentence1,sentence2\nx,y\nx,y\n")
    plan, _ = planned(tmp_path)
    assert (plan.pairs, plan.texts) == (2, 2)


def test_a_text_id_given_to_another_text_is_turned_away(tmp_path: Path) -> None:
    put(tmp_path, "p.csv", "qid,q,did,d\n1,x,a,p\n1,x,b,q\n1,other,b,q\n2,x,a,p\n3,z,b,changed\n")
    columns = {"a": "q", "b": "d", "a_id": "qid", "b_id": "did"}
    plan, shards = planned(tmp_path, columns=columns, mode="retrieval")
    assert [(row["text_a_id"], row["text_b_id"]) for row in pairs_of(shards)] == [("1", "a"), ("1", "b"), ("2", "a")]
    assert [one["row"] for one in rejects_of(tmp_path, plan)] == [4, 6]
    assert plan.texts == 4


@pytest.mark.parametrize("limit", [1, 3, 5, 100])
def test_a_limit_takes_the_first_good_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    import jobs.sources.gathering

    monkeypatch.setattr(jobs.sources.gathering, "BATCH_ROWS", 3)
    put(tmp_path, "p.csv", "id,sentence1,sentence2\n1,a,b\n1,c,d\n2,,x\n3,e,f\n4,g,h\n4,i,j\n5,k,l\n6,m,n\n7\n")
    plan, shards = planned(tmp_path, columns={"id": "id"}, limit=limit)
    ids = [row["pair_id"] for row in pairs_of(shards)]
    assert ids == ["1", "3", "4", "5", "6"][:limit]
    last = pairs_of(shards)[-1]["row"]
    if limit <= 5:
        assert all(one["row"] < last for one in (rejects_of(tmp_path, plan) if plan.rejected else []))
    else:
        assert sum(plan.rejected.values()) == 4


def test_an_input_without_one_good_row_says_why(tmp_path: Path) -> None:
    put(tmp_path, "p.csv", "sentence1,sentence2\n,y\nx, \n")
    with pytest.raises(SourceError, match="1 × column 'sentence1' is empty"):
        planned(tmp_path)
    assert load_plan(Store.open(tmp_path / "run")) is None


def test_more_shards_than_texts_are_not_made(tmp_path: Path) -> None:
    put(tmp_path, "p.csv", "sentence1,sentence2\nx,y\nx,z\n")
    plan, _ = planned(tmp_path, shards=50)
    assert len(plan.shards) == 2
    assert any("2 shards instead of 50" in notice for notice in plan.notices)


@pytest.mark.parametrize(
    ("seconds", "pairs", "shards"),
    [(0.0, 1, 1), (6.0, 9, 1), (6.1, 9, 2), (1000.0, 5000, 32), (6000.0, 5000, 100), (1000.0, 10**6, 50)],
)
def test_default_number_of_shards(seconds: float, pairs: int, shards: int) -> None:
    assert default_shards(seconds, pairs) == shards


def test_the_first_shards_are_small_and_cover_the_rows_in_order(tmp_path: Path, rng: random.Random) -> None:
    """The first result of a run waited for a shard as large as all others."""
    sides = ([" ".join(rng.choices(["rain", "red", "ball", "falls"], k=9)) for _ in range(400)] for _ in "ab")
    rows = [f"{a} {n},{b} {n}" for n, (a, b) in enumerate(zip(*sides, strict=True))]
    put(tmp_path, "p.csv", "sentence1,sentence2\n" + "\n".join(rows) + "\n")
    plan, shards = planned(tmp_path)
    costs = [shard.cost for shard in plan.shards]
    usual = statistics.median(costs)
    assert len(costs) > 30
    assert max(costs[:16]) < 0.3 * usual
    assert min(costs[16:]) > 0.7 * usual
    assert sum(costs[:16]) == pytest.approx(2 * usual, rel=0.2)
    ids = [one for shard in shards for one in shard.pairs["pair_id"].to_pylist()]
    assert ids == [f"p.csv:{n + 2}" for n in range(400)]
    asked, _ = planned(tmp_path, shards=20, output=str(tmp_path / "asked"))
    assert len(asked.shards) == 20


def test_a_job_of_few_shards_has_no_small_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of half a second took a third more of a small model's time than whole ones."""
    monkeypatch.setattr("jobs.plan.plan.default_shards", lambda seconds, pairs, most: 5)
    put(tmp_path, "p.csv", "sentence1,sentence2\n" + "\n".join(f"red ball {n},rain {n}" for n in range(100)) + "\n")
    plan, _ = planned(tmp_path)
    assert [shard.pairs for shard in plan.shards] == [20] * 5


class Killed(BaseException):
    """The process ends here."""


def kill_after(run: Store, commits: int) -> None:
    """Let ``run`` write ``commits`` files, and die before the next."""
    left = commits

    def dying(act: Callable[..., Any]) -> Callable[..., Any]:
        def write(*args: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return act(*args)

        return write

    for name in ("commit", "commit_file", "replace"):
        setattr(run, name, dying(getattr(run, name)))


def test_a_planner_killed_between_any_two_files_leaves_no_plan(log: Path) -> None:
    """The next run must plan anew and come to the same files, also where another job's remains lie about."""
    undisturbed = parse_job({"model": "m", "input": str(log / "in"), "output": str(log / "whole"), **LOG})
    make_plan(undisturbed, Store.open(undisturbed.output))
    for commits in range(3):
        place = str(log / f"killed{commits}")
        other = parse_job({"model": "m", "input": str(log / "in"), "output": place, **LOG, "limit": 50, "shards": 3})
        run = Store.open(place)
        kill_after(run, commits)
        with pytest.raises(Killed):
            make_plan(other, run)
        assert load_plan(Store.open(place)) is None
        job = parse_job({"model": "m", "input": str(log / "in"), "output": place, **LOG})
        make_plan(job, Store.open(place))
        whole = files_of(log / "whole")
        assert whole.items() <= files_of(Path(place)).items()


def test_a_second_planner_takes_the_first_ones_plan(log: Path) -> None:
    first, _ = planned(log, **LOG, shards=3)
    second, _ = planned(log, **LOG, shards=5)
    assert second == first


@pytest.mark.parametrize("manifest", [b"", b"{}", b"[1]", b'{"version": 99}', b'{"version": 1, "kept": "x"}', b"\xff"])
def test_a_manifest_that_is_none_is_one_clear_line(tmp_path: Path, manifest: bytes) -> None:
    run = Store.open(tmp_path)
    run.commit("plan/manifest.json", manifest)
    with pytest.raises(RunError):
        load_plan(run)


def test_damaged_or_missing_plan_files_are_one_clear_line(log: Path) -> None:
    plan, _ = planned(log, **LOG)
    run = Store.open(log / "run")
    with pytest.raises(RunError, match="has no shard 999"):
        read_shard(run, plan, 999)
    (log / "run" / plan.texts_file).write_bytes(b"junk" * 100)
    fresh = load_plan(run)
    assert fresh is not None
    with pytest.raises(RunError, match="damaged"):
        read_shard(run, fresh, 0)
    run.remove(plan.pairs_file)
    with pytest.raises(StoreError):
        read_shard(run, fresh, 0)


def test_a_plan_in_a_bucket_equals_the_local_one(s3: S3Server, monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
    local, shards = planned(log, **LOG, shards=4)
    as_user(monkeypatch, s3.admin)
    place = f"s3://{s3.bucket}/{uuid.uuid4().hex}"
    job = parse_job({"model": "m", "input": str(log / "in"), "output": place, **LOG, "shards": 4})
    run = Store.open(place)
    assert make_plan(job, run) == local
    assert read_shard(run, local, 2).pairs.equals(shards[2].pairs)
    assert read_shard(run, local, 2).texts.equals(shards[2].texts)
