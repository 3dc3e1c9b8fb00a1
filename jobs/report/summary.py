"""The top of the page, for somebody who reads nothing else: what was found, and whether it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from jobs.report.overview import Overview

State = Literal["good", "warn", "open", "note"]

# The bar of the identity's error at the default tolerance, in units of ‖e(a)‖‖e(b)‖.
GOOD_ERROR = 1e-2
# A model whose reference terms are below this share of its score is as good as exact.
SMALL_REFERENCE = 0.05
MANY_REJECTED, MANY_CUT = 0.01, 0.1


@dataclass(frozen=True)
class Trust:
    """One reason to trust the numbers, or not: ``about`` is its headline."""

    state: State
    about: str
    words: str


def scored(overview: Overview, log: bool) -> str:
    """The first sentence: how much was looked at, and which scores there are."""
    scores, totals = overview.scores, overview.totals
    what = "pairs of a query and a document" if log else "pairs of texts"
    return (
        f"The model scored {totals.pairs:,} {what}, made from {totals.texts:,} distinct texts; half of the scores lie "
        f"between {scores.quantile(0.25):.2f} and {scores.quantile(0.75):.2f}, with {scores.quantile(0.5):.2f} in the "
        "middle."
    )


def adds_up(overview: Overview) -> Trust:
    """Whether the integration reached what was asked of it."""
    totals = overview.totals
    good = totals.unconverged == 0 and totals.largest_error <= GOOD_ERROR
    words = (
        "Every pair was checked against the model's own scores: what its word pairs add up to is off by "
        f"{totals.median_error:.1e} at the median and {totals.largest_error:.1e} at the worst, where a score of 1 is "
        "the most that two texts can have."
    )
    if totals.unconverged:
        words += f" {_count(totals.unconverged, 'text')} missed the tolerance asked for and {_are(totals.unconverged)} approximate."
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
    words = (
        f"A score of {one.score:.2f}, the average, is {one.total:.2f} from all {unit} pairs and {terms:+.2f} from blank "
        f"texts: for this model two blank texts already have a similarity of {one.reference_ab:.2f}. So a {unit} pair's "
        "number says how much it adds compared with blanks, and the numbers of a pair do not add up to its score alone."
    )
    return Trust("note", "What the sum means.", words.replace("-", "−", 1) if terms < 0 else words)


def cut_texts(overview: Overview) -> Trust | None:
    """How many texts the model did not read to their end; None where it read all."""
    totals = overview.totals
    if not totals.truncated:
        return None
    share = totals.truncated / max(totals.texts, 1)
    words = f"{_count(totals.truncated, 'text')} ({share:.1%}) are longer than the model reads; the rest of them had no say."
    if totals.truncated == 1:
        words = words.replace("are longer", "is longer").replace("of them", "of it")
    return Trust("warn" if share > MANY_CUT else "note", "Some texts were cut.", words)


def agreement(overview: Overview) -> Trust | None:
    """Whether the log's own scores are this model's; None where there is no log with scores."""
    found = overview.totals.agreement
    if found is None:
        return None
    words = f"The log's own scores differ from the model's by {found.median:.1e} at the median and {found.largest:.1e} at most."
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


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def table_of(columns: list[tuple[str, bool]], rows: list[list[str]], caption: str, note: str = "") -> dict[str, Any]:
    """A table as the template wants it; ``columns`` are (name, whether it holds text)."""
    heads = [{"name": name, "text": is_text, "meaning": ""} for name, is_text in columns]
    cells = [[{"words": words, "text": heads[at]["text"], "link": ""} for at, words in enumerate(row)] for row in rows]
    return {"caption": caption, "columns": heads, "rows": cells, "note": note}
