"""Kinds of failure and probes as parts of the page, and the sentences that the verdict takes from them."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from attribution_core.display.view import printable, shortened
from jobs.analysis.failures import behind_the_cut, words_without_effect
from jobs.analysis.failures.result import Failures
from jobs.analysis.probes.result import Probe, Probes
from jobs.views.failures.terminal import BY_CHANCE, case_line, counted_share
from jobs.views.kit.page import html_table
from jobs.views.probes.terminal import LEGEND, probes_table, sentence
from jobs.views.report.query_table import fragment
from jobs.views.report.verdict import Sentence

EXAMPLES, LONGEST_EXAMPLE, MOST_WORDS = 3, 200, 3
# A copy that says the opposite and so often scores above the true one is worth a sentence.
OFTEN = 0.25
FEW_DOCUMENTS = 20
# A word with less of a margin explains nothing of it.
LEAST_SHARE = 0.05


def examples(failures: Failures | None) -> list[str]:
    """Return the queries that are shown as examples of a kind."""
    return [case.query_id for kind in (failures.kinds if failures else ()) for case in kind.cases[:EXAMPLES]]


def cards(failures: Failures | None, linked: Collection[str]) -> list[dict[str, Any]]:
    """Return what the template needs of each kind, the commonest first; queries in ``linked`` have a row on the
    page."""
    kinds = sorted(failures.kinds if failures else (), key=lambda kind: -(kind.share or 0.0))
    return [
        {
            "id": f"kind-{kind.name.replace('_', '-')}",
            "title": f"{kind.title[:1].upper()}{kind.title[1:]}",
            "share": counted_share(kind),
            "advice": kind.advice if kind.above_chance else "",
            "doubt": "" if kind.above_chance or not kind.count else BY_CHANCE,
            "rates": "; ".join(map(str, kind.rates)),
            "examples": [
                {
                    "words": shortened(printable(case_line(case)), LONGEST_EXAMPLE),
                    "link": f"#{fragment('failing', case.query_id)}" if case.query_id in linked else "",
                }
                for case in kind.cases[:EXAMPLES]
            ],
        }
        for kind in kinds
    ]


def kind_sentences(failures: Failures | None) -> list[Sentence]:
    """Return the kinds that occur more often than by chance, the commonest first."""
    if failures is None:
        return []
    made = []
    for kind in sorted(failures.kinds, key=lambda kind: -(kind.share or 0.0)):
        # Words without effect have a sentence of their own, with examples, from the statistics.
        if kind.name == words_without_effect.NAME or not kind.above_chance:
            continue
        finding = f"{kind.title[:1].upper()}{kind.title[1:]} in {counted_share(kind)}."
        if kind.name == behind_the_cut.NAME and failures.documents:
            finding = f"{failures.cut / failures.documents:.0%} of the documents are cut. {finding}"
        link = f"#kind-{kind.name.replace('_', '-')}"
        made.append(Sentence(finding, kind.advice, link, "the cases"))
    return made


def knows_the_cut(failures: Failures | None) -> bool:
    """Return whether unread text was looked at: then it is known whether the cut matters, and not only that it is
    there."""
    kind = failures.kind(behind_the_cut.NAME) if failures is not None else None
    return kind is not None and kind.of > 0


def tags(failures: Failures | None) -> dict[str, list[str]]:
    """Return the kinds of failure of each query, in a few words."""
    named: dict[str, list[str]] = {}
    for kind in failures.kinds if failures else ():
        for case in kind.cases:
            own = named.setdefault(case.query_id, [])
            said = kind.title
            if kind.name == words_without_effect.NAME:
                said = f"without effect: {', '.join(map(printable, case.words[:MOST_WORDS]))}"
            if said not in own:
                own.append(said)
    return named


def only_in_wrong(failures: Failures | None) -> dict[str, str]:
    """By query, a sentence on the identical words that only the wrong document has: a description, not a cause."""
    said = {}
    for one in failures.only_in_wrong if failures else ():
        words = [
            f"{printable(word.word)} (in {word.documents:,} documents"
            + (f", {word.share:.0%} of the margin)" if word.share is not None else ")")
            for word in [word for word in one.words if word.share is None or abs(word.share) >= LEAST_SHARE][
                :MOST_WORDS
            ]
        ]
        if not words:
            continue
        said[one.query_id] = (
            f"Words of the query that {printable(one.above)} has and {printable(one.below)} has not: "
            + (f"{', '.join(words)}.")
        )
    return said


def probes_part(probes: Probes | None, called: str) -> dict[str, Any]:
    """Return the probes as a part of the page, or the command that computes them."""
    if probes is None:
        missing = (
            "What a negation, another number or an antonym changes in the scores was not tested: tokenpair probe "
            f"{shlex.quote(called)}"
        )
        return {"missing": missing}
    table = replace(probes_table(probes), title=f"Edits of {probes.pairs:,} documents", note=LEGEND)
    sentences = [sentence(one) for one in probes.probes if one.contradicts]
    return {"missing": "", "table": html_table(table), "sentences": sentences, "notes": probes.notes}


def probe_sentences(probes: Probes | None) -> list[Sentence]:
    """Return the edit that contradicts a document and is noticed least, where that is often."""
    often: Sequence[Probe] = [
        one
        for one in (probes.probes if probes else ())
        if one.contradicts
        and one.pairs >= FEW_DOCUMENTS
        and one.above is not None
        and one.above.low is not None
        and one.above.low > OFTEN
    ]
    if not often:
        return []
    worst = max(often, key=lambda one: one.above.value if one.above else 0.0)
    act = "Rerank with a cross-encoder where such details decide."
    return [Sentence(sentence(worst), act, "#probes", "all edits")]
