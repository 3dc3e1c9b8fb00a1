"""A log's own scores against the model's: what differs is said, and why it may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from row_tables import attribution_table

from jobs.run.agreement import Agreement
from jobs.run.tables import attribution_schema, encoded
from jobs.run.totals import Totals, read_totals
from jobs.storage.store import Store


def run_with(folder: Path, logged: np.ndarray[Any, Any], ours: np.ndarray[Any, Any], parts: int = 3) -> Store:
    """A run of 20 queries whose rows lie scattered over its parts."""
    run = Store.open(folder)
    zeros = {field.name: 0 for field in attribution_schema()}
    zeros |= {name: [] for name in ("row_sums", "col_sums", "row_lift", "col_lift", "largest", "top")}
    kept = pa.table({"log_score": pa.array(logged, pa.float64(), from_pandas=True)})
    rows = [
        zeros | {"pair_id": str(i), "text_a_id": f"q{i % 20}", "text_b_id": f"d{i}", "score": float(score)}
        for i, score in enumerate(ours)
    ]
    for part in range(parts):
        own = list(range(part, len(rows), parts))
        table = attribution_table([rows[i] for i in own], kept.take(own))
        run.commit(f"attributions/part-{part:05d}.parquet", encoded(table, "parquet"))
    return run


@pytest.fixture
def scores() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).uniform(0.2, 0.9, 400)


def test_the_models_own_scores_fit(tmp_path: Path, scores: np.ndarray[Any, Any]) -> None:
    found = read_totals(run_with(tmp_path, scores, scores + 1e-7), "parquet", "score").agreement
    assert found is not None
    assert found.fits
    assert (found.pairs, found.alike / found.ordered) == (400, 1.0)
    assert "100% of a query's document pairs in the same order" in found.line()
    assert "another" not in found.line()


@pytest.mark.parametrize("change", ["prompt", "dot", "bm25"])
def test_scores_of_another_origin_are_said(tmp_path: Path, scores: np.ndarray[Any, Any], change: str) -> None:
    """Whatever the log's scale, a plain hint, and how far the two orders agree."""
    noise = np.random.default_rng(1).normal(0, 1, 400)
    logged = {"prompt": scores + 0.05 * noise, "dot": scores * 30, "bm25": 20 + 5 * noise}[change]
    found = read_totals(run_with(tmp_path, logged, scores), "parquet", "score").agreement
    assert found is not None
    assert not found.fits
    assert found.line().endswith("another model, prompt or similarity?")
    alike = found.alike / found.ordered
    assert {"prompt": 0.8 < alike < 1, "dot": alike == 1, "bm25": 0.4 < alike < 0.6}[change]
    assert found.median == pytest.approx(np.median(np.abs(logged - scores)), rel=0.05)
    assert found.largest == pytest.approx(np.abs(logged - scores).max(), rel=1e-4)


def test_rows_without_a_score_are_left_out(tmp_path: Path, scores: np.ndarray[Any, Any]) -> None:
    logged = np.where(np.arange(400) < 100, scores, np.nan)
    found = read_totals(run_with(tmp_path / "some", logged, scores), "parquet", "score").agreement
    assert found is not None
    assert (found.pairs, found.fits) == (100, True)
    assert read_totals(run_with(tmp_path / "none", np.full(400, np.nan), scores), "parquet", "score").agreement is None


def test_totals_come_back_from_what_success_holds() -> None:
    """A finished run is summed up from _SUCCESS when its command is given again."""
    import json
    from dataclasses import asdict

    for agreement in (None, Agreement(3, 0.1, 0.2, 0.5, 4, 3)):
        totals = Totals(pairs=3, rejected={"x": 1}, agreement=agreement)
        assert Totals.of(json.loads(json.dumps(asdict(totals)))) == totals
