"""What the terminal and the page show of each statistic: which tables, which columns, how a number is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from attribution_core.display.view import printable, shortened
from jobs.analysis.statistics.schema import Figure, RunFacts, Statistic, Summary
from jobs.views.kit.table import Column, Table, column

Row = Mapping[str, Any]
ROWS, MOST_READ = 12, 50_000
LONGEST_QUERY = 60
KNOWN_AS = {"R": "recall", "RR": "MRR", "AP": "MAP"}
# Measures of a log that are in units of the score; the others are shares.
IN_SCORES = ("score", "total")


# What the sum over a pair's word pairs is, by the run's sums_to.
SUMS = {
    "score": "The word pairs of two texts sum to the score. Shares are of the scores of all pairs together",
    "difference": "sums_to: difference. The word pairs of two texts sum to f(a, b) − f(a, r) − f(r, b) + f(r, r), "
    "called the total, with r a reference text; it is not the score. Shares are of the totals of all pairs together",
    "centred": "sums_to: centred. The word pairs of two texts sum to what sets them apart from two average texts, "
    "called the total; it is not the score. Shares are of the totals of all pairs together",
}


def shown_value(figure: Figure) -> str:
    """A figure's value with its interval, and its bounds where it is an estimate."""
    if figure.unit == "count":
        return "-" if figure.value is None else f"{figure.value:,.0f}"
    percent = figure.unit == "share"
    row = {"value": figure.value, "low": figure.low, "high": figure.high, "exact": figure.exact}
    row |= {"at_least": figure.at_least, "at_most": figure.at_most}
    return _with_interval(row, "value", percent=percent)


def shown_tables(statistic: Statistic, tables: Mapping[str, pa.Table], facts: RunFacts) -> list[Table]:
    """The parts of a statistic that are shown, without those that its tables do not have."""
    there = {info.name: tables[info.name] for info in statistic.tables if info.name in tables}
    made: list[Table] = []
    for table, make in _SHOWN[statistic.name]:
        if table in there and len(there[table]):
            made += make(there[table].slice(0, MOST_READ).to_pylist(), facts)
    return made


def shown_figures(statistic: Statistic) -> list[tuple[str, str]]:
    """Figures that no shown table has: what they mean, and their values."""
    names = _FIGURES.get(statistic.name, ())
    return [(figure.meaning, shown_value(figure)) for figure in statistic.figures if figure.name in names]


def head_lines(summary: Summary) -> list[str]:
    """What was looked at, and how to read what follows."""
    run = summary.run
    pairs = f"{run.pairs:,} pairs"
    if run.sample is not None:
        pairs += f" at random, of {run.pairs_in_run:,}"
    kept = "all word pairs stored" if run.store == "full" else "the strongest word pairs stored"
    sums = SUMS[run.sums_to]
    if run.level == "words":
        kept, sums = (
            "no word pairs stored (level: words)",
            sums.replace("The word pairs of two texts", "A text's words"),
        )
    lines = [f"{pairs}, {run.texts:,} distinct texts, {kept}"]
    lines.append(f"{sums}; where these cancel out there are none (-).")
    lines.append(
        f"Ratio: share of the {run.whole} over share of the word pairs. Mean a pair: what is added to a pair's "
        f"{run.whole}, on average."
    )
    if run.gold:
        lines.append(f"Gold label: column {run.gold}.")
    reading = f"Behind ±: half of the 95 % bootstrap interval over {run.drawn}."
    if run.store != "full" and run.level == "pairs":
        reading += " ≈: an estimate, certainly [between these bounds]."
    return [*lines, reading]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _plain(value: float | None) -> str:
    if value is None:
        return "-"
    return (
        f"{value:.2f}" if abs(value) >= 0.05 or value == 0 else f"{value:.1e}" if abs(value) < 0.005 else f"{value:.3f}"
    )


def _with_interval(row: Row, name: str, low: str = "low", high: str = "high", *, percent: bool = True) -> str:
    """A value, half the width of its interval, and its bounds where it is an estimate."""
    value = row[name]
    if value is None:
        return "-"
    write = _percent if percent else _plain
    text = write(value)
    if row.get(low) is not None and row.get(high) is not None:
        half = (row[high] - row[low]) / 2
        text = f"{text.removesuffix(' %')} ± {100 * half:.1f} %" if percent else f"{text} ± {half:.2f}"
    if not row.get("exact", True):
        ends = [row.get(key) for key in ("at_least", "at_most")]
        bounds = [("-" if end is None else write(end)).removesuffix(" %") for end in ends]
        text = f"≈ {text} [{bounds[0]}, {bounds[1]}]"
    return text


