"""What several shards ask of a worker at once: computed together, equal to each alone, and failing alone."""

from __future__ import annotations

import csv
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_models import TinyModels, random_text

from attribution_core import Attributor
from attribution_core.contribution_cache import ContributionCache
from jobs.config.job import parse_job
from jobs.engine.pipeline import Attributed, Pipeline
from jobs.engine.shard_rows import ShardComputer
from jobs.engine.worker import Worker
from jobs.plan.plan import make_plan
from jobs.storage.store import Store

SECONDS = 60


class Held:
    """The device: the first call waits until it is let go, so that further requests queue up behind it."""

    def __init__(self, attributor: Attributor) -> None:
        self.sizes: list[int] = []
        self.began, self.let_go = threading.Event(), threading.Event()
        self.broken = ""
        known = attributor.known

        def held(texts: Any, edges: Any, cache: Any = None, given: Any = None) -> Any:
            self.sizes.append(len(edges))
            self.began.set()
            assert self.let_go.wait(SECONDS)
            if self.broken and any(text.text == self.broken for text in texts):
                raise ArithmeticError("this text cannot be computed")
            return known(texts, edges, cache, given)

        attributor.known = held  # type: ignore[method-assign]


@pytest.fixture
def attributor(tiny: TinyModels) -> Attributor:
    return Attributor(tiny.load("bert"), layer=1, nodes=4)


def asked(attributor: Attributor, pipeline: Pipeline, texts: list[str], pool: ThreadPoolExecutor) -> Any:
    """A request for every pair of neighbouring texts, from a thread of its own."""
    read = attributor.read(texts, "text")
    edges = np.array([(at, at + 1) for at in range(len(texts) - 1)], np.int64)
    ids = pa.table(
        {name: [f"{name}{at}" for at in range(len(edges))] for name in ("pair_id", "text_a_id", "text_b_id")}
    )
    return pool.submit(pipeline.attribute, read, edges, ids)


def until_waiting(pipeline: Pipeline, requests: int) -> None:
    """Until so many requests wait for the device."""
    end = time.monotonic() + SECONDS
    while pipeline.waiting < requests:
        assert time.monotonic() < end, "requests do not arrive"
        time.sleep(0.01)


def rows(done: Attributed) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = done.table.to_pylist()
    return found


