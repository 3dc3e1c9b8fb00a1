"""On a GPU: the same attributions as in float64 on a processor, in every precision, within the memory allowed.

Run them with ``python -m pytest -m gpu`` on a machine that has one.
"""

from __future__ import annotations

import logging
import random
from typing import Any

import numpy as np
import pytest
import torch
from oracle import Oracle
from tiny_models import FAMILIES, TinyModels, random_text

from attribution_core import Attributor, PairAttribution
from attribution_core.directions import kernels

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
# Largest difference of a cell, in units of the largest cell, and of the score.
ROUNDING = {"float32": (2e-5, 1e-5), "tf32": (2e-2, 1e-5), "fp16": (2e-2, 1e-5), "bf16": (6e-2, 1e-5)}


def texts_of(rng: random.Random) -> list[tuple[str, str]]:
    return [(random_text(rng, a), random_text(rng, b)) for a, b in ((3, 9), (6, 4), (1, 24))]


def check_pairs(found: list[PairAttribution], expected: list[PairAttribution], precision: str) -> None:
    cells, scores = ROUNDING[precision]
    for one, other in zip(found, expected, strict=True):
        unit = float(np.abs(other.matrix).max())
        np.testing.assert_allclose(one.matrix / unit, other.matrix / unit, atol=cells, rtol=0)
        assert one.score == pytest.approx(other.score, abs=scores * max(1.0, abs(other.score)))


