"""What a run says of the sum of its attributions."""

from __future__ import annotations

import random
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from jobs.run.exactness import COLUMNS, ExactnessCounter, exactness_of
from jobs.run.totals import Totals, read_totals
from jobs.storage.store import Store

Rows = dict[str, NDArray[np.float32]]


def rows(rng: random.Random, count: int, *, reference: float, error: float = 1e-3) -> Rows:
    """Rows that keep the identity up to ``error``, with reference terms of a given size."""
    draw = np.random.default_rng(rng.randrange(1 << 32))
    score = draw.uniform(-0.2, 1.0, count)
    terms = {name: reference * draw.uniform(0.5, 1.0, count) for name in COLUMNS[1:4]}
    total = score - terms["reference_a"] - terms["reference_b"] + terms["reference_ab"]
    total += draw.uniform(-error, error, count)
    return {"score": score.astype("f4"), **{n: v.astype("f4") for n, v in terms.items()}, "total": total.astype("f4")}


def test_exact_only_where_every_reference_term_is_zero(rng: random.Random) -> None:
    """One text whose reference does not embed to zero makes the whole run inexact."""
    found = exactness_of(rows(rng, 300, reference=3e-7))
    assert found.exact
    assert "sum to its score" in found.sentence("difference")
    one_off = rows(rng, 300, reference=3e-7)
    one_off[rng.choice(COLUMNS[1:4])][rng.randrange(300)] = 2e-6
    assert not exactness_of(one_off).exact


def test_gap_is_the_distance_of_the_sum_from_the_score(rng: random.Random) -> None:
    """Not from the identity: for a base model it is as large as its reference terms."""
    given = rows(rng, 1000, reference=0.4)
    found = exactness_of(given)
    gap = np.abs(given["score"].astype("f8") - given["total"].astype("f8"))
    assert found.gap == pytest.approx(np.median(gap), rel=0.05)
    assert found.largest_gap == pytest.approx(gap.max())
    assert found.reference_a == pytest.approx(np.median(given["reference_a"]), rel=0.05)
    assert found.reference == pytest.approx(max(given[n].max() for n in COLUMNS[1:4]))
    assert "away from the score itself" in found.sentence("difference")
    assert f"both references ({found.reference_ab:.2g})" in found.sentence("difference")
    assert found.sentence("score") == "a pair's attributions sum to its score"
    assert f"what average texts share ({found.gap:.2g}" in found.sentence("centred")


def test_dot_products_are_judged_by_their_own_size(rng: random.Random) -> None:
    """A dot product of 40 computed in float32 cannot be right to 1e-6."""
    given = rows(rng, 200, reference=1e-5)
    assert not exactness_of(given).exact
    assert exactness_of(given | {"score": given["score"] + 40, "total": given["total"] + 40}).exact


def test_batches_count_as_the_whole_and_missing_numbers_do_not(rng: random.Random) -> None:
    given = rows(rng, 500, reference=0.1)
    counter = ExactnessCounter()
    for low in range(0, 500, 77):
        counter.add({name: values[low : low + 77] for name, values in given.items()})
    counter.add({name: np.array([np.nan], "f4") for name in COLUMNS})
    assert counter.result() == exactness_of(given)
    assert counter.result().pairs == 500


def test_a_run_is_read_part_by_part_and_its_summary_says_so(rng: random.Random, tmp_path: Path) -> None:
    given = rows(rng, 90, reference=0.3)
    store = Store.open(tmp_path)
    assert read_totals(store, "parquet", "difference").exactness is None
    (tmp_path / "attributions").mkdir()
    for part in range(3):
        chosen = {name: values[part * 30 : part * 30 + 30] for name, values in given.items()}
        chosen["error"] = np.zeros(30, "f4")
        pq.write_table(
            pa.table(chosen | {"error": np.zeros(30, "f4")}), tmp_path / "attributions" / f"part-{part}.parquet"
        )
    found = read_totals(store, "parquet", "difference").exactness
    assert found is not None
    assert found == exactness_of(given)
    totals = Totals(pairs=90, exactness=found)
    assert found.line("difference") in totals.lines(), "what a version before wrote"
    assert found.line("score") in replace(totals, sums_to="score").lines()
    assert Totals.of(asdict(totals)) == totals
    assert Totals.of(asdict(replace(totals, exactness=None))).exactness is None
