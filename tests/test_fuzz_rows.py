"""Fuzzed rows of every format: each ends in a pair, in ``rejects``, or the command in a one-line error."""

from __future__ import annotations

import csv
import io
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzzing import fuzzed, nowhere, odd_value, tell
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import TinyModels

from attribution_core.errors import TokenpairError
from jobs.config.job import parse_job
from jobs.engine.shard_rows import ShardComputer
from jobs.engine.worker import Worker
from jobs.plan.plan import make_plan
from jobs.run.reader import open_run
from jobs.storage.store import Store

__all__ = ["nowhere"]

pytestmark = pytest.mark.usefixtures("nowhere")

TEXTS = [
    "a dog",
    "rain falls",
    "red ball",
    "where is the station",
    "",
    " ",
    "\u200b",
    "x" * 300,
    "naïve ☕",
    "\ud800",
    "a\x00b",
]
cell = st.sampled_from(TEXTS) | st.text(max_size=20)


@pytest.fixture(scope="module")
def model(tiny: TinyModels) -> Path:
    return tiny.folder("bert")


@pytest.fixture(scope="module")
def loaded(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    """A worker with its model, whose run directory is of no interest."""
    folder = tmp_path_factory.mktemp("loaded")
    worker = Worker(_settings(model, "x", folder), str(folder), 1, "cpu")
    worker.load()
    return worker


def _settings(model: Path, source: str | Path, output: Path, **more: Any) -> dict[str, Any]:
    where = {"input": str(source)} if "log" not in more else {}
    return {"model": str(model), "output": str(output), "quadrature": {"nodes": 2}, "memory": "64MiB", **where, **more}


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tokenpair-fuzz-") as name:
        yield Path(name)


def _file(name: str, content: bytes) -> tempfile.TemporaryDirectory[str]:
    room = tempfile.TemporaryDirectory(prefix="tokenpair-fuzz-")
    (Path(room.name) / name).write_bytes(content)
    return room


def _plan(model: Path, name: str, content: bytes, *flags: str) -> None:
    with _file(name, content) as room:
        tell("plan", "--model", model, "--input", Path(room) / name, "--output", Path(room) / "run", *flags)


def _separated(rows: list[list[str]], separator: str, chance: random.Random) -> bytes:
    """Rows as CSV or TSV, with a slip of some kind now and then."""
    sink = io.StringIO()
    csv.writer(sink, delimiter=separator, quoting=chance.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])).writerows(rows)
    data = sink.getvalue().encode("utf-8", "surrogatepass")
    return _slips(data, chance)


def _slips(data: bytes, chance: random.Random) -> bytes:
    """``data`` with bytes lost, put in or cut off; as often as not as it was."""
    for _ in range(chance.choice([0, 0, 0, 1, 2, 5])):
        at = chance.randrange(len(data) + 1)
        piece = chance.choice(
            [b'"', b"\xff", b"\x00", b"\n", b"\r", b"\t", b",", b"", b"\xef\xbb\xbf", b"\\", b"{", b"'"]
        )
        data = data[:at] + piece + data[at + chance.choice([0, 1, 3]) :]
    return data[: chance.randrange(len(data) + 1)] if chance.random() < 0.05 else data


@fuzzed(0.06)
@given(st.lists(st.lists(cell, max_size=4), max_size=8), st.sampled_from(["csv", "tsv"]), st.booleans(), st.integers(0))
def test_any_table_of_text_is_planned_or_refused(
    model: Path, rows: list[list[str]], kind: str, header: bool, number: int
) -> None:
    chance = random.Random(number)
    rows = [["sentence1", "sentence2"], *rows, ["a dog", "rain"]] if header else rows
    flags = [] if chance.random() < 0.8 else ["--no-header"]
    _plan(model, f"in.{kind}", _separated(rows, "," if kind == "csv" else "\t", chance), *flags)


@fuzzed(0.06)
@given(
    st.lists(st.dictionaries(st.sampled_from(["sentence1", "sentence2", "id", "top"]) | cell, odd_value), max_size=8),
    st.integers(0),
)
def test_any_jsonl_is_planned_or_refused(model: Path, rows: list[dict[str, Any]], number: int) -> None:
    chance = random.Random(number)
    # A good row at the end, or there is seldom anything to plan.
    rows = [*rows, {"sentence1": "a dog", "sentence2": "rain"}]
    lines = [json.dumps(row, default=str, ensure_ascii=chance.random() < 0.5) for row in rows]
    _plan(model, "in.jsonl", _slips("\n".join(lines).encode("utf-8", "surrogatepass"), chance))


