"""What the terminal and the page show of each statistic: which tables, which columns, how a number is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jobs.statistics.schema import Figure, Statistic, Summary

if TYPE_CHECKING:
    import pyarrow as pa

Row = Mapping[str, Any]
ROWS = 12
# Measures of a log that are in units of the score; the others are shares.
IN_SCORES = ("score", "total")


@dataclass(frozen=True)
class Column:
    """A column as it is shown; labels stand at the left, numbers at the right of their column."""

    head: str
    texts: list[str]
    label: bool = False


@dataclass(frozen=True)
class Shown:
    """A table as it is shown; ``drawn`` holds the values that bars stand for, none where it is empty."""

    title: str
    columns: list[Column]
    drawn: list[float | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.columns[0].texts) if self.columns else 0


def shown_value(figure: Figure) -> str:
    """A figure's value with its interval, and its bounds where it is an estimate."""
    percent = figure.unit == "share"
    row = {"value": figure.value, "low": figure.low, "high": figure.high, "exact": figure.exact}
    row |= {"at_least": figure.at_least, "at_most": figure.at_most}
    return _with_interval(row, "value", percent=percent)


def shown_tables(statistic: Statistic, tables: Mapping[str, pa.Table]) -> list[Shown]:
    """The parts of a statistic that are shown, without those that its tables do not have."""
    there = {info.name: tables[info.name] for info in statistic.tables if info.name in tables}
    made: list[Shown] = []
    for table, make in _SHOWN[statistic.name]:
        if table in there and len(there[table]):
            made += make(
                there[table].to_pylist() if len(there[table]) < 50_000 else there[table].slice(0, 50_000).to_pylist()
            )
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
        pairs += f" by chance of {run.pairs_in_run:,}"
    kept = "whole matrices kept" if run.store == "full" else "the strongest cells kept"
    lines = [f"{pairs}, {run.texts:,} distinct texts, {kept}"]
    if run.gold:
        lines.append(f"Gold label: column {run.gold}.")
    reading = f"Behind ±: half of the 95 % bootstrap interval over {run.drawn}."
    if run.store != "full":
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


def _column(head: str, rows: Sequence[Row], write: Callable[[Row], str], *, label: bool = False) -> Column:
    return Column(head, [write(row) for row in rows], label)


def _shares(title: str, rows: Sequence[Row], names: Sequence[tuple[str, str]], draw: str = "lift") -> Shown:
    """Rows with a share, a frequency and a lift, under the columns ``names`` (column, head)."""
    columns = [_column(head, rows, lambda row, c=column: str(row[c]), label=True) for column, head in names]  # type: ignore[misc]
    columns += [
        _column("share", rows, lambda row: _with_interval(row, "share")),
        _column("of cells", rows, lambda row: _percent(row["frequency"])),
        _column("ratio", rows, lambda row: "-" if row["lift"] is None else f"{row['lift']:.2f}"),
    ]
    return Shown(title, columns, [row[draw] for row in rows])


def _concentration(rows: list[Row]) -> list[Shown]:
    columns = [
        _column("largest cells", rows, lambda row: f"{row['percent']} % ({row['cells']:.1f} a pair)", label=True),
        _column("share of the total", rows, lambda row: _with_interval(row, "share")),
        _column("half of pairs between", rows, lambda row: f"{_percent(row['p25'])} and {_percent(row['p75'])}"),
    ]
    return [Shown("Share of the total that the largest cells give", columns, [row["share"] for row in rows])]


def _parts_of_speech(rows: list[Row]) -> list[Shown]:
    both = sorted((row for row in rows if row["side"] == "both"), key=lambda row: -(row["share"] or 0))
    return [_shares("By part of speech, both texts", both, [("pos", "")])]


def _pos_pairs(rows: list[Row]) -> list[Shown]:
    return [_shares("By pair of parts of speech", rows[:ROWS], [("pos_a", "a"), ("pos_b", "b")])]


def _matches(rows: list[Row]) -> list[Shown]:
    return [_shares("Words that are the same, or nearly", rows, [("match", "match")])]


def _meetings(rows: list[Row]) -> list[Shown]:
    rows = [row for row in rows if row["cells"] and row["meeting"] != "other"]
    return [_shares("Numbers, marks and negations", rows, [("meeting", "meeting")])] if rows else []


def _word_kinds(rows: list[Row]) -> list[Shown]:
    return [_shares("By kind of word, special tokens included", rows, [("kind", "kind"), ("side", "text")])]


def _sufficiency(rows: list[Row]) -> list[Shown]:
    made = []
    for kind, said in (("cells", "Sum of the largest cells"), ("score", "The same with the reference terms")):
        own = [row for row in rows if row["sum"] == kind]
        against = list(dict.fromkeys(row["against"] for row in own))
        percents = list(dict.fromkeys(row["percent"] for row in own))
        by = {(row["percent"], row["against"]): row for row in own}
        columns = [Column("cells", [f"{percent} %" for percent in percents], label=True)]
        for name in against:
            texts = [
                _with_interval(by[p, name], "spearman", "spearman_low", "spearman_high", percent=False)
                for p in percents
            ]
            columns.append(Column(f"with {name}", texts))
        drawn = [by[p, against[-1]]["spearman"] for p in percents] if against else []
        made.append(
            Shown(f"{said}: Spearman's correlation (bars: with {against[-1] if against else ''})", columns, drawn)
        )
    return made


