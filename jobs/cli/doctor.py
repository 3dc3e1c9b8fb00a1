"""The command that examines a model: ``doctor``."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.cli.flags import MODEL_NAMES, Reference, Similarity, TrustRemoteCode
from jobs.cli.messages import errors_as_messages, note
from jobs.cluster.environment import quiet_libraries

UNHEALTHY = 1


def doctor(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model: a folder, or a name on the hub.")],
    mode: Annotated[
        str | None, typer.Option(help="symmetric or retrieval; default: retrieval where the model has roles.")
    ] = None,
    similarity: Similarity = None,
    reference: Reference = None,
    seconds: Annotated[
        float, typer.Option(min=0, help="About how many seconds to test layers; the default layer always is tested.")
    ] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Examine a model: what it is, whether its attributions are sound, and what they cost here."""
    with errors_as_messages(context, names=MODEL_NAMES):
        quiet_libraries()
        from jobs.doctor.examination import examine
        from jobs.views.doctor.terminal import json_diagnosis, terminal_diagnosis

        diagnosis = examine(
            model,
            mode=mode,
            similarity=similarity,
            reference="pad" if reference is None else reference,
            seconds=seconds,
            trust_remote_code=trust_remote_code,
            echo=note,
        )
        if as_json:
            typer.echo(json_diagnosis(diagnosis))
        else:
            from rich.console import Console

            terminal_diagnosis(diagnosis, Console(highlight=False))
    if diagnosis.problems:
        raise typer.Exit(UNHEALTHY)
