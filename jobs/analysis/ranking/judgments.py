"""The judgments of a run's queries: those stored while planning, else those that its rows have."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from jobs.run.manifest import judgment_schema, read_judgments
from jobs.run.reader import Run

COLUMN = "relevance"
# Metadata of judgments that were taken from the run's rows: documents without a row are missing.
OF_ROWS = b"judgments_of_rows"


def judgments(run: Run) -> pa.Table | None:
    """Return the judgments of the run's queries: query, document (string) and relevance (int32), sorted; None without
    any.

    Those that were stored while planning have documents outside the run too. Other runs give those of the column
    relevance of their rows, with the metadata ``OF_ROWS``. Raises RunError where they cannot be read.
    """
    stored = read_judgments(run.store, run.plan) if run.plan is not None else None
    return stored if stored is not None else _of_rows(run)


def _of_rows(run: Run) -> pa.Table | None:
    if not is_number(run, COLUMN):
        return None
    rows = run.to_table(["text_a_id", "text_b_id", COLUMN])
    grades = rows[COLUMN].cast(pa.float64(), safe=False)
    whole = pc.and_(pc.is_finite(grades), pc.equal(grades, pc.round(grades)))
    if not pc.all(pc.fill_null(whole, True)).as_py():
        return None  # not grades
    ids = [rows[name].cast(pa.string()) for name in ("text_a_id", "text_b_id")]
    table = pa.table([*ids, grades.cast(pa.int32())], names=judgment_schema().names)
    table = table.filter(pc.is_valid(table["relevance"]))
    if not len(table):
        return None
    table = table.sort_by([("query", "ascending"), ("document", "ascending")])
    return table.replace_schema_metadata({OF_ROWS: b"1"})


def is_number(run: Run, name: str) -> bool:
    """Return whether the run's rows have a column of numbers (or of true and false) of that name."""
    schema = run.dataset().schema
    if name not in schema.names:
        return False
    kind = schema.field(name).type
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))