def test_what_waits_is_computed_together_and_equals_each_alone(attributor: Attributor, rng: random.Random) -> None:
    """Would catch rows of one shard in another's part, a shared text numbered twice, and one request a call."""
    shared = random_text(rng, 6)
    wanted = [[random_text(rng, 3 + n), shared, *(random_text(rng, 5) for _ in range(n))] for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        single = Pipeline(attributor, ContributionCache(0), 5, "full")
        expected = [rows(asked(attributor, single, texts, pool).result(SECONDS)) for texts in wanted]
        single.close()
        held = Held(attributor)
        pipeline = Pipeline(attributor, ContributionCache(0), 5, "full")
        first = asked(attributor, pipeline, wanted[0], pool)
        assert held.began.wait(SECONDS)
        others = []
        for texts in wanted[1:]:
            others.append(asked(attributor, pipeline, texts, pool))
        until_waiting(pipeline, len(others))
        held.let_go.set()
        found = [rows(one.result(SECONDS)) for one in (first, *others)]
        pipeline.close()
    assert held.sizes == [1, 2 + 3 + 4]
    for own, alone in zip(found, expected, strict=True):
        assert [row["pair_id"] for row in own] == [row["pair_id"] for row in alone]
        for row, other in zip(own, alone, strict=True):
            assert [(cell["a"], cell["b"]) for cell in row["top"]] == [(cell["a"], cell["b"]) for cell in other["top"]]
            np.testing.assert_allclose(row["row_sums"], other["row_sums"], rtol=0, atol=1e-6)
            assert row["total"] == pytest.approx(other["total"], abs=1e-6)


def test_a_request_that_fails_fails_alone(attributor: Attributor, rng: random.Random) -> None:
    """Would catch good shards that fail for a bad one's reason, and a thread that dies with it: all would wait."""
    texts = [[random_text(rng, 4) + f" {n} {at}" for at in range(3)] for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        held = Held(attributor)
        held.broken = texts[2][1]
        pipeline = Pipeline(attributor, ContributionCache(0), 5, "top")
        requests = [asked(attributor, pipeline, texts[0], pool)]
        assert held.began.wait(SECONDS)
        requests += [asked(attributor, pipeline, own, pool) for own in texts[1:]]
        until_waiting(pipeline, 3)
        held.let_go.set()
        with pytest.raises(ArithmeticError, match="cannot be computed"):
            requests.pop(2).result(SECONDS)
        assert [len(one.result(SECONDS).table) for one in requests] == [2, 2, 2]
        assert len(asked(attributor, pipeline, texts[3], pool).result(SECONDS).table) == 2
        pipeline.close()


def test_a_failure_behind_the_device_is_its_requests(attributor: Attributor, monkeypatch: Any) -> None:
    """Would catch a thread that makes tables and ends in silence."""
    pipeline = Pipeline(attributor, ContributionCache(0), 5, "top")
    with ThreadPoolExecutor(1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(attributor, "columns", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                asked(attributor, pipeline, ["rain falls", "red ball"], pool).result(SECONDS)
        assert len(asked(attributor, pipeline, ["rain falls", "red ball"], pool).result(SECONDS).table) == 1
    pipeline.close()


def test_tables_of_one_request_that_fail_fail_no_other(
    attributor: Attributor, rng: random.Random, monkeypatch: Any
) -> None:
    """Would catch good shards that are charged with what another's pairs did behind the device."""
    texts = [[random_text(rng, 4) + f" {n} {at}" for at in range(3)] for n in range(3)]
    columns = attributor.columns

    def failing(known: Any, *arguments: Any, **named: Any) -> Any:
        if any(one.text.text == texts[1][0] for one in known):
            raise ArithmeticError("these pairs cannot be computed")
        return columns(known, *arguments, **named)

    monkeypatch.setattr(attributor, "columns", failing)
    with ThreadPoolExecutor(3) as pool:
        held = Held(attributor)
        pipeline = Pipeline(attributor, ContributionCache(0), 5, "top")
        requests = [asked(attributor, pipeline, texts[2], pool)]
        assert held.began.wait(SECONDS)
        requests += [asked(attributor, pipeline, own, pool) for own in texts[:2]]
        until_waiting(pipeline, 2)
        held.let_go.set()
        assert [len(one.result(SECONDS).table) for one in requests[:2]] == [2, 2]
        with pytest.raises(ArithmeticError, match="cannot be computed"):
            requests[2].result(SECONDS)
        pipeline.close()


def test_shards_at_once_write_what_shards_in_turn_write(tmp_path: Path, tiny: TinyModels, rng: random.Random) -> None:
    """The same rows in the same order, whoever was computed with whom; texts and rejects too."""
    words = [random_text(rng, rng.choice((2, 5, 12))) for _ in range(40)]
    pairs = [[rng.choice(words), rng.choice([*words, "\u200b"])] for _ in range(120)]
    with open(tmp_path / "pairs.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["sentence1", "sentence2"], *pairs])
    tables: list[dict[str, pa.Table]] = []
    for name, threads in (("turn", 1), ("once", 3)):
        settings = {"model": str(tiny.folder("bert")), "input": str(tmp_path / "pairs.csv"), "shards": 8}
        job = parse_job(settings | {"output": str(tmp_path / name), "quadrature": {"nodes": 4}})
        plan = make_plan(job, Store.open(job.output))
        worker = Worker(job.model_dump(mode="json"), job.output, 1, "cpu", plan.pairs_file)
        worker.load()
        with ThreadPoolExecutor(threads) as pool:
            reports = list(pool.map(worker.run_shard, range(len(plan.shards))))
        worker.close()
        assert sum(report.pairs for report in reports) + sum(sum(r.rejected.values()) for r in reports) == 120
        tables.append(
            {folder: pq.read_table(tmp_path / name / folder) for folder in ("attributions", "texts", "rejects")}
        )
    turn, once = tables
    assert once["rejects"].equals(turn["rejects"])
    for folder, keys in (
        ("attributions", ["pair_id", "text_a_id", "rows"]),
        ("texts", ["text_id", "groups", "tokens"]),
    ):
        assert once[folder].select(keys).equals(turn[folder].select(keys))
    for name in ("score", "total", "positive", "special", "exact"):
        np.testing.assert_allclose(once["attributions"][name], turn["attributions"][name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("store", ["top", "full"])
def test_a_shard_within_little_memory_is_cut_into_slices(
    tmp_path: Path, tiny: TinyModels, rng: random.Random, monkeypatch: Any, store: str
) -> None:
    """Would catch a shard whose contributions all wait at once, and rows lost at the borders of slices."""
    pairs = [[random_text(rng, 8), random_text(rng, 8)] for _ in range(30)]
    with open(tmp_path / "pairs.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["sentence1", "sentence2"], *pairs])
    settings = {"model": str(tiny.folder("bert")), "input": str(tmp_path / "pairs.csv"), "shards": 1, "store": store}
    job = parse_job(settings | {"output": str(tmp_path / "run"), "quadrature": {"nodes": 2}, "memory": "16MiB"})
    plan = make_plan(job, Store.open(job.output))
    sizes: list[int] = []
    slices = ShardComputer._slices

    def counted(*arguments: Any) -> Any:
        for part in slices(*arguments):
            sizes.append(len(part))
            yield part

    monkeypatch.setattr(ShardComputer, "_slices", counted)
    monkeypatch.setattr("jobs.engine.shard_rows.PAIRS_SHARE", 1 / 2000)
    worker = Worker(job.model_dump(mode="json"), job.output, 1, "cpu", plan.pairs_file)
    worker.load()
    assert worker.run_shard(0).pairs == 30
    worker.close()
    assert len(sizes) > 3
    assert sum(sizes) == 30
    found = pq.read_table(tmp_path / "run/attributions")
    assert found["pair_id"].to_pylist() == [f"pairs.csv:{n + 2}" for n in range(30)]
