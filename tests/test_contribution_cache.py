"""Contributions that several shards need are computed once a worker, and that changes nothing but the time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tiny_models import TinyModels, random_text

from attribution_core.contributions import Contributor
from jobs.config.job import load_job
from jobs.engine import shard_rows
from jobs.engine.worker import Worker
from jobs.plan.plan import make_plan
from jobs.run.manifest import read_shard
from jobs.run.reader import open_run
from jobs.storage.store import Store

QUERIES, DOCUMENTS, SHARDS = 5, 24, 8


@pytest.fixture
def log(tmp_path: Path, rng: random.Random, tiny: TinyModels) -> Callable[..., tuple[pa.Table, pa.Table]]:
    """Runs a log in which every document meets three of five queries; its rows and its texts."""
    queries = [random_text(rng, rng.randint(2, 5)) for _ in range(QUERIES)]
    documents = [random_text(rng, rng.randint(8, 24)) for _ in range(DOCUMENTS)]
    rows = [
        {"a": query, "b": document, "qid": f"q{at}", "did": f"d{n}"}
        for n, document in enumerate(documents)
        for at, query in rng.sample(list(enumerate(queries)), 3)
    ]
    source = tmp_path / "log.parquet"
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), source)
    model = tiny.folder("bert", normalize=True)

    def run(name: str, **settings: Any) -> tuple[pa.Table, pa.Table]:
        columns = {"a": "a", "b": "b", "a_id": "qid", "b_id": "did"}
        given = {"model": str(model), "input": str(source), "output": str(tmp_path / name), "mode": "retrieval"}
        job = load_job(None, given | {"columns": columns, "shards": SHARDS} | settings)
        store = Store.open(job.output)
        plan = make_plan(job, store)
        one = Worker(job.model_dump(mode="json"), job.output)
        one.load()
        for index in range(len(plan.shards)):
            one.run_shard(index)
        opened = open_run(job.output)
        return opened.to_table().sort_by("pair_id"), opened.texts().sort_by(
            [("role", "ascending"), ("text_id", "ascending")]
        )

    return run


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the contributions of each text were computed by themselves."""
    found: Counter[str] = Counter()
    original = Contributor.contributions

    def counting(self: Contributor, texts: Any, **more: Any) -> Any:
        # A pair that is refined is computed at a tolerance of its own.
        if more.get("tolerance") is None:
            found.update(text.text for text in texts if text.role == "query")
        return original(self, texts, **more)

    monkeypatch.setattr(Contributor, "contributions", counting)
    return found


@pytest.mark.parametrize("quadrature", [{"nodes": 6}, {}])
def test_rows_are_the_same_with_and_without(
    log: Callable[..., tuple[pa.Table, pa.Table]],
    computed: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
    quadrature: dict[str, Any],
) -> None:
    """Would catch a kept text of another role, layer or tolerance, and a way or node count that follows the cache."""
    with_it, texts_with = log("kept", quadrature=quadrature)
    assert set(computed.values()) == {1}, "a query was computed twice"
    assert len(computed) == QUERIES
    computed.clear()
    monkeypatch.setattr(shard_rows, "CACHE_SHARE", 0)
    without, texts_without = log("not-kept", quadrature=quadrature)
    assert max(computed.values()) > 1, "the test would prove nothing"
    for name in ("pair_id", "text_a_id", "text_b_id", "rows", "cols"):
        assert with_it[name].to_pylist() == without[name].to_pylist()
    for name in ("score", "reference_a", "reference_b", "reference_ab", "total", "positive", "special"):
        np.testing.assert_allclose(with_it[name].to_numpy(), without[name].to_numpy(), atol=1e-5)
    for name in ("text_id", "role", "groups", "nodes", "way", "converged"):
        assert texts_with[name].to_pylist() == texts_without[name].to_pylist()
    np.testing.assert_allclose(texts_with["residual"].to_numpy(), texts_without["residual"].to_numpy(), atol=1e-5)


def test_what_is_kept_stays_within_its_budget(
    log: Callable[..., tuple[pa.Table, pa.Table]], computed: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_it, _ = log("kept", quadrature={"nodes": 6})
    computed.clear()
    # Room for about two queries.
    monkeypatch.setattr(shard_rows, "CACHE_SHARE", 10_000 / (2 << 30))
    held: list[int] = []
    compute = Worker._compute

    def looking(self: Worker, shard: Any) -> Any:
        found = compute(self, shard)
        assert self._computer is not None
        cache = self._computer.cache
        held.append(cache.held_bytes)
        assert cache.held_bytes <= cache.budget
        assert sum(one.values_GD.nbytes for one in cache._held._values.values()) <= cache.held_bytes
        return found

    monkeypatch.setattr(Worker, "_compute", looking)
    small, _ = log("small", quadrature={"nodes": 6})
    assert max(held) > 0
    assert max(computed.values()) > 1
    np.testing.assert_allclose(with_it["total"].to_numpy(), small["total"].to_numpy(), atol=1e-5)


def test_the_plan_says_which_texts_are_shared(log: Callable[..., tuple[pa.Table, pa.Table]], tmp_path: Path) -> None:
    log("kept", quadrature={"nodes": 2})
    store = Store.open(tmp_path / "kept")
    from jobs.run.manifest import load_plan

    plan = load_plan(store)
    assert plan is not None
    shards = [read_shard(store, plan, at).texts.to_pylist() for at in range(len(plan.shards))]
    held = Counter((row["role"], row["text_id"]) for rows in shards for row in rows)
    assert all(row["shared"] == (held[row["role"], row["text_id"]] > 1) for rows in shards for row in rows)
    assert any(row["shared"] for rows in shards for row in rows)
