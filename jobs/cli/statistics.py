"""The command that computes statistics over the pairs of a run or over the corpus of an index: ``stats``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.cli.flags import MODEL_NAMES, Endpoint, PickledWeights, Profile, Region, TrustRemoteCode
from jobs.cli.messages import errors_as_messages, note, run_arguments, storage_options
from jobs.cli.output import check_targets, show_corpus
from jobs.cluster.environment import quiet_libraries
from jobs.errors import JobError
from jobs.progress import make_progress

if TYPE_CHECKING:
    from jobs.config.job import StorageOptions
    from jobs.index.reader import Index


def stats(
    context: typer.Context,
    run_directory: Annotated[str, typer.Argument(metavar="RUN", help="A run directory or an index, local or s3://.")],
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="Only these statistics; repeatable, or with commas."),
    ] = None,
    pipeline: Annotated[
        str | None, typer.Option(metavar="NAME", help="A spaCy pipeline, or none; default: the installed one.")
    ] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Only this many pairs, chosen at random.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sample and of the bootstrap.")] = 0,
    resamples: Annotated[int, typer.Option(min=0, max=100_000, help="Bootstrap resamples of each interval.")] = 1000,
    gold: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column of gold labels.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Print every table and figure.")] = False,
    queries: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="For an index: a log's queries, to list what is near many of them."),
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="For an index: write an HTML page too.")] = None,
    json: Annotated[bool, typer.Option("--json", help="For an index: print the result as JSON instead.")] = False,
    trust_remote_code: TrustRemoteCode = False,
    pickled_weights: PickledWeights = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Write the files and print nothing; for an index: hide the progress.")
    ] = False,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """Compute statistics over the pairs of a run, write them to statistics/ in it, and print what to act on.

    --all prints every table, --only NAME those of some statistics.

    For an index, print repeated sentences and documents, boilerplate, how much each position adds, and with --queries
    which documents and sentences are near many queries. Nothing is written into the index.
    """
    with errors_as_messages(context, names=MODEL_NAMES if queries is not None else None):
        storage = storage_options(endpoint_url, region, profile)
        of_index = _is_index(run_directory, storage)
        of_runs = {"--only": only, "--pipeline": pipeline, "--sample": sample, "--gold": gold, "--all": everything}
        of_indexes = {"--queries": queries, "--html": html, "--json": json}
        of_indexes |= {"--trust-remote-code": trust_remote_code, "--pickled-weights": pickled_weights}
        _check_flags(run_directory, of_index, of_runs, of_indexes)
        if of_index:
            check_targets(html)
            quiet_libraries()
            from jobs.index.reader import open_index

            index = open_index(
                run_directory, storage, trust_remote_code=trust_remote_code, pickled_weights=pickled_weights
            )
            _of_index(index, queries, html, json=json, resamples=resamples, seed=seed, quiet=quiet)
            return
        from jobs.analysis.statistics.compute import compute_statistics
        from jobs.analysis.statistics.tagging import chosen_pipeline
        from jobs.run.reader import open_run

        names = [name.strip() for given in only or () for name in given.split(",") if name.strip()]
        chosen_run = open_run(run_directory, storage)
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


def _is_index(location: str, storage: StorageOptions) -> bool:
    from jobs.index.snapshot import snapshot_numbers
    from jobs.storage.store import Store

    return bool(snapshot_numbers(Store.open(location, storage)))


def _check_flags(location: str, of_index: bool, of_runs: dict[str, Any], of_indexes: dict[str, Any]) -> None:
    """Raise JobError for a flag of runs where there is an index, and the other way round."""
    is_a, other, flags = ("an index", "a run", of_runs) if of_index else ("not an index", "an index", of_indexes)
    given = next((flag for flag, value in flags.items() if value not in (None, False, [])), None)
    if given is not None:
        raise JobError(f"{given} is only for {other}, and {location} is {is_a}; leave it out")


def _of_index(
    index: Index, queries: str | None, html: Path | None, *, json: bool, resamples: int, seed: int, quiet: bool
) -> None:
    from jobs.analysis.corpus.compute import corpus_statistics, read_queries

    texts = read_queries(queries) if queries is not None else []
    with make_progress(note, quiet=quiet) as progress:
        found = corpus_statistics(index, texts, resamples=resamples, seed=seed, progress=progress)
    show_corpus(found, html=html, json=json, echo=note)
