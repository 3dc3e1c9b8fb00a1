"""Which plots are drawn for which table of the statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from attribution_core.display.view import printable
from jobs.analysis.statistics.schema import RunFacts, Statistic
from jobs.analysis.statistics.tagging import UNIVERSAL
from jobs.views.kit.numbers import open_ended
from jobs.views.report import plots

MOST_BARS, MOST_PAIRS, MOST_LIFTED = 14, 12, 8
# A mean of fewer pairs says nothing.
FEW_PAIRS = 5
Rows = list[dict[str, Any]]
Chart = dict[str, Any]


# What a reader without linguistics calls the universal parts of speech.
_WORDS = (
    "adjective preposition adverb auxiliary conjunction article interjection noun number particle pronoun name "
    "punctuation subordinator symbol verb other"
)
WORDS = dict(zip(UNIVERSAL, _WORDS.split(), strict=True))
# What a correlation is with that every pair has.
SCORED = ("with the score", "with the sum of all")
MATCHES = {"exact": "the same word", "lemma": "another form", "stem": "the same stem", "other": "other words"}


def charts_of(statistic: Statistic, tables: Mapping[str, pa.Table], facts: RunFacts) -> list[Chart]:
    """The plots of a statistic's tables, as many as have something to show."""
    charts: list[Chart] = []
    for info in statistic.tables:
        draw = DRAWN.get(info.name)
        rows = tables[info.name].to_pylist() if draw and len(tables[info.name]) else []
        if draw and rows:
            # Of a run that kept only the strongest word pairs some numbers are estimates, and a bar does not show that.
            more = "" if info.exact else "estimated from the word pairs that were stored; the numbers have bounds"
            charts += [one | {"note": "; ".join(filter(None, (one["note"], more)))} for one in draw(rows, facts)]
    return charts


def _concentration(rows: Rows, facts: RunFacts) -> list[Chart]:
    rows = [row for row in rows if row["share"] is not None]
    if not rows:
        return []  # a sum of nothing has no shares
    points = [(row["percent"], row["share"]) for row in rows]
    band = [(row["percent"], row["p05"], row["p95"]) for row in rows if row["p05"] is not None]
    even = [(row["percent"], row["percent"] / 100) for row in rows]
    unit = facts.groups
    lines = [plots.Line("all pairs together; band: 90 % of pairs", points, band), plots.Line("an even spread", even)]
    title = f"Share of the {facts.whole} by the largest {unit} pairs"
    svg = plots.curves(title, lines, f"% of {unit} pairs", log_x=True, percent=True)
    note = f"share of the {facts.whole} that the strongest {unit} pairs give"
    if max(share for _, share in points) > 1:
        note += "; above 100 % where the others add up to less than zero"
    return [_chart("How few make how much", note, svg)]


def _positions(rows: Rows, facts: RunFacts) -> list[Chart]:
    lines, left = [], []
    for side, name in sides(facts).items():
        own = [row for row in rows if row["side"] == side and row["lift"] is not None]
        place = [(10.0 * row["order"] + 5, row) for row in own]
        band = [(x, row["lift_low"], row["lift_high"]) for x, row in place if row["lift_low"] is not None]
        if own and _open(band, max(abs(row["lift"]) for row in own)):
            left.append(name)
        elif own:
            lines.append(plots.Line(name, [(x, row["lift"]) for x, row in place], band))
    note = f"what a {facts.groups} adds by its place, 1 is the average{_not_drawn(left, facts.pairs, 'pairs')}"
    if not lines:
        return [_chart("From start to end", note, "")] if left else []
    lines.append(plots.Line("an even spread", [(5, 1.0), (95, 1.0)]))
    svg = plots.curves("What words add by position", lines, "% of the text read")
    return [_chart("From start to end", note, svg)]


def _nodes(rows: Rows, facts: RunFacts) -> list[Chart]:
    bars = [plots.Bar(f"{row['nodes']} nodes", row["texts"]) for row in rows]
    return [_chart("Texts by integration nodes", "", plots.bars("Texts by their integration nodes", few(bars)))]


def _parts_of_speech(rows: Rows, facts: RunFacts) -> list[Chart]:
    both = [row | {"pos": WORDS.get(row["pos"], row["pos"])} for row in rows if row["side"] == "both"]
    # What takes most away is as telling as what adds most.
    both = sorted(both, key=lambda row: -abs(row["share"] or 0))[:MOST_BARS]
    both.sort(key=lambda row: -(row["share"] or 0))
    return [shares(both, "pos", "By part of speech", "share of what all words add, with its interval")]


