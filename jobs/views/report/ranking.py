"""The metrics of a run's rankings, from its statistics: they are computed once, and a page shows the same numbers."""

from __future__ import annotations

import io

import pyarrow.parquet as pq

from jobs.analysis.ranking.result import Measure, Ranking
from jobs.analysis.statistics.schema import Statistic
from jobs.storage.store import Store


def stored_ranking(statistic: Statistic | None, store: Store) -> Ranking | None:
    """Return the statistic "ranking" as it was computed; None where the run has no judgments."""
    files = {info.name: info.file for info in statistic.tables} if statistic is not None else {}
    if statistic is None or "ranking" not in files:
        return None
    metrics, per_query = (pq.read_table(io.BytesIO(store.read(files[name]))) for name in ("ranking", "ranking_queries"))
    measures = tuple(
        Measure(row["metric"], row["ranking"], row["value"], row["low"], row["high"], row["queries"])
        for row in metrics.to_pylist()
    )
    cutoffs = {one.name: int(one.name.partition("@")[2]) for one in measures}
    cutoff = next(at for name, at in cutoffs.items() if name.startswith("nDCG"))
    return Ranking(measures, per_query, cutoff, max(cutoffs.values()), len(per_query), statistic.notes)
