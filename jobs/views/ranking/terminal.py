"""The metrics of a planned log's own ranking, as lines of ``tokenpair plan``."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.analysis.ranking.metrics import planned_metrics
from jobs.analysis.ranking.result import meaning_of
from jobs.config.job import JobConfig
from jobs.run.manifest import Plan
from jobs.storage.store import Store
from jobs.views.statistics.view import ranged

WORST = 5


def plan_metrics(store: Store, plan: Plan, job: JobConfig) -> Iterator[str]:
    """Yield lines with the metrics of the log's own ranking and its worst queries; none for a job without judgments."""
    ranking = planned_metrics(store, plan, job.depth)
    if ranking is None:
        return
    queries = f"{ranking.queries:,} {'query' if ranking.queries == 1 else 'queries'} with judgments"
    yield f"metrics   of the log's own ranking, as trec_eval computes them, over {queries} (95 % intervals):"
    for one in ranking.measures:
        yield f"          {one.name:<9} {ranged(vars(one))}  {meaning_of(one.name)}"
    name = f"nDCG@{ranking.cutoff}"
    rows = [row for row in ranking.per_query.slice(0, WORST).to_pylist() if row["relevant"]]
    if rows:
        worst = ", ".join(f"{row['query']} ({row[f'log {name}']:.3f})" for row in rows)
        yield f"          worst queries by {name}: {worst}"
    for note in ranking.notes:
        yield f"          {note}"
