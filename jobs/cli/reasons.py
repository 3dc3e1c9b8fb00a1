"""The command ``why``: which words put one document above another."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attribution_core.errors import TextError
from jobs.cli.flags import MODEL_NAMES, Endpoint, Profile, Region, TrustRemoteCode
from jobs.cli.messages import errors_as_messages, note, run_arguments, say, storage_options
from jobs.cli.output import check_targets, show_inversions, show_margin
from jobs.cluster.environment import quiet_libraries
from jobs.errors import JobError
from jobs.progress import make_progress

if TYPE_CHECKING:
    from jobs.analysis.margin.result import Margin


SAMPLE = 50


def why(
    context: typer.Context,
    run_directory: Annotated[str | None, typer.Argument(metavar="RUN", help="A run directory, local or s3://.")] = None,
    query_id: Annotated[
        str | None, typer.Argument(metavar="QUERY", help="The id of a query; without it, list the run's inversions.")
    ] = None,
    doc_a: Annotated[
        str | None, typer.Argument(metavar="DOC_A", help="The id of a document; default: the worst inversion's.")
    ] = None,
    doc_b: Annotated[str | None, typer.Argument(metavar="DOC_B", help="The id of another document.")] = None,
    query: Annotated[
        str | None, typer.Option("--query", metavar="TEXT", help="A query that no run holds; with --a, --b, --model.")
    ] = None,
    a: Annotated[str | None, typer.Option("--a", metavar="TEXT", help="The first document of --query.")] = None,
    b: Annotated[str | None, typer.Option("--b", metavar="TEXT", help="The second document of --query.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The model that explains --query, or that tests for --prove; default: the run's own."),
    ] = None,
    layer: Annotated[int, typer.Option(help="The first layer that is integrated over, with --query.")] = -2,
    prove: Annotated[
        bool,
        typer.Option(
            "--prove",
            help="Delete words until the documents change places, and count them; without QUERY over many inversions.",
        ),
    ] = False,
    sample: Annotated[
        int | None, typer.Option(min=2, help="How many inversions --prove tests, chosen at random; default 50.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sample and of random orders.")] = 0,
    top: Annotated[int, typer.Option(min=1, max=1000, help="How many inversions to list.")] = 10,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write an HTML page too.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON instead.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")] = False,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Explain why one document is above another for a query, by their words; without QUERY, list inversions."""
    texts = {"--query": query, "--a": a, "--b": b}
    with errors_as_messages(context, names=MODEL_NAMES if query is not None else None):
        _check_arguments(run_directory, query_id, doc_a, doc_b, texts, model, prove=prove, html=html)
        if sample is not None and not (prove and query_id is None):
            raise JobError("--sample says how many inversions --prove tests: add --prove, without a QUERY")
        check_targets(html)
        if query is not None and a is not None and b is not None and model is not None:
            margin = _of_texts(query, a, b, model, layer, trust_remote_code)
            show_margin(margin, None, html=html, json=json, echo=note)
            return
        from jobs.run.reader import open_run

        assert run_directory is not None, "checked above"
        run = open_run(run_directory, storage_options(endpoint_url, region, profile))
        tested: dict[str, Any] = {"model": model, "seed": seed, "trust_remote_code": trust_remote_code}
        if query_id is None and run.roles[0] != "query":
            raise JobError(
                f"{run.url}: is a run of pairs and has no queries; tokenpair show explains one pair by its id"
            )
        if query_id is None and not prove:
            arguments = run_arguments(run_directory, endpoint_url, region, profile)
            show_inversions(run, top, arguments, json=json)
            return
        if query_id is None:
            _prove_sample(run, sample or SAMPLE, tested, json=json, quiet=quiet)
            return
        margin = run.margin(query_id, doc_a, doc_b)
        proof = None
        if prove:
            quiet_libraries()
            from jobs.analysis.flips.prove import prove as prove_margin

            with make_progress(note, quiet=quiet) as progress:
                proof = prove_margin(run, margin, progress=progress, **tested)
        show_margin(margin, proof, html=html, json=json, echo=note)


def _of_texts(query: str, a: str, b: str, model: str, layer: int, trust_remote_code: bool) -> Margin:
    quiet_libraries()
    from attribution_core.attribution import Attributor
    from jobs.analysis.margin.compute import margin_of_texts

    attributor = Attributor(model, layer=layer, mode="retrieval", trust_remote_code=trust_remote_code)
    try:
        return margin_of_texts(attributor, query, a, b)
    except TextError as error:
        said = str(error)
        for place, names in (("pair 0: ", ("the query", "document A")), ("pair 1: ", ("the query", "document B"))):
            if said.startswith(place):
                said = said.removeprefix(place)
                said = said.replace("the first text", names[0]).replace("the second text", names[1])
        raise TextError(said) from None


def _prove_sample(run: Any, sample: int, tested: dict[str, Any], *, json: bool, quiet: bool) -> None:
    quiet_libraries()
    from rich.console import Console

    from jobs.analysis.flips.prove import sample_flips
    from jobs.views.margin.flips import terminal_flips

    run.store.check_writable()
    with make_progress(note, quiet=quiet) as progress:
        flips = sample_flips(run, sample=sample, progress=progress, **tested)
    written = flips.write(run.store)
    if json:
        say(dumps(flips.to_dict(), ensure_ascii=True))
        return
    terminal_flips(flips, Console())
    if not quiet:
        note(f"wrote {', '.join(written)} into {run.url}")


def _check_arguments(
    run: str | None,
    query_id: str | None,
    doc_a: str | None,
    doc_b: str | None,
    texts: dict[str, str | None],
    model: str | None,
    *,
    prove: bool,
    html: Path | None,
) -> None:
    """Raise JobError for arguments that exclude each other or that need another one."""
    missing = [name for name, text in texts.items() if text is None]
    if len(missing) < len(texts):
        if run is not None:
            raise JobError(f"two things to explain, the run {run!r} and the texts of --query: give one of them")
        if missing or model is None:
            raise JobError(
                f"texts that no run holds need --query, --a, --b and --model: add {(*missing, '--model')[0]}"
            )
        if prove:
            raise JobError("--prove tests documents of a run: give RUN and QUERY, not --query")
        for name, text in texts.items():
            if text is not None and any("\ud800" <= sign <= "\udfff" for sign in text):
                raise TextError(f"the text of {name} is not valid UTF-8")
        return
    if run is None:
        raise JobError("nothing to explain: give RUN and QUERY, or --model, --query, --a and --b")
    if doc_a is not None and doc_b is None:
        raise JobError(f"one document, {doc_a!r}: give two, or none for the query's worst inversion")
    if model is not None and not prove:
        raise JobError("--model explains --query, or tests for --prove: add one of them")
    if html is not None and query_id is None:
        raise JobError("--html draws one query: give its id after RUN")
