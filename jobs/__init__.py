"""The life of a job: config, sources, plan, engine and worker, dataset. Other programs import what stands here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from attribution_core.hooks import register

if TYPE_CHECKING:
    from jobs.config import load_job
    from jobs.engine import run_job
    from jobs.opened_run import open_run

__all__ = ["load_job", "open_run", "run_job"]

# Imported when they are asked for: a command that prints a line needs none of them.
_PLACES = {"load_job": "jobs.config", "open_run": "jobs.opened_run", "run_job": "jobs.engine"}

register(
    run_html="jobs.report.notebook:run_html",
    query_of_run="jobs.query.reading:read_query",
    query_text="jobs.query.display:query_text",
    query_html="jobs.query.display:query_html",
    statistics_of_run="jobs.statistics.results:statistics_of",
    statistics_text="jobs.statistics.terminal:statistics_text",
    statistics_html="jobs.statistics.page:html_of",
    comparison_text="jobs.comparison.terminal:comparison_text",
    faithfulness_text="jobs.evaluation.terminal:faithfulness_text",
)


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'jobs' has no attribute {name!r}")