def _shares(title: str, rows: Sequence[Row], names: Sequence[tuple[str, str]], whole: str, draw: str = "lift") -> Table:
    """Rows with a share of ``whole``, a frequency and a lift, under the columns ``names`` (column, head)."""
    columns = [column(head, rows, lambda row, name=name: str(row[name]), label=True) for name, head in names]  # type: ignore[misc]
    columns += [
        column(f"% of {whole}", rows, lambda row: _with_interval(row, "share")),
        column("% of word pairs", rows, lambda row: _percent(row["frequency"])),
        column("ratio", rows, lambda row: "-" if row["lift"] is None else f"{row['lift']:.2f}"),
    ]
    if rows and "mean" in rows[0]:
        columns.append(column("mean a pair", rows, lambda row: _plain(row["mean"])))
    return Table(title, columns, [row[draw] for row in rows])


def _concentration(rows: list[Row], facts: RunFacts) -> list[Table]:
    columns = [
        column(
            "largest word pairs",
            rows,
            lambda row: f"{row['percent']} % ({row['cells']:,.1f} a pair)",
            label=True,
        ),
        column(f"% of {facts.whole}", rows, lambda row: _with_interval(row, "share")),
        column("half of pairs between", rows, lambda row: f"{_percent(row['p25'])} and {_percent(row['p75'])}"),
    ]
    title = f"Share of the {facts.whole} that the largest word pairs give"
    return [Table(title, columns, [row["share"] for row in rows])]


def _parts_of_speech(rows: list[Row], facts: RunFacts) -> list[Table]:
    both = sorted((row for row in rows if row["side"] == "both"), key=lambda row: -(row["mean"] or 0))
    return [_shares("By part of speech, both texts, special tokens left out", both, [("pos", "")], facts.whole)]


def _pos_pairs(rows: list[Row], facts: RunFacts) -> list[Table]:
    names = [("pos_a", "a"), ("pos_b", "b")]
    return [_shares("By pair of parts of speech, special tokens left out", rows[:ROWS], names, facts.whole)]


def _matches(rows: list[Row], facts: RunFacts) -> list[Table]:
    title = "Words that are the same, or nearly, special tokens left out"
    return [_shares(title, rows, [("match", "match")], facts.whole)]


def _meetings(rows: list[Row], facts: RunFacts) -> list[Table]:
    rows = [row for row in rows if row["cells"] and row["meeting"] != "other"]
    title = "Numbers, punctuation and negations, special tokens left out"
    return [_shares(title, rows, [("meeting", "meeting")], facts.whole)] if rows else []


def _word_kinds(rows: list[Row], facts: RunFacts) -> list[Table]:
    return [
        _shares("By kind of word, special tokens included", rows, [("kind", "kind"), ("side", "text")], facts.whole)
    ]


def _sufficiency(rows: list[Row], facts: RunFacts) -> list[Table]:
    made = []
    for kind, said in SUFFICIENT.get(facts.sums_to, {}).items():
        own = [row for row in rows if row["sum"] == kind]
        against = list(dict.fromkeys(row["against"] for row in own))
        percents = list(dict.fromkeys(row["percent"] for row in own))
        by = {(row["percent"], row["against"]): row for row in own}
        columns = [Column("largest", [f"{percent} %" for percent in percents], label=True)]
        for name in against:
            texts = [
                _with_interval(by[p, name], "spearman", "spearman_low", "spearman_high", percent=False)
                for p in percents
            ]
            columns.append(Column(f"with {name}", texts))
        drawn = [by[p, against[-1]]["spearman"] for p in percents] if against else []
        made.append(
            Table(f"{said}: Spearman's correlation (bars: with {against[-1] if against else ''})", columns, drawn)
        )
    return made


def _sufficiency_words(rows: list[Row], facts: RunFacts) -> list[Table]:
    against = list(dict.fromkeys(row["against"] for row in rows))
    words = list(dict.fromkeys(row["words"] for row in rows))
    by = {(row["words"], row["against"]): row for row in rows}
    columns = [Column("both words are", words, label=True)]
    for name in against:
        own = [by[w, name] for w in words]
        columns.append(
            column(
                f"with {name}",
                [{**row, "at_least": row["spearman_at_least"], "at_most": row["spearman_at_most"]} for row in own],
                lambda row: _with_interval(row, "spearman", "spearman_low", "spearman_high", percent=False),
            )
        )
    return [Table("Sum of word pairs of chosen parts of speech: Spearman's correlation", columns)]


