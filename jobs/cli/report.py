"""The command that writes an HTML page about a run: ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.flags import Endpoint, Profile, Region
from jobs.cli.messages import errors_as_messages, note, say, storage_options
from jobs.cli.output import check_targets


def report(
    context: typer.Context,
    run_directory: Annotated[str, typer.Argument(metavar="RUN", help="A run directory, local or s3://.")],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the page goes; default: RUN/report.html.")
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, max=1000, help="About how many pairs to show.")] = 60,
    seed: Annotated[int, typer.Option(help="Seed of the random choice of pairs.")] = 0,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """Write one HTML page about a run: its results, whether to trust them, and pairs; it needs no network."""
    with errors_as_messages(context):
        check_targets(output)
        from jobs.run.reader import open_run
        from jobs.views.report.report import make_report, write_report

        chosen_run = open_run(run_directory, storage_options(endpoint_url, region, profile))
        page = make_report(chosen_run, note, called=run_directory, seed=seed, pairs=pairs)
        say(f"report   {write_report(chosen_run, page, output)}, {len(page.encode()) / 1e6:.1f} MB")
