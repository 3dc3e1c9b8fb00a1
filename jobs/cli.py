"""The commands. Everything heavy is imported by the command that needs it, so that ``--help`` answers at once."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from attribution_core.errors import TextError, TokenpairError
from jobs.job_flags import Endpoint, JobFile, Profile, Region, job_command

if TYPE_CHECKING:
    from jobs.config import StorageOptions

USER_ERROR = 2
INTERRUPTED = 130

app = typer.Typer(
    name="tokenpair",
    help="Which words of one text answered which words of another, in the eyes of a bi-encoder.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Model = Annotated[str, typer.Option(help="A sentence-transformers model: a folder, or a name on the hub.")]
Layer = Annotated[int, typer.Option(help="First layer above the cut: 0 is the embeddings' end, -2 two from the top.")]
Unit = Annotated[str, typer.Option(help="What is attributed as one: token, word or sentence.")]
Mode = Annotated[str, typer.Option(help="symmetric, or retrieval (the first text is a query, the second a document).")]
Special = Annotated[bool, typer.Option("--special", help="Show special and prompt tokens too.")]
Top = Annotated[int, typer.Option(min=0, max=1000, help="How many of the strongest pairs to list.")]
Html = Annotated[Path | None, typer.Option(metavar="FILE", help="Write what is shown as a page too.")]
Png = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a figure of the matrix too.")]


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


@app.command()
@job_command
def run(
    context: typer.Context,
    job_file: JobFile,
    settings: dict[str, Any],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the summary.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away what the run directory holds.")] = False,
) -> None:
    """Attribute every pair of a job; run the same command again to go on with an unfinished one."""
    with _told(context, resume=True):
        from jobs.config import load_job
        from jobs.sources.beir import with_beir

        job = load_job(job_file, with_beir(settings))
        from jobs.engine import run_job

        outcome = run_job(job, quiet=quiet, echo=_note, restart=restart)
        for line in outcome.lines():
            _print(line)
        code = outcome.exit_code
    raise typer.Exit(code)


@app.command()
@job_command
def plan(
    context: typer.Context,
    job_file: JobFile,
    settings: dict[str, Any],
    on: Annotated[
        str | None, typer.Option(metavar="NAME", help="An accelerator to tell hours and money for, such as h100 or l4.")
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="What an hour of it costs, in your currency.")] = None,
) -> None:
    """Say what a job would be and cost, before anything is computed; nothing is written."""
    with _told(context):
        from jobs.estimate import accelerator, plan_lines

        chosen = accelerator(on, price)
        from jobs.config import load_job
        from jobs.sources.beir import with_beir

        for line in plan_lines(lambda output: load_job(job_file, with_beir(settings) | {"output": output}), chosen):
            _print(line)


@app.command()
def explain(
    context: typer.Context,
    text_a: Annotated[str, typer.Argument(metavar="A", help="The first text.")],
    text_b: Annotated[str, typer.Argument(metavar="B", help="The second text.")],
    model: Model,
    layer: Layer = -2,
    groups: Unit = "word",
    mode: Mode = "symmetric",
    similarity: Annotated[str | None, typer.Option(help="cosine or dot; default: the model's own.")] = None,
    special: Special = False,
    top: Top = 10,
    html: Html = None,
    png: Png = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let the model's own code run.")
    ] = False,
) -> None:
    """Explain the similarity of two texts."""
    with _told(context):
        from jobs.showing import check_targets, show_pair

        check_targets(html, png)
        for name, text in (("first", text_a), ("second", text_b)):
            if not text.isprintable() and any("\ud800" <= sign <= "\udfff" for sign in text):
                raise TextError(f"the {name} text is not valid UTF-8")
        from jobs.quiet import quiet_libraries

        quiet_libraries()
        from attribution_core.attribution import Attributor

        attributor = Attributor(
            model,
            layer=layer,
            groups=groups,
            mode=mode,
            similarity=similarity,
            trust_remote_code=trust_remote_code,
        )
        try:
            pair = attributor.attribute(text_a, text_b)
        except TextError as error:
            # There is but one pair here, and its number says nothing.
            raise TextError(str(error).removeprefix("pair 0: ")) from None
        show_pair(pair, special=special, top=top, html=html, png=png, told=_note)


@app.command()
def show(
    context: typer.Context,
    run_directory: Annotated[str, typer.Argument(metavar="RUN", help="A run directory, local or s3://.")],
    pair_id: Annotated[str | None, typer.Argument(metavar="PAIR_ID", help="The pair's id in the run.")] = None,
    query: Annotated[
        str | None, typer.Option("--query", metavar="QID", help="Show a query of the log with its documents instead.")
    ] = None,
    doc: Annotated[
        str | None, typer.Option("--doc", metavar="DOCID", help="Of that query, this one document in full.")
    ] = None,
    special: Special = False,
    top: Annotated[
        int, typer.Option(min=0, max=1000, help="How many of the strongest pairs, or of a query's documents.")
    ] = 10,
    html: Html = None,
    png: Png = None,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """Show one pair of a run, or one query with the documents it was ranked with."""
    with _told(context):
        from jobs.showing import check_targets, show_pair, show_query

        _check_asked(pair_id, query, doc, png)
        check_targets(html, png)
        from jobs.dataset import open_run

        opened = open_run(run_directory, _storage(endpoint_url, region, profile))
        if query is not None and doc is None:
            show_query(opened.query(query), special=special, top=top, html=html, told=_note)
            return
        if query is not None and doc is not None:
            pair_id = opened.query(query).document(doc).pair_id
        assert pair_id is not None, "checked above"
        show_pair(opened.pair(pair_id), special=special, top=top, html=html, png=png, told=_note)


@app.command()
def demo(
    context: typer.Context,
    output: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where the example goes.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Leave the lines about progress out.")] = False,
) -> None:
    """Run the built-in example: questions about Python's standard library; no network, no file."""
    with _told(context, resume=True):
        from jobs.quiet import quiet_libraries

        quiet_libraries()
        from jobs.demo import run_demo

        code = run_demo(output, quiet)
    raise typer.Exit(code)


