"""Pairs made by hand for the tests of the displays."""

from __future__ import annotations

import re

import numpy as np

from attribution_core.grouping import Groups, Kind
from attribution_core.results import ExplainedText, PairAttribution


def explained(text: str, role: str = "text", **more: object) -> ExplainedText:
    """``text`` split at white space, between a first and a last special token."""
    spans = [match.span() for match in re.finditer(r"[^\s]+", text)]
    labels = ("[CLS]", *(text[start:end] for start, end in spans), "[SEP]")
    kinds: tuple[Kind, ...] = ("special", *("text" for _ in spans), "special")  # type: ignore[assignment]
    groups = Groups(
        unit="word",
        labels=labels,
        starts=(0, *(start for start, _ in spans), 0),
        ends=(0, *(end for _, end in spans), 0),
        kinds=kinds,
        of_token=tuple(range(len(labels))),
    )
    return ExplainedText(text=text, role=role, groups=groups, tokens=labels, **more)  # type: ignore[arg-type]


def pair_of(
    a: ExplainedText | str, b: ExplainedText | str, cells: dict[tuple[str, str], float] | None = None, seed: int = 0
) -> PairAttribution:
    """A pair with the given cells (by label) over small noise."""
    a = explained(a) if isinstance(a, str) else a
    b = explained(b) if isinstance(b, str) else b
    matrix = np.random.default_rng(seed).normal(0, 0.01, (len(a.groups), len(b.groups))).astype(np.float32)
    for (left, right), value in (cells or {}).items():
        matrix[a.groups.labels.index(left), b.groups.labels.index(right)] = value
    total = float(matrix.sum())
    return PairAttribution(
        a=a,
        b=b,
        matrix=matrix,
        row_sums=matrix.sum(1),
        col_sums=matrix.sum(0),
        score=total + 0.125 + 0.25 - 0.0625,
        reference_a=0.125,
        reference_b=0.25,
        reference_ab=0.0625,
        total=total,
        error=3e-4,
        layer=4,
        model="some-model",
    )
