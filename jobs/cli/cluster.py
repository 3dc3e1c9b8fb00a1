"""The commands for a running Ray cluster: ``submit``, ``logs`` and ``stop``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.cli.flags import JobFile, job_command, job_names
from jobs.cli.messages import INTERRUPTED, complain, errors_as_messages, note, say
from jobs.errors import ClusterError

if TYPE_CHECKING:
    from jobs.cluster.client import Cluster

Address = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Ray's dashboard, as http://HEAD:8265; default: RAY_API_SERVER_ADDRESS, RAY_ADDRESS."
    ),
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Show the log until the job ends; exit with its code.")]
What = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, its run directory, or its job file.")]


@job_command
def submit(
    context: typer.Context,
    job_file: JobFile,
    settings: dict[str, Any],
    address: Address = None,
    follow: Follow = False,
    restart: Annotated[bool, typer.Option("--restart", help="Delete the run in the output folder first.")] = False,
    install: Annotated[
        bool, typer.Option("--install", help="Let the cluster install tokenpair's requirements with pip.")
    ] = False,
    python: Annotated[str, typer.Option(metavar="PROGRAM", help="Python on the cluster's machines.")] = "python",
    print_rayjob: Annotated[
        bool, typer.Option("--print-rayjob", help="Print a manifest for KubeRay instead; nothing is submitted.")
    ] = False,
    image: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --print-rayjob: an image that has tokenpair.")
    ] = None,
) -> None:
    """Run a job on a running Ray cluster; run the same command again to resume a job that was stopped."""
    code = 0
    with errors_as_messages(context, names=job_names(job_file, settings)):
        from jobs.config.job import load_job
        from jobs.sources.beir import with_beir

        job = load_job(job_file, with_beir(settings, job_file, lambda line: note(f"note: {line}")))
        from jobs.cluster.client import Cluster
        from jobs.cluster.existing_run import finished_lines
        from jobs.cluster.rayjob import manifest
        from jobs.cluster.submit import submit as submit_job

        if print_rayjob:
            typer.echo(manifest(job, image=image, restart=restart), nl=False)
            return
        cluster = Cluster(address)
        submitted = submit_job(job, cluster, note, restart=restart, install=install, python=python)
        if submitted.finished is not None:
            for line in finished_lines(submitted.finished):
                say(line)
            note("nothing was submitted; --restart deletes the run and computes it again")
            return
        say(f"{'started' if submitted.started else 'already running:'} {submitted.id}")
        if follow:
            code = _followed(cluster, submitted.id)
        else:
            note(f"tokenpair logs {submitted.id} --follow shows it, tokenpair stop {submitted.id} ends it")
    raise typer.Exit(code)


def logs(context: typer.Context, what: What, address: Address = None, follow: Follow = False) -> None:
    """Show the log of a job on a cluster."""
    code = 0
    with errors_as_messages(context):
        from jobs.cluster.client import Cluster
        from jobs.cluster.submit import find_job

        cluster = Cluster(address)
        job = find_job(cluster, what)
        if follow:
            code = _followed(cluster, job.id)
        else:
            for line in cluster.logs(job.id).splitlines():
                say(line.expandtabs())
    raise typer.Exit(code)


def stop(context: typer.Context, what: What, address: Address = None) -> None:
    """End a job on a cluster. Finished shards stay, and submitting the job again resumes it."""
    with errors_as_messages(context):
        from jobs.cluster.client import Cluster
        from jobs.cluster.submit import STOP_WAIT_SECONDS, find_job

        cluster = Cluster(address)
        job = find_job(cluster, what)
        if job.ended:
            say(f"{job.id} had ended already ({job.status.lower()})")
            return
        job = cluster.stop(job.id, STOP_WAIT_SECONDS)
        if not job.ended:
            raise ClusterError(f"{job.id} was asked to stop and is still {job.status.lower()}; look again later")
        say(f"{job.id} {job.status.lower()}; submitting the same job again goes on where it stopped")


def _followed(cluster: Cluster, id: str) -> int:
    """Print a job's log until the job ends; returns the job's exit code."""
    from jobs.cluster.client import with_retries

    again = f"tokenpair logs {id} --follow shows it again, tokenpair stop {id} ends it"
    try:
        for line in cluster.follow(id, note):
            say(line.expandtabs())
        job = with_retries(lambda: cluster.job(id), note)
    except KeyboardInterrupt as stop:
        complain(f"the job goes on; {again}")
        return int(getattr(stop, "exit_code", INTERRUPTED))
    except ClusterError:
        complain(f"the job may go on; {again}")
        raise
    if job.code is None and job.status != "SUCCEEDED":
        why = (job.message.strip().splitlines() or [""])[-1].strip()[:300]
        complain(f"{id} {job.status.lower()}{f': {why}' if why else ''}")
    return job.exit_code