_flat: list[pa.DataType] = [
    pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.int8(), pa.uint64(), pa.float16(), pa.float64(),
    pa.bool_(), pa.null(), pa.date32(), pa.timestamp("ns", "UTC"), pa.time64("us"), pa.duration("s"),
    pa.decimal128(38, 10), pa.dictionary(pa.int32(), pa.string()), pa.binary(3),
]  # fmt: skip
_nested: list[pa.DataType] = [
    pa.list_(pa.string()), pa.large_list(pa.list_(pa.int8())), pa.list_(pa.float32(), 2),
    pa.struct([("x", pa.string()), ("x", pa.null())]), pa.struct([]), pa.map_(pa.string(), pa.int64()),
]  # fmt: skip
arrow_types = st.sampled_from([*_flat, *_flat, *_nested])


def _column(type: pa.DataType, rows: int, chance: random.Random) -> pa.Array:
    """Values of a type, some of them null; all null where Arrow cannot make them from these."""
    candidates: list[Any] = ["a dog", "rain", "", b"abc", 1, -1, 0.5, float("nan"), True, None]
    values = [chance.choice(candidates) for _ in range(rows)]
    if pa.types.is_nested(type):
        some = [None, [("a", 1)]] if pa.types.is_map(type) else [None, [], {}, [None]]
        values = [chance.choice(some) for _ in range(rows)]
    made = []
    for value in values:
        try:
            made.append(pa.scalar(value, type).as_py())
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            made.append(None)
    try:
        return pa.array(made, type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return pa.array([None] * rows, type)


@fuzzed(0.06)
@given(
    st.lists(st.tuples(st.sampled_from(["sentence1", "sentence2", "label", "score", ""]), arrow_types), max_size=4),
    st.integers(0, 6),
    st.sampled_from(["parquet", "arrow", "arrows"]),
    st.integers(0),
)
def test_any_columnar_file_is_planned_or_refused(
    model: Path, columns: list[tuple[str, pa.DataType]], rows: int, kind: str, number: int
) -> None:
    chance = random.Random(number)
    if chance.random() < 0.7:
        columns = [("sentence1", pa.string()), ("sentence2", pa.string()), *columns]
    made = [_column(type, rows, chance) for _, type in columns]
    if chance.random() < 0.6 and len(columns) > 1 and columns[0][1] == columns[1][1] == pa.string():
        made[:2] = [pa.array([*one.to_pylist()[1:], "a dog"][:rows], pa.string()) for one in made[:2]]
    table = pa.table(made, names=[name for name, _ in columns])
    sink = io.BytesIO()
    try:
        if kind == "parquet":
            pq.write_table(table, sink)
        else:
            with (pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream)(sink, table.schema) as writer:
                writer.write_table(table)
    except pa.ArrowException:
        return  # a table that the format cannot hold
    data = sink.getvalue()
    _plan(model, f"in.{kind}", data if chance.random() < 0.6 else _slips(data, chance))


QUERIES = b'{"_id": "q1", "text": "a dog"}\n{"_id": "q2", "text": "rain"}\n{"_id": "", "text": "x"}\n'
CORPUS = b'{"_id": "d1", "title": "red", "text": "ball"}\n{"_id": "d2", "text": ""}\n{"_id": "d3", "text": "heat"}\n'
ids = st.sampled_from(["q1", "q2", "d1", "d2", "d3", "q1:d1", "%", "0", "é", "", '"']) | st.text(max_size=5)
numbers = st.sampled_from(["1", "0.5", "-3", "nan", "inf", "1e999", "x", "", "0x1", "9" * 400]) | st.floats().map(repr)


def _log(model: Path, files: dict[str, bytes], *flags: str) -> None:
    with tempfile.TemporaryDirectory(prefix="tokenpair-fuzz-") as room:
        for name, content in files.items():
            (Path(room) / name).write_bytes(content)
        places = {"log": "run", "queries": "queries.jsonl", "corpus": "corpus.jsonl", "qrels": "qrels"}
        words = [word for name, file in places.items() if file in files for word in (f"--{name}", Path(room) / file)]
        tell("plan", "--model", model, *words, "--output", Path(room) / "out", *flags)


@fuzzed(0.05)
@given(st.lists(st.tuples(ids, ids, ids, numbers, numbers, ids), max_size=8), st.integers(0))
def test_any_run_and_judgments_are_planned_or_refused(model: Path, rows: list[tuple[str, ...]], number: int) -> None:
    chance = random.Random(number)
    separator = chance.choice([" ", "\t", "  "])
    wanted = chance.choice([(0, 1, 2, 3, 4, 5), (0, 2, 3), (0, 1, 2, 3)])
    lines = [separator.join(row[n] for n in wanted) for row in [*rows, ("q1", "Q0", "d1", "1", "0.5", "t")]]
    data = _slips("\n".join(lines).encode("utf-8", "surrogatepass"), chance)
    judged = _slips(b"query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td3\t-1\nq1\td1\t2\n", chance)
    files = {"run": data, "queries.jsonl": QUERIES, "corpus.jsonl": CORPUS, "qrels": judged}
    if chance.random() < 0.3:
        files |= {"queries.jsonl": _slips(QUERIES, chance), "corpus.jsonl": _slips(CORPUS, chance)}
    _log(model, files, "--max-rejects", "1", *(["--depth", "1"] if chance.random() < 0.3 else []))


@fuzzed(0.03)
@given(
    st.recursive(
        st.none() | st.floats() | ids | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["query_id", "results", "corpus_id", "score", "query"]) | ids, inner, max_size=3
            )
        ),
        max_leaves=12,
    ),
    st.booleans(),
    st.integers(0),
)
def test_any_predictions_are_planned_or_refused(model: Path, value: Any, whole: bool, number: int) -> None:
    chance = random.Random(number)
    good: Any = {"query_id": "q1", "query": "a dog", "results": [{"corpus_id": "d1", "score": 0.5}, value]}
    if whole:
        good = {"mteb_model_meta": {}, "default": {"test": {"q1": {"d1": 0.5}, "q2": value}}}
    data = _slips("\n".join(json.dumps(one) for one in (good, value)[: 1 if whole else 2]).encode(), chance)
    files = {"run": data, "queries.jsonl": QUERIES, "corpus.jsonl": CORPUS}
    _log(model, files, "--max-rejects", "1")


