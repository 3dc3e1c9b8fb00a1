"""A verdict from the numbers of an evaluation: how far a reader can rely on the attributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jobs.analysis.faithfulness.agreement import SPEARMAN, WORD_PAIRS, WORDS, Agreement, Lead
from jobs.analysis.faithfulness.orders import ATTRIBUTIONS, EMBEDDINGS, LEXICAL, MARGINS, MATCHED, SHUFFLED
from jobs.analysis.faithfulness.summaries import Against, Curve
from jobs.analysis.resampling import Mean

Grade = Literal["faithful", "partly", "no better than a simple rule", "no better than chance", "undecided"]
# An interval that is narrower than this, in units of a correlation, and holds 0, shows that there is no lead.
NARROW = 0.1
# Chance alone puts five draws on one side of 0 more often (1/2^5) than the lower bound of 95 % may be wrong.
FEWEST_DRAWS = 6


@dataclass(frozen=True)
class Verdict:
    """``grade`` for programs and ``text`` for readers."""

    grade: Grade
    text: str


def judge_agreement(
    agreement: Sequence[Agreement],
    leads: Sequence[Lead],
    curves: Sequence[Curve],
    overall: Sequence[Against],
    judge: str,
) -> Verdict:
    """A grade from the intervals: how far the attributions' words are ahead of token embeddings (of late interaction of
    the matched similarities) in agreement with Shapley values, and then of the other rules, in word pairs (where a run
    stored all) and in the curves. ``judge`` names the judging model where it is not the run's own.

    The margins of late interaction are themselves what the score loses without a word's output tokens, so attributions
    that are as good are not held back by them."""
    of = {one.method: one.value.mean for one in agreement if (one.level, one.correlation) == (WORDS, SPEARMAN)}
    lead = {one.against: one.difference for one in leads if (one.level, one.correlation) == (WORDS, SPEARMAN)}
    what = f"the attributions (judged by {judge})" if judge else "the attributions"

    def against(rule: str) -> str:
        return f"{of[ATTRIBUTIONS]:.2f} against {of[rule]:.2f} ({_interval(lead[rule])})"

    late = MATCHED in of
    cheap, other = (MATCHED, MARGINS) if late else (EMBEDDINGS, LEXICAL)
    for rule in (SHUFFLED, cheap) if late else (SHUFFLED, cheap, other):
        difference = lead[rule]
        if difference.low <= 0 < difference.high and difference.high - difference.low > NARROW:
            return Verdict(
                "undecided",
                f"The sample is too small to tell whether {what} agree with deletion better than {_called(rule)}: rank "
                f"correlation {against(rule)}. Raise --sample.",
            )
        if rule == SHUFFLED and difference.low <= 0:
            return Verdict(
                "no better than chance",
                f"Do not rely on {what}: they agree with deletion no better than {_called(rule)}, rank correlation "
                f"{against(rule)}.",
            )
        if difference.low <= 0:
            how = "less than" if difference.high < 0 else "no better than"
            return Verdict(
                "no better than a simple rule",
                f"{_upper(what)} agree with deletion {how} {_called(rule)}: rank correlation {against(rule)}.",
            )
    gained = f"{_upper(what)} agree with deletion better than {_called(cheap)}: rank correlation {against(cheap)}."
    if late and lead[MARGINS].low <= 0:
        less = lead[MARGINS].high < 0
        gained += f" They agree {'less than' if less else 'as well as'} {_called(MARGINS)}: {against(MARGINS)}."
        if less:
            return Verdict("partly", gained)
    behind = next(one.advantage for one in overall if (one.method, one.against) == (ATTRIBUTIONS, cheap))
    if behind.high < 0:
        return Verdict(
            "partly",
            f"{gained} But in the curves of deletion and insertion {cheap} are ahead, by "
            f"{-behind.mean:.3f} of the score.",
        )
    if behind_in_pairs := _pairs_behind(agreement, leads, cheap):
        return Verdict("partly", gained + behind_in_pairs)
    weak = [f"{one.operation}, {one.level}" for one in curves if one.method == ATTRIBUTIONS and one.advantage.low <= 0]
    if weak:
        return Verdict(
            "partly", f"{gained} But no advantage of their order over random order shows in {'; '.join(weak)}."
        )
    return Verdict("faithful", gained + _pairs_behind(agreement, leads, other))


def _pairs_behind(agreement: Sequence[Agreement], leads: Sequence[Lead], rule: str) -> str:
    """A sentence where the ranks of word pairs are not ahead of those of ``rule``; else, or without word pairs, ""."""
    of = {one.method: one.value.mean for one in agreement if (one.level, one.correlation) == (WORD_PAIRS, SPEARMAN)}
    for one in leads:
        if (one.level, one.correlation, one.against) == (WORD_PAIRS, SPEARMAN, rule) and one.difference.low <= 0:
            return (
                f" But of word pairs the ranks agree no better than {_called(rule)}: {of[ATTRIBUTIONS]:.2f} against "
                f"{of[rule]:.2f} ({_interval(one.difference)})."
            )
    return ""


def _called(rule: str) -> str:
    return {
        EMBEDDINGS: "token embeddings, which cost nothing",
        LEXICAL: "marking the words that stand in both texts",
        MATCHED: "the similarities of matched tokens",
        MARGINS: "their margins to the second best match",
        SHUFFLED: "the same values on other words",
    }[rule]


def _interval(mean: Mean) -> str:
    return f"{mean.mean:+.2f}, 95 % interval {mean.low:.2f} to {mean.high:.2f}"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
