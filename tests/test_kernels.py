"""The GPU kernels against the eager operations they stand for: on a GPU, or with TRITON_INTERPRET=1 on any machine."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from tiny_models import TinyModels

from attribution_core import Attributor
from attribution_core.directions import PathSegment, Slots, kernels
from attribution_core.directions.first import FirstLayer
from attribution_core.directions.layer import LinearLayer
from attribution_core.directions.structured import StructuredLinearisation, StructuredProducts

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = pytest.mark.skipif(
    not kernels.serve(torch.empty(0, dtype=torch.float16, device=DEVICE)),
    reason="the kernels need Triton and a GPU, or TRITON_INTERPRET=1",
)
# Triton's interpreter reads bfloat16 as integers.
HALVES = {torch.float16: 4e-3} | ({} if kernels.INTERPRETED else {torch.bfloat16: 3e-2})


def randoms(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device=DEVICE)


def close(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    """Equal to rounding, in units of the whole."""
    assert found.dtype == dtype
    assert torch.isfinite(found).all()
    distance = (found.float() - expected).norm() / expected.norm()
    assert distance <= HALVES[dtype], float(distance)


@pytest.mark.parametrize("dtype", list(HALVES))
@pytest.mark.parametrize("sizes", [(2, 5, 3, 48), (1, 3, 7, 384), (1, 2, 2, 1100)])
def test_norms_and_gates(sizes: tuple[int, int, int, int], dtype: torch.dtype, seed: int) -> None:
    """Widths that are no power of two, and more than one direction a point."""
    torch.manual_seed(seed)
    r, q, _, d = sizes
    t, hat, gain, probe = (one.to(dtype) for one in (randoms(*sizes), *(randoms(r, q, d) for _ in range(3))))
    hat -= hat.mean(-1, keepdim=True)

    def projected(x: torch.Tensor) -> torch.Tensor:
        x = x - x.mean(-1, keepdim=True)
        return x - hat.float().unsqueeze(2) * (x * hat.float().unsqueeze(2)).mean(-1, keepdim=True)

    by = gain.float().unsqueeze(2)
    expected = projected(t.float()) * by
    close(kernels.project(t.clone(), hat, gain, gain_first=False), expected, dtype)
    close(kernels.project(t.clone(), hat, gain, gain_first=True), projected(t.float() * by), dtype)
    found, mean = kernels.project_and_probe(t.clone(), hat, gain, probe)
    close(found, expected, dtype)
    close(mean, (expected * probe.float().unsqueeze(2)).mean(-1), dtype)
    close(kernels.gate(t.clone(), gain), t.float() * by, dtype)
    close(kernels.gate_and_sum(t.clone(), gain), (t.float() * by).sum(1), dtype)


def linearised(tiny: TinyModels, dtype: torch.dtype, pooling: str, text: str) -> StructuredLinearisation:
    """Two texts of different length at three nodes, in half precision."""
    attributor = Attributor(tiny.load("bert", pooling=pooling, seed=3), layer=1, device=DEVICE, groups="word")
    texts = attributor.read([text, "Another one, unlike it, of a few more words than that."], "text")
    batch = attributor.encoder.batch(texts)
    slots = Slots.of(batch)
    weight = torch.full((3,), 1 / 3, device=DEVICE)
    alpha = torch.tensor([0.1, 0.5, 0.8], device=DEVICE)
    products = StructuredProducts(attributor.encoder)
    return products.linearise(PathSegment(batch, alpha, weight, slots.slot_BS, slots.members_BGW)).cast(dtype)


def in_full(layer: LinearLayer) -> LinearLayer:
    """The same values in float32, so that only the tangents' rounding differs."""
    values = {f.name: getattr(layer, f.name).float() for f in fields(layer) if f.name != "parts"}
    return LinearLayer(parts=layer.parts.cast(torch.float32), **values)


@pytest.mark.parametrize("dtype", list(HALVES))
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_attention(pooling: str, dtype: torch.dtype, tiny: TinyModels, seed: int) -> None:
    """Both layers' attention, padded texts, rows of all tokens and of one."""
    torch.manual_seed(seed)
    linear = linearised(tiny, dtype, pooling, "Kernels tested on short texts, and unbelievably long words.")
    members = linear.segment.members_BGW[:, 1:].repeat_interleave(3, 0)
    first: FirstLayer = linear.first
    names = ("delta_RQd", "dv_RHSh", "m_RHQS", "own_RHQh")
    full = FirstLayer(
        layer=in_full(first.layer),
        slot_RQ=first.slot_RQ,
        rows_RQ=first.rows_RQ,
        **{name: getattr(first, name).float() for name in names},
    )
    for found, expected in zip(first.push_attention(members, 1), full.push_attention(members, 1), strict=True):
        close(found, expected, dtype)
    assert linear.last is not None
    s, d = first.delta_RQd.shape[1:]
    tangent = randoms(len(first.delta_RQd), s, 3, d).to(dtype)
    close(
        linear.last.push_attention(tangent, linear.rows_RQ),
        in_full(linear.last).push_attention(tangent.float(), linear.rows_RQ),
        dtype,
    )


@pytest.mark.parametrize("dtype", list(HALVES))
@pytest.mark.parametrize("way", ["forward", "reverse"])
def test_whole_passes(way: str, dtype: torch.dtype, tiny: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without the kernels a pass gives the same contributions."""
    linear = linearised(tiny, dtype, "mean", "What is between the products?")
    width = linear.products.encoder.embedding_width
    cotangents = torch.eye(width, device=DEVICE).expand(2, -1, -1)

    def values() -> torch.Tensor:
        return linear.forward(0, linear.slots) if way == "forward" else linear.reverse(cotangents)

    found = values()
    monkeypatch.setattr(kernels, "ENABLED", False)
    expected = values()
    assert (found - expected).norm() <= 2 * HALVES[dtype] * expected.norm()
