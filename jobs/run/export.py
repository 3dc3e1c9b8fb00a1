"""Converts tables of a run for pandas and for Hugging Face datasets, which are optional packages."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jobs.errors import ExportError

if TYPE_CHECKING:
    import datasets
    import pandas as pd
    import pyarrow as pa


def pandas() -> Any:
    """Return the module pandas; raises ExportError if it is not installed."""
    return _optional("pandas")


def frame_of(table: pa.Table) -> pd.DataFrame:
    """Return ``table`` as a DataFrame; raises ExportError if pandas is not installed."""
    pandas()
    return table.to_pandas()


def dataset_of(table: pa.Table) -> datasets.Dataset:
    """Return ``table`` as a Dataset without a copy; raises ExportError if datasets is not installed."""
    module = _optional("datasets")
    return module.Dataset(module.table.InMemoryTable(table))


def _optional(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise ExportError(f"{name} is not installed: install it with pip install 'tokenpair[export]'") from None
