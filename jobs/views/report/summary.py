"""The top of the page, for somebody who reads nothing else: what was found, and whether it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from attribution_core.display.view import printable
from jobs.analysis.statistics.schema import Figure
from jobs.views.kit.numbers import within, worded
from jobs.views.report.findings import Findings
from jobs.views.report.overview import Overview

# The most that a pair's sum may be off at the default tolerance, in units of ‖e(a)‖‖e(b)‖.
GOOD_ERROR = 1e-2
# A run that sums to differences, whose reference terms are below this share of its score, is of an exact model.
SMALL_REFERENCE = 0.05
# Average scores below this are given in three decimals.
SMALL_SCORE = 0.0995
MANY_REJECTED, MANY_CUT = 0.01, 0.1
FEW_WITHOUT_EFFECT = 0.001


State = Literal["good", "warn", "open", "note"]


@dataclass(frozen=True)
class Trust:
    """One reason to trust the numbers of a run, or not: ``about`` is its headline."""

    state: State
    about: str
    words: str


def scored(overview: Overview, log: bool) -> str:
    """The first sentence: how much was looked at, and which scores there are."""
    scores, totals = overview.scores, overview.totals
    what = "pairs of a query and a document" if log else "pairs of texts"
    return (
        f"The model scored {totals.pairs:,} {what}, made from {totals.texts:,} distinct texts; half of the scores lie "
        f"between {scores.quartiles[0]:.2f} and {scores.quartiles[2]:.2f}, with {scores.quartiles[1]:.2f} in the "
        "middle."
    )


def found_sentences(overview: Overview, findings: Findings | None, log: bool, unit: str, most: int = 5) -> list[str]:
    """At most ``most`` sentences on what was found, the most telling first; each is made from a number of the run."""
    sentences: list[str | None] = [scored(overview, log)]
    if findings is not None:
        facts = findings.summary.run
        if facts.sample is not None:
            sentences = [f"{sentences[0]} What follows is of {facts.pairs:,} of these pairs, chosen at random."]
        sentences += [
            _concentrated(findings, unit),
            _parts_of_speech(findings),
            _identical(findings),
            _relevant(findings),
            _without_effect(findings),
            _start(findings, log),
            _strongest(findings),
            _negative(findings, unit),
        ]
    return [one for one in sentences if one is not None][:most]


def _concentrated(findings: Findings, unit: str) -> str | None:
    five, half = findings.figure("concentration", "largest_5"), findings.figure("concentration", "largest_50")
    if five is None or not _positive(five):
        return None
    words = f"The strongest 5 % of {unit} pairs give {worded(five.value, 'share')} of {_whole(findings)}{within(five)}"
    why = _beyond(five, "the others")
    words += why
    if half is not None and _positive(half):
        words += f"; the strongest half gives {worded(half.value, 'share')}{'' if why else _beyond(half, 'the others')}"
    return f"{words}."


def _parts_of_speech(findings: Findings) -> str | None:
    nouns, verbs = findings.figure("parts_of_speech", "nouns_lift"), findings.figure("parts_of_speech", "verbs_lift")
    share = findings.figure("parts_of_speech", "nouns_share")
    words = []
    if nouns is not None and verbs is not None and _positive(nouns) and _positive(verbs):
        words.append(
            f"a noun or name adds {nouns.value:.2f} times as much to {_aim(findings)} as an average word, "
            f"a verb {verbs.value:.2f} times as much"
        )
    if share is not None and _positive(share):
        words.append(
            f"nouns and names make {worded(share.value, 'share')} of what all words add{within(share)}"
            f"{_beyond(share, 'the other words')}"
        )
    said = "; ".join(words)
    return f"{said[0].upper()}{said[1:]}." if said else None


def _identical(findings: Findings) -> str | None:
    exact, lift = findings.figure("matches", "exact"), findings.figure("matches", "exact_lift")
    if exact is None or (exact.value or 0) < 0:
        return None
    words = f"Identical words give {worded(exact.value, 'share')} of what all word pairs add{within(exact)}"
    if lift is not None and _positive(lift):
        words += f", {lift.value:.1f} times their share of the word pairs"
    rest = "; the rest comes from words that differ"
    return f"{words}{_beyond(exact, 'words that differ') or rest}."


def _relevant(findings: Findings) -> str | None:
    good, bad = findings.figure("retrieval", "score_relevant"), findings.figure("retrieval", "score_not_relevant")
    if good is None or bad is None:
        return None
    return (
        f"Relevant documents score {good.value:.2f} on average{within(good)} and documents judged not relevant "
        f"{bad.value:.2f}{within(bad)}."
    )


def _without_effect(findings: Findings) -> str | None:
    lost = findings.figure("retrieval", "without_effect")
    if lost is None or (lost.value or 0) < FEW_WITHOUT_EFFECT:
        return None
    content = "content words" if findings.summary.run.pipeline is not None else "words"
    return (
        f"From {worded(lost.value, 'share')} of the queries' {content}{within(lost)} the model gained nothing: they "
        "are in none of the documents and pull the scores down. A document may still say the same with a synonym."
    )


def _start(findings: Findings, log: bool) -> str | None:
    lead = findings.figure("position", "lead_b")
    if lead is None or lead.low is None or lead.high is None or not _positive(lead):
        return None
    what = "a document" if log else "the second text"
    if lead.low <= 1 <= lead.high:
        return f"The first tenth of {what} adds neither more nor less than an even spread would{within(lead)}."
    return f"The first tenth of {what} adds {lead.value:.2f} times as much as an even spread would{within(lead)}."


def _strongest(findings: Findings) -> str | None:
    table = findings.tables.get("strongest")
    rows = table.to_pylist() if table is not None else []
    first = [row for row in rows if row["by"] == "total" and not row["group"] and row["total"] > 0][:3]
    if not first:
        return None
    named = ", ".join(f"“{printable(row['a'])}” with “{printable(row['b'])}”" for row in first)
    return f"The {unit_of(findings)} pairs that add most, summed over all pairs of texts, are {named}."


def _negative(findings: Findings, unit: str) -> str | None:
    mass = findings.figure("concentration", "negative_mass")
    if mass is None:
        return None
    return (
        f"Not every {unit} pair raises a score: negative ones make {worded(mass.value, 'share')} of the sum of all "
        f"absolute values{within(mass)}."
    )


def _aim(findings: Findings) -> str:
    return "the score" if findings.summary.run.sums_to == "score" else "the sum"


def _whole(findings: Findings) -> str:
    return "the score" if findings.summary.run.sums_to == "score" else "what all of them add up to"


def _positive(one: Figure) -> bool:
    """A share or ratio that a sentence can name: below zero, "a third of it" would say nothing."""
    return (one.value or 0.0) > 0


def _beyond(share: Figure, others: str) -> str:
    """Why a share is more than all of it; "" where it is not."""
    return f", more than all of it, because {others} add up to less than zero" if (share.value or 0.0) > 1 else ""


def unit_of(findings: Findings) -> str:
    """What was attributed as one: word, token or sentence."""
    return findings.summary.run.groups


def adds_up(overview: Overview) -> Trust:
    """Whether the integration reached what was asked of it."""
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


def meaning(overview: Overview, unit: str) -> Trust:
    """What a pair's numbers sum to, with the average pair as the example."""
    one = overview
    decimals = 2 if max(abs(one.score), abs(one.total)) >= SMALL_SCORE else 3

    def said(value: float) -> str:
        text = f"{value:.{decimals}f}"
        return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")

    parts = f"{unit} pairs {said(one.total - one.special)}"
    if one.special:
        parts += f" {'−' if said(one.special).startswith('−') else '+'} {one.kept} {said(abs(one.special))}"
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
    """How many texts the model did not read to their end; None where it read all."""
    totals = overview.totals
    if not totals.truncated:
        return None
    share = totals.truncated / max(totals.texts, 1)
    count = _count(totals.truncated, "text")
    words = f"{count} ({share:.1%}) are longer than the model reads: the rest of their text does not count."
    return Trust("warn" if share > MANY_CUT else "note", "Some texts were cut.", words)


def agreement(overview: Overview) -> Trust | None:
    """Whether the log's own scores are this model's; None where there is no log with scores."""
    agreement = overview.totals.agreement
    if agreement is None:
        return None
    words = (
        f"The log's own scores differ from the model's by {small(agreement.median)} at the median and "
        f"{small(agreement.largest)} at most."
    )
    if agreement.fits:
        return Trust("good", "The log is this model's.", words)
    return Trust("warn", "The log may be another model's.", words + " Another model, prompt or similarity made it.")


def rejected(overview: Overview) -> Trust:
    """How much of the input was rejected."""
    reasons = overview.totals.rejected
    count = sum(reasons.values())
    if not count:
        return Trust("good", "No row was rejected.", "Every row of the input was attributed.")
    share = count / (count + overview.totals.pairs)
    first, most = next(iter(reasons.items()))
    words = f"{_count(count, 'row')} ({share:.1%}) could not be attributed; most often ({most:,}): {first}."
    return Trust("warn" if share > MANY_REJECTED else "note", "Some rows were rejected.", words)


def small(value: float) -> str:
    """An error in two digits."""
    return f"{value:.1e}" if 0 < value < 1e-4 else f"{value:.2g}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
