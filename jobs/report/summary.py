"""The top of the page, for somebody who reads nothing else: what was found, and whether it can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attribution_core.display_view import printable
from jobs.report.findings import PERCENT, worded
from jobs.report.overview import Overview
from jobs.report.trust import Trust

if TYPE_CHECKING:
    from jobs.report.findings import Findings
    from jobs.statistics.schema import Figure

# The bar of the identity's error at the default tolerance, in units of ‖e(a)‖‖e(b)‖.
GOOD_ERROR = 1e-2
# A model whose reference terms are below this share of its score is as good as exact.
SMALL_REFERENCE = 0.05
MANY_REJECTED, MANY_CUT = 0.01, 0.1
FEW_UNANSWERED = 0.001


def scored(overview: Overview, log: bool) -> str:
    """The first sentence: how much was looked at, and which scores there are."""
    scores, totals = overview.scores, overview.totals
    what = "pairs of a query and a document" if log else "pairs of texts"
    return (
        f"The model scored {totals.pairs:,} {what}, made from {totals.texts:,} distinct texts; half of the scores lie "
        f"between {scores.quantile(0.25):.2f} and {scores.quantile(0.75):.2f}, with {scores.quantile(0.5):.2f} in the "
        "middle."
    )


def found_sentences(overview: Overview, findings: Findings | None, log: bool, unit: str, most: int = 5) -> list[str]:
    """At most ``most`` sentences on what was found, the most telling first; each is made from a number of the run."""
    sentences: list[str | None] = [scored(overview, log)]
    if findings is not None:
        facts = findings.summary.run
        if facts.sample is not None:
            sentences = [f"{sentences[0]} What follows is of {facts.pairs:,} of these pairs, chosen by chance."]
        sentences += [
            _concentrated(findings, unit),
            _parts_of_speech(findings),
            _identical(findings),
            _relevant(findings),
            _start(findings, log),
            _strongest(findings),
            _negative(findings, unit),
        ]
    return [one for one in sentences if one is not None][:most]


def _concentrated(findings: Findings, unit: str) -> str | None:
    five, half = findings.figure("concentration", "largest_5"), findings.figure("concentration", "largest_50")
    if five is None:
        return None
    share = worded(five.value, "share")
    words = f"The strongest 5 % of {unit} pairs give {share} of what all of them add up to{within(five)}"
    return words + (f"; the strongest half gives {worded(half.value, 'share')}." if half is not None else ".")


def _parts_of_speech(findings: Findings) -> str | None:
    nouns, verbs = findings.figure("parts_of_speech", "nouns_lift"), findings.figure("parts_of_speech", "verbs_lift")
    if nouns is None or verbs is None:
        return None
    share = findings.figure("parts_of_speech", "nouns_share")
    words = f"A noun or name brings {nouns.value:.2f} times what an average word brings, a verb {verbs.value:.2f} times"
    if share is None:
        return f"{words}."
    return f"{words}; nouns and names make {worded(share.value, 'share')} of everything{within(share)}."


def _identical(findings: Findings) -> str | None:
    exact, lift = findings.figure("matches", "exact"), findings.figure("matches", "exact_lift")
    if exact is None:
        return None
    words = f"Identical words give {worded(exact.value, 'share')} of the sum{within(exact)}"
    more = f", {lift.value:.1f} times their share of the word pairs" if lift is not None else ""
    return f"{words}{more}; the rest comes from words that differ."


def _relevant(findings: Findings) -> str | None:
    good, bad = findings.figure("retrieval", "score_relevant"), findings.figure("retrieval", "score_not_relevant")
    unanswered = findings.figure("retrieval", "unanswered")
    words = ""
    if good is not None and bad is not None:
        words = (
            f"Relevant documents score {good.value:.2f} on average{within(good)} and documents judged not relevant "
            f"{bad.value:.2f}{within(bad)}"
        )
    if unanswered is not None and (unanswered.value or 0) >= FEW_UNANSWERED:
        words += "; " if words else ""
        share = worded(unanswered.value, "share")
        words += f"{share} of the queries' content words were answered by none of their documents"
    return f"{words}." if words else None


def _start(findings: Findings, log: bool) -> str | None:
    lead = findings.figure("position", "lead_b")
    if lead is None or lead.low is None or lead.high is None:
        return None
    what = "a document" if log else "the second text"
    if lead.low <= 1 <= lead.high:
        return f"The beginning of {what} brings neither more nor less than the rest of it{within(lead)}."
    return f"The first tenth of {what} brings {lead.value:.2f} times as much as an even spread would{within(lead)}."


def _strongest(findings: Findings) -> str | None:
    table = findings.tables.get("strongest")
    rows = table.to_pylist() if table is not None else []
    first = [row for row in rows if row["by"] == "total" and not row["group"]][:3]
    if not first:
        return None
    named = ", ".join(f"“{printable(row['a'])}” with “{printable(row['b'])}”" for row in first)
    return f"The {unit_of(findings)} pairs that bring most over all pairs are {named}."


def _negative(findings: Findings, unit: str) -> str | None:
    mass = findings.figure("concentration", "negative_mass")
    if mass is None:
        return None
    return f"Of all that {unit} pairs bring, {worded(mass.value, 'share')} lowers a score{within(mass)}."


def unit_of(findings: Findings) -> str:
    """What was attributed as one: word, token or sentence."""
    return findings.summary.run.groups


def within(one: Figure) -> str:
    """The figure's interval in brackets; "" where it has none."""
    if one.low is None or one.high is None:
        return ""
    # The unit is said once, behind the second number.
    low, high = (worded(end, one.unit).removesuffix(" ×") for end in (one.low, one.high))
    return f" ({low.removesuffix(PERCENT)} to {high})"


