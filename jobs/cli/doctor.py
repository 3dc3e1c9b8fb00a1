"""The command that examines a model: ``doctor``."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.cli.flags import MODEL_NAMES, PickledWeights, Reference, Similarity, TrustRemoteCode
from jobs.cli.messages import errors_as_messages, note
from jobs.cluster.environment import quiet_libraries
from jobs.errors import JobError

UNHEALTHY = 1


def doctor(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="A model: a folder, or a name on the hub.")
    ] = None,
    show_list: Annotated[
        bool, typer.Option("--list", help="List well-known models: what works, with which flags and prefixes.")
    ] = False,
    mode: Annotated[
        str | None, typer.Option(help="symmetric or retrieval; default: retrieval where the model has roles.")
    ] = None,
    similarity: Similarity = None,
    reference: Reference = None,
    seconds: Annotated[
        float, typer.Option(min=0, help="About how many seconds to test layers; the default layer always is tested.")
    ] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings, or the list, as JSON.")] = False,
    trust_remote_code: TrustRemoteCode = False,
    pickled_weights: PickledWeights = False,
) -> None:
    """Examine a model: what it is, whether its attributions are sound, and what they cost here."""
    with errors_as_messages(context, names=MODEL_NAMES):
        if show_list == (model is not None):
            raise JobError("give either a MODEL to examine or --list")
        if model is None:
            _print_list(as_json)
            return
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
            pickled_weights=pickled_weights,
            echo=note,
        )
        if as_json:
            typer.echo(json_diagnosis(diagnosis))
        else:
            from rich.console import Console

            terminal_diagnosis(diagnosis, Console(highlight=False))
    if diagnosis.problems:
        raise typer.Exit(UNHEALTHY)


def _print_list(as_json: bool) -> None:
    """Print the list of well-known models: for reading on a terminal, else a line for each."""
    from rich.console import Console

    from jobs.doctor.model_list import model_list
    from jobs.views.doctor.model_list import json_models, plain_models, terminal_models

    console = Console(highlight=False)
    if as_json:
        typer.echo(json_models(model_list()))
    elif console.is_terminal:
        terminal_models(model_list(), console)
    else:
        typer.echo(plain_models(model_list()))
