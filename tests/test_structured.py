"""Hand-linearised layers against torch.func on the same encoder, down to rounding."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from tiny_models import FAMILIES, TinyModels, random_text

from attribution_core import Attributor, SettingError
from attribution_core.directions import layer

POOLINGS = ("mean", "cls", "lasttoken", "weightedmean")


@pytest.mark.rotates(5)
@pytest.mark.parametrize("way", ["forward", "reverse", "partner"])
@pytest.mark.parametrize("layer", [0, -3, -2, -1])
@pytest.mark.parametrize("family", FAMILIES)
def test_structured_equals_generic(
    family: str, layer: int, way: str, tiny: TinyModels, rng: random.Random, seed: int
) -> None:
    """Every position of the cut (all layers full, first, last, first and last in one), each way, in both types."""
    pooling = POOLINGS[(FAMILIES.index(family) + layer + seed) % 4]
    model = tiny.load(family, pooling=pooling, seed=seed % 5)
    pairs = [(random_text(rng, 3), random_text(rng, 9)), (random_text(rng, 6), random_text(rng, 4))]
    groups = rng.choice(["token", "word", "sentence"])
    for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-5)):
        settings: dict[str, Any] = {"layer": layer, "nodes": 5, "way": way, "groups": groups, "dtype": dtype}
        settings["quadrature"] = "riemann"
        slow = Attributor(model, products="generic", **settings).attribute_pairs(pairs)
        fast = Attributor(model, products="structured", **settings).attribute_pairs(pairs)
        for expected, found in zip(slow, fast, strict=True):
            unit = max(1.0, float(np.abs(expected.matrix).max()))
            # Results are kept as float32; the sums are taken before that.
            matrix_tolerance = max(tolerance, 2e-7)
            np.testing.assert_allclose(found.matrix / unit, expected.matrix / unit, atol=matrix_tolerance, rtol=0)
            assert found.total / unit == pytest.approx(expected.total / unit, abs=20 * tolerance)
            assert found.a.residual == pytest.approx(expected.a.residual, abs=20 * tolerance)


@pytest.mark.rotates(3)
@pytest.mark.parametrize("way", ["forward", "reverse", "partner"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_what_fits_the_caches_changes_no_result(
    pooling: str, way: str, tiny: TinyModels, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Points, tokens and heads one at a time, some at a time with a shorter rest, and all at once."""
    model = tiny.load(rng.choice(FAMILIES), pooling=pooling)
    pairs = [(random_text(rng, rng.randint(3, 9)), random_text(rng, rng.randint(3, 14))) for _ in range(3)]
    settings: dict[str, Any] = {"layer": rng.choice([0, -1, -2]), "nodes": 4, "way": way, "dtype": "float64"}
    found = []
    for most in (1, rng.randint(500, 50_000), 1 << 40):
        for table in (layer.ATTENTION_BLOCK_BYTES, layer.TILE_BYTES, layer.POINTS_BYTES):
            monkeypatch.setitem(table, "cpu", most)
        found.append(Attributor(model, products="structured", **settings).attribute_pairs(pairs))
    for some in found[:2]:
        for expected, pair in zip(found[2], some, strict=True):
            np.testing.assert_allclose(pair.matrix, expected.matrix, atol=2e-7 * np.abs(expected.matrix).max(), rtol=0)
            assert pair.b.residual == pytest.approx(expected.b.residual, abs=1e-12)


@pytest.mark.parametrize("way", ["forward", "partner"])
def test_coarse_tangents_never_cost_the_tolerance(way: str, tiny: TinyModels, rng: random.Random) -> None:
    """bfloat16 is kept where the residual on the result allows it, and computed again in float32 where not."""
    model = tiny.load("bert")
    pairs = [(random_text(rng, 5), random_text(rng, 12)) for _ in range(3)]
    exact = Attributor(model, way=way, tolerance=1e-3).attribute_pairs(pairs)
    strict = Attributor(model, way=way, tolerance=1e-3, precision="bf16").attribute_pairs(pairs)
    for expected, found in zip(exact, strict, strict=True):
        assert abs(found.error) <= 1e-2
        np.testing.assert_allclose(found.matrix, expected.matrix, atol=1e-2)
    loose = Attributor(model, way=way, tolerance=0.5, pair_tolerance=9.0, precision="bf16").attribute_pairs(pairs)
    full = Attributor(model, way=way, tolerance=0.5, pair_tolerance=9.0).attribute_pairs(pairs)
    differences = [float(np.abs(a.matrix - b.matrix).max()) for a, b in zip(loose, full, strict=True)]
    assert max(differences) > 1e-6, "bfloat16 was never used"


def test_precisions_that_do_not_exist_are_refused(tiny: TinyModels) -> None:
    """And a coarse one beside float64."""
    with pytest.raises(SettingError, match="precision 'fp8'"):
        Attributor(tiny.load("bert"), precision="fp8")
    with pytest.raises(SettingError, match="float64"):
        Attributor(tiny.load("bert"), precision="bf16", dtype="float64")
    with pytest.raises(SettingError, match="single pooling mode"):
        Attributor(tiny.load("bert", pooling=("mean", "cls")), products="structured")
