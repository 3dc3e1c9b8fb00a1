"""The commands that judge attributions: ``evaluate`` one run, ``compare`` two."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.flags import Endpoint, Profile, Region, TrustRemoteCode
from jobs.cli.messages import errors_as_messages, note, say, storage_options
from jobs.cli.output import check_targets, write_figure
from jobs.cluster.environment import quiet_libraries
from jobs.progress import make_progress
from jobs.storage.store import Store

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON instead.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the random sample.")]


def evaluate(
    context: typer.Context,
    run_directory: Annotated[str, typer.Argument(metavar="RUN", help="A run directory, local or s3://.")],
    sample: Annotated[int, typer.Option(help="How many pairs to evaluate, chosen at random.")] = 200,
    seed: Seed = 0,
    judge: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A model that scores the changed texts; default: the run's own.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps from the whole text to an empty one.")] = 10,
    orders: Annotated[int, typer.Option(help="Random orders, and shuffles, for each pair.")] = 3,
    shapley: Annotated[int, typer.Option(help="Random orders of deletion for the Shapley values of each text.")] = 12,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a figure too.")] = None,
    json: Json = False,
    quiet: Quiet = False,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Test whether a run's attributions can be trusted: delete words and compare the change of the model's score.

    The verdict compares the attributions with products of token embeddings, which cost nothing; of late-interaction
    models with the similarities of matched tokens. Where documents are grouped by sentence, each sentence is deleted
    too.
    """
    with errors_as_messages(context):
        quiet_libraries()
        from jobs.run.reader import open_run

        check_targets(png)
        run = open_run(run_directory, storage_options(endpoint_url, region, profile))
        run.store.check_writable()
        from rich.console import Console

        from jobs.analysis.faithfulness.evaluate import evaluate_run
        from jobs.views.faithfulness.figure import faithfulness_figure
        from jobs.views.faithfulness.terminal import terminal_faithfulness

        with make_progress(note, quiet=quiet) as progress:
            result = evaluate_run(
                run,
                sample=sample,
                seed=seed,
                steps=steps,
                orders=orders,
                shapley=shapley,
                judge=judge,
                trust_remote_code=trust_remote_code,
                progress=progress,
            )
        written = result.write(run.store)
        if png is not None:
            write_figure(faithfulness_figure(result), png, note)
        if json:
            say(dumps(result.to_dict(), ensure_ascii=True))
            return
        terminal_faithfulness(result, Console())
        if not quiet:
            note(f"wrote {', '.join(written)} into {run.url}")


def compare(
    context: typer.Context,
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help="The first run, local or s3://.")],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help="The second run.")],
    sample: Annotated[
        int, typer.Option(min=0, help="How many pairs to compare, chosen at random; 0 for all.")
    ] = 20_000,
    seed: Seed = 0,
    examples: Annotated[int, typer.Option(min=0, max=1000, help="How many of the most different pairs to show.")] = 5,
    by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Group by this passed-through column, or by query.")
    ] = None,
    output: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Write comparison.json and pairs.parquet into this folder.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """Show where two runs on the same pairs differ, such as runs of two models, layers or checkpoints."""
    with errors_as_messages(context):
        from jobs.run.reader import open_run

        storage = storage_options(endpoint_url, region, profile)
        first, second = open_run(run_a, storage), open_run(run_b, storage)
        target = Store.open(output, storage) if output is not None else None
        if target is not None:
            target.check_writable()
        from rich.console import Console

        from jobs.analysis.comparison.compare import compare_runs
        from jobs.views.comparison.terminal import terminal_comparison

        with make_progress(note, quiet=quiet) as progress:
            result = compare_runs(
                first, second, sample=sample, seed=seed, examples=examples, by=by, output=target, progress=progress
            )
        if json:
            say(dumps(result.to_dict(), ensure_ascii=True))
            return
        terminal_comparison(result, Console())
        if target is not None and not quiet:
            note(f"wrote comparison.json and pairs.parquet into {target.url}")