def _sufficiency_words(rows: list[Row]) -> list[Shown]:
    against = list(dict.fromkeys(row["against"] for row in rows))
    words = list(dict.fromkeys(row["words"] for row in rows))
    by = {(row["words"], row["against"]): row for row in rows}
    columns = [Column("cells of", words, label=True)]
    for name in against:
        found = [by[w, name] for w in words]
        columns.append(
            _column(
                f"with {name}",
                [{**row, "at_least": row["spearman_at_least"], "at_most": row["spearman_at_most"]} for row in found],
                lambda row: _with_interval(row, "spearman", "spearman_low", "spearman_high", percent=False),
            )
        )
    return [Shown("Only chosen parts of speech: Spearman's correlation", columns)]


def _strongest(rows: list[Row]) -> list[Shown]:
    made = []
    for by, title in (("total", "By sum over all pairs"), ("mean", "By mean")):
        own = [row for row in rows if row["by"] == by][:ROWS]
        columns = [
            _column("a", own, lambda row: str(row["a"]), label=True),
            _column("b", own, lambda row: str(row["b"]), label=True),
            _column("sum", own, lambda row: _with_interval(row, "total", percent=False)),
            _column("mean", own, lambda row: _plain(row["mean"])),
            _column("times", own, lambda row: f"{row['occurrences']:,}"),
            _column("largest in", own, lambda row: str(row["pair_id"]), label=True),
        ]
        if own:
            made.append(Shown(title, columns, [row[by] for row in own]))
    return made


def _position(rows: list[Row]) -> list[Shown]:
    made = []
    for side in "ab":
        own = [row for row in rows if row["side"] == side]
        made.append(_shares(f"By position in text {side}", own, [("position", "where")]))
    return made


def _by_group(title: str) -> Callable[[list[Row]], list[Shown]]:
    def make(rows: list[Row]) -> list[Shown]:
        groups = list(dict.fromkeys(row["group"] for row in rows))
        by = {(row["group"], row["measure"]): row for row in rows}
        measures = list(dict.fromkeys(row["measure"] for row in rows))
        pairs = {row["group"]: row["pairs"] for row in rows}
        columns = [Column("", groups, label=True), Column("pairs", [f"{pairs[group]:,}" for group in groups])]
        for measure in measures:
            percent = measure not in IN_SCORES
            texts = [_with_interval(by[group, measure], "value", percent=percent) for group in groups]
            columns.append(Column(measure, texts))
        return [Shown(title, columns)]

    return make


def _unanswered(rows: list[Row]) -> list[Shown]:
    own = rows[:ROWS]
    columns = [
        _column("word", own, lambda row: str(row["word"]), label=True),
        _column("in queries", own, lambda row: f"{row['asked']:,}"),
        _column("unanswered", own, lambda row: f"{row['unanswered']:,}"),
    ]
    return [Shown("Query words that no retrieved document answered", columns, [row["unanswered"] for row in own])]


def _convergence_nodes(rows: list[Row]) -> list[Shown]:
    columns = [
        _column("nodes", rows, lambda row: f"{row['nodes']}"),
        _column("texts", rows, lambda row: f"{row['texts']:,}"),
        _column("median residual", rows, lambda row: _plain(row["residual"])),
        _column("cost", rows, lambda row: _percent(row["cost"])),
    ]
    return [Shown("Texts by integration nodes", columns, [row["texts"] for row in rows])]


def _convergence_ways(rows: list[Row]) -> list[Shown]:
    columns = [
        _column("role", rows, lambda row: str(row["role"]), label=True),
        _column("way", rows, lambda row: str(row["way"]), label=True),
        _column("texts", rows, lambda row: f"{row['texts']:,}"),
        _column("converged", rows, lambda row: f"{row['converged']:,}"),
        _column("nodes", rows, lambda row: f"{row['nodes']:.1f}"),
        _column("tokens", rows, lambda row: f"{row['tokens']:.1f}"),
        _column("cost", rows, lambda row: _percent(row["cost"])),
    ]
    return [Shown("Ways taken", columns)]


_SHOWN: dict[str, list[tuple[str, Callable[[list[Row]], list[Shown]]]]] = {
    "concentration": [("concentration", _concentration)],
    "parts_of_speech": [("parts_of_speech", _parts_of_speech), ("pos_pairs", _pos_pairs)],
    "matches": [("matches", _matches), ("meetings", _meetings), ("word_kinds", _word_kinds)],
    "sufficiency": [("sufficiency", _sufficiency), ("sufficiency_words", _sufficiency_words)],
    "strongest": [("strongest", _strongest)],
    "position": [("position_tenth", _position)],
    "retrieval": [
        ("retrieval_relevance", _by_group("By relevance")),
        ("retrieval_rank", _by_group("By rank")),
        ("unanswered_words", _unanswered),
    ],
    "convergence": [("convergence_nodes", _convergence_nodes), ("convergence_ways", _convergence_ways)],
}
# Figures that no shown table has.
_FIGURES: dict[str, tuple[str, ...]] = {
    "concentration": ("negative_mass", "negative_cells", "skewness"),
    "parts_of_speech": ("nouns_lift", "verbs_lift", "noun_verb_cells"),
    "position": ("lead_a", "lead_b", "truncated_a", "truncated_b", "unread_a", "unread_b"),
    "retrieval": ("unanswered",),
    "convergence": ("unconverged", "residual_max", "error_median", "error_99", "error_max"),
}
