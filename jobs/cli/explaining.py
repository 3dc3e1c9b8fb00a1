"""The commands that show attributions: ``explain`` for two texts, ``show`` for a pair or a query of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attribution_core.errors import SettingError, TextError
from jobs.cli.flags import (
    MODEL_NAMES,
    Endpoint,
    PickledWeights,
    Profile,
    Reference,
    Region,
    Similarity,
    SumsTo,
    TrustRemoteCode,
)
from jobs.cli.messages import errors_as_messages, note, run_arguments, storage_options
from jobs.cli.output import check_targets, show_pair, show_query
from jobs.cluster.environment import quiet_libraries
from jobs.errors import JobError

Model = Annotated[str, typer.Option(help="A sentence-transformers model: a folder, or a name on the hub.")]
Layer = Annotated[
    int, typer.Option(help="The first layer that is integrated over: 0 is the lowest, -2 the second from the top.")
]
Unit = Annotated[str, typer.Option(help="The unit of attribution: token, word or sentence.")]
Mode = Annotated[
    str | None,
    typer.Option(help="symmetric, or retrieval (a query and a document); default: retrieval for late interaction."),
]
Special = Annotated[bool, typer.Option("--special", help="Show special and prompt tokens too.")]
Top = Annotated[int, typer.Option(min=0, max=1000, help="How many of the strongest pairs to list.")]
Html = Annotated[Path | None, typer.Option(metavar="FILE", help="Write an HTML page too.")]
Png = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a figure of the matrix too.")]


def explain(
    context: typer.Context,
    text_a: Annotated[str, typer.Argument(metavar="A", help="The first text.")],
    text_b: Annotated[str, typer.Argument(metavar="B", help="The second text.")],
    model: Model,
    layer: Layer = -2,
    groups: Unit = "word",
    mode: Mode = None,
    similarity: Similarity = None,
    sums_to: SumsTo = None,
    reference: Reference = None,
    special: Special = False,
    top: Top = 10,
    html: Html = None,
    png: Png = None,
    trust_remote_code: TrustRemoteCode = False,
    pickled_weights: PickledWeights = False,
) -> None:
    """Explain the similarity of two texts."""
    with errors_as_messages(context, names=MODEL_NAMES):
        check_targets(html, png)
        for name, text in (("first", text_a), ("second", text_b)):
            if not text.isprintable() and any("\ud800" <= sign <= "\udfff" for sign in text):
                raise TextError(f"the {name} text is not valid UTF-8")
        if sums_to == "centred":
            raise SettingError(
                "--sums-to centred subtracts the mean embedding of a run's texts, and two texts have none: "
                "use tokenpair run"
            )
        quiet_libraries()
        from attribution_core.attribution import Attributor

        attributor = Attributor(
            model,
            layer=layer,
            groups=groups,
            mode=mode,
            similarity=similarity,
            sums_to=sums_to or "score",
            reference="pad" if reference is None else reference,
            trust_remote_code=trust_remote_code,
            pickled_weights=pickled_weights,
        )
        try:
            pair = attributor.attribute(text_a, text_b)
        except TextError as error:
            # There is only one pair here, so its number is left out.
            raise TextError(str(error).removeprefix("pair 0: ")) from None
        show_pair(pair, special=special, top=top, html=html, png=png, echo=note)


def show(
    context: typer.Context,
    run_directory: Annotated[str, typer.Argument(metavar="RUN", help="A run directory, local or s3://.")],
    pair_id: Annotated[str | None, typer.Argument(metavar="PAIR_ID", help="The pair's id in the run.")] = None,
    query: Annotated[
        str | None, typer.Option("--query", metavar="QID", help="Show a query of the log and its documents instead.")
    ] = None,
    doc: Annotated[
        str | None, typer.Option("--doc", metavar="DOCID", help="Show this document of the query in full.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="lift|share",
            help="Mark the words of a query's documents that lift the score most, or that add most to it; "
            "default: lift if the run has it.",
        ),
    ] = None,
    special: Special = False,
    top: Annotated[
        int, typer.Option(min=0, max=1000, help="How many word pairs, documents of the query, or listed pairs to show.")
    ] = 10,
    html: Html = None,
    png: Png = None,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """Show one pair of a run, or one query with its documents; without an id, list some pairs."""
    with errors_as_messages(context):
        _check_arguments(pair_id, query, doc, html, png, by)
        check_targets(html, png)
        from jobs.run.reader import open_run

        chosen_run = open_run(run_directory, storage_options(endpoint_url, region, profile))
        if pair_id is None and query is None:
            from rich.console import Console

            from jobs.analysis.listing import list_pairs
            from jobs.views.lists import terminal_pairs

            terminal_pairs(
                list_pairs(chosen_run, max(top, 1)),
                Console(),
                run_arguments(run_directory, endpoint_url, region, profile),
            )
            return
        if query is not None and doc is None:
            show_query(chosen_run.query(query, by), special=special, top=top, html=html, echo=note)
            return
        if query is not None and doc is not None:
            pair_id = chosen_run.query(query).document(doc).pair_id
        assert pair_id is not None, "checked above"
        show_pair(chosen_run.pair(pair_id), special=special, top=top, html=html, png=png, echo=note)


def _check_arguments(
    pair_id: str | None, query: str | None, doc: str | None, html: Path | None, png: Path | None, by: str | None
) -> None:
    """Raise JobError for arguments that exclude each other or that need another one."""
    if doc is not None and query is None:
        raise JobError(f"--doc {doc} needs the query that it answers: add --query QID")
    if pair_id is None and query is None and (html is not None or png is not None):
        raise JobError("--html and --png draw a pair or a query: give a PAIR_ID, or --query QID")
    if pair_id is not None and query is not None:
        raise JobError(f"two things to show, pair {pair_id!r} and query {query!r}: give one of them")
    if png is not None and query is not None and doc is None:
        raise JobError("--png draws one pair: add --doc DOCID, or use --html for the query's page")
    if by is not None and (query is None or doc is not None):
        raise JobError("--by marks words in the documents of a query: give --query QID without --doc")
