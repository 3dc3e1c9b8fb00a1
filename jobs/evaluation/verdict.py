"""What the numbers of an evaluation mean for somebody who wants to rely on the attributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jobs.evaluation.orders import ATTRIBUTIONS, EMBEDDINGS, LEXICAL, RANDOM

if TYPE_CHECKING:
    from jobs.evaluation.result import Against, Curve

Grade = Literal["faithful", "partly", "no better than a simple rule", "no better than chance", "undecided"]
# An interval that is narrower than this share of the fall of the score, and holds 0, shows that there is no advantage.
NARROW = 0.1


@dataclass(frozen=True)
class Verdict:
    """``grade`` for programs and ``text`` for readers."""

    grade: Grade
    text: str


def judge_advantages(curves: Sequence[Curve], overall: Sequence[Against], judge: str) -> Verdict:
    """A grade from the intervals alone; ``judge`` names the judging model where it is not the run's own."""
    of = {(one.method, one.against): one.advantage for one in overall}
    chance = of[ATTRIBUTIONS, RANDOM]
    what = f"the attributions, judged by {judge}," if judge else "the attributions"
    if chance.low <= 0:
        fall = max((abs(one.values[0] - one.values[-1]) for one in curves), default=0.0)
        if chance.high - chance.low > NARROW * fall and chance.high > 0:
            return Verdict("undecided", f"The sample is too small to tell {what} from random order; raise --sample.")
        return Verdict(
            "no better than chance",
            f"Do not rely on {what.removesuffix(',')}: their order of words does no better than random order.",
        )
    rules = [rule for rule in (LEXICAL, EMBEDDINGS) if of[ATTRIBUTIONS, rule].low <= 0]
    weak = [
        f"{one.operation} of {one.level}" for one in curves if one.method == ATTRIBUTIONS and one.advantage.low <= 0
    ]
    if rules:
        names = {LEXICAL: "identical words", EMBEDDINGS: "products of token embeddings"}
        return Verdict(
            "no better than a simple rule",
            f"They point at words that matter more than chance, but {' and '.join(names[rule] for rule in rules)} find "
            f"such words as well: this test shows nothing that {what.removesuffix(',')} add to that.",
        )
    if weak:
        return Verdict(
            "partly",
            f"On the whole {what} point at the words that make the score, but not in every test: no advantage over "
            f"random order in {', '.join(weak)}.",
        )
    return Verdict(
        "faithful",
        f"You can rely on {what} to name the words that make the score: they beat random order in every test, and "
        "identical words and token embeddings on the whole.",
    )
