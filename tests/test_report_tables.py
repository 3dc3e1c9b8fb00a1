"""The tables and plots of the report's statistics: units, odd runs, and as many rows as fit into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from query_runs import QUERIES, small_log
from query_runs import write_run as write_log
from statistics_runs import Made, made_pairs, write_made

from jobs.analysis.statistics.compute import compute_statistics
from jobs.analysis.statistics.schema import TableInfo
from jobs.run.reader import Run
from jobs.views.kit.numbers import PERCENT
from jobs.views.report import findings
from jobs.views.report.findings import Findings, shown_table
from jobs.views.report.report import make_report


def words_of(name: str, **columns: list[Any]) -> list[list[str]]:
    """The words in the cells of a table of that name."""
    table = pa.table(columns)
    info = TableInfo(name=name, file="f", rows=len(table), exact=True, meaning="m", columns={})
    columns = [column.texts for column in shown_table(info, table, ()).columns]
    return [list(row) for row in zip(*columns, strict=True)]


def test_a_row_is_in_one_unit() -> None:
    """Would catch a unit that follows from a number's size: a score of 0.463 between 45.1 % and 47.5 %."""
    ends = {"value": [0.463, 0.93], "low": [0.451, 0.9], "high": [1.2, 1.02]}
    found = words_of("retrieval_relevance", measure=["score", "largest_5"], **ends)
    assert found[0] == ["score", "0.463", "0.451", "1.2"]
    assert found[1] == ["largest_5", f"93.0{PERCENT}", f"90.0{PERCENT}", f"102.0{PERCENT}"]
    assert words_of("strongest", total=[1.01], at_least=[0.91], at_most=[1.12]) == [["1.01", "0.91", "1.12"]]
    shares = words_of("concentration", percent=[50], share=[1.02], low=[0.93], p05=[0.5])
    assert shares == [["50", f"102.0{PERCENT}", f"93.0{PERCENT}", f"50.0{PERCENT}"]]
    assert words_of("query_terms", mean=[0.5], share=[2.0]) == [["0.5", f"200.0{PERCENT}"]]


def test_a_run_whose_pairs_add_up_to_nothing_has_a_report(tmp_path: Path, seed: int) -> None:
    """Shares of nothing are not defined, and not drawn."""
    pairs = [Made(**{**vars(one), "pair": _empty(one)}) for one in made_pairs(seed, 6)]
    run = write_made(tmp_path / "run", pairs)
    found = compute_statistics(run, pipeline=None, resamples=20)
    assert found.statistics["concentration"].figure("largest_5").value is None
    page = make_report(run, lambda line: None, called="run")
    assert "How few make how much" not in page


def _empty(one: Made) -> Any:
    pair = one.pair
    return type(pair)(
        **{
            **vars(pair),
            "matrix": pair.matrix * 0,
            "row_sums": pair.row_sums * 0,
            "col_sums": pair.col_sums * 0,
            "total": 0.0,
        }
    )


def test_a_run_of_one_pair_has_a_report_without_intervals(tmp_path: Path, seed: int) -> None:
    run = write_made(tmp_path / "run", made_pairs(seed, 1))
    compute_statistics(run, pipeline=None, resamples=20)
    page = make_report(run, lambda line: None, called="run")
    assert "whisker" not in page.split("</style>")[-1]


def test_of_a_table_of_every_query_only_the_first_rows_are_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log of a million queries has millions of such rows; six of their pairs are named."""
    monkeypatch.setattr(findings, "MOST_READ", 4)
    monkeypatch.setattr(findings, "MOST_ROWS", 2)
    run = Run(write_log(tmp_path / "run", QUERIES, small_log()))
    summary = compute_statistics(run, pipeline=None, resamples=20)
    place = tmp_path / "run" / "statistics" / "query_terms.parquet"
    terms = pq.read_table(place)
    ids = [None, *terms["pair_id"].to_pylist()[1:]]
    at = terms.column_names.index("pair_id")
    pq.write_table(terms.set_column(at, terms.schema.field(at), pa.array(ids, pa.string())), place)
    held = Findings(summary, run.store)
    assert len(terms) == 5
    assert {len(held.tables[name]) for name in ("query_terms", "strongest_by_query")} == {4}
    examples = dict(held.examples())
    assert examples["Retrieval: what each word of each query added to the scores of its documents. Exact"] == ids[1:4]
    notes = [table["note"] for section in held.sections(()) for table in section["numbers"]]
    assert any("The first 2 of 5 rows; all are in statistics/query_terms.parquet" in note for note in notes)
    assert "bootstrap intervals over queries" in held.intervals()
