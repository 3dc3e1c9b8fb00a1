"""The life of a job: config, sources, plan, engine and worker, dataset. Other programs import from here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from attribution_core.hooks import register

if TYPE_CHECKING:
    from jobs.config.job import load_job
    from jobs.engine.driver import run_job
    from jobs.engine.indexing import build_index
    from jobs.index.reader import open_index
    from jobs.run.reader import open_run

__all__ = ["build_index", "load_job", "open_index", "open_run", "run_job"]

# Imported when they are asked for: a command that prints a line needs none of them.
_PLACES = {
    "build_index": "jobs.engine.indexing",
    "load_job": "jobs.config.job",
    "open_index": "jobs.index.reader",
    "open_run": "jobs.run.reader",
    "run_job": "jobs.engine.driver",
}

register(
    run_html="jobs.views.report.notebook:run_html",
    query_of_run="jobs.analysis.query.reader:read_query",
    query_text="jobs.views.query.terminal:query_text",
    query_html="jobs.views.query.page:query_html",
    margin_of_run="jobs.analysis.margin.compute:margin",
    margin_text="jobs.views.margin.terminal:margin_text",
    margin_html="jobs.views.margin.page:margin_html",
    flips_text="jobs.views.margin.flips:flips_text",
    statistics_of_run="jobs.analysis.statistics.results:statistics_of",
    statistics_text="jobs.views.statistics.terminal:statistics_text",
    statistics_html="jobs.views.statistics.page:statistics_html",
    comparison_text="jobs.views.comparison.terminal:comparison_text",
    faithfulness_text="jobs.views.faithfulness.terminal:faithfulness_text",
)


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'jobs' has no attribute {name!r}")
