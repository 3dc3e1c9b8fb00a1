"""Every statistic of a run as a part of the page: what it means, its plots, its figures and its tables."""

from __future__ import annotations

import itertools
from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as types

from jobs.analysis.statistics.schema import Figure, Statistic, Summary, TableInfo
from jobs.errors import RunError
from jobs.storage.store import Store
from jobs.views.kit.numbers import worded
from jobs.views.kit.page import html_table
from jobs.views.kit.table import Column, Table, column
from jobs.views.report.charts import charts_of
from jobs.views.statistics.view import IN_SCORES

MOST_ROWS = 20
LONGEST_CELL, LONGEST_MEANING = 80, 400
# Pairs of a table of examples that are shown, of each kind.
FEW, EXAMPLES = 6, {"strongest": MOST_ROWS}
# Rows of a table that are held: of a large log some have one for every word of a query.
MOST_READ = 10_000
# Columns of shares of one, written in per cent whatever their size, and those that a row's measure is in.
SHARES = {"share", "low", "high", "frequency", "at_least", "at_most", "p05", "p25", "p50", "p75", "p95"}
MEASURED = {"value", "low", "high"}
LEFT_OUT = {"order", "exact"}


class Findings:
    """The statistics of a run with the first ``MOST_READ`` rows of their tables, each read once."""

    def __init__(self, summary: Summary, store: Store) -> None:
        self.summary = summary
        self.tables: dict[str, pa.Table] = {}
        for statistic in summary.statistics.values():
            for info in statistic.tables:
                self.tables[info.name] = read_table(store, info)

    def examples(self) -> list[tuple[str, list[str]]]:
        """Labelled ids of pairs from every table that names some."""
        lists: list[tuple[str, list[str]]] = []
        for statistic in self.summary.statistics.values():
            for info in statistic.tables:
                table = self.tables[info.name]
                if "pair_id" not in table.column_names:
                    continue
                for what, ids in _examples(info, table).items():
                    lists.append((f"{statistic.title}: {what[:1].lower()}{what[1:].rstrip('.')}", ids))
        return lists

    def of_a_sample(self) -> list[str]:
        """A sentence where the statistics are not of all pairs."""
        facts = self.summary.run
        if facts.sample is None:
            return []
        return [f"The statistics are of {facts.pairs:,} of the {facts.pairs_in_run:,} pairs, chosen at random."]

    def intervals(self) -> str:
        """What the intervals are."""
        return f"Intervals are 95 % bootstrap intervals over {self.summary.run.drawn}."

    def sections(self, shown: Container[str]) -> list[dict[str, Any]]:
        """What the template needs of every statistic; ids in ``shown`` become links to their pair."""
        return [self._section(one, shown) for one in self.summary.statistics.values() if one.figures or one.notes]

    def _section(self, one: Statistic, shown: Container[str]) -> dict[str, Any]:
        tables = [
            shown_table(info, self.tables[info.name], shown) for info in one.tables if len(self.tables[info.name])
        ]
        figures = [html_table(figures_table(one, self.summary.run.drawn), LONGEST_MEANING)] if one.figures else []
        return {
            "id": f"found-{one.name.replace('_', '-')}",
            "title": one.title,
            "meaning": one.meaning,
            "notes": list(one.notes),
            "plots": charts_of(one, self.tables, self.summary.run),
            "numbers": figures + [html_table(table, LONGEST_CELL) for table in tables] if tables else [],
        }


def read_table(store: Store, info: TableInfo) -> pa.Table:
    """The first ``MOST_READ`` rows of a table of the statistics; RunError where it is not there or damaged."""
    try:
        with store.guard("read", info.file), store.open_input(info.file) as raw:
            file = pq.ParquetFile(raw)
            return pa.Table.from_batches(itertools.islice(file.iter_batches(MOST_READ), 1), file.schema_arrow)
    except pa.ArrowException:
        raise RunError(
            f"{store.url}/{info.file}: is damaged; compute it again with: tokenpair stats {store.url}"
        ) from None


def figures_table(statistic: Statistic, drawn: str) -> Table:
    """The figures of a statistic, one a row, with interval and certainty; ``drawn`` is what the bootstrap draws."""
    figures = statistic.figures
    interval = column("95 % interval", figures, _interval)
    columns = [
        column("figure", figures, lambda one: one.meaning or one.name, label=True),
        column("value", figures, lambda one: worded(one.value, one.unit)),
        replace(interval, meaning=f"bootstrap over {drawn}"),
        column("certainty", figures, certainty, label=True),
    ]
    return Table(statistic.title, columns)


def _interval(one: Figure) -> str:
    return "" if one.low is None else f"{worded(one.low, one.unit)} to {worded(one.high, one.unit)}"


def certainty(one: Figure) -> str:
    """Exact, or the bounds between which the true number certainly lies."""
    if one.exact:
        return "exact"
    ends = [worded(end, one.unit) if end is not None else "?" for end in (one.at_least, one.at_most)]
    return f"estimate; certainly {ends[0]} to {ends[1]}"


def shown_table(info: TableInfo, table: pa.Table, shown: Container[str]) -> Table:
    """The first rows of a table, ids linked to their pair where it is on the page."""
    rows = table.slice(0, MOST_ROWS).to_pylist()
    columns = []
    for name in (name for name in table.column_names if name not in LEFT_OUT):
        texts = [_text(row[name], number_unit(info.name, name, row)) for row in rows]
        links = [_link(row[name], shown) for row in rows] if name == "pair_id" else []
        label = types.is_string(table.schema.field(name).type)
        columns.append(Column(name.replace("_", " "), texts, label, info.columns.get(name, ""), links))
    more = f" The first {MOST_ROWS} of {info.rows:,} rows; all are in {info.file}." if info.rows > MOST_ROWS else ""
    meanings = "; ".join(f"{column.head}: {column.meaning}" for column in columns if column.meaning)
    return Table(info.meaning, columns, note=f"{meanings}.{more}" if meanings else more.strip())


def number_unit(table: str, column: str, row: Mapping[str, Any]) -> str:
    """The unit of a number in a table: it is the table or the row's measure that says what an interval is in."""
    if table.startswith(("strongest", "ranking")):
        return ""
    if column in MEASURED and "measure" in row:
        return "" if row["measure"] in IN_SCORES else "share"
    return "share" if column in SHARES or (table, column) == ("concentration_examples", "value") else ""


def _text(value: Any, unit: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return worded(float(value), unit)
    return str(value) if value is not None and value != "" else "–"


def _link(pair_id: Any, shown: Container[str]) -> str:
    return f"#pair={quote(pair_id, safe='')}" if pair_id in shown else ""


def _examples(info: TableInfo, table: pa.Table) -> dict[str, list[str]]:
    """Ids of the first few pairs of each kind; without a column ``what`` the table is of one kind."""
    most = EXAMPLES.get(info.name, FEW)
    if "what" not in table.column_names:
        ids = table["pair_id"].drop_null().slice(0, most).to_pylist()
        return {info.meaning: ids} if ids else {}
    kinds: dict[str, list[str]] = {}
    for what, pair_id in zip(table["what"].to_pylist(), table["pair_id"].to_pylist(), strict=True):
        ids = kinds.setdefault(str(what), [])
        if pair_id is not None and len(ids) < most:
            ids.append(pair_id)
    return {what: ids for what, ids in kinds.items() if ids}