def _pos_pairs(rows: Rows, facts: RunFacts) -> list[Chart]:
    named = [
        row | {"pair": " × ".join(WORDS.get(str(row[side]), str(row[side])) for side in ("pos_a", "pos_b"))}
        for row in rows[:MOST_PAIRS]
    ]
    return [shares(named, "pair", "By pair of parts of speech", "the largest shares; first text × second text")]


def _matches(rows: Rows, facts: RunFacts) -> list[Chart]:
    rows = [row | {"match": MATCHES.get(row["match"], row["match"])} for row in rows]
    return [shares(rows, "match", "By what two words have in common", "share of all word pairs, with its interval")]


def _word_kinds(rows: Rows, facts: RunFacts) -> list[Chart]:
    names = sides(facts)
    named = [row | {"kind": f"{names.get(row['side'], row['side'])}: {row['kind']}"} for row in rows]
    return [shares(named, "kind", "By kind of word", f"share of the {facts.whole}, with its interval")]


def _sufficiency(rows: Rows, facts: RunFacts) -> list[Chart]:
    unit = facts.groups
    rest = {"difference": "the terms of the references", "centred": "what average texts share"}.get(facts.sums_to, "")
    said = {
        "cells": ("How few are enough", "the sum of the largest alone"),
        "score": (f"The same, with {rest}", f"the sum of the largest and {rest}"),
    }
    charts = []
    for kind, (title, what) in said.items():
        lines, left = [], {}
        for name in dict.fromkeys(row["against"] for row in rows):
            own = [r for r in rows if (r["sum"], r["against"]) == (kind, name)]
            own = [r for r in own if r["percent"] > 0 and r["spearman"] is not None]
            # With these terms it is the score again that is made, and a sum of word pairs says nothing to it.
            if own and not (kind == "score" and name == "total"):
                band = [
                    (r["percent"], r["spearman_low"], r["spearman_high"]) for r in own if r["spearman_low"] is not None
                ]
                label = {"score": "with the score", "total": "with the sum of all"}.get(name, f"with {printable(name)}")
                if _open(band, 1.0):
                    left[label] = own[0]["pairs"]
                else:
                    lines.append(plots.Line(label, [(row["percent"], row["spearman"]) for row in own], band))
        note = f"Spearman's correlation of {what}"
        for label, pairs in left.items():
            note += _not_drawn([label], pairs, "judged pairs" if label not in SCORED else "pairs")
        if lines:
            svg = plots.curves(f"Spearman's correlation of {what}", lines, f"% of {unit} pairs used", log_x=True)
            charts.append(_chart(title, note, svg))
        elif left:
            charts.append(_chart(title, note, ""))
    return charts


def _by_group(rows: Rows, title: str) -> list[Chart]:
    charts = []
    for measure, what in (("score", "mean score"), ("exact", "share of what word pairs add that identical words give")):
        own = [row for row in rows if row["measure"] == measure and row["value"] is not None][:MOST_BARS]
        largest = max((abs(row["value"]) for row in own), default=0.0)
        sure = [
            row
            for row in own
            if row["pairs"] >= FEW_PAIRS and row["low"] is not None and not open_ended(row["low"], row["high"], largest)
        ]
        note = what
        for row in own:
            if row not in sure:
                counted = "judged pairs" if row["group"] in ("relevant", "not relevant") else "pairs"
                note += _not_drawn([row["group"]], row["pairs"], counted)
        svg = ""
        if sure:
            bars = [plots.Bar(row["group"], row["value"], row["low"], row["high"]) for row in sure]
            svg = plots.bars(f"{title}: {what}", bars, percent=measure != "score")
        if own:
            charts.append(_chart(title, note, svg))
    return charts


def _rank(rows: Rows, facts: RunFacts) -> list[Chart]:
    return _by_group([row | {"group": f"rank {row['group']}"} for row in rows], "By rank")


def _relevance(rows: Rows, facts: RunFacts) -> list[Chart]:
    return _by_group(rows, "By relevance")


