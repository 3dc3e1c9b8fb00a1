"""What every command shares: errors in one line, printing, the exit codes, and how a store is named."""

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

if TYPE_CHECKING:
    from jobs.config.job import StorageOptions

USER_ERROR = 2
INTERRUPTED = 130


@contextlib.contextmanager
def told(context: typer.Context, *, resume: bool = False, names: FlagNames | None = None) -> Iterator[None]:
    """Errors inside the block in one line each and with the exit code they deserve; tracebacks with ``--debug``.

    ``names`` has the flags that errors name in place of settings; by default those of a store.
    """
    debug = bool(context.find_root().obj)
    try:
        with stoppable():
            _check_names()
            yield
    except KeyboardInterrupt as stop:
        complain("stopped; " + ("the same command goes on where it stopped" if resume else "nothing was written"))
        raise typer.Exit(getattr(stop, "exit_code", INTERRUPTED)) from None
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python must not complain of it again when it closes the stream.
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


def _check_names() -> None:
    """JobError where names of folders that every command depends on are not UTF-8: Arrow and Ray could not use them."""
    from jobs.errors import JobError

    names = {name: os.environ.get(name, "") for name in ("TMPDIR", "HOME")}
    with contextlib.suppress(OSError):
        names["the folder you are in"] = os.getcwd()
    for what, name in names.items():
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            raise JobError(f"{what}: its name {name!r} is not valid UTF-8; choose another folder") from None


def storage_options(endpoint_url: str | None, region: str | None, profile: str | None) -> StorageOptions:
    """The options of a store as they came from the command line; JobError for one that is not allowed."""
    from pydantic import ValidationError

    from jobs.config.job import StorageOptions
    from jobs.errors import JobError

    try:
        return StorageOptions(endpoint_url=endpoint_url, region=region, profile=profile)
    except ValidationError as error:
        name = str(error.errors(include_input=False, include_url=False)[0]["loc"][0])
        allowed = StorageOptions.model_fields[name].description
        raise JobError(f"--{name.replace('_', '-')}: allowed is {allowed}") from None


def run_words(run: str, endpoint_url: str | None, region: str | None, profile: str | None) -> list[str]:
    """What names a run on the command line: its place, and the flags of its store that were given."""
    flags = (("--endpoint-url", endpoint_url), ("--region", region), ("--profile", profile))
    return [run, *(word for flag, value in flags if value is not None for word in (flag, value))]


def printable(text: str) -> str:
    """``text`` without what could steer a terminal."""
    # File names and reasons come from elsewhere; escape sequences in them must not reach a terminal.
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def say(line: str) -> None:
    """A line of the result, to standard output."""
    typer.echo(printable(line))


def note(line: str) -> None:
    """A line about the work, to standard error."""
    print(printable(line), file=sys.stderr, flush=True)


def complain(line: str) -> None:
    """A line about what went wrong, to standard error."""
    note(f"tokenpair: {line}")
