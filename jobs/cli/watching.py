"""The commands that show the progress of a run and its rejected rows: ``status`` and ``rejects``."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from jobs.cli.flags import Endpoint, Profile, Region
from jobs.cli.messages import errors_as_messages, run_arguments, say, storage_options
from jobs.errors import JobError

REJECTS_LISTED = 10


def status(
    context: typer.Context,
    run_directory: Annotated[str, typer.Argument(metavar="RUN", help="A run directory, local or s3://.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """Show the progress of a run, read from its run directory alone: while it runs, and from any machine."""
    with errors_as_messages(context):
        from jobs.index.generations import open_build
        from jobs.run.status import read_status

        progress = read_status(open_build(run_directory, storage_options(endpoint_url, region, profile)))
        if as_json:
            typer.echo(json.dumps(progress.plain(), ensure_ascii=True, indent=1))
            return
        for line in progress.lines():
            say(line)


def rejects(
    context: typer.Context,
    run_directory: Annotated[str, typer.Argument(metavar="RUN", help="A run directory, local or s3://.")],
    reason: Annotated[
        str | None, typer.Option(metavar="WORDS", help="Only rows with these words in the reason.")
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=0, help="How many rows to list; default: 10, and all as JSON or CSV.")
    ] = None,
    format: Annotated[str, typer.Option(metavar="table|json|csv", help="Output format.")] = "table",
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """List the rejected rows: their number by reason, and the file and row number of each."""
    with errors_as_messages(context):
        from rich.console import Console

        from jobs.analysis.listing import open_rejects
        from jobs.index.generations import open_build
        from jobs.run.reader import Run
        from jobs.views.lists import csv_rejects, json_rejects, terminal_rejects

        if format not in ("table", "json", "csv"):
            raise JobError(f"--format: found {format!r}; allowed: table, json or csv")
        run = Run(open_build(run_directory, storage_options(endpoint_url, region, profile)))
        with open_rejects(run) as rejected:
            rows = rejected.rows(REJECTS_LISTED if top is None and format == "table" else top, reason)
            if format == "table":
                arguments = run_arguments(run_directory, endpoint_url, region, profile)
                terminal_rejects(rejected, rows, Console(), finished=run.finished, run=arguments)
                return
            safe = sys.stdout.isatty()
            for piece in json_rejects(rejected, rows, run.url) if format == "json" else csv_rejects(rows, safe=safe):
                sys.stdout.write(piece)
