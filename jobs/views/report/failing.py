"""The queries that fail, worst first, each with why: a margin of two documents, or what raised the wrong one."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc
from markupsafe import Markup

from attribution_core.display.view import printable, shortened
from jobs.analysis.margin.inversions import Inversion, inversions
from jobs.analysis.margin.result import Margin
from jobs.analysis.margin.split import split
from jobs.analysis.query.reader import read_queries
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
WORST, INVERTED, NAMED_FIRST = 15, 20, 5
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
    """What rows open to, up to ``room`` bytes in all. ``queries`` and the pairs of ``margins`` (a query and two
    documents) are read in one pass each."""

    def __init__(
        self, run: Run, called: str, room: int, queries: Collection[str], margins: Collection[tuple[str, str, str]]
    ) -> None:
        self.run, self.called, self.room = run, shlex.quote(called), room
        self.queries = read_queries(run, queries)
        self.shown: list[str] = []
        wanted = [pair for query, a, b in margins if query in self.queries for pair in self._pair_ids(query, a, b)]
        self._pairs = run.pairs(wanted)

    def margin(self, query_id: str, a: str, b: str) -> tuple[Margin | None, str]:
        """Return the margin of two documents and its drawing; None where the run has not written them yet."""
        result = self.queries.get(query_id)
        ids = self._pair_ids(query_id, a, b) if result is not None else []
        if result is None or len(ids) != 2 or not all(one in self._pairs for one in ids):
            return None, ""
        first, second = (self._pairs[one] for one in ids)
        notes = [self.run.unfinished] if self.run.unfinished else []
        made = split(query_id, (first, second), (result.document(a), result.document(b)), notes)
        command = f"tokenpair why {self.called} {' '.join(shlex.quote(printable(one)) for one in (query_id, a, b))}"
        self.shown += ids
        return made, self._fitted(Markup(margin_html(made, styled=False)), command)

    def query(self, query_id: str) -> tuple[QueryResult, str]:
        """Return a query, and the drawing of its first documents."""
        result = self.queries[query_id]
        self.shown += [one.pair_id for one in result.documents[:DOCUMENTS]]
        command = f"tokenpair show {self.called} --query={shlex.quote(printable(query_id))}"
        return result, self._fitted(Markup(query_html(result, top=DOCUMENTS, styled=False)), command)

    def _pair_ids(self, query_id: str, *documents: str) -> list[str]:
        by_id = {one.id: one.pair_id for one in self.queries[query_id].documents}
        return [by_id[one] for one in documents if one in by_id]

    def _fitted(self, html: Markup, command: str) -> str:
        size = len(html.encode())
        if size > self.room:
            return Markup('<p class="faint">This page has no more room. In the terminal: <code>{}</code></p>').format(
                command
            )
        self.room -= size
        return html + Markup('<p class="faint">In the terminal: <code>{}</code></p>').format(command)


@dataclass(frozen=True)
class Known:
    """What else is known of queries: ``tags`` that their rows show, sentences (``said``) on top of what they open to,
    and ``also`` those that are to have a row."""

    tags: Mapping[str, Sequence[str]]
    said: Mapping[str, str]
    also: Collection[str]


def failing_judged(run: Run, ranking: Ranking, known: Known, called: str, room: int) -> Failing:
    """Return the worst queries of a judged log; ``room`` is the bytes that what they open to may have."""
    metric, first_relevant = f"model nDCG@{ranking.cutoff}", f"model RR@{ranking.cutoff}"
    recall = f"model R@{ranking.depth}"
    table = ranking.per_query
    # Where all judgments are of the run's rows, a query without a relevant one retrieved none.
    answerable = pc.greater(table["relevant"], 0) if recall in table.column_names else pc.is_valid(table["relevant"])
    table = table.filter(pc.and_(answerable, pc.less(table[metric], 1 - 1e-9)))
    rows = sorted(table.to_pylist(), key=lambda row: row[metric])  # stable
    by_query = {one.query_id: one for one in inversions(run)}
    wanted = {row["query"] for row in [row for row in rows[WORST:] if row["query"] in by_query][:INVERTED]}
    chosen = rows[:WORST] + [row for row in rows[WORST:] if row["query"] in wanted | set(known.also)]
    margins = [
        (one.query_id, one.above, one.below) for row in chosen if (one := by_query.get(row["query"])) is not None
    ]
    opened = _Opened(run, called, room, [row["query"] for row in chosen], margins)
    # The worst get their room first, then those with a margin, which says most.
    first = {row["query"] for row in chosen[:NAMED_FIRST]}
    drawn = {
        row["query"]: _judged_row(opened, row, by_query.get(row["query"]), ranking)
        for row in sorted(chosen, key=lambda row: (row["query"] not in first, row["query"] not in by_query))
    }
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
        retrieved = f"{round(row[recall] * good)} of {good}" if recall in row else str(good)
        cells = [_called(row["text"], row["query"]), number(row[metric]), number(row[first_relevant]), retrieved, why]
        if more and row["query"] in known.said:
            more = Markup('<p class="faint">{}</p>').format(known.said[row["query"]]) + more
        tags = [shortened(f"query {printable(row['query'])}", LONGEST_ID), *known.tags.get(row["query"], ())]
        made.append(Row(fragment("failing", row["query"]), cells, more, tags))
    none = sum(1 for row in rows if row[first_relevant] == 0)
    inverted = sum(1 for row in rows if row["query"] in by_query)
    parts = [f"{len(rows):,} of {ranking.queries:,} judged queries are not ranked as well as they could be"]
    if none:
        parts.append(f"in {none:,} of them no relevant document is among the first {ranking.cutoff}")
    if inverted:
        parts.append(f"in {inverted:,} a relevant one is below a document that is not relevant or not judged")
    if 0 < none + inverted < len(rows):
        parts.append("in the others relevant documents are missing from the run, or their grades are out of order")
    intro = f"{'; '.join(parts)}. Open a query to see which words decide its order."
    if not rows:
        intro = f"All {ranking.queries:,} judged queries are ranked as well as they could be."
    if none and recall in table.column_names:
        intro += f" Where none is among the first {ranking.depth}, a larger depth in the job shows at which rank it is."
    note = f"The {WORST} worst queries, and the worst of those whose relevant documents were retrieved."
    shown = Rows("failing-table", "Failing queries", heads, made, 1, note if len(chosen) < len(rows) else "")
    return Failing(intro, shown, ranking.notes, tuple(row["query"] for row in chosen), opened.shown)


def _judged_row(
    opened: _Opened, row: Mapping[str, Any], inversion: Inversion | None, ranking: Ranking
) -> tuple[str, str]:
    if inversion is not None:
        made, html = opened.margin(row["query"], inversion.above, inversion.below)
        words = raising(made) if made is not None else ""
        why = (
            f"{_id(inversion.above)} at rank {inversion.rank_above} is {inversion.margin:.3f} above the relevant "
            f"{_id(inversion.below)} at rank {inversion.rank_below}, by {words or 'many words together'}"
        )
        return shortened(why, LONGEST_WHY), html
    result, html = opened.query(row["query"])
    none = not row[f"model RR@{ranking.cutoff}"]
    said = f"no relevant document among the first {ranking.depth}" if none else "no irrelevant one above a relevant one"
    return shortened(f"{said}; {lifting(result)}", LONGEST_WHY), html


def raising(margin: Margin) -> str:
    """Return the query words that put the first document of a margin above the second: "wing +0.12, hot +0.05"."""
    lines = [line for line in query_lines(margin) if line.is_word and line.value >= NAMED_SHARE * margin.difference > 0]
    return ", ".join(f"{printable(line.label)} +{line.value:.2f}" for line in lines[:NAMED])


def lifting(result: QueryResult) -> str:
    """Return the query words that raised the first document most: by their lift, or by what they add where it has
    none."""
    best = min(result.documents, key=lambda one: (-one.score, one.id))
    values = best.row_sums if best.row_lift is None else best.row_lift
    groups = result.query.groups
    words = [(float(values[i]), groups.labels[i]) for i, kind in enumerate(groups.kinds) if kind == "text"]
    strongest = [(value, label) for value, label in sorted(words, reverse=True)[:NAMED] if value >= LEAST_LIFT]
    named = ", ".join(f"{printable(label)} +{value:.2f}" for value, label in strongest)
    return f"{_id(best.id)} is first, lifted by {named}" if named else f"{_id(best.id)} is first"


def failing_unjudged(
    run: Run,
    known: Known,
    lost: Mapping[str, Sequence[str]],
    cut: Sequence[tuple[str, int, int]],
    called: str,
    room: int,
) -> Failing:
    """Queries of a log without judgments that may fail: where a second run disagrees, by words without effect
    (``lost``, the worst first) and by documents that were cut (``cut``: query, how many, of how many)."""
    other = read_disagreements(run, FEW)
    pairs = {one.query_id: one for one in (other.queries if other is not None else ())}
    ids = list(dict.fromkeys([*pairs, *list(lost)[:FEW], *(query for query, _, _ in cut[:FEW]), *known.also]))
    opened = _Opened(run, called, room, ids, [(one.query_id, one.first, one.other) for one in pairs.values()])
    were_cut = {query: f"{count} of {of} documents were cut" for query, count, of in cut}
    rows = []
    for query in (one for one in ids if one in opened.queries):
        reasons, more = [], ""
        if query in pairs:
            one = pairs[query]
            made, more = opened.margin(query, one.first, one.other)
            by = f", by {words}" if made is not None and (words := raising(made)) else ""
            reasons.append(f"the second run has {_id(one.other)} first, and this one {_id(one.first)}{by}")
        if query in lost:
            reasons.append(f"without effect: {', '.join(lost[query][:NAMED])}")
        if query in were_cut:
            reasons.append(were_cut[query])
        reasons += [tag for tag in known.tags.get(query, ()) if not tag.startswith("without effect")]
        result, html = (opened.queries[query], more) if more else opened.query(query)
        cells = [_called(result.text, query), shortened("; ".join(reasons), LONGEST_WHY)]
        tags = [shortened(f"query {printable(query)}", LONGEST_ID)]
        rows.append(Row(fragment("failing", query), cells, html, tags))
    intro = "The log has no judgments, so signs of failure choose the queries: " + _listed(other, bool(lost), bool(cut))
    table = Rows("failing-table", "Queries that may fail", [Head("query", label=True), Head("why", label=True)], rows)
    notes = () if other is not None else (_no_comparison(shlex.quote(called)),)
    return Failing(intro, table, notes, tuple(ids), opened.shown)


def _listed(other: Disagreements | None, lost: bool, cut: bool) -> str:
    parts = []
    if other is not None:
        parts.append(
            f"{other.count:,} of {other.of:,} have another first document in {printable(other.second)}; the most "
            "different ones are shown"
        )
    parts += ["words without effect"] * lost + ["documents that were cut"] * cut
    return f"{'; '.join(parts)}." if parts else "there are none."


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
