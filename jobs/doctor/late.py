"""What is measured of a late-interaction model in another way than of one with one vector a text."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attribution_core.attribution import Attributor
from attribution_core.display.matches import expanded_part
from attribution_core.results import PairAttribution
from jobs.doctor.findings import Outputs, References


def own_scores(model: Any, similarity: str, a: Sequence[Tensor], b: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the model's own scores of pairs of outputs, and their units ‖E(a)‖‖matched E(b)‖, both [pairs]."""
    mean = similarity == "meanmaxsim"
    scores: Tensor = model.similarity_pairwise(list(a), list(b), length_normalize=mean)
    units = []
    for a_TD, b_TD in zip(a, b, strict=True):
        matched_TD = b_TD[(a_TD @ b_TD.T).argmax(1)]
        units.append(a_TD.norm() * matched_TD.norm() / (len(a_TD) if mean else 1))
    return scores, torch.stack(units)


def references(attributed: Sequence[PairAttribution]) -> References:
    """Return the sizes of the pairs' scores with references, in units of the number of scored query tokens."""
    terms = []
    for pair in attributed:
        unit = len(pair.matches or ()) if pair.similarity == "maxsim" else 1
        terms.append([abs(value) / unit for value in (pair.reference_a, pair.reference_b, pair.reference_ab)])
    of_a, of_b, both = (float(statistics.median(term)) for term in zip(*terms, strict=True))
    return References(of_a, of_b, both, float(max(map(max, terms))))


def outputs_of(attributor: Attributor, role: Any, attributed: Sequence[PairAttribution]) -> Outputs:
    """Return the facts about the outputs of texts of ``role``."""
    encoder: Any = attributor.encoder_of(role)
    expansion = encoder.expansion if role == "query" else None
    skipped = [
        word
        for mask in encoder.masks
        if ("document" if role == "text" else role) in mask.skiplist_tasks
        for word in mask.skiplist_words
    ]
    shares = [share for pair in attributed if (share := expanded_part(pair)) is not None]
    dense = [module for module in encoder.head if hasattr(module, "in_features")]
    return Outputs(
        projection=(int(dense[0].in_features), *(int(module.out_features) for module in dense)) if dense else (),
        expansion=None if expansion is None else encoder.expansion_token[1],
        length=0 if expansion is None else int(expansion["length"]),
        attended=expansion is not None and bool(expansion.get("attend")),
        skipped=tuple(dict.fromkeys(skipped)),
        expanded_share=statistics.median(shares) if expansion is not None and shares else None,
    )
