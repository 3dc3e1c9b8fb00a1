"""Rows that may come from anybody: a run directory says it is tokenpair's, and need not be."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from attribution_core.errors import TokenpairError
from jobs.errors import RunError

# No model reads texts whose matrix is larger.
MOST_CELLS = 1 << 28


@contextlib.contextmanager
def as_written(url: str) -> Iterator[None]:
    """RunError for rows of the run at ``url`` whose columns, types or sizes no run writes."""
    try:
        yield
    except TokenpairError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError, RecursionError) as error:
        raise RunError(f"{url}: holds rows that tokenpair did not write ({type(error).__name__})") from error


def check_cells(rows: int, cols: int, row_sums: int, col_sums: int) -> None:
    """ValueError unless a matrix of ``rows`` and ``cols`` is what so many sums belong to, and is of a size to hold."""
    if rows != row_sums or cols != col_sums or rows * cols > MOST_CELLS:
        raise ValueError(f"a matrix of {rows} rows and {cols} columns")
