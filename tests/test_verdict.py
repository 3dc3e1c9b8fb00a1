"""The verdict follows from the intervals, and says what is gained over token embeddings."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.analysis.faithfulness.agreement import AGREEMENTS, SPEARMAN, WORD_PAIRS, WORDS, Agreement, Lead
from jobs.analysis.faithfulness.curves import measures_of
from jobs.analysis.faithfulness.orders import (
    ATTRIBUTIONS,
    EMBEDDINGS,
    LATE_RULES,
    LEXICAL,
    RANDOM,
    RULES,
)
from jobs.analysis.faithfulness.summaries import Against, Curve
from jobs.analysis.faithfulness.verdict import Verdict, judge_agreement
from jobs.analysis.resampling import Mean

YES, NONE, LESS, WIDE = Mean(0.13, 0.09, 0.17), Mean(0.0, -0.01, 0.01), Mean(-0.1, -0.12, -0.08), Mean(0.05, -0.1, 0.2)
FAR = Mean(0.8, 0.7, 0.9)


def judged(
    embeddings: Mean = YES,
    identical: Mean = FAR,
    shuffled: Mean = FAR,
    *,
    pairs: dict[str, Mean] | None = None,
    curve: Mean = YES,
    over_embeddings: Mean = NONE,
    judge: str = "",
    late: bool = False,
) -> Verdict:
    """A verdict where the words' rank correlation of the attributions is 0.82 and ahead of each rule by so much; of a
    model of late interaction the first two are the matched similarities and the margins."""
    rules = LATE_RULES if late else RULES
    leads = dict(zip(rules[1:], (embeddings, identical, shuffled), strict=True))
    agreement, ahead = [], []
    for level, kind in AGREEMENTS:
        first = (level, kind) == (WORDS, SPEARMAN)
        for rule in rules:
            # What the verdict must not go by is the other way round.
            other = (pairs or {}).get(rule, FAR) if (level, kind) == (WORD_PAIRS, SPEARMAN) else LESS
            lead = leads.get(rule, NONE) if first else other
            mean = 0.82 - (0 if rule == ATTRIBUTIONS else lead.mean)
            agreement.append(Agreement(level, kind, rule, Mean(mean, mean, mean), 60))
            if rule != ATTRIBUTIONS:
                ahead.append(Lead(level, kind, rule, lead, 0.9))
    ends = (0.8, 0.1)
    curves = [
        Curve(level, operation, ATTRIBUTIONS, (0, 1), ends, ends, ends, 0.4, curve if at == 3 else YES, 0.9)
        for at, (level, operation) in enumerate(measures_of("score"))
    ]
    overall = [
        Against(ATTRIBUTIONS, RANDOM, YES, 0.9),
        Against(ATTRIBUTIONS, rules[1], over_embeddings, 0.5),
        Against(ATTRIBUTIONS, rules[2], YES, 0.9),
    ]
    return judge_agreement(agreement, ahead, curves, overall, judge)


def test_what_is_ahead_of_token_embeddings_is_said_with_its_interval() -> None:
    verdict = judged()
    assert verdict.grade == "faithful"
    assert verdict.text == (
        "The attributions agree with deletion better than token embeddings, which cost nothing: rank correlation 0.82 "
        "against 0.69 (+0.13, 95 % interval 0.09 to 0.17)."
    )


@pytest.mark.parametrize(
    ("leads", "grade", "words"),
    [
        ({"embeddings": NONE}, "no better than a simple rule", "no better than token embeddings, which cost nothing"),
        ({"embeddings": LESS}, "no better than a simple rule", "less than token embeddings, which cost nothing"),
        ({"embeddings": WIDE}, "undecided", "Raise --sample"),
        ({"identical": NONE}, "no better than a simple rule", "no better than marking the words"),
        ({"shuffled": NONE}, "no better than chance", "Do not rely on"),
        ({"shuffled": LESS}, "no better than chance", "Do not rely on"),
        ({"shuffled": WIDE}, "undecided", "too small"),
        ({"pairs": {EMBEDDINGS: NONE}}, "partly", "of word pairs the ranks agree no better than token embeddings"),
        ({"pairs": {LEXICAL: NONE}}, "faithful", "of word pairs the ranks agree no better than marking the words"),
        ({"curve": NONE}, "partly", "no advantage of their order over random order shows in insertion, words of b"),
        ({"over_embeddings": LESS}, "partly", "token embeddings are ahead, by 0.100 of the score"),
    ],
)
@pytest.mark.parametrize("judge", ["", "another-model"])
def test_grade_follows_from_the_intervals(leads: dict[str, Any], grade: str, words: str, judge: str) -> None:
    """Would catch a run called faithful that is not ahead of what costs nothing."""
    verdict = judged(**leads, judge=judge)
    assert verdict.grade == grade
    assert words in verdict.text
    assert judge in verdict.text
    assert "  " not in verdict.text
    assert verdict.text.endswith(".")
