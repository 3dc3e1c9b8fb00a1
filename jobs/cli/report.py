"""The command that makes a page of a run: ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.flags import Endpoint, Profile, Region
from jobs.cli.messages import note, say, storage_options, told


def report(
    context: typer.Context,
    run_directory: Annotated[str, typer.Argument(metavar="RUN", help="A run directory, local or s3://.")],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the page goes; default: RUN/report.html.")
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, max=1000, help="About how many pairs to show.")] = 60,
    seed: Annotated[int, typer.Option(help="Another number, other pairs by chance.")] = 0,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """Make one page of a run: what was found, whether to trust it, and pairs to look at; it needs no network."""
    with told(context):
        from jobs.cli.output import check_targets

        check_targets(output)
        from jobs.run.reader import open_run
        from jobs.views.report.report import make_report, write_report

        opened = open_run(run_directory, storage_options(endpoint_url, region, profile))
        page = make_report(opened, note, called=run_directory, seed=seed, pairs=pairs)
        say(f"report   {write_report(opened, page, output)}, {len(page.encode()) / 1e6:.1f} MB")
