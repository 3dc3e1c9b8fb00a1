"""The commands that judge attributions: ``evaluate`` one run, ``compare`` two."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.commands import note, say, storage_options, told
from jobs.job_flags import Endpoint, Profile, Region

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
    steps: Annotated[int, typer.Option(help="Steps from the whole text to a blank one.")] = 10,
    orders: Annotated[int, typer.Option(help="Random orders, and shuffles, drawn of each pair.")] = 5,
    json: Json = False,
    quiet: Quiet = False,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let the model's own code run.")
    ] = False,
) -> None:
    """Say whether a run's attributions can be trusted: take words away in their order and score what is left."""
    with told(context):
        from jobs.quiet import quiet_libraries

        quiet_libraries()
        from jobs.dataset import open_run

        run = open_run(run_directory, storage_options(endpoint_url, region, profile))
        run.store.check_writable()
        from jobs.evaluation.measuring import evaluate_run
        from jobs.progress import make_counter

        with make_counter(note, quiet=quiet) as progress:
            found = evaluate_run(
                run,
                sample=sample,
                seed=seed,
                steps=steps,
                orders=orders,
                judge=judge,
                trust_remote_code=trust_remote_code,
                progress=progress,
            )
        written = found.write(run.store)
        if json:
            from json import dumps

            say(dumps(found.to_dict(), ensure_ascii=True))
            return
        from rich.console import Console

        from jobs.evaluation.terminal import terminal_faithfulness

        terminal_faithfulness(found, Console())
        if not quiet:
            note(f"wrote {', '.join(written)} into {run.url}")
