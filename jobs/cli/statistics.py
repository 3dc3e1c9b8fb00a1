"""The command that says what the pairs of a run have in common: ``stats``."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.cli.flags import Endpoint, Profile, Region
from jobs.cli.messages import note, storage_options, told


def stats(
    context: typer.Context,
    run_directory: Annotated[str, typer.Argument(metavar="RUN", help="A run directory, local or s3://.")],
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="Only these statistics; repeatable, or with commas."),
    ] = None,
    pipeline: Annotated[
        str | None, typer.Option(metavar="NAME", help="A spaCy pipeline, or none; default: the one that is installed.")
    ] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Only so many pairs, by chance.")] = None,
    seed: Annotated[int, typer.Option(help="Another number, another sample and other bootstrap draws.")] = 0,
    resamples: Annotated[int, typer.Option(min=0, max=100_000, help="Bootstrap draws behind an interval.")] = 1000,
    gold: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column of gold labels.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Write the files and print nothing.")] = False,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """Say what the pairs of a run have in common; the numbers go to statistics/ in the run directory."""
    with told(context):
        from jobs.analysis.statistics.compute import compute_statistics
        from jobs.analysis.statistics.tagging import chosen_pipeline
        from jobs.run.reader import open_run

        names = [name.strip() for given in only or () for name in given.split(",") if name.strip()]
        opened = open_run(run_directory, storage_options(endpoint_url, region, profile))
        summary = compute_statistics(
            opened,
            only=names,
            pipeline=chosen_pipeline(pipeline),
            sample=sample,
            seed=seed,
            resamples=resamples,
            gold=gold,
            told=(lambda line: None) if quiet else note,
        )
        if not quiet:
            from jobs.analysis.statistics.results import Statistics
            from jobs.views.statistics.terminal import print_summary

            found = Statistics(opened, summary)
            print_summary(summary, found.tables(names), names)