def main() -> NoReturn:
    """The console script: exit code 0, 1 (unfinished, or a bug), 2 (something the user can mend), or a signal's."""
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


@contextlib.contextmanager
def _told(context: typer.Context, *, resume: bool = False) -> Iterator[None]:
    """Errors inside the block in one line each and with the exit code they deserve; tracebacks with ``--debug``."""
    debug = bool(context.find_root().obj)
    try:
        yield
    except KeyboardInterrupt as stop:
        _complain("stopped; " + ("the same command goes on where it stopped" if resume else "nothing was written"))
        raise typer.Exit(getattr(stop, "exit_code", INTERRUPTED)) from None
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python must not complain of it again when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except TokenpairError as error:
        if debug:
            raise
        for line in str(error).splitlines():
            _complain(f"error: {line}")
        raise typer.Exit(USER_ERROR) from None
    except typer.Exit:
        raise
    except Exception as error:
        if debug:
            raise
        first = (str(error).strip().splitlines() or [""])[0][:300]
        _complain(f"this is a bug in tokenpair: {type(error).__name__}: {first} (--debug shows the traceback)")
        raise typer.Exit(1) from None


def _check_asked(pair_id: str | None, query: str | None, doc: str | None, png: Path | None) -> None:
    """JobError unless exactly one thing to show was asked for."""
    from jobs.errors import JobError

    if doc is not None and query is None:
        raise JobError(f"--doc {doc} needs the query it was found for: add --query QID")
    if pair_id is None and query is None:
        raise JobError("nothing to show: give a PAIR_ID, or --query QID for a query with its documents")
    if pair_id is not None and query is not None:
        raise JobError(f"two things to show, pair {pair_id!r} and query {query!r}: give one of them")
    if png is not None and query is not None and doc is None:
        raise JobError("--png draws one pair: add --doc DOCID, or use --html for the query's page")


def _storage(endpoint_url: str | None, region: str | None, profile: str | None) -> StorageOptions:
    from pydantic import ValidationError

    from jobs.config import StorageOptions
    from jobs.errors import JobError

    try:
        return StorageOptions(endpoint_url=endpoint_url, region=region, profile=profile)
    except ValidationError as error:
        name = str(error.errors(include_input=False, include_url=False)[0]["loc"][0])
        allowed = StorageOptions.model_fields[name].description
        raise JobError(f"--{name.replace('_', '-')}: allowed is {allowed}") from None


def _printable(text: str) -> str:
    # File names and reasons come from elsewhere; escape sequences in them must not reach a terminal.
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def _print(line: str) -> None:
    typer.echo(_printable(line))


def _note(line: str) -> None:
    print(_printable(line), file=sys.stderr, flush=True)


def _complain(line: str) -> None:
    _note(f"tokenpair: {line}")


__all__: list[Any] = ["app", "main"]
