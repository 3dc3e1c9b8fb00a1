"""A run's rows for pandas and for Hugging Face's datasets, both optional."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jobs.errors import ExportError

if TYPE_CHECKING:
    import datasets
    import pandas as pd
    import pyarrow as pa


def pandas() -> Any:
    """The module; ExportError where it is not installed."""
    return _optional("pandas")


def frame_of(table: pa.Table) -> pd.DataFrame:
    """``table`` as a DataFrame; ExportError where pandas is not installed."""
    pandas()
    return table.to_pandas()


def dataset_of(table: pa.Table) -> datasets.Dataset:
    """``table`` as a Dataset, without copying it; ExportError where datasets is not installed."""
    found = _optional("datasets")
    return found.Dataset(found.table.InMemoryTable(table))


def _optional(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise ExportError(f"{name} is not installed: pip install 'tokenpair[export]' brings it") from None
