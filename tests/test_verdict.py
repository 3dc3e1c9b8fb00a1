"""The verdict follows from the intervals."""

from __future__ import annotations

import pytest

from jobs.evaluation.curves import MEASURES
from jobs.evaluation.intervals import Mean
from jobs.evaluation.orders import ATTRIBUTIONS, EMBEDDINGS, LEXICAL, RANDOM
from jobs.evaluation.result import Against, Curve
from jobs.evaluation.verdict import FEWEST_DRAWS, judge_advantages

YES, NONE, WIDE = Mean(0.1, 0.08, 0.12), Mean(0.0, -0.01, 0.01), Mean(0.05, -0.1, 0.2)


def curves(advantage: Mean, last: Mean) -> list[Curve]:
    ends = (0.8, 0.1)
    return [
        Curve(level, operation, ATTRIBUTIONS, ends, ends, ends, 0.4, last if at == 5 else advantage, 0.9)
        for at, (level, operation) in enumerate(MEASURES)
    ]


def against(chance: Mean, rule: Mean) -> list[Against]:
    return [
        Against(ATTRIBUTIONS, RANDOM, chance, 0.9),
        Against(ATTRIBUTIONS, LEXICAL, rule, 0.9),
        Against(ATTRIBUTIONS, EMBEDDINGS, NONE, 0.5),
    ]


@pytest.mark.parametrize(
    ("chance", "rule", "last", "grade"),
    [
        (YES, YES, YES, "faithful"),
        (YES, YES, NONE, "partly"),
        (YES, NONE, YES, "no better than a simple rule"),
        (NONE, NONE, NONE, "no better than chance"),
        (Mean(-0.1, -0.12, -0.08), NONE, NONE, "no better than chance"),
        (WIDE, NONE, NONE, "undecided"),
    ],
)
@pytest.mark.parametrize("judge", ["", "another-model"])
def test_grade_follows_from_the_intervals(chance: Mean, rule: Mean, last: Mean, grade: str, judge: str) -> None:
    overall = against(chance, rule)
    verdict = judge_advantages(curves(chance, last), overall, judge, FEWEST_DRAWS)
    assert verdict.grade == grade
    assert judge in verdict.text
    assert ("token embeddings" in verdict.text) == (grade in ("faithful", "partly"))
    assert "  " not in verdict.text


@pytest.mark.parametrize("draws", [1, FEWEST_DRAWS - 1])
@pytest.mark.parametrize("chance", [YES, NONE])
def test_a_handful_of_draws_decides_nothing(chance: Mean, draws: int) -> None:
    """Every resample of one query is that query: its interval has no width, and shows nothing of other queries."""
    verdict = judge_advantages(curves(chance, chance), against(chance, chance), "", draws)
    assert verdict.grade == "undecided"
    assert f"{draws} different first text" in verdict.text
