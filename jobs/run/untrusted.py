"""Validates rows read from run directories, which other programs or people may have written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from attribution_core.errors import TokenpairError
from jobs.errors import RunError

# No model reads texts so long that their matrix has more word pairs.
MOST_CELLS = 1 << 28


@contextlib.contextmanager
def as_written(url: str) -> Iterator[None]:
    """Raise RunError if reading rows of the run at ``url`` fails inside the block, because no run writes such rows."""
    try:
        yield
    except TokenpairError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError, RecursionError) as error:
        raise RunError(f"{url}: holds rows that tokenpair did not write ({type(error).__name__})") from error


def check_cells(rows: int, cols: int, row_sums: int, col_sums: int) -> None:
    """Raise ValueError unless a matrix [rows, cols] has these numbers of sums and a size that fits into memory."""
    if rows != row_sums or cols != col_sums or rows * cols > MOST_CELLS:
        raise ValueError(f"a matrix of {rows} rows and {cols} columns")