@fuzzed(0.04)
@given(st.lists(st.tuples(cell, cell), min_size=1, max_size=6), st.sampled_from(["top", "full"]), st.integers(0))
def test_any_row_ends_in_a_result_or_a_reject(
    loaded: Worker, model: Path, rows: list[tuple[str, str]], store: str, number: int
) -> None:
    """Right through a worker: what goes in comes out, once, in one of two places."""
    import numpy as np

    chance = random.Random(number)
    lines = [json.dumps({"sentence1": a, "sentence2": b, "n": n}) for n, (a, b) in enumerate(rows)]
    with _file("in.jsonl", ("\n".join(lines) + "\n").encode()) as room:
        output = Path(room) / "run"
        settings = _settings(
            model, Path(room) / "in.jsonl", output, store=store, shards=chance.choice([1, 2]), keep=["n"]
        )
        run = Store.open(output)
        if not any(_readable(a) and _readable(b) for a, b in rows):
            with pytest.raises(TokenpairError, match="no row of the input can be attributed"):
                make_plan(parse_job(settings), run)
            return
        plan = make_plan(parse_job(settings), run)
        worker = Worker(settings, run.url, 1, "cpu")
        assert loaded._attributor is not None
        worker._computer, worker._store = ShardComputer(worker._job, loaded._attributor), run
        for shard in plan.shards:
            worker.run_shard(shard.index)
        written = open_run(output)
        table, rejects = written.to_table(), written.rejects()
    numbers = [int(name.rpartition(":")[2]) for name in table["pair_id"].to_pylist()]
    assert sorted([*numbers, *rejects["row"].to_pylist()]) == list(range(1, len(rows) + 1))
    for name in ("score", "total", "error"):
        assert np.isfinite(table[name].to_numpy()).all(), name
    assert all(rejects["reason"].to_pylist())


def _readable(text: str) -> bool:
    """Whether there is something in a text, and all of it is Unicode."""
    return bool(text.strip()) and not any("\ud800" <= one <= "\udfff" for one in text)