def _strongest(rows: list[Row], facts: RunFacts) -> list[Table]:
    made = []
    for by, title in (("total", "Word pairs by sum over all pairs of texts"), ("mean", "Word pairs by mean")):
        own = [row for row in rows if row["by"] == by][:ROWS]
        columns = [
            column("a", own, lambda row: str(row["a"]), label=True),
            column("b", own, lambda row: str(row["b"]), label=True),
            column("sum", own, lambda row: _with_interval(row, "total", percent=False)),
            column("mean", own, lambda row: _plain(row["mean"])),
            column("times", own, lambda row: f"{row['occurrences']:,}"),
            column("largest in", own, lambda row: str(row["pair_id"]), label=True),
        ]
        if own:
            made.append(Table(title, columns, [row[by] for row in own]))
    return made


def _words_by_lift(rows: list[Row], facts: RunFacts) -> list[Table]:
    made = []
    for side in dict.fromkeys(row["side"] for row in rows):
        of = {"a": "Query words", "b": "Document words"}.get(side, "Words")
        for by, what in (("total", "lift scores most"), ("lowest", "dilute scores most")):
            own = [row for row in rows if (row["side"], row["by"]) == (side, by)][: ROWS // 2]
            columns = [
                column("word", own, lambda row: str(row["word"]), label=True),
                column("sum of lifts", own, lambda row: _plain(row["total"])),
                column("mean lift", own, lambda row: _plain(row["mean"])),
                column("times", own, lambda row: f"{row['occurrences']:,}"),
            ]
            if own:
                made.append(Table(f"{of} that {what}, over all pairs of texts", columns, [row["total"] for row in own]))
    return made


def _position(rows: list[Row], facts: RunFacts) -> list[Table]:
    made = []
    for side in "ab":
        own = [row for row in rows if row["side"] == side]
        made.append(_shares(f"By position in text {side}", own, [("position", "where")], facts.whole))
    return made


def _ranking(rows: list[Row], facts: RunFacts) -> list[Table]:
    by = {(row["metric"], row["ranking"]): row for row in rows}
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    columns = [Column("", [known_as(metric) for metric in metrics], label=True)]
    for ranking in dict.fromkeys(row["ranking"] for row in rows):
        texts = [ranged(by[metric, ranking]) for metric in metrics]
        columns.append(Column(f"{ranking}'s order", texts))
    return [Table(f"Metrics over {rows[0]['queries']:,} queries with judgments, with 95 % intervals", columns)]


def known_as(metric: str) -> str:
    """A metric with the name that its mean is known by, such as RR@10 (MRR)."""
    usual = KNOWN_AS.get(metric.partition("@")[0])
    return metric if usual is None else f"{metric} ({usual})"


def _ranking_queries(rows: list[Row], facts: RunFacts) -> list[Table]:
    own = rows[:ROWS]
    metrics = [name for name in own[0] if name.rpartition("@")[0].endswith(("nDCG", "RR"))]
    columns = [
        column("query", own, lambda row: str(row["query"]), label=True),
        column("text", own, lambda row: shortened(printable(str(row["text"])), LONGEST_QUERY), label=True),
        column("relevant", own, lambda row: f"{row['relevant']:,}"),
        *(column(name, own, lambda row, name=name: f"{row[name]:.3f}") for name in metrics),  # type: ignore[misc]
    ]
    return [Table("The worst queries", columns)]


def ranged(row: Row) -> str:
    """A metric in three decimals with its interval, as 0.374 (0.341 to 0.412)."""
    if row["value"] is None:
        return "-"
    ends = "" if row["low"] is None else f" ({row['low']:.3f} to {row['high']:.3f})"
    return f"{row['value']:.3f}{ends}"


def _by_group(title: str) -> Callable[[list[Row], RunFacts], list[Table]]:
    def make(rows: list[Row], facts: RunFacts) -> list[Table]:
        groups = list(dict.fromkeys(row["group"] for row in rows))
        by = {(row["group"], row["measure"]): row for row in rows}
        measures = list(dict.fromkeys(row["measure"] for row in rows))
        pairs = {row["group"]: row["pairs"] for row in rows}
        columns = [Column("", groups, label=True), Column("pairs", [f"{pairs[group]:,}" for group in groups])]
        for measure in measures:
            percent = measure not in IN_SCORES
            texts = [_with_interval(by[group, measure], "value", percent=percent) for group in groups]
            columns.append(Column(MEASURED.get(measure, "{}").format(facts.whole), texts))
        return [Table(title, columns)]

    return make


def _words_without_effect(rows: list[Row], facts: RunFacts) -> list[Table]:
    own = rows[:ROWS]
    columns = [
        column("word", own, lambda row: str(row["word"]), label=True),
        column("query", own, lambda row: str(row["query_id"]), label=True),
        column("mean lift", own, lambda row: _plain(row["mean_lift"])),
        column("documents", own, lambda row: f"{row['documents']:,}"),
    ]
    title = "Query words without effect: the model gained nothing from them"
    return [Table(title, columns, [row["mean_lift"] for row in own])]


def _convergence_nodes(rows: list[Row], facts: RunFacts) -> list[Table]:
    columns = [
        column("nodes", rows, lambda row: f"{row['nodes']}"),
        column("texts", rows, lambda row: f"{row['texts']:,}"),
        column("median residual", rows, lambda row: _plain(row["residual"])),
        column("% of cost", rows, lambda row: _percent(row["cost"])),
    ]
    return [Table("Texts by integration nodes", columns, [row["texts"] for row in rows])]


def _convergence_ways(rows: list[Row], facts: RunFacts) -> list[Table]:
    columns = [
        column("role", rows, lambda row: str(row["role"]), label=True),
        column("direction", rows, lambda row: str(row["way"]), label=True),
        column("texts", rows, lambda row: f"{row['texts']:,}"),
        column("converged", rows, lambda row: f"{row['converged']:,}"),
        column("nodes", rows, lambda row: f"{row['nodes']:.1f}"),
        column("tokens", rows, lambda row: f"{row['tokens']:.1f}"),
        column("% of cost", rows, lambda row: _percent(row["cost"])),
    ]
    return [Table("Texts by the direction of the computation", columns)]


_SHOWN: dict[str, list[tuple[str, Callable[[list[Row], RunFacts], list[Table]]]]] = {
    "concentration": [("concentration", _concentration)],
    "parts_of_speech": [("parts_of_speech", _parts_of_speech), ("pos_pairs", _pos_pairs)],
    "matches": [("matches", _matches), ("meetings", _meetings), ("word_kinds", _word_kinds)],
    "sufficiency": [("sufficiency", _sufficiency), ("sufficiency_words", _sufficiency_words)],
    "strongest": [("strongest", _strongest), ("words_by_lift", _words_by_lift)],
    "position": [("position_tenth", _position)],
    "ranking": [("ranking", _ranking), ("ranking_queries", _ranking_queries)],
    "retrieval": [
        ("retrieval_relevance", _by_group("By relevance")),
        ("retrieval_rank", _by_group("By rank")),
        ("words_without_effect", _words_without_effect),
    ],
    "convergence": [("convergence_nodes", _convergence_nodes), ("convergence_ways", _convergence_ways)],
}
# What is summed for sufficiency, by what attributions sum to.
SUFFICIENT: dict[str, dict[str, str]] = {
    "score": {"cells": "Score of the largest word pairs alone"},
    "difference": {"cells": "Sum of the largest word pairs", "score": "The same with the reference terms"},
    "centred": {"cells": "Sum of the largest word pairs", "score": "The same with score − total of each pair"},
}
# Heads of a log's measures; braces stand for what the sum of all word pairs is called.
MEASURED = {
    "largest_5": "largest 5 %, of {}",
    "exact": "same word, of {}",
    "negative_mass": "negative, of |values|",
    "special": "special tokens, of {}",
}
# Figures that no shown table has.
_FIGURES: dict[str, tuple[str, ...]] = {
    "concentration": ("negative_mass", "negative_cells", "skewness"),
    "parts_of_speech": ("nouns_lift", "verbs_lift", "noun_verb_cells"),
    "position": ("lead_a", "lead_b", "truncated_a", "truncated_b", "unread_a", "unread_b"),
    "retrieval": ("without_effect", "queries_without_effect", "words_without_effect"),
    "convergence": ("unconverged", "residual_max", "error_median", "error_99", "error_max"),
}
