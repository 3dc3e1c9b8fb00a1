"""The statistics as sentences: each a result with its number and interval, and what to do about it.

Terminal and report show the same sentences. Where a number would say nothing there is none, and where too few pairs are
judged the sentence says that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from attribution_core.display.view import printable
from jobs.analysis.statistics.schema import Figure, Summary
from jobs.views.kit.numbers import open_ended, within, worded
from jobs.views.statistics.view import ranged

# The statistics whose tables are used.
READ = ("ranking", "retrieval", "strongest")
# With fewer judged queries a metric says nothing of the others.
FEW_QUERIES = 5
# With fewer pairs of a kind their mean is not compared.
FEW_PAIRS = 10
# With a smaller share of judged documents a metric may say more of the judgments than of the ranking.
MOSTLY_JUDGED = 0.8
LEAST_CUT, LEAST_WITHOUT_EFFECT = 0.005, 0.001
# A share from which on identical words make most of the score.
MOST = 0.5
# The most that a pair's sum may be off at the default tolerance, in units of ‖e(a)‖‖e(b)‖.
GOOD_ERROR = 1e-2
EXAMPLES, WORST = 3, 5
# What some advice is about, which the report places by itself.
RANKING, CUT = "ranking", "cut texts"


@dataclass(frozen=True)
class Advice:
    """One result: ``about`` names it, ``finding`` is a sentence with its number and interval, ``act`` says what to do
    ("" for nothing), and ``statistic`` is the name of the statistic that has more."""

    about: str
    finding: str
    act: str = ""
    statistic: str = ""


def advice_of(summary: Summary, tables: Mapping[str, pa.Table]) -> list[Advice]:
    """Return what a person acts on, first; then what describes the scores. ``tables`` are the statistics' tables by
    name, of which those of ``READ`` are used."""
    known = _Known(summary, tables)
    made = (
        _ranking(known),
        _cut(known),
        _without_effect(known),
        _relevant(known),
        _identical(known),
        _start(known),
        _concentrated(known),
        _strongest(known),
        _parts_of_speech(known),
        _exact(known),
    )
    return [one for one in made if one is not None]


class _Known:
    """What the sentences are made of."""

    def __init__(self, summary: Summary, tables: Mapping[str, pa.Table]) -> None:
        facts = summary.run
        self.summary, self.tables = summary, tables
        self.log = facts.mode == "retrieval"
        self.unit = facts.groups
        self.aim = f"the {'score' if facts.sums_to == 'score' else 'sum'}"
        self.whole = "the score" if facts.sums_to == "score" else "what all of them add up to"

    def figure(self, statistic: str, name: str) -> Figure | None:
        """Return a figure, where the run has it and it is defined."""
        return self.summary.figure(statistic, name)

    def rows(self, table: str, most: int) -> list[dict[str, object]]:
        """Return the first rows of a table; none where the run has no such table."""
        return self.tables[table].slice(0, most).to_pylist() if table in self.tables else []


def _ranking(known: _Known) -> Advice | None:
    statistic = known.summary.statistics.get("ranking")
    if statistic is None or not known.log:
        return None
    rows_of = known.rows("ranking", 100)
    rows = [row for row in rows_of if str(row["metric"]).startswith("nDCG")]
    if not rows:
        act = "Judge some documents, and name the judgments as qrels in the job."
        return Advice(RANKING, " ".join(statistic.notes), act, "ranking")
    by = {row["ranking"]: row for row in rows}
    best, name, queries = by["model"], str(by["model"]["metric"]), int(str(by["model"]["queries"]))
    if too_few(queries, _number(best["low"]), _number(best["high"])):
        finding = f"How good the ranking is, is open: too few judged queries ({queries})."
        return Advice(RANKING, finding, "Judge more of them.", "ranking")
    finding = f"{name} is {ranged(best)} over {queries:,} queries"
    if "log" in by and any(by["log"][end] != best[end] for end in ("value", "low", "high")):
        finding += f" in the model's order, {ranged(by['log'])} in the log's"
    table, cutoff = known.tables["ranking_queries"], name.partition("@")[2]
    # Where all judgments are of the run's rows, recall is not known, and a query without a relevant one retrieved none.
    if any(column.startswith("model R@") for column in table.column_names):
        table = table.filter(pc.greater(table["relevant"], 0))
    none = pc.sum(pc.cast(pc.equal(table[f"model RR@{cutoff}"], 0), pa.int64())).as_py() or 0
    # Of a large log the report reads the worst queries alone.
    if 0 < none < len(table):
        finding += f"; for {none:,} no relevant document is among the first {cutoff}"
    judged = next((row for row in rows_of if row["metric"] == f"Judged@{cutoff}" and row["ranking"] == "model"), None)
    seen = _number(judged["value"]) if judged is not None else None
    if seen is not None and seen < MOSTLY_JUDGED:
        finding += (
            f"; only {worded(seen, 'share')} of the first {cutoff} are judged, and the others count as irrelevant"
        )
    values = table[f"model {name}"].to_numpy()
    worst = [at for at in np.argsort(values, kind="stable")[:WORST] if values[at] < 1]
    ids = ", ".join(printable(str(table["query"][int(at)])) for at in worst)
    act = f"Start with the worst queries: {ids}." if worst else ""
    return Advice(RANKING, f"{finding}.", act, "ranking")


def too_few(queries: int, low: float | None, high: float | None) -> bool:
    """Return whether the interval of a metric of so many queries makes it meaningless."""
    return queries < FEW_QUERIES or low is None or open_ended(low, high, 1.0)


def _number(value: object) -> float | None:
    return value if isinstance(value, float) else None


def _cut(known: _Known) -> Advice | None:
    cut, unread = (known.figure("position", f"{name}_b") for name in ("truncated", "unread"))
    if cut is None or (cut.value or 0) < LEAST_CUT:
        return None
    what = "document" if known.log else "second text"
    finding = f"{worded(cut.value, 'share')} of the pairs{within(cut)} have a {what} longer than the model reads"
    if unread is not None:
        finding += f"; {worded(unread.value, 'share')} of the {what}s' text is not read"
    act = "Split long documents into chunks." if known.log else ""
    return Advice(CUT, f"{finding}.", act, "position")


def _without_effect(known: _Known) -> Advice | None:
    lost = known.figure("retrieval", "without_effect")
    if lost is None or (lost.value or 0) < LEAST_WITHOUT_EFFECT:
        return None
    content = "content words" if known.summary.run.pipeline is not None else "words"
    examples = [
        f"“{printable(str(row['word']))}” ({'query ' if not place else ''}{printable(str(row['query_id']))})"
        for place, row in enumerate(known.rows("words_without_effect", EXAMPLES))
    ]
    finding = (
        f"From {worded(lost.value, 'share')} of the queries' {content}{within(lost)}, which none of their documents "
        f"has, the model gained nothing{': ' if examples else ''}{', '.join(examples)}."
    )
    act = (
        "Match these words by a lexical index beside the model; where documents use a synonym, fine-tune on such pairs."
    )
    return Advice("no effect", finding, act, "retrieval")


def _relevant(known: _Known) -> Advice | None:
    rows = [row for row in known.rows("retrieval_relevance", 100) if row["measure"] == "score"]
    groups = {str(row["group"]): row for row in rows}
    other = "not relevant" if "not relevant" in groups else "not judged"
    if "relevant" not in groups or other not in groups:
        return None
    good, bad = groups["relevant"], groups[other]
    judged = int(str(good["pairs"])) + (int(str(bad["pairs"])) if other == "not relevant" else 0)
    ends = [row[end] for row in (good, bad) for end in ("low", "high")]
    fewest = min(int(str(row["pairs"])) for row in (good, bad))
    if fewest < FEW_PAIRS or any(not isinstance(end, float) for end in ends):
        finding = f"Whether relevant documents score higher than others is open: too few judged pairs ({judged:,})."
        return Advice("relevance", finding, "", "retrieval")
    low, high, bad_low, bad_high = (float(str(end)) for end in ends)
    named = {"not relevant": "documents judged not relevant", "not judged": "documents without a judgment"}[other]
    finding = (
        f"Relevant documents score {good['value']:.2f} on average ({low:.2f} to {high:.2f}) and {named} "
        f"{bad['value']:.2f} ({bad_low:.2f} to {bad_high:.2f})."
    )
    act = "They hardly differ: fine-tune on judged pairs, or rerank." if low <= bad_high else ""
    return Advice("relevance", finding, act, "retrieval")


def _identical(known: _Known) -> Advice | None:
    exact, lift = known.figure("matches", "exact"), known.figure("matches", "exact_lift")
    if exact is None or (exact.value or 0) < 0 or open_ended(exact.low, exact.high, 1):
        return None
    words = f"Identical words give {worded(exact.value, 'share')} of what all word pairs add{within(exact)}"
    if lift is not None and _positive(lift):
        words += f", {lift.value:.1f} times their share of the word pairs"
    act = ""
    if (exact.value or 0) > MOST:
        act = "Compare the model with BM25, and fine-tune on paraphrases if synonyms must match."
    return Advice("identical words", f"{words}{_beyond(exact, 'words that differ')}.", act, "matches")


def _start(known: _Known) -> Advice | None:
    lead = known.figure("position", "lead_b")
    if lead is None or lead.low is None or lead.high is None or not _positive(lead):
        return None
    if open_ended(lead.low, lead.high, lead.value or 0):
        return None
    what = "a document" if known.log else "the second text"
    said = f"{lead.value:.2f} times as much as" if not lead.low <= 1 <= lead.high else "neither more nor less than"
    finding = f"The first tenth of {what} adds {said} an even spread would{within(lead)}."
    return Advice("position", finding, "", "position")


def _concentrated(known: _Known) -> Advice | None:
    five, half = known.figure("concentration", "largest_5"), known.figure("concentration", "largest_50")
    if five is None or not _positive(five):
        return None
    words = f"The strongest 5 % of {known.unit} pairs give {worded(five.value, 'share')} of {known.whole}{within(five)}"
    why = _beyond(five, "the others")
    words += why
    if half is not None and _positive(half):
        words += f"; the strongest half gives {worded(half.value, 'share')}{'' if why else _beyond(half, 'the others')}"
    return Advice("concentration", f"{words}.", "", "concentration")


def _strongest(known: _Known) -> Advice | None:
    rows = known.rows("strongest", 50)
    first = [row for row in rows if row["by"] == "total" and not row["group"] and float(str(row["total"])) > 0][:3]
    if not first:
        return None
    named = ", ".join(f"“{printable(str(row['a']))}” with “{printable(str(row['b']))}”" for row in first)
    finding = f"The {known.unit} pairs that add most in all are {named}."
    return Advice("strongest", finding, "", "strongest")


def _parts_of_speech(known: _Known) -> Advice | None:
    nouns, verbs, share = (
        known.figure("parts_of_speech", name) for name in ("nouns_lift", "verbs_lift", "nouns_share")
    )
    words = []
    if nouns is not None and verbs is not None and _positive(nouns) and _positive(verbs):
        words.append(
            f"a noun or name adds {nouns.value:.2f} times as much to {known.aim} as an average word, "
            f"a verb {verbs.value:.2f} times"
        )
    if share is not None and _positive(share):
        words.append(
            f"nouns and names make {worded(share.value, 'share')} of what all words add{within(share)}"
            f"{_beyond(share, 'the other words')}"
        )
    said = "; ".join(words)
    return Advice("parts of speech", f"{said[0].upper()}{said[1:]}.", "", "parts_of_speech") if said else None


def _exact(known: _Known) -> Advice | None:
    missed, median, largest = (
        known.figure("convergence", name) for name in ("unconverged", "error_median", "error_max")
    )
    if missed is None or median is None or largest is None:
        return None
    words = f"A pair's sum is off by {worded(median.value)} at the median and {worded(largest.value)} at most"
    if missed.value:
        finding = f"{words}; {worded(missed.value, 'share')} of the texts missed the tolerance."
        return Advice("exactness", finding, "Raise max_nodes of quadrature.", "convergence")
    good = (largest.value or 0) <= GOOD_ERROR
    act = "" if good else "Lower the tolerance where single pairs matter."
    return Advice("exactness", f"{words}; every text met the tolerance.", act, "convergence")


def _positive(one: Figure) -> bool:
    """Return whether a sentence can name a share or ratio: below zero, "a third of it" would say nothing."""
    return (one.value or 0.0) > 0


def _beyond(share: Figure, others: str) -> str:
    """Return why a share is more than all of it; "" where it is not."""
    return f", more than all of it, because {others} add up to less than zero" if (share.value or 0.0) > 1 else ""
