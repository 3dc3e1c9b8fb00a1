"""Quantiles by linear interpolation between the two nearest values: numpy's for arrays, DuckDB's for what is in SQL."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What tables of a spread have.
SPREAD = (0.05, 0.25, 0.5, 0.75, 0.95)
# The ends of a 95 % interval.
TAILS = (0.025, 0.975)


def quantiles(values: NDArray[Any], shares: Sequence[float] = SPREAD) -> NDArray[np.float64]:
    """The quantiles of ``values`` [n, …] over the first axis, [shares, …]; NaN is left out; the result is NaN
    where there is nothing else."""
    if not len(values):
        return np.full((len(shares), *values.shape[1:]), np.nan)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column of NaN alone
        return np.asarray(np.nanquantile(values, shares, axis=0), np.float64)


def sql_quantiles(expression: str, shares: Sequence[float] = SPREAD) -> str:
    """The same as an aggregate of SQL, a list; null values are left out."""
    return f"quantile_cont({expression}, [{', '.join(map(str, shares))}])"
