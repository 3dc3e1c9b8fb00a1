"""The command that says where a run stands: ``status``."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.commands import say, storage_options, told
from jobs.job_flags import Endpoint, Profile, Region


def status(
    context: typer.Context,
    run_directory: Annotated[str, typer.Argument(metavar="RUN", help="A run directory, local or s3://.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """Say where a run stands, from its run directory alone: also while it runs, and from another machine."""
    with told(context):
        import json

        from jobs.status import read_status
        from jobs.stores import Store

        found = read_status(Store.open(run_directory, storage_options(endpoint_url, region, profile)))
        if as_json:
            typer.echo(json.dumps(found.plain(), ensure_ascii=True, indent=1))
            return
        for line in found.lines():
            say(line)
