"""The queries that fail, worst first, each with why: a margin of two documents, or what raised the wrong one."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc
from markupsafe import Markup

from attribution_core.display.view import printable, shortened
from jobs.analysis.margin.compute import margin
from jobs.analysis.margin.inversions import Inversion, inversions
from jobs.analysis.margin.result import Margin
from jobs.analysis.query.result import QueryResult
from jobs.analysis.ranking.result import Ranking
from jobs.run.reader import Run
from jobs.views.margin.page import margin_html
from jobs.views.margin.wording import query_lines
from jobs.views.query.page import query_html
from jobs.views.report.disagreement import Disagreements, read_disagreements
from jobs.views.report.query_table import LONGEST_QUERY, fragment
from jobs.views.report.rows import Head, Row, Rows, number

# The worst queries, and of those in which a relevant document was retrieved, but below another, some more.
WORST, INVERTED = 15, 20
# Without judgments: queries of each kind.
FEW = 10
# Documents that a query without a margin opens to.
DOCUMENTS = 3
NAMED, NAMED_SHARE, LEAST_LIFT = 3, 0.1, 0.005
LONGEST_ID, LONGEST_WHY = 40, 260


@dataclass
class Failing:
    """The table of failing queries, a sentence about them, the ids in its rows, and pairs for the explorer."""

    intro: str
    table: Rows
    notes: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    pairs: list[str] = field(default_factory=list)


class _Opened:
    """What rows open to, up to ``room`` bytes in all."""

    def __init__(self, run: Run, called: str, room: int) -> None:
        self.run, self.called, self.room = run, shlex.quote(called), room
        self.pairs: list[str] = []

    def margin(self, query_id: str, a: str, b: str) -> tuple[Margin, Markup]:
        """The margin of two documents, and its drawing."""
        split = margin(self.run, query_id, a, b)
        self.pairs += [one.pair_id for one in split.documents]
        command = f"tokenpair why {self.called} {' '.join(shlex.quote(printable(one)) for one in (query_id, a, b))}"
        return split, self._fitted(Markup(margin_html(split, styled=False)), command)

    def query(self, query_id: str) -> tuple[QueryResult, Markup]:
        """A query, and the drawing of its first documents."""
        result: QueryResult = self.run.query(query_id)
        self.pairs += [one.pair_id for one in result.documents[:DOCUMENTS]]
        command = f"tokenpair show {self.called} --query={shlex.quote(printable(query_id))}"
        return result, self._fitted(Markup(query_html(result, top=DOCUMENTS, styled=False)), command)

    def _fitted(self, html: Markup, command: str) -> Markup:
        size = len(html.encode())
        if size > self.room:
            return Markup('<p class="faint">This page has no more room. In the terminal: <code>{}</code></p>').format(
                command
            )
        self.room -= size
        return html + Markup('<p class="faint">In the terminal: <code>{}</code></p>').format(command)


def failing_judged(run: Run, ranking: Ranking, kinds: Mapping[str, Sequence[str]], called: str, room: int) -> Failing:
    """The worst queries of a judged log; ``kinds`` are words on each query that its row shows too, ``room`` the bytes
    that the margins may have."""
    metric, first_relevant = f"model nDCG@{ranking.cutoff}", f"model RR@{ranking.cutoff}"
    table = ranking.per_query
    table = table.filter(pc.and_(pc.greater(table["relevant"], 0), pc.less(table[metric], 1 - 1e-9)))
    rows = table.to_pylist()
    by_query = {one.query_id: one for one in inversions(run)}
    chosen = rows[:WORST] + [row for row in rows[WORST:] if row["query"] in by_query][:INVERTED]
    opened = _Opened(run, called, room)
    # Queries with a margin say most, so they get their room first.
    drawn = {
        row["query"]: _judged_row(opened, row, by_query.get(row["query"]), ranking)
        for row in sorted(chosen, key=lambda row: row["query"] not in by_query)
    }
    recall = f"model R@{ranking.depth}"
    heads = [
        Head("query", label=True),
        Head(metric.removeprefix("model "), "gain of the relevant documents by rank, of the best order possible"),
        Head(first_relevant.removeprefix("model "), "1 / rank of the first relevant document"),
        Head("relevant", f"documents judged relevant, and how many of them are among the first {ranking.depth}"),
        Head("why", label=True),
    ]
    made = []
    for row in chosen:
        why, more = drawn[row["query"]]
        good = row["relevant"]
        found = f"{round(row[recall] * good)} of {good}" if recall in row else str(good)
        cells = [_called(row["text"], row["query"]), number(row[metric]), number(row[first_relevant]), found, why]
        tags = [shortened(f"query {printable(row['query'])}", LONGEST_ID), *kinds.get(row["query"], ())]
        made.append(Row(fragment("failing", row["query"]), cells, more, tags))
    none = sum(1 for row in rows if row[first_relevant] == 0)
    inverted = sum(1 for row in rows if row["query"] in by_query)
    intro = (
        f"{len(rows):,} of {ranking.queries:,} judged queries are not ranked as well as they could be; in {none:,} of "
        f"them no relevant document is among the first {ranking.cutoff}, and in {inverted:,} one is below "
        "a document that is not relevant or not judged. Open a query to see which words put it there."
    )
    if not rows:
        intro = f"All {ranking.queries:,} judged queries are ranked as well as they could be."
    note = f"The {WORST} worst queries, and the worst of those whose relevant documents were retrieved."
    shown = Rows("failing-table", "Failing queries", heads, made, 1, note if len(chosen) < len(rows) else "")
    return Failing(intro, shown, ranking.notes, tuple(row["query"] for row in chosen), opened.pairs)


def _judged_row(
    opened: _Opened, row: Mapping[str, Any], inversion: Inversion | None, ranking: Ranking
) -> tuple[str, Markup]:
    if inversion is not None:
        split, html = opened.margin(row["query"], inversion.above, inversion.below)
        why = (
            f"{_id(inversion.above)} at rank {inversion.rank_above} is {inversion.margin:.3f} above the relevant "
            f"{_id(inversion.below)} at rank {inversion.rank_below}, by {raising(split) or 'many words together'}"
        )
        return shortened(why, LONGEST_WHY), html
    result, html = opened.query(row["query"])
    return shortened(f"no relevant document among the first {ranking.depth}; {lifting(result)}", LONGEST_WHY), html


def raising(split: Margin) -> str:
    """The query words that put the first document of a margin above the second: "wing +0.12, hot +0.05"."""
    lines = [line for line in query_lines(split) if line.is_word and line.value >= NAMED_SHARE * split.difference > 0]
    return ", ".join(f"{printable(line.label)} +{line.value:.2f}" for line in lines[:NAMED])


def lifting(result: QueryResult) -> str:
    """The query words that raised the first document most: by their lift, or by what they add where it has none."""
    best = min(result.documents, key=lambda one: (-one.score, one.id))
    values = best.row_sums if best.row_lift is None else best.row_lift
    groups = result.query.groups
    words = [(float(values[i]), groups.labels[i]) for i, kind in enumerate(groups.kinds) if kind == "text"]
    strongest = [(value, label) for value, label in sorted(words, reverse=True)[:NAMED] if value >= LEAST_LIFT]
    named = ", ".join(f"{printable(label)} +{value:.2f}" for value, label in strongest)
    return f"{_id(best.id)} is first, lifted by {named}" if named else f"{_id(best.id)} is first"


def failing_unjudged(
    run: Run, lost: Mapping[str, Sequence[str]], cut: Sequence[tuple[str, int, int]], called: str, room: int
) -> Failing:
    """Queries of a log without judgments that may fail: where a second run disagrees, by words without effect
    (``lost``, the worst first) and by documents that were cut (``cut``: query, how many, of how many)."""
    other = read_disagreements(run, FEW)
    opened = _Opened(run, called, room)
    whys: dict[str, list[str]] = {}
    margins: dict[str, Markup] = {}
    for one in other.queries if other is not None else ():
        split, margins[one.query_id] = opened.margin(one.query_id, one.first, one.other)
        by = f", by {words}" if (words := raising(split)) else ""
        why = f"the second run has {_id(one.other)} first, and this one {_id(one.first)}{by}"
        whys.setdefault(one.query_id, []).append(why)
    for query in list(lost)[:FEW]:
        whys.setdefault(query, []).append(f"without effect: {', '.join(lost[query][:NAMED])}")
    for query, count, of in cut[:FEW]:
        whys.setdefault(query, []).append(f"{count} of {of} documents were cut")
    texts = run.written_texts(whys, "query")
    rows = []
    for query, reasons in whys.items():
        more = margins[query] if query in margins else opened.query(query)[1]
        cells = [_called(texts.get(query, ""), query), shortened("; ".join(reasons), LONGEST_WHY)]
        rows.append(Row(fragment("failing", query), cells, more, [shortened(f"query {printable(query)}", LONGEST_ID)]))
    intro = "The log has no judgments, so these queries may fail: " + _listed(other, bool(lost), bool(cut))
    table = Rows("failing-table", "Queries that may fail", [Head("query", label=True), Head("why", label=True)], rows)
    notes = () if other is not None else (_no_comparison(opened.called),)
    return Failing(intro, table, notes, tuple(whys), opened.pairs)


def _listed(other: Disagreements | None, lost: bool, cut: bool) -> str:
    parts = []
    if other is not None:
        parts.append(
            f"{other.count:,} of {other.of:,} have another first document in {printable(other.second)}; the most "
            "different ones are shown"
        )
    parts += ["words without effect"] * lost + ["documents that were cut"] * cut
    return f"{'; '.join(parts)}." if parts else "nothing points at one."


def _no_comparison(called: str) -> str:
    place = f"{called.rstrip('/')}/comparison"
    return (
        "No second run was compared with this one. With one of another model or layer on the same log, the queries on "
        f"which they disagree are listed here: tokenpair compare {called} OTHER_RUN --output {place}"
    )


def _called(text: str, query_id: str) -> str:
    return shortened(printable(text or query_id), LONGEST_QUERY)


def _id(document: str) -> str:
    return shortened(printable(document), LONGEST_ID)
