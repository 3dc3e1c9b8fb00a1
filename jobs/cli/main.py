"""The program ``tokenpair``. Commands import heavy modules themselves, so that ``--help`` starts fast."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from typing import Annotated, NoReturn

import typer

from jobs.cli import (
    cluster,
    doctor,
    evaluation,
    explaining,
    highlighting,
    indexing,
    probing,
    reasons,
    report,
    running,
    statistics,
    training,
    watching,
)

app = typer.Typer(
    name="tokenpair",
    help="Explain the scores of a bi-encoder: which words of one text matched which words of the other.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _program(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    context.obj = debug
    if show_version:
        print_version()
        raise typer.Exit


@app.command("version")
def print_version() -> None:
    """Print the version."""
    from importlib.metadata import PackageNotFoundError, version  # a fifth of the time of `--help`

    try:
        typer.echo(f"tokenpair {version('tokenpair')}")
    except PackageNotFoundError:
        typer.echo("tokenpair (not installed)")


app.command()(running.run)
app.command()(running.plan)
app.command()(indexing.index)
app.command()(highlighting.highlight)
app.command()(watching.status)
app.command()(watching.rejects)
app.command()(explaining.explain)
app.command()(explaining.show)
app.command()(reasons.why)
app.command()(report.report)
app.command()(statistics.stats)
app.command()(evaluation.evaluate)
app.command()(evaluation.compare)
app.command()(probing.probe)
app.command()(running.demo)
app.command()(training.train)
app.command()(cluster.submit)
app.command()(cluster.logs)
app.command()(cluster.stop)
app.command()(doctor.doctor)


def main() -> NoReturn:
    """Run the program and exit: with 0, 1 (unfinished, or a bug), 2 (an error the user can fix), or 128 + a signal."""
    _use_utf8()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    arguments = sys.argv[1:]
    texts = arguments.index("--") if "--" in arguments else len(arguments)
    if "--debug" in arguments[:texts]:
        # An option of the program, which is also accepted after the command.
        arguments = ["--debug", *(word for word in arguments[:texts] if word != "--debug"), *arguments[texts:]]
    app(arguments, prog_name="tokenpair")
    raise SystemExit(0)


def _use_utf8() -> None:
    """Start Python again in its UTF-8 mode if the locale has another encoding, such as ASCII.

    Then file names are the same for Python, Arrow and Ray's processes, and files are UTF-8 in every locale.
    """
    encoding = sys.getfilesystemencoding()
    if encoding == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    os.environ["PYTHONUTF8"] = "1"
    if codecs.lookup(encoding).name != "ascii":
        # The terminal still expects the encoding of the locale.
        os.environ.setdefault("PYTHONIOENCODING", f"{encoding}:backslashreplace")
    sys.stdout.flush()
    os.execv(sys.executable, [_as_utf8(word) for word in sys.orig_argv])


def _as_utf8(word: str) -> bytes:
    """Return a command-line argument as UTF-8: its own bytes if they are valid, else decoded by the locale."""
    raw = os.fsencode(word)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return word.encode("utf-8", "surrogateescape")
    return raw
