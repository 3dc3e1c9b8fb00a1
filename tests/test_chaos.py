"""One run of each of two kinds of chaos; ``python -m tests.chaos`` makes fifty of ten kinds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chaos.cases import CASES
from chaos.ground import Ground
from chaos.running import attempt

pytestmark = pytest.mark.chaos

# The shortest that a store may be away and still be missed.
OUTAGE_SECONDS = 3.0


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with Ground.laid(tmp_path_factory.mktemp("chaos"), timed=False) as ground:
        yield ground


@pytest.mark.parametrize("name", ["driver_killed", pytest.param("store_down", marks=pytest.mark.long)])
def test_a_disturbed_run_ends_with_the_undisturbed_output(ground: Ground, seed: int, name: str) -> None:
    case = next(case for case in CASES if case.act.__name__ == name)
    result = attempt(ground, case, f"{name}:{seed}", outage_seconds=OUTAGE_SECONDS)
    assert not result.problem, result.line(1, 1)


def test_the_comparison_sees_a_lost_a_changed_and_a_stray_row(ground: Ground) -> None:
    """Would catch a comparison that finds everything equal."""
    from dataclasses import replace

    from chaos.comparison import check_whole

    assert ground.undisturbed is not None
    good = replace(ground.undisturbed, finished=True)
    check_whole(good, good)
    rows = good.rows["attributions"]
    key, row = next(iter(rows.items()))
    changed = {**row, "top": [{**row["top"][0], "value": row["top"][0]["value"] + 1e-3}, *row["top"][1:]]}
    for wrong, told in [
        ({other: rows[other] for other in rows if other != key}, "missing"),
        (rows | {key: {**row, "score": row["score"] + 1e-3}}, "score"),
        (rows | {key: changed}, "top"),
        (rows | {"another": row}, "should not be there"),
    ]:
        with pytest.raises(AssertionError, match=told):
            check_whole(replace(good, rows=good.rows | {"attributions": wrong}), good)
    with pytest.raises(AssertionError, match="files that no run should leave"):
        check_whole(replace(good, files=good.files | {"attributions/part-00001.parquet.tmp"}), good)
    with pytest.raises(AssertionError, match="_SUCCESS"):
        check_whole(replace(good, finished=False), good)
