"""The command that computes statistics over the pairs of a run: ``stats``."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from jobs.cli.flags import Endpoint, Profile, Region
from jobs.cli.messages import errors_as_messages, note, run_arguments, storage_options


def stats(
    context: typer.Context,
    run_directory: Annotated[str, typer.Argument(metavar="RUN", help="A run directory, local or s3://.")],
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="Only these statistics; repeatable, or with commas."),
    ] = None,
    pipeline: Annotated[
        str | None, typer.Option(metavar="NAME", help="A spaCy pipeline, or none; default: the installed one.")
    ] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Only this many pairs, chosen at random.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample and of the bootstrap.")] = 0,
    resamples: Annotated[int, typer.Option(min=0, max=100_000, help="Bootstrap resamples of each interval.")] = 1000,
    gold: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column of gold labels.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Print every table and figure.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Write the files and print nothing.")] = False,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """Compute statistics over the pairs of a run, write them to statistics/ in it, and print what to act on.

    --all prints every table, --only NAME those of some statistics.
    """
    with errors_as_messages(context):
        from jobs.analysis.statistics.compute import compute_statistics
        from jobs.analysis.statistics.tagging import chosen_pipeline
        from jobs.run.reader import open_run

        names = [name.strip() for given in only or () for name in given.split(",") if name.strip()]
        chosen_run = open_run(run_directory, storage_options(endpoint_url, region, profile))
        summary = compute_statistics(
            chosen_run,
            only=names,
            pipeline=chosen_pipeline(pipeline),
            sample=sample,
            seed=seed,
            resamples=resamples,
            gold=gold,
            echo=(lambda line: None) if quiet else note,
        )
        if quiet:
            return
        from jobs.analysis.statistics.results import Statistics
        from jobs.views.statistics.advice import READ
        from jobs.views.statistics.terminal import print_advice, print_summary

        statistics = Statistics(chosen_run, summary)
        if everything or names:
            print_summary(summary, statistics.tables(names), names)
            return
        run = shlex.join(run_arguments(run_directory, endpoint_url, region, profile))
        commands = [f"Every table: tokenpair stats {run} --all", f"A page with examples: tokenpair report {run}"]
        print_advice(summary, statistics.tables(READ), commands)
