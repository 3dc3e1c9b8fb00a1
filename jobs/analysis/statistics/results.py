"""The statistics of a run, for Python and notebooks."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.parquet as pq

from attribution_core.hooks import hook
from jobs.analysis.statistics.schema import Figure, Statistic, Summary, read_summary
from jobs.errors import RunError
from jobs.run.reader import Run


@dataclass(frozen=True)
class Statistics:
    """The statistics of ``run``, such as ``statistics["concentration"]``; a notebook displays each."""

    run: Run
    summary: Summary

    def __getitem__(self, name: str) -> StatisticView:
        if name not in self.summary.statistics:
            there = ", ".join(self.summary.statistics)
            raise RunError(f"{self.run.url}: has no statistic {name!r}; there are {there}")
        return StatisticView(self, self.summary.statistics[name])

    def __iter__(self) -> Iterator[StatisticView]:
        return (self[name] for name in self.summary.statistics)

    def __len__(self) -> int:
        return len(self.summary.statistics)

    def __repr__(self) -> str:
        return f"Statistics({self.run.url!r}: {', '.join(self.summary.statistics)})"

    def __str__(self) -> str:
        return str(hook("statistics_text")(self.summary, self.tables()))

    def _repr_html_(self) -> str:
        return str(hook("statistics_html")(self.summary, self.tables()))

    def tables(self, only: Sequence[str] = ()) -> dict[str, pa.Table]:
        """The tables of the statistics named in ``only`` (all by default), by name."""
        wanted = [one for name, one in self.summary.statistics.items() if not only or name in only]
        return {info.name: self.table(info.name) for one in wanted for info in one.tables}

    def table(self, name: str) -> pa.Table:
        """One table; RunError where there is none of that name."""
        for statistic in self.summary.statistics.values():
            for info in statistic.tables:
                if info.name == name:
                    return pq.read_table(io.BytesIO(self.run.store.read(info.file)))
        raise RunError(f"{self.run.url}: has no table {name!r} among its statistics")


@dataclass(frozen=True)
class StatisticView:
    """One statistic with its tables: ``figure(name)``, ``table(name)``; it can be printed, and a notebook displays
    it."""

    owner: Statistics
    statistic: Statistic

    @property
    def name(self) -> str:
        return self.statistic.name

    @cached_property
    def tables(self) -> dict[str, pa.Table]:
        """Its tables by name."""
        return self.owner.tables([self.statistic.name])

    def table(self, name: str | None = None) -> pa.Table:
        """A table of it; the first one where no name is given."""
        return self.owner.table(name if name is not None else self.statistic.tables[0].name)

    def figure(self, name: str) -> Figure:
        """A figure of it; KeyError where there is none of that name."""
        return self.statistic.figure(name)

    def __repr__(self) -> str:
        return f"Statistic({self.statistic.name!r}: {', '.join(figure.name for figure in self.statistic.figures)})"

    def __str__(self) -> str:
        return str(hook("statistics_text")(self.owner.summary, self.tables, [self.statistic.name]))

    def _repr_html_(self) -> str:
        return str(hook("statistics_html")(self.owner.summary, self.tables, [self.statistic.name]))


def statistics_of(run: Run) -> Statistics:
    """The stored statistics; RunError where ``tokenpair stats`` has not been run."""
    return Statistics(run, read_summary(run.store))
