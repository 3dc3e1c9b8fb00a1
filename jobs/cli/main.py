"""The program. Everything heavy is imported by the command that needs it, so that ``--help`` answers at once."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from typing import Annotated, NoReturn

import typer

from jobs.cli import cluster, doctor, evaluation, explaining, report, running, statistics, training, watching

app = typer.Typer(
    name="tokenpair",
    help="Which words of one text answered which words of another, in the eyes of a bi-encoder.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _program(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    context.obj = debug
    if version:
        print_version()
        raise typer.Exit


@app.command("version")
def print_version() -> None:
    """Print the version."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        typer.echo(f"tokenpair {version('tokenpair')}")
    except PackageNotFoundError:
        typer.echo("tokenpair (not installed)")


app.command()(running.run)
app.command()(running.plan)
app.command()(watching.status)
app.command()(watching.rejects)
app.command()(explaining.explain)
app.command()(explaining.show)
app.command()(report.report)
app.command()(statistics.stats)
app.command()(evaluation.evaluate)
app.command()(evaluation.compare)
app.command()(running.demo)
app.command()(training.train)
app.command()(cluster.submit)
app.command()(cluster.logs)
app.command()(cluster.stop)
app.command()(doctor.doctor)


def main() -> NoReturn:
    """The console script: exit code 0, 1 (unfinished, or a bug), 2 (something the user can mend), or a signal's."""
    _use_utf8()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    arguments = sys.argv[1:]
    texts = arguments.index("--") if "--" in arguments else len(arguments)
    if "--debug" in arguments[:texts]:
        # An option of the program that users put behind the command.
        arguments = ["--debug", *(word for word in arguments[:texts] if word != "--debug"), *arguments[texts:]]
    app(arguments, prog_name="tokenpair")
    raise SystemExit(0)


def _use_utf8() -> None:
    """Start Python again in its UTF-8 mode where it reads names and texts in another encoding, such as ASCII.

    Names then are the same to Python, to Arrow and to Ray's processes, and files hold UTF-8 whatever the locale says.
    """
    encoding = sys.getfilesystemencoding()
    if encoding == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    os.environ["PYTHONUTF8"] = "1"
    if codecs.lookup(encoding).name != "ascii":
        # The terminal goes on to read what the locale says.
        os.environ.setdefault("PYTHONIOENCODING", f"{encoding}:backslashreplace")
    sys.stdout.flush()
    os.execv(sys.executable, [_as_utf8(word) for word in sys.orig_argv])


def _as_utf8(word: str) -> bytes:
    """A word of the command line as UTF-8: its bytes where they are that already, else decoded by the locale."""
    raw = os.fsencode(word)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return word.encode("utf-8", "surrogateescape")
    return raw
