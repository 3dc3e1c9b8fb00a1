"""Nodes and weights integrate what they promise to, and settings that make no sense are refused."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribution_core import SettingError
from attribution_core.calibration import calibrate
from attribution_core.quadrature import (
    UNIFORM,
    Mesh,
    check_rule,
    gauss,
    ladder,
    mesh_from_speeds,
    mesh_points,
    riemann,
    rule_nodes,
)


def peak(alpha: np.ndarray, at: float = 0.4, width: float = 0.1) -> np.ndarray:
    """A smooth function whose slope is large only near ``at``, as an embedding's along the path."""
    return np.tanh((alpha - at) / width)


def slope(alpha: np.ndarray, at: float = 0.4, width: float = 0.1) -> np.ndarray:
    return 1.0 / np.cosh((alpha - at) / width) ** 2 / width


def peaked_mesh() -> Mesh:
    return mesh_from_speeds(slope(mesh_points())[None] + 0.05)


@given(count=st.integers(1, 20), data=st.data())
@settings(max_examples=40, deadline=None)
def test_gauss_on_the_uniform_mesh_is_exact_for_polynomials(count: int, data: st.DataObject) -> None:
    """N nodes integrate every polynomial up to degree 2N − 1."""
    degree = data.draw(st.integers(0, 2 * count - 1))
    alpha, weight = gauss(count, UNIFORM)
    assert float(weight @ alpha**degree) == pytest.approx(1.0 / (degree + 1), abs=1e-12)


def test_nodes_stand_inside_the_path_in_order_and_weights_are_positive() -> None:
    """A node outside [0, 1] or a negative weight would amplify rounding."""
    for mesh in (UNIFORM, peaked_mesh()):
        for count in (1, 2, 7, 64, 300):
            alpha, weight = gauss(count, mesh)
            assert alpha.shape == weight.shape == (count,)
            assert alpha[0] > 0
            assert alpha[-1] < 1
            assert (np.diff(alpha) > 0).all()
            assert (weight > 0).all()


def test_weights_sum_to_the_length_of_the_path() -> None:
    """Exactly on the uniform mesh; as N grows on a bent one."""
    assert gauss(5, UNIFORM)[1].sum() == pytest.approx(1.0, abs=1e-14)
    errors = [abs(gauss(count, peaked_mesh())[1].sum() - 1.0) for count in (8, 32, 128)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-10


def test_gauss_on_a_learned_mesh_converges_exponentially() -> None:
    """A mesh that is only piecewise smooth would stall at some 1e-3."""
    exact = peak(np.array([1.0])) - peak(np.array([0.0]))
    errors = []
    for count in (8, 32, 64, 128):
        alpha, weight = gauss(count, peaked_mesh())
        errors.append(abs(float(weight @ slope(alpha)) - float(exact[0])))
    assert errors[1] < errors[0] / 100
    assert errors[2] < errors[1] / 100
    assert errors[3] < 1e-12


def test_a_learned_mesh_needs_fewer_nodes_than_a_uniform_one() -> None:
    """What the mesh is there for."""
    exact = float((peak(np.array([1.0])) - peak(np.array([0.0])))[0])

    def error(count: int, mesh: Mesh) -> float:
        alpha, weight = gauss(count, mesh)
        return abs(float(weight @ slope(alpha)) - exact)

    assert all(error(count, peaked_mesh()) < error(count, UNIFORM) / 5 for count in (4, 6, 8))


def test_more_nodes_stand_where_the_speed_is() -> None:
    """The density follows the speeds it was learned from."""
    alpha, _ = gauss(20, peaked_mesh())
    assert ((alpha > 0.3) & (alpha < 0.5)).sum() >= 7


def test_a_mesh_of_constant_speed_is_uniform() -> None:
    """And texts count alike, however fast each moves."""
    mesh = mesh_from_speeds(np.stack([np.full(len(mesh_points()), speed) for speed in (3.0, 0.01)]))
    np.testing.assert_allclose(gauss(9, mesh)[0], gauss(9, UNIFORM)[0], atol=1e-12)


def test_riemann_is_the_papers_right_hand_rule() -> None:
    """α = 1/N … 1, weights 1/N."""
    alpha, weight = riemann(4)
    np.testing.assert_array_equal(alpha, [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_array_equal(weight, [0.25] * 4)
    assert rule_nodes("riemann", 4, peaked_mesh())[0].tolist() == alpha.tolist()


@given(most=st.integers(1, 5000))
def test_the_ladder_climbs_to_the_most_nodes_allowed(most: int) -> None:
    """Strictly upwards, never beyond, the last rung always there."""
    rungs = ladder(most)
    assert list(rungs) == sorted(set(rungs))
    assert rungs[-1] == most


def test_calibration_starts_where_texts_begin_to_meet_the_tolerance() -> None:
    """Straight paths need the fewest nodes; peaked ones more; and a path without end stops at the most."""
    rng = random.Random(1)
    alpha = mesh_points()
    straight = np.stack([np.outer(alpha, [rng.random() + 1.0 for _ in range(5)]) for _ in range(4)])
    assert calibrate(straight, 2e-3, 256).start == ladder(256)[0]
    bent = np.stack([np.outer(peak(alpha, 0.4 + 0.01 * k, 0.15), [1.0, 2.0]) + 2.0 for k in range(4)])
    assert calibrate(bent, 1e-6, 256).start > calibrate(bent, 1e-2, 256).start
    assert calibrate(bent, 1e-300, 8).start == 8


@pytest.mark.parametrize(
    ("rule", "nodes", "most", "tolerance", "said"),
    [
        ("simpson", None, 256, 1e-3, "quadrature 'simpson' is unknown; allowed are gauss, riemann"),
        ("gauss", 0, 256, 1e-3, "nodes is 0; it must be at least 1"),
        ("riemann", -3, 256, 1e-3, "nodes is -3"),
        ("gauss", None, 0, 1e-3, "max_nodes is 0"),
        ("gauss", None, 256, 0.0, "tolerance is 0.0; it must be above 0"),
        ("gauss", None, 256, math.nan, "tolerance is nan"),
    ],
)
def test_a_setting_without_sense_is_refused(
    rule: str, nodes: int | None, most: int, tolerance: float, said: str
) -> None:
    """Each message names the setting, its value and what is allowed."""
    with pytest.raises(SettingError, match=said):
        check_rule(rule, nodes, most, tolerance)
