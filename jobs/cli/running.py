"""The commands that run a job or estimate it: ``run``, ``plan`` and ``demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.cli.flags import JobFile, job_command, job_names
from jobs.cli.messages import errors_as_messages, note, say
from jobs.cluster.environment import quiet_libraries


@job_command
def run(
    context: typer.Context,
    job_file: JobFile,
    settings: dict[str, Any],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the summary.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Delete the run in the output folder first.")] = False,
) -> None:
    """Explain every pair of a job; run the same command again to resume an unfinished job."""
    with errors_as_messages(context, resume=True, names=job_names(job_file, settings)):
        from jobs.config.job import load_job
        from jobs.sources.beir import with_beir

        job = load_job(job_file, with_beir(settings, job_file, lambda line: None if quiet else note(f"note: {line}")))
        from jobs.engine.driver import run_job
        from jobs.engine.indexing import build_index

        compute = build_index if job.task == "index" else run_job
        outcome = compute(job, quiet=quiet, echo=note, restart=restart)
        for line in outcome.lines():
            say(line)
        code = outcome.exit_code
    raise typer.Exit(code)


@job_command
def plan(
    context: typer.Context,
    job_file: JobFile,
    settings: dict[str, Any],
    on: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Estimate hours and money for this accelerator, such as h100 or l4."),
    ] = None,
    price: Annotated[
        float | None, typer.Option(min=0, help="Price of an hour of it, in your currency; default: in $.")
    ] = None,
) -> None:
    """Estimate the size and the cost of a job; nothing is computed or written."""
    with errors_as_messages(context, names=job_names(job_file, settings)):
        from jobs.config.job import index_job, load_job
        from jobs.plan.estimate import accelerator, plan_lines
        from jobs.sources.beir import with_beir
        from jobs.views.ranking.terminal import plan_metrics

        chosen = accelerator(on, price)
        settings = with_beir(settings, job_file, lambda line: say(f"note: {line}"))
        load = index_job if settings["task"] == "index" else load_job
        for line in plan_lines(lambda output: load(job_file, settings | {"output": output}), chosen, plan_metrics):
            say(line)


def demo(
    context: typer.Context,
    output: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Folder for the example.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")] = False,
) -> None:
    """Run the built-in example: questions about Python's standard library; no network, no file."""
    with errors_as_messages(context, resume=True):
        quiet_libraries()
        from jobs.demo import run_demo

        code = run_demo(output, quiet)
    raise typer.Exit(code)
