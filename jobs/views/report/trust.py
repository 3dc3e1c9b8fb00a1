"""Whether the numbers of a run can be trusted, one reason a sentence."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Literal

from jobs.analysis.flips.result import Flips
from jobs.analysis.ranking.result import Ranking
from jobs.views.margin.flips import flips_verdict, words_decide
from jobs.views.report.overview import Overview
from jobs.views.statistics.advice import GOOD_ERROR, MOSTLY_JUDGED

# A run that sums to differences, whose reference terms are below this share of its score, is of an exact model.
SMALL_REFERENCE = 0.05
# Average scores below this are given in three decimals.
SMALL_SCORE = 0.0995
MANY_REJECTED, MANY_CUT = 0.01, 0.1


State = Literal["good", "warn", "open", "note"]


@dataclass(frozen=True)
class Trust:
    """One reason to trust the numbers of a run, or not: ``about`` is its headline."""

    state: State
    about: str
    words: str


def scored(overview: Overview, log: bool) -> str:
    """Say how much was looked at, and which scores there are."""
    scores, totals = overview.scores, overview.totals
    what = "pairs of a query and a document" if log else "pairs of texts"
    return (
        f"The model scored {totals.pairs:,} {what}, made from {totals.texts:,} distinct texts; half of the scores lie "
        f"between {scores.quartiles[0]:.2f} and {scores.quartiles[2]:.2f}, with {scores.quartiles[1]:.2f} in the "
        "middle."
    )


def adds_up(overview: Overview) -> Trust:
    """Say whether the integration reached what was asked of it."""
    totals = overview.totals
    good = totals.unconverged == 0 and totals.largest_error <= GOOD_ERROR
    against = "the model's own score" if overview.sums_to == "score" else "what the model's own scores say it must be"
    words = (
        f"The sum of every pair's numbers was checked against {against}: it is off by {small(totals.median_error)} at "
        f"the median and {small(totals.largest_error)} at most, in the unit of a cosine, of which 1 is the most."
    )
    if totals.unconverged:
        missed = _count(totals.unconverged, "text")
        words += f" {missed} missed the tolerance asked for: their numbers are approximate."
    return Trust("good" if good else "warn", "The numbers add up." if good else "Some numbers are approximate.", words)


def decided(flips: Flips | None, called: str, *, failing: bool) -> Trust | None:
    """Say whether the words that are named decide the order of two documents; None where nothing could be tested."""
    if flips is not None:
        state: State = "good" if words_decide(flips) else "note"
        of = f"{flips.inversions:,} of {flips.of:,} inversions"
        return Trust(state, "The words decide the order.", f"{flips_verdict(flips)} ({of} were tested by deletion.)")
    if not failing:
        return None
    words = (
        f"Whether deleting these words turns the order of two documents: tokenpair why {shlex.quote(called)} --prove"
    )
    return Trust("open", "The words of failing queries were not tested.", words)


def meaning(overview: Overview, unit: str) -> Trust:
    """Say what a pair's numbers sum to, with the average pair as the example."""
    one = overview
    decimals = 2 if max(abs(one.score), abs(one.total)) >= SMALL_SCORE else 3

    def said(value: float) -> str:
        text = f"{value:.{decimals}f}"
        return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")

    (first, value), *others = one.parts(unit)
    parts = f"{first} {said(value)}"
    for name, value in others:
        parts += f" {'−' if said(value).startswith('−') else '+'} {name} {said(abs(value))}"
    if one.sums_to == "score":
        words = f"A pair's numbers add up to its score: on average, score {said(one.score)} = {parts}."
        return Trust("note", "The sum is the score.", words)
    if one.sums_to == "centred":
        words = (
            "A pair's numbers add up to what sets its texts apart from average ones: the run's mean embeddings are "
            f"left out. On average, sum {said(one.total)} = {parts}; the average score is {said(one.score)}."
        )
        return Trust("note", "The sum is not the whole score.", words)
    rest = one.reference_a + one.reference_b - one.reference_ab
    size = abs(one.score) or 1.0
    if max(abs(one.reference_a), abs(one.reference_b), abs(one.reference_ab)) <= SMALL_REFERENCE * size:
        words = f"On average, sum {said(one.total)} = {parts}; the average score is {said(one.score)}."
        return Trust("note", "The sum is the score, nearly.", words)
    words = (
        "A pair's numbers add up to what its score gains over reference texts, in which one token, such as padding, "
        f"stands in place of every word. On average, sum {said(one.total)} = {parts}, and score {said(one.score)} = "
        f"sum {'−' if rest < 0 else '+'}\u00a0{said(abs(rest))} for the scores with reference texts."
    )
    return Trust("note", "The sum is not the score.", words)


def cut_texts(overview: Overview) -> Trust | None:
    """Say how many texts the model did not read to their end; None where it read all."""
    totals = overview.totals
    if not totals.truncated:
        return None
    share = totals.truncated / max(totals.texts, 1)
    count = _count(totals.truncated, "text")
    words = f"{count} ({share:.1%}) are longer than the model reads: the rest of their text does not count."
    return Trust("warn" if share > MANY_CUT else "note", "Some texts were cut.", words)


def judged_documents(ranking: Ranking | None) -> Trust | None:
    """Say whether the metrics of the ranking know enough of what was retrieved; None where all of it is judged."""
    share = ranking.measure("Judged", "model") if ranking is not None else None
    if share is None or share.value > MOSTLY_JUDGED:
        return None
    words = (
        f"Of the first {share.name.partition('@')[2]} documents of a query, {share.value:.0%} are judged; the others "
        "count as not relevant, so the metrics may be too low."
    )
    return Trust("warn", "Many retrieved documents are not judged.", words)


def agreement(overview: Overview) -> Trust | None:
    """Say whether the log's own scores are this model's; None where there is no log with scores."""
    agreement = overview.totals.agreement
    if agreement is None:
        return None
    words = (
        f"The log's own scores differ from the model's by {small(agreement.median)} at the median and "
        f"{small(agreement.largest)} at most."
    )
    if agreement.fits:
        return Trust("good", "The log is this model's.", words)
    return Trust("warn", "The log may be another model's.", words + " Another model, prompt or similarity made them.")


def rejected_rows(overview: Overview) -> Trust:
    """Say how much of the input was rejected."""
    reasons = overview.totals.rejected
    count = sum(reasons.values())
    if not count:
        return Trust("good", "No row was rejected.", "Every row of the input was attributed.")
    share = count / (count + overview.totals.pairs)
    first, most = next(iter(reasons.items()))
    words = f"{_count(count, 'row')} ({share:.1%}) could not be attributed; most often ({most:,}): {first}."
    return Trust("warn" if share > MANY_REJECTED else "note", "Some rows were rejected.", words)


def small(value: float) -> str:
    """Format an error in two digits."""
    return f"{value:.1e}" if 0 < value < 1e-4 else f"{value:.2g}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
