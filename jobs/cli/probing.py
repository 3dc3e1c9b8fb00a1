"""The command ``probe``: kinds of failure in a run, and what small edits of its documents change."""

from __future__ import annotations

from json import dumps
from typing import Annotated

import typer

from jobs.cli.evaluation import Json, Quiet, Seed
from jobs.cli.flags import Endpoint, Profile, Region, TrustRemoteCode
from jobs.cli.messages import errors_as_messages, note, say, storage_options
from jobs.cluster.environment import quiet_libraries
from jobs.progress import make_progress


def probe(
    context: typer.Context,
    run_directory: Annotated[str, typer.Argument(metavar="RUN", help="A run directory, local or s3://.")],
    sample: Annotated[int, typer.Option(help="How many queries to look at, chosen at random.")] = 200,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Look for kinds of failure in a run, and for what small edits of its documents change in the scores.

    Encodes sentences of documents and edited copies (a negation, another number, …), each beside a benign edit.
    """
    with errors_as_messages(context):
        quiet_libraries()
        from jobs.run.reader import open_run

        run = open_run(run_directory, storage_options(endpoint_url, region, profile))
        run.store.check_writable()
        from rich.console import Console

        from jobs.analysis.failures.find import find_failures
        from jobs.analysis.failures.result import write_failures
        from jobs.analysis.faithfulness.judge import Judge
        from jobs.analysis.probes.probe import probe as probe_model
        from jobs.analysis.probes.result import write_probes
        from jobs.views.failures.terminal import terminal_failures
        from jobs.views.probes.terminal import terminal_probes

        with make_progress(note, quiet=quiet) as progress:
            progress.phase("loading the model")
            model = Judge(run, trust_remote_code=trust_remote_code)
            probes = probe_model(run, model, sample=sample, seed=seed, progress=progress)
            failures = find_failures(run, model=model, queries=sample, seed=seed, progress=progress)
        written = write_failures(run, failures), write_probes(run, probes)
        if json:
            both = {"failures": failures.model_dump(mode="json"), "probes": probes.model_dump(mode="json")}
            say(dumps(both, ensure_ascii=True))
            return
        console = Console()
        terminal_failures(failures, console)
        console.print()
        terminal_probes(probes, console)
        if not quiet:
            note(f"wrote {', '.join(written)} into {run.url}")