def adds_up(overview: Overview) -> Trust:
    """Whether the integration reached what was asked of it."""
    totals = overview.totals
    good = totals.unconverged == 0 and totals.largest_error <= GOOD_ERROR
    words = (
        "Every pair was checked against the model's own scores: what its word pairs add up to is off by "
        f"{small(totals.median_error)} at the median and {small(totals.largest_error)} at the worst, in the unit of a "
        "cosine, of which 1 is the most."
    )
    if totals.unconverged:
        missed = _count(totals.unconverged, "text")
        words += f" {missed} missed the tolerance asked for: what is said of them is approximate."
    return Trust("good" if good else "warn", "The numbers add up." if good else "Some numbers are approximate.", words)


def reference(overview: Overview, unit: str) -> Trust:
    """What the sum of the attributions is, in this model."""
    one = overview
    terms = one.reference_a + one.reference_b - one.reference_ab
    size = abs(one.score) or 1.0
    if max(abs(one.reference_a), abs(one.reference_b), abs(one.reference_ab)) <= SMALL_REFERENCE * size:
        words = (
            f"On average the {unit} pairs add up to {one.total:.2f} of a score of {one.score:.2f}: they are the score."
        )
        return Trust("good", "The sum is the score.", words)
    share = f"{terms:+.2f}".replace("-", "−")
    words = (
        f"An average score of {one.score:.2f} is {one.total:.2f} from all {unit} pairs and {share} from blank texts, "
        f"in which padding stands for every word: blank against blank alone is {one.reference_ab:.2f} on this scale. "
        f"So a {unit} pair's number says how much it adds compared with blanks; without them, a pair's numbers do not "
        "add up to its score."
    )
    return Trust("note", "What the sum means.", words)


def cut_texts(overview: Overview) -> Trust | None:
    """How many texts the model did not read to their end; None where it read all."""
    totals = overview.totals
    if not totals.truncated:
        return None
    share = totals.truncated / max(totals.texts, 1)
    count = _count(totals.truncated, "text")
    words = f"{count} ({share:.1%}) did not fit into what the model reads: whatever stands behind that had no say."
    return Trust("warn" if share > MANY_CUT else "note", "Some texts were cut.", words)


def agreement(overview: Overview) -> Trust | None:
    """Whether the log's own scores are this model's; None where there is no log with scores."""
    found = overview.totals.agreement
    if found is None:
        return None
    words = (
        f"The log's own scores differ from the model's by {small(found.median)} at the median and "
        f"{small(found.largest)} at most."
    )
    if found.fits:
        return Trust("good", "The log is this model's.", words)
    return Trust("warn", "The log may be another model's.", words + " Another model, prompt or similarity made it.")


def rejected(overview: Overview) -> Trust:
    """How much of the input was turned away."""
    reasons = overview.totals.rejected
    count = sum(reasons.values())
    if not count:
        return Trust("good", "Nothing was turned away.", "Every row of the input was attributed.")
    share = count / (count + overview.totals.pairs)
    first, most = next(iter(reasons.items()))
    words = f"{_count(count, 'row')} ({share:.1%}) could not be attributed; most often ({most:,}): {first}."
    return Trust("warn" if share > MANY_REJECTED else "note", "Some rows were turned away.", words)


def small(value: float) -> str:
    """An error in two digits."""
    return f"{value:.1e}" if 0 < value < 1e-4 else f"{value:.2g}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def table_of(columns: list[tuple[str, bool]], rows: list[list[str]], caption: str, note: str = "") -> dict[str, Any]:
    """A table as the template wants it; ``columns`` are (name, whether it holds text)."""
    heads = [{"name": name, "text": is_text, "meaning": ""} for name, is_text in columns]
    cells = [[{"words": words, "text": heads[at]["text"], "link": ""} for at, words in enumerate(row)] for row in rows]
    return {"caption": caption, "columns": heads, "rows": cells, "note": note}
