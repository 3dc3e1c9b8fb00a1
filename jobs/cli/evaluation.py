"""The commands that judge attributions: ``evaluate`` one run, ``compare`` two."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.flags import Endpoint, Profile, Region
from jobs.cli.messages import note, say, storage_options, told

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON instead.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Leave the lines about progress out.")]
Seed = Annotated[int, typer.Option(min=0, help="Another number, another sample.")]


def evaluate(
    context: typer.Context,
    run_directory: Annotated[str, typer.Argument(metavar="RUN", help="A run directory, local or s3://.")],
    sample: Annotated[int, typer.Option(help="How many pairs to look at, by chance.")] = 200,
    seed: Seed = 0,
    judge: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Another model to score the changed texts than the run's own.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps from the whole text to an empty one.")] = 10,
    orders: Annotated[int, typer.Option(help="Random orders, and shuffles, drawn of each pair.")] = 3,
    shapley: Annotated[
        int, typer.Option(help="Orders in which words are deleted for their Shapley values, of each text.")
    ] = 12,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a figure too.")] = None,
    json: Json = False,
    quiet: Quiet = False,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let the model's own code run.")
    ] = False,
) -> None:
    """Say whether a run's attributions can be trusted: delete words and compare with what the model makes of the rest.

    The verdict says what the attributions gain over products of token embeddings, which cost nothing.
    """
    with told(context):
        from jobs.cluster.environment import quiet_libraries

        quiet_libraries()
        from jobs.cli.output import check_targets, write_figure
        from jobs.run.reader import open_run

        check_targets(png)
        run = open_run(run_directory, storage_options(endpoint_url, region, profile))
        run.store.check_writable()
        from jobs.analysis.faithfulness.evaluate import evaluate_run
        from jobs.progress import make_progress

        with make_progress(note, quiet=quiet) as progress:
            found = evaluate_run(
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
        written = found.write(run.store)
        if png is not None:
            from jobs.views.faithfulness.figure import faithfulness_figure

            write_figure(faithfulness_figure(found), png, note)
        if json:
            from json import dumps

            say(dumps(found.to_dict(), ensure_ascii=True))
            return
        from rich.console import Console

        from jobs.views.faithfulness.terminal import terminal_faithfulness

        terminal_faithfulness(found, Console())
        if not quiet:
            note(f"wrote {', '.join(written)} into {run.url}")


def compare(
    context: typer.Context,
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help="The first run, local or s3://.")],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help="The second run.")],
    sample: Annotated[
        int, typer.Option(min=0, help="How many pairs' attributions to compare, by chance; 0 for all.")
    ] = 20_000,
    seed: Seed = 0,
    examples: Annotated[int, typer.Option(min=0, max=1000, help="How many of the most different pairs to show.")] = 5,
    by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Groups by this column that was passed through, or by query.")
    ] = None,
    output: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Write comparison.json and pairs.parquet there.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """Say where two runs on the same pairs differ: other models, layers or checkpoints."""
    with told(context):
        from jobs.run.reader import open_run
        from jobs.storage.store import Store

        storage = storage_options(endpoint_url, region, profile)
        first, second = open_run(run_a, storage), open_run(run_b, storage)
        target = Store.open(output, storage) if output is not None else None
        if target is not None:
            target.check_writable()
        from jobs.analysis.comparison.compare import compare_runs
        from jobs.progress import make_progress

        with make_progress(note, quiet=quiet) as progress:
            found = compare_runs(
                first, second, sample=sample, seed=seed, examples=examples, by=by, output=target, progress=progress
            )
        if json:
            from json import dumps

            say(dumps(found.to_dict(), ensure_ascii=True))
            return
        from rich.console import Console

        from jobs.views.comparison.terminal import terminal_comparison

        terminal_comparison(found, Console())
        if target is not None and not quiet:
            note(f"wrote comparison.json and pairs.parquet into {target.url}")
