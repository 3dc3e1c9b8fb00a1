"""The commands that run a job or tell what it would be: ``run``, ``plan`` and ``demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.cli.flags import JobFile, job_command, job_names
from jobs.cli.messages import note, say, told


@job_command
def run(
    context: typer.Context,
    job_file: JobFile,
    settings: dict[str, Any],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the summary.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away what the run directory holds.")] = False,
) -> None:
    """Attribute every pair of a job; run the same command again to go on with an unfinished one."""
    with told(context, resume=True, names=job_names(job_file, settings)):
        from jobs.config.job import load_job
        from jobs.sources.beir import with_beir

        job = load_job(job_file, with_beir(settings, job_file, lambda line: None if quiet else note(f"note: {line}")))
        from jobs.engine.driver import run_job

        outcome = run_job(job, quiet=quiet, echo=note, restart=restart)
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
        str | None, typer.Option(metavar="NAME", help="An accelerator to tell hours and money for, such as h100 or l4.")
    ] = None,
    price: Annotated[
        float | None, typer.Option(min=0, help="What an hour of it costs, in your currency; default: in $.")
    ] = None,
) -> None:
    """Say what a job would be and cost, before anything is computed; nothing is written."""
    with told(context, names=job_names(job_file, settings)):
        from jobs.plan.estimate import accelerator, plan_lines

        chosen = accelerator(on, price)
        from jobs.config.job import load_job
        from jobs.sources.beir import with_beir

        settings = with_beir(settings, job_file, lambda line: say(f"note: {line}"))
        for line in plan_lines(lambda output: load_job(job_file, settings | {"output": output}), chosen):
            say(line)


def demo(
    context: typer.Context,
    output: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where the example goes.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Leave the lines about progress out.")] = False,
) -> None:
    """Run the built-in example: questions about Python's standard library; no network, no file."""
    with told(context, resume=True):
        from jobs.cluster.environment import quiet_libraries

        quiet_libraries()
        from jobs.demo import run_demo

        code = run_demo(output, quiet)
    raise typer.Exit(code)
