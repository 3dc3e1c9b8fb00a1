"""Nodes and weights integrate what they promise to, and settings that make no sense are refused."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribution_core import SettingError
from attribution_core.quadrature.calibration import calibrate
from attribution_core.quadrature.rules import (
    UNIFORM,
    Mesh,
    check_rule,
    gauss,
    ladder,
    mesh_from_speeds,
    mesh_points,
    riemann,
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


@given(most=st.integers(1, 5000))
def test_the_ladder_climbs_to_the_most_nodes_allowed(most: int) -> None:
    """Strictly upwards, never beyond, the last rung always there."""
    rungs = ladder(most)
    assert list(rungs) == sorted(set(rungs))
    assert rungs[-1] == most


def bent_paths(rng: random.Random, texts: int, width: float = 0.15) -> np.ndarray:
    """Embeddings [B, N, 6] along paths that all bend near the middle, each in its own way."""
    alpha = mesh_points()
    curves = [
        np.stack([peak(alpha, 0.4 + 0.1 * rng.random(), width * (0.8 + 0.4 * rng.random())) for _ in range(6)], 1)
        for _ in range(texts)
    ]
    return np.stack([curve * [1.0, 2.0, 0.5, 1.0, 0.2, 0.7] + 2.0 for curve in curves])


def residuals(path_BND: np.ndarray, alpha: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """‖Σ w de/dα − (e(1) − e(0))‖ / ‖e(1)‖ of each path, by the derivative of the polynomial through it."""
    points = 2.0 * mesh_points() - 1.0
    found = []
    for path_ND in path_BND:
        series = np.polynomial.chebyshev.chebfit(points, path_ND, len(points) - 1)
        slope_DN = 2.0 * np.polynomial.chebyshev.chebval(2.0 * alpha - 1.0, np.polynomial.chebyshev.chebder(series))
        found.append(np.linalg.norm(slope_DN @ weight - (path_ND[-1] - path_ND[0])) / np.linalg.norm(path_ND[-1]))
    return np.array(found)


def test_a_first_count_is_what_texts_of_that_length_needed() -> None:
    """Straight paths need the fewest nodes, peaked ones more, long texts what long texts need."""
    rng = random.Random(1)
    alpha = mesh_points()
    straight = np.stack([np.outer(alpha, [rng.random() + 1.0 for _ in range(6)]) for _ in range(6)])
    bent = bent_paths(rng, 6)
    tokens = [4, 5, 6, 7, 8, 9]
    assert calibrate(straight, tokens, 2e-3, 256).start(6) == ladder(256)[0]
    assert calibrate(bent, tokens, 1e-6, 256).start(6) > calibrate(bent, tokens, 1e-2, 256).start(6)
    assert calibrate(bent, tokens, 1e-300, 8).start(6) == 8
    both = calibrate(np.concatenate([straight, bent]), [*tokens, *(100 * n for n in tokens)], 1e-4, 256)
    assert both.start(5) == ladder(256)[0]
    assert both.start(700) == both.start(100_000) > both.start(5)
    finer = calibrate(bent, tokens, 1e-2, 256, 1e-6)
    assert finer.start(6) == calibrate(bent, tokens, 1e-2, 256).start(6)
    assert finer.start(6, query=True) == calibrate(bent, tokens, 1e-6, 256).start(6) > finer.start(6)
    assert both.start(700, query=True) == both.start(700)


@pytest.mark.parametrize("count", [3, 5, 8])
def test_a_fitted_rule_serves_texts_that_it_has_not_seen_better_than_its_mesh(count: int) -> None:
    """A fit that only memorised its sample would be worse than what it replaced."""
    rng = random.Random(count)
    found = calibrate(bent_paths(rng, 16), [10] * 16, 2e-3, 256)
    assert count in found.fitted
    unseen = bent_paths(rng, 40)
    fitted, mesh = residuals(unseen, *found.nodes(count)), residuals(unseen, *gauss(count, found.mesh))
    assert np.median(fitted) < 0.8 * np.median(mesh)
    alpha, weight = found.nodes(count)
    assert alpha.shape == weight.shape == (count,)
    assert (np.diff(alpha) > 0).all()
    assert alpha[0] > 0
    assert alpha[-1] < 1
    assert (weight > 0).all()


def test_rules_of_many_nodes_are_the_meshs_own() -> None:
    """The sample is too small to fit them, and they converge by themselves."""
    found = calibrate(bent_paths(random.Random(2), 16), [10] * 16, 2e-3, 256)
    for count in (24, 64, 256):
        np.testing.assert_array_equal(found.nodes(count)[0], gauss(count, found.mesh)[0])


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
