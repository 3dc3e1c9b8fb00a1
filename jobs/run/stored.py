"""What a row of ``attributions`` holds of a pair's word pairs, as arrays and tuples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from attribution_core.results import Floats, Match
from jobs.run.tables import LIFTS
from jobs.run.untrusted import check_cells


def stored_matrix(row: Mapping[str, Any], name: str = "matrix", field: str = "value") -> Floats:
    """Return the contributions [rows, cols] of the word pairs; NaN where they were not stored.

    ``name`` is the column of whole matrices, ``field`` what the strongest pairs have of it in ``top``.

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
        matrix[cell["i"], cell["j"]] = cell[field]
    return matrix


def stored_interactions(row: Mapping[str, Any]) -> Floats | None:
    """Return the interactions [rows, cols] of the word pairs, as :func:`stored_matrix`; None where the row has none."""
    there = row.get("interactions") is not None or any("interaction" in cell for cell in row["top"])
    return stored_matrix(row, "interactions", "interaction") if there else None


def stored_matches(row: Mapping[str, Any]) -> tuple[Match, ...] | None:
    """Return where the model matched, in the order of the first text's tokens; None where the row has no matches."""
    return None if row.get("matches") is None else tuple(Match(**match) for match in row["matches"])
