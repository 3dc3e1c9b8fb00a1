"""The command that builds an index of a corpus or brings it up to date: ``index``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.cli.flags import OF_PAIRS, JobFile, job_command, job_names
from jobs.cli.id_files import read_ids_file
from jobs.cli.messages import errors_as_messages, note, say, storage_options


@partial(job_command, without=OF_PAIRS)
def index(
    context: typer.Context,
    job_file: JobFile,
    settings: dict[str, Any],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the summary.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Delete what a stopped build wrote, and start it again.")
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="The corpus has only new and changed documents: keep all others.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read the whole index first, and compute damaged documents again.")
    ] = False,
    remove: Annotated[
        Path | None,
        typer.Option(
            "--remove",
            metavar="FILE",
            help="Remove the documents whose ids are in this file, one a line; alone it needs --output only.",
        ),
    ] = None,
) -> None:
    """Explain every document of a corpus once, for all later queries; run it again to bring the index up to date."""
    with errors_as_messages(context, resume=True, names=job_names(job_file, settings)):
        from jobs.config.job import index_job
        from jobs.engine.indexing import build_index, remove_documents
        from jobs.sources.beir import with_beir

        removed = read_ids_file(remove) if remove is not None else ()
        if removed and job_file is None and settings["output"] and not (settings["corpus"] or settings["beir"]):
            storage = storage_options(*(settings["storage"][name] for name in ("endpoint_url", "region", "profile")))
            for line in remove_documents(settings["output"], storage, removed, note).lines():
                say(line)
            return
        tell = (lambda line: None) if quiet else (lambda line: note(f"note: {line}"))
        job = index_job(job_file, with_beir(settings, job_file, tell))
        outcome = build_index(
            job, quiet=quiet, echo=note, restart=restart, partial=partial, remove=removed, verify=verify
        )
        for line in outcome.lines():
            say(line)
        code = outcome.exit_code
    raise typer.Exit(code)
