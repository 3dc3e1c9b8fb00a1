"""The commands that say where a run stands and what it left out: ``status`` and ``rejects``."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.cli.flags import Endpoint, Profile, Region
from jobs.cli.messages import run_words, say, storage_options, told

REJECTS_LISTED = 10


def status(
    context: typer.Context,
    run_directory: Annotated[str, typer.Argument(metavar="RUN", help="A run directory, local or s3://.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """Say where a run stands, from its run directory alone: also while it runs, and from another machine."""
    with told(context):
        import json

        from jobs.run.status import read_status
        from jobs.storage.store import Store

        found = read_status(Store.open(run_directory, storage_options(endpoint_url, region, profile)))
        if as_json:
            typer.echo(json.dumps(found.plain(), ensure_ascii=True, indent=1))
            return
        for line in found.lines():
            say(line)


def rejects(
    context: typer.Context,
    run_directory: Annotated[str, typer.Argument(metavar="RUN", help="A run directory, local or s3://.")],
    reason: Annotated[str | None, typer.Option(metavar="WORDS", help="Only rows whose reason has these words.")] = None,
    top: Annotated[
        int | None, typer.Option(min=0, help="How many rows to list; default: 10, and all as JSON or CSV.")
    ] = None,
    format: Annotated[str, typer.Option(metavar="table|json|csv", help="How to print them.")] = "table",
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """List the rows that were rejected: how many for which reason, and where they stand."""
    with told(context):
        import sys

        from rich.console import Console

        from jobs.analysis.listing import open_rejects
        from jobs.errors import JobError
        from jobs.run.reader import open_run
        from jobs.views.lists import csv_rejects, json_rejects, terminal_rejects

        if format not in ("table", "json", "csv"):
            raise JobError(f"--format: found {format!r}; allowed: table, json or csv")
        run = open_run(run_directory, storage_options(endpoint_url, region, profile))
        with open_rejects(run) as found:
            rows = found.rows(REJECTS_LISTED if top is None and format == "table" else top, reason)
            if format == "table":
                words = run_words(run_directory, endpoint_url, region, profile)
                terminal_rejects(found, rows, Console(), finished=run.finished, run=words)
                return
            safe = sys.stdout.isatty()
            for piece in json_rejects(found, rows, run.url) if format == "json" else csv_rejects(rows, safe=safe):
                sys.stdout.write(piece)
