"""What a row of ``attributions`` holds of a pair's word pairs, as arrays and tuples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from attribution_core.results import Floats, Match
from jobs.run.tables import LIFTS
from jobs.run.untrusted import check_cells

# The column of whole matrices, and the field of the strongest pairs in ``top`` that holds the same.
FIELDS = {"matrix": "value", "interactions": "interaction"}


def stored_matrix(row: Mapping[str, Any], name: Literal["matrix", "interactions"] = "matrix") -> Floats:
    """Return the contributions [rows, cols] of the word pairs, or their interactions; NaN where they were not stored.

    Raises ValueError if the row's columns do not fit together.
    """
    shape = (row["rows"], row["cols"])
    check_cells(*shape, *(len(row[one]) for one in ("row_sums", "col_sums")))
    if row.get("row_lift") is not None:
        check_cells(*shape, *(len(row[one]) for one in LIFTS))
    if row.get(name) is not None:
        return (np.asarray(row[name], np.float32) * np.float32(row[f"{name}_scale"])).reshape(shape)
    matrix = np.full(shape, np.nan, np.float32)
    for cell in row["top"]:
        matrix[cell["i"], cell["j"]] = cell[FIELDS[name]]
    return matrix


def stored_matches(row: Mapping[str, Any]) -> tuple[Match, ...]:
    """Return the matches of a row of a late-interaction model's run, in the order of the first text's tokens."""
    return tuple(Match(**match) for match in row["matches"])
