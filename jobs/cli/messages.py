"""Shared by all commands: errors as messages of one line, printing, exit codes, and options of the store."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from attribution_core.errors import TokenpairError
from jobs.cli.flag_names import FlagNames
from jobs.engine.signals import stoppable
from jobs.errors import JobError

if TYPE_CHECKING:
    from jobs.config.job import StorageOptions

USER_ERROR = 2
INTERRUPTED = 130


@contextlib.contextmanager
def errors_as_messages(
    context: typer.Context, *, resume: bool = False, names: FlagNames | None = None
) -> Iterator[None]:
    """Print errors inside the block as messages and exit with their exit code; ``--debug`` shows tracebacks.

    ``resume`` is whether the same command resumes its work after a signal. ``names`` has the flags that errors name
    in place of settings; by default those of the store.
    """
    debug = bool(context.find_root().obj)
    try:
        with stoppable():
            _check_folder_names()
            yield
    except KeyboardInterrupt as stop:
        complain("stopped; " + ("the same command goes on where it stopped" if resume else "nothing was written"))
        raise typer.Exit(getattr(stop, "exit_code", INTERRUPTED)) from None
    except BrokenPipeError:
        # The reader closed the pipe, such as `head`. Python must not report that again when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except TokenpairError as error:
        if debug:
            raise
        for line in str(error).splitlines():
            complain(f"error: {(names or FlagNames()).line(line)}")
        raise typer.Exit(USER_ERROR) from None
    except typer.Exit:
        raise
    except Exception as error:
        if debug:
            raise
        first = (str(error).strip().splitlines() or [""])[0][:300]
        complain(f"this is a bug in tokenpair: {type(error).__name__}: {first} (--debug shows the traceback)")
        raise typer.Exit(1) from None


def _check_folder_names() -> None:
    """Raise JobError if the name of a folder that Arrow and Ray use is not valid UTF-8."""
    names = {name: os.environ.get(name, "") for name in ("TMPDIR", "HOME")}
    with contextlib.suppress(OSError):
        names["the folder you are in"] = os.getcwd()
    for what, name in names.items():
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            raise JobError(f"{what}: its name {name!r} is not valid UTF-8; choose another folder") from None


def storage_options(endpoint_url: str | None, region: str | None, profile: str | None) -> StorageOptions:
    """Return the options of a store from the command line; raises JobError for an invalid one."""
    from pydantic import ValidationError

    from jobs.config.job import StorageOptions

    try:
        return StorageOptions(endpoint_url=endpoint_url, region=region, profile=profile)
    except ValidationError as error:
        name = str(error.errors(include_input=False, include_url=False)[0]["loc"][0])
        allowed = StorageOptions.model_fields[name].description
        raise JobError(f"--{name.replace('_', '-')}: allowed is {allowed}") from None


def run_arguments(run: str, endpoint_url: str | None, region: str | None, profile: str | None) -> list[str]:
    """Return the arguments that name a run on the command line: its location, and the given flags of its store."""
    flags = (("--endpoint-url", endpoint_url), ("--region", region), ("--profile", profile))
    return [run, *(argument for flag, value in flags if value is not None for argument in (flag, value))]


def escaped(text: str) -> str:
    """Return ``text`` with unprintable characters as escapes; a line of a command has no layout to keep."""
    # File names and reasons come from the input; escape sequences in them must not reach a terminal.
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def say(line: str) -> None:
    """Print a line of the result to standard output."""
    typer.echo(escaped(line))


def note(line: str) -> None:
    """Print a notice or a line of progress to standard error."""
    print(escaped(line), file=sys.stderr, flush=True)


def complain(line: str) -> None:
    """Print an error to standard error."""
    note(f"tokenpair: {line}")