def _open(band: Sequence[tuple[float, float, float]], span: float) -> bool:
    """Whether most of a curve's intervals are so wide that it says nothing on a scale of length ``span``."""
    wide = [open_ended(low, high, span) for _, low, high in band]
    return sum(wide) * 2 > len(wide)


def _not_drawn(names: Sequence[str], count: int, counted: str) -> str:
    """Why some are not drawn, to be put behind a note; "" where all are."""
    return f"; not drawn: {' and '.join(names)}, too few {counted} ({count:,})" if names else ""


def _ranking(rows: Rows, facts: RunFacts) -> list[Chart]:
    title, note = "Metrics of the rankings", "mean over the queries with judgments, with its interval"
    sure = [row for row in rows if row["low"] is not None and not open_ended(row["low"], row["high"], 1.0)]
    bars = [
        plots.Bar(f"{row['metric']}, {row['ranking']}'s order", row["value"], row["low"], row["high"]) for row in sure
    ]
    left = list(dict.fromkeys(row["metric"] for row in rows if row not in sure))
    note += _not_drawn(left, rows[0]["queries"], "judged queries")
    return [_chart(title, note, plots.bars(title, few(bars)) if bars else "")]


def _without_effect(rows: Rows, facts: RunFacts) -> list[Chart]:
    bars = [plots.Bar(printable(f"{row['word']} (query {row['query_id']})"), row["mean_lift"]) for row in rows]
    svg = plots.bars("Words without effect: mean lift", few(bars))
    return [_chart("Words without effect", "mean lift over the query's documents: the model gained nothing", svg)]


def _words_by_lift(rows: Rows, facts: RunFacts) -> list[Chart]:
    charts = []
    for side in dict.fromkeys(row["side"] for row in rows):
        of = f"{sides(facts)[side].capitalize()} words" if side in sides(facts) else "Words"
        for by, what in (("total", "lift scores most"), ("lowest", "pull scores down most")):
            own = [row for row in rows if (row["side"], row["by"]) == (side, by)][:MOST_LIFTED]
            bars = [plots.Bar(printable(row["word"]), row["total"]) for row in own]
            if bars:
                title = f"{of} that {what}"
                charts.append(_chart(title, "sum of their lifts over all pairs of texts", plots.bars(title, bars)))
    return charts


def _strongest(rows: Rows, facts: RunFacts) -> list[Chart]:
    charts = []
    titles = {"total": "Word pairs that add most in all", "mean": "Word pairs that add most each time"}
    for by, title in titles.items():
        own = [row for row in rows if row["by"] == by and not row["group"] and row[by] is not None][:MOST_PAIRS]
        if own:
            bars = [plots.Bar(printable(f"{row['a']} × {row['b']}"), row[by]) for row in own]
            charts.append(_chart(title, "", plots.bars(title, bars)))
    return charts


def sides(facts: RunFacts) -> dict[str, str]:
    """What the two texts of a pair are called."""
    return {"a": "query", "b": "document"} if facts.mode == "retrieval" else {"a": "a", "b": "b"}


def few(bars: list[plots.Bar]) -> list[plots.Bar]:
    """The first bars, as many as a reader can look at."""
    return bars[:MOST_BARS]


def shares(rows: Rows, label: str, title: str, note: str) -> Chart:
    """Bars of ``share`` with intervals and, where there is one, the frequency as a tick."""
    bars = [
        plots.Bar(printable(str(row[label])), row["share"], row.get("low"), row.get("high"), row.get("frequency"))
        for row in rows
        if row["share"] is not None
    ]
    mark = "what an even spread would give" if any(bar.mark is not None for bar in bars) else ""
    return _chart(title, note, plots.bars(title, few(bars), percent=True, mark=mark))


def _chart(title: str, note: str, svg: Any) -> Chart:
    return {"title": title, "note": note, "svg": svg}


DRAWN: dict[str, Callable[[Rows, RunFacts], list[Chart]]] = {
    "concentration": _concentration,
    "parts_of_speech": _parts_of_speech,
    "pos_pairs": _pos_pairs,
    "matches": _matches,
    "word_kinds": _word_kinds,
    "sufficiency": _sufficiency,
    "strongest": _strongest,
    "ranking": _ranking,
    "retrieval_relevance": _relevance,
    "retrieval_rank": _rank,
    "words_without_effect": _without_effect,
    "words_by_lift": _words_by_lift,
    "position_tenth": _positions,
    "convergence_nodes": _nodes,
}