@pytest.mark.parametrize("precision", list(ROUNDING))
@pytest.mark.parametrize("way", ["forward", "reverse", "partner"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_precision_equals_float64(
    family: str, way: str, precision: str, tiny: TinyModels, rng: random.Random, seed: int
) -> None:
    """Each way and precision of the structured path, judged by torch.func in float64 on the processor."""
    turn = FAMILIES.index(family) + seed
    pooling = ("mean", "cls", "lasttoken", "weightedmean")[turn % 4]
    settings: dict[str, Any] = {
        "layer": (0, -3, -2, -1)[turn // 4 % 4],
        "groups": rng.choice(["token", "word", "sentence"]),
        "nodes": 5,
        "quadrature": "riemann",
        "tolerance": 0.3,
    }
    model = tiny.load(family, pooling=pooling, seed=seed % 5)
    pairs = texts_of(rng)
    expected = Attributor(model, products="generic", dtype="float64", device="cpu", **settings).attribute_pairs(pairs)
    found = Attributor(model, way=way, precision=precision, device="cuda", **settings).attribute_pairs(pairs)
    check_pairs(found, expected, precision)


def test_the_papers_formula(tiny: TinyModels, rng: random.Random) -> None:
    """The slow oracle judges the GPU as well."""
    model = tiny.load(rng.choice(FAMILIES), seed=3)
    a, b = random_text(rng, 5), random_text(rng, 8)
    judge = Oracle(model, layer=1, nodes=50).pair(a, b)
    pair = Attributor(
        model, layer=1, groups="token", quadrature="riemann", nodes=50, device="cuda", precision="float32"
    ).attribute(a, b)
    expected = judge.grouped(pair.a.groups.of_token, pair.b.groups.of_token, pair.sums_to)
    np.testing.assert_allclose(pair.matrix, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("products", ["structured", "generic"])
def test_the_tolerance_holds_by_default(products: str, tiny: TinyModels, rng: random.Random) -> None:
    """Half precision is the default; what would miss the tolerance in it is computed again."""
    attributor = Attributor(tiny.load("bert"), device="cuda", products=products)
    assert attributor.contributor.integrator.precision == "fp16"
    for pair in attributor.attribute_pairs(texts_of(rng)):
        assert pair.a.converged or pair.a.nodes == 256
        assert pair.b.converged or pair.b.nodes == 256
        assert abs(pair.error) <= 1e-2


def test_what_overflows_is_computed_again(tiny: TinyModels, rng: random.Random) -> None:
    """float16 ends at 65,504: a layer whose values pass that must not leave infinities behind."""
    model = tiny.load("bert")
    with torch.no_grad():
        norm = model[0].model.encoder.layer[-2].output.LayerNorm  # type: ignore[union-attr, index]
        norm.weight.mul_(3e5)
        norm.bias.mul_(3e5)
        last = model[0].model.encoder.layer[-1]  # type: ignore[union-attr, index]
        for linear in (last.attention.self.query, last.attention.self.key, last.attention.self.value):
            linear.weight.div_(3e5)
    settings: dict[str, Any] = {"nodes": 8, "layer": -2}
    pairs = texts_of(rng)
    expected = Attributor(model, dtype="float64", device="cpu", products="generic", **settings).attribute_pairs(pairs)
    found = Attributor(model, device="cuda", precision="fp16", **settings).attribute_pairs(pairs)
    check_pairs(found, expected, "fp16")


def test_kernels_and_eager_operations_agree(
    tiny: TinyModels, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the kernels are used at all."""
    pairs, model = texts_of(rng), tiny.load("mpnet")
    settings: dict[str, Any] = {"nodes": 4, "tolerance": 0.5, "device": "cuda", "precision": "fp16"}
    calls: list[str] = []
    attention = kernels.attention
    monkeypatch.setattr(kernels, "attention", lambda *args: calls.append("kernel") or attention(*args))
    found = Attributor(model, **settings).attribute_pairs(pairs)
    assert calls
    monkeypatch.setattr(kernels, "ENABLED", False)
    check_pairs(found, Attributor(model, **settings).attribute_pairs(pairs), "fp16")


def test_directions_never_wait_for_the_host(tiny: TinyModels, rng: random.Random) -> None:
    """No tensor goes to the processor while directions are pushed or pulled."""
    attributor = Attributor(tiny.load("bert"), device="cuda", nodes=4, tolerance=0.5)
    integrator = attributor.contributor.integrator
    directions = integrator._directions
    watched: list[bool] = []

    def strict(*args: Any) -> torch.Tensor:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return directions(*args)
        finally:
            watched.append(True)
            torch.cuda.set_sync_debug_mode("default")

    attributor.attribute_pairs(texts_of(rng))  # what is compiled or made once is there
    integrator._directions = strict  # type: ignore[method-assign]
    attributor.attribute_pairs(texts_of(rng))
    assert watched


def test_running_out_of_device_memory_halves_the_chunks(
    tiny: TinyModels, rng: random.Random, caplog: pytest.LogCaptureFixture
) -> None:
    """A real CUDA error: the allocator is given less than the budget that the chunks are made for."""
    texts = [random_text(rng, 60) for _ in range(64)]
    settings: dict[str, Any] = {"groups": "token", "nodes": 24, "device": "cuda", "precision": "float32"}
    calm = Attributor(tiny.load("bert", max_length=128), **settings)
    expected = calm.contributions(calm.read(texts, "text"))
    hurried = Attributor(tiny.load("bert", max_length=128), memory=8 << 30, **settings)
    read = hurried.read(texts, "text")
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (192 << 20)) / total)
        with caplog.at_level(logging.WARNING, logger="tokenpair"):
            found = hurried.contributions(read)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "out of memory: going on with chunks of" in caplog.text
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.values_GD, other.values_GD, atol=3e-5 * np.linalg.norm(other.embedding_D))


@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_the_peak_stays_within_the_budget(precision: str, tiny: TinyModels, rng: random.Random) -> None:
    """As the allocator counts it, for a text whose directions would take many times the budget."""
    budget = 64 << 20
    attributor = Attributor(
        tiny.load("bert", max_length=128), groups="token", nodes=64, memory=budget, device="cuda", precision=precision
    )
    short, long = attributor.read([random_text(rng, 3), random_text(rng, 100)], "text")
    attributor.contributions([short])
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    attributor.contributions([long])
    assert torch.cuda.max_memory_allocated() - before <= budget
