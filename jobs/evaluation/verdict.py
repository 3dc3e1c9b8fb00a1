"""What the numbers of an evaluation mean for somebody who wants to rely on the attributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jobs.evaluation.orders import ATTRIBUTIONS, EMBEDDINGS, LEXICAL, RANDOM
from jobs.progress import counted

if TYPE_CHECKING:
    from jobs.evaluation.intervals import Mean
    from jobs.evaluation.result import Against, Curve

Grade = Literal["faithful", "partly", "no better than a simple rule", "no better than chance", "undecided"]
# An interval that is narrower than this share of the fall of the score, and holds 0, shows that there is no advantage.
NARROW = 0.1
# Chance alone puts five draws on one side of 0 more often (1/2^5) than the lower bound of 95 % may be wrong.
FEWEST_DRAWS = 6


@dataclass(frozen=True)
class Verdict:
    """``grade`` for programs and ``text`` for readers."""

    grade: Grade
    text: str


def judge_advantages(curves: Sequence[Curve], overall: Sequence[Against], judge: str, draws: int) -> Verdict:
    """A grade from the intervals and ``draws``, how many independent draws they are of; ``judge`` names the judging
    model where it is not the run's own."""
    of = {(one.method, one.against): one.advantage for one in overall}
    chance = of[ATTRIBUTIONS, RANDOM]
    what = f"the attributions (judged by {judge})" if judge else "the attributions"
    if draws < FEWEST_DRAWS:
        return Verdict(
            "undecided",
            f"The sample is too small to judge {what}: it has {counted(draws, 'different first text')} and takes "
            f"{FEWEST_DRAWS}, because pairs that share one are one draw. Raise --sample, or evaluate a run with more.",
        )
    if chance.low <= 0:
        fall = max((abs(one.values[0] - one.values[-1]) for one in curves), default=0.0)
        if chance.high - chance.low > NARROW * fall and chance.high > 0:
            return Verdict("undecided", f"The sample is too small to tell {what} from random order; raise --sample.")
        return Verdict(
            "no better than chance",
            f"Do not rely on {what}: their order of words does no better than random order.",
        )
    if of[ATTRIBUTIONS, LEXICAL].low <= 0:
        return Verdict(
            "no better than a simple rule",
            f"Do not rely on {what} beyond the words that stand in both texts: their order beats random order, but not "
            "one that takes identical words first.",
        )
    weak = [f"{one.operation}, {one.level}" for one in curves if one.method == ATTRIBUTIONS and one.advantage.low <= 0]
    if weak:
        return Verdict(
            "partly",
            f"On the whole {what} name the words that make the score, but not in every test: no advantage over random "
            f"order in {'; '.join(weak)}.{_also(of[ATTRIBUTIONS, EMBEDDINGS])}",
        )
    return Verdict(
        "faithful",
        f"You can rely on {what} to name the words that make the score: they beat random order in every test, and "
        f"identical words on the whole.{_also(of[ATTRIBUTIONS, EMBEDDINGS])}",
    )


def _also(against_embeddings: Mean) -> str:
    """A sentence about products of token embeddings, where those do as well."""
    if against_embeddings.low > 0:
        return ""
    how = "better" if against_embeddings.high < 0 else "as well"
    return f" Products of token embeddings do {how} in this test."
