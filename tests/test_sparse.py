"""Top cells and the sums of what is cut off, against numpy by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from row_tables import summarise

from attribution_core.pairs.columns import SHARES
from attribution_core.results import ExplainedText, PairAttribution, largest_cells
from attribution_core.text.grouping import Groups, Kind


def groups_of(labels: list[str], kinds: list[Kind] | None = None) -> Groups:
    count = len(labels)
    kinds = kinds or ["text"] * count
    return Groups("word", tuple(labels), (0,) * count, (0,) * count, tuple(kinds), tuple(range(count)))


def pair_of(matrix: np.ndarray, a: Groups, b: Groups) -> PairAttribution:
    matrix = matrix.astype(np.float32)
    return PairAttribution(
        a=ExplainedText("", "text", a, a.labels),
        b=ExplainedText("", "text", b, b.labels),
        matrix=matrix,
        row_sums=matrix.sum(1),
        col_sums=matrix.sum(0),
        score=0.0,
        reference_a=0.0,
        reference_b=0.0,
        reference_ab=0.0,
        total=float(matrix.sum()),
        error=0.0,
    )


A = groups_of(["[CLS]", "Good", "day", "[SEP]"], ["special", "text", "text", "special"])
B = groups_of(["[CLS]", "query:", "good", "night", "[SEP]"], ["special", "prompt", "text", "text", "special"])
MATRIX = np.array(
    [
        [9.0, 0.0, 1.0, 0.0, 0.0],
        [0.0, 2.0, 0.5, -0.75, 0.0],
        [0.0, 0.0, 0.25, 0.5, -4.0],
        [0.0, 0.0, 0.0, 0.0, 0.0],
    ]
)


def test_sums_of_a_small_matrix_by_hand() -> None:
    """Signs, special and prompt rows and columns, and equal words, letter case aside."""
    sums = summarise(pair_of(MATRIX, A, B), 2)
    assert sums.positive == pytest.approx(9 + 1 + 2 + 0.5 + 0.25 + 0.5)
    assert sums.negative == pytest.approx(-0.75 - 4)
    assert sums.special == pytest.approx(9 + 1 + 2 - 4)
    assert sums.exact == pytest.approx(0.5)
    assert [(cell.i, cell.j, cell.a, cell.b, cell.value) for cell in sums.top] == [
        (1, 3, "Good", "night", -0.75),
        (1, 2, "Good", "good", 0.5),
    ]
    # 20 cells: 1, 2 and 5 % are one cell, 10 % two, 20 % four, 50 % ten; by |value|, with their signs.
    assert sums.largest == pytest.approx((9.0, 9.0, 9.0, 5.0, 8.0, 8.5))


def test_identical_words_are_found_across_normal_forms() -> None:
    """The sum would miss an accented word of a decomposed text, or take the word without its accent for it."""
    sums = summarise(
        pair_of(np.array([[1.0, 2.0], [4.0, 8.0]]), groups_of(["Cafe\u0301", "x"]), groups_of(["café", "cafe"])), 1
    )
    assert sums.exact == 1.0


def test_special_cells_are_in_the_top_only_when_asked_for() -> None:
    """They are the model's business first, and often the largest."""
    pair = pair_of(MATRIX, A, B)
    assert [cell.value for cell in pair.top(2, special=True)] == [9.0, -4.0]
    assert [cell.value for cell in pair.top(2)] == [-0.75, 0.5]
    assert len(pair.top(100)) == 4
    assert pair.top(0) == []


def test_equal_cells_keep_reading_order() -> None:
    """A rerun must write the same list."""
    pair = pair_of(np.full((2, 3), 0.5), groups_of(["a", "b"]), groups_of(["c", "d", "e"]))
    assert [(cell.i, cell.j) for cell in pair.top(6)] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


def test_unknown_cells_are_never_among_the_top() -> None:
    """NaN marks what a run did not store; it sorts above everything if it is not masked."""
    matrix = np.array([[np.nan, 1.0], [-2.0, np.nan]])
    pair = pair_of(matrix, groups_of(["a", "b"]), groups_of(["c", "d"]))
    assert [cell.value for cell in pair.top(4)] == [-2.0, 1.0]
    assert not pair.complete
    with pytest.raises(AssertionError, match="whole matrices"):
        summarise(pair, 2)


@given(rows=st.integers(1, 12), columns=st.integers(1, 12), k=st.integers(0, 40), seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_top_and_sums_equal_numpy(rows: int, columns: int, k: int, seed: int) -> None:
    """On any matrix: the top is the sorted head, the shares are sums of sorted heads, the parts add up."""
    matrix = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    a, b = groups_of([f"a{i}" for i in range(rows)]), groups_of([f"b{j}" for j in range(columns)])
    sums = summarise(pair_of(matrix, a, b), k)
    ordered = sorted(matrix.ravel().tolist(), key=lambda value: -abs(value))
    assert [cell.value for cell in sums.top] == pytest.approx(ordered[:k])
    assert all(matrix[cell.i, cell.j] == np.float32(cell.value) for cell in sums.top)
    assert sums.positive + sums.negative == pytest.approx(float(matrix.sum(dtype=np.float64)))
    assert (sums.special, sums.exact) == (0.0, 0.0)
    for share, found in zip(SHARES, sums.largest, strict=True):
        count = max(1, -(-matrix.size * round(share * 100) // 100))
        assert found == pytest.approx(sum(ordered[:count]), abs=1e-6)
    assert largest_cells(matrix, a, b, k) == sums.top
