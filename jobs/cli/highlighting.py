"""The command that highlights documents of an index for a query: ``highlight``."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.cli.flags import MODEL_NAMES, Endpoint, PickledWeights, Profile, Region, TrustRemoteCode
from jobs.cli.id_files import read_ids_file
from jobs.cli.messages import complain, errors_as_messages, note, say, storage_options
from jobs.cli.output import check_targets, show_highlights
from jobs.cluster.environment import quiet_libraries
from jobs.errors import JobError

if TYPE_CHECKING:
    from jobs.index.highlights import Highlights
    from jobs.index.reader import Index

Encoding = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Texts of --elastic: html escapes them, as without this flag; default does not."),
]


def highlight(
    context: typer.Context,
    index_directory: Annotated[str, typer.Argument(metavar="INDEX", help="An index, local or s3://.")],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="The text of a query.")],
    ids: Annotated[
        list[str] | None, typer.Option("--ids", metavar="ID,ID", help="Documents to highlight; repeatable.")
    ] = None,
    ids_file: Annotated[
        Path | None, typer.Option("--ids-file", metavar="FILE", help="A file with the ids of documents, one a line.")
    ] = None,
    k: Annotated[
        int, typer.Option("--k", min=1, help="Highlight at most this many sentences (or words) of each document.")
    ] = 3,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write an HTML page too.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON instead.")] = False,
    elastic: Annotated[
        bool, typer.Option("--elastic", help="Print JSON in the shape of Elasticsearch's and OpenSearch's highlight.")
    ] = False,
    pre_tag: Annotated[str | None, typer.Option(help="What --elastic puts before a highlight; default <em>.")] = None,
    post_tag: Annotated[str | None, typer.Option(help="What --elastic puts after a highlight; default </em>.")] = None,
    encoder: Encoding = None,
    model: Annotated[
        str | None, typer.Option(help="Where the index's model is now; default: where it was built with.")
    ] = None,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
    trust_remote_code: TrustRemoteCode = False,
    pickled_weights: PickledWeights = False,
) -> None:
    """Highlight what lifts a query's score in documents of an index; only the query goes through the model."""
    code = 0
    with errors_as_messages(context, names=MODEL_NAMES):
        asked = [one.strip() for given in ids or () for one in given.split(",") if one.strip()]
        shape = {"pre_tag": pre_tag, "post_tag": post_tag, "encoder": encoder}
        _check_shape(shape, elastic=elastic)
        check_targets(html)
        quiet_libraries()
        from jobs.index.reader import open_index

        if ids_file is not None:
            asked += read_ids_file(ids_file)
        if not query.strip():
            raise JobError("QUERY: is empty; give the text of a query")
        if not asked:
            raise JobError("nothing to highlight: give --ids or --ids-file")
        index = open_index(
            index_directory,
            storage_options(endpoint_url, region, profile),
            model=model,
            trust_remote_code=trust_remote_code,
            pickled_weights=pickled_weights,
        )
        hits = index.highlight(query, list(dict.fromkeys(asked)), k)
        for problem in (*hits.missing, *hits.damaged):
            complain(problem.reason)
        if elastic:
            from jobs.index.fragments import search_response

            given: dict[str, Any] = {name: value for name, value in shape.items() if value is not None}
            result: dict[str, Any] | None = search_response(hits, **given)
        else:
            result = _result(index, query, hits) if json else None
        if hits or result is not None:
            show_highlights(query, hits, index.facts, html=html, printed=result is None, echo=note)
        if result is not None:
            say(dumps(result, ensure_ascii=True))
        code = 0 if hits else 1
    raise typer.Exit(code)


def _check_shape(shape: dict[str, str | None], *, elastic: bool) -> None:
    from jobs.index.fragments import ENCODERS

    given = [name for name, value in shape.items() if value is not None]
    if given and not elastic:
        raise JobError(f"--{given[0].replace('_', '-')} is only for --elastic: add --elastic, or leave it out")
    if shape["encoder"] not in (None, *ENCODERS):
        raise JobError(f"--encoder is {shape['encoder']!r}; give {' or '.join(ENCODERS)}")


def _result(index: Index, query: str, hits: Highlights) -> dict[str, Any]:
    """What ``--json`` prints."""
    facts = index.facts
    documents = [
        {
            "id": hit.id,
            "score": hit.score,
            "error": hit.error,
            "truncated": hit.truncated,
            "spans": [span._asdict() for span in hit.spans],
        }
        for hit in hits
    ]
    return {
        "index": index.url,
        "snapshot": index.snapshot.number,
        "query": query,
        "model": facts.model,
        "layer": facts.layer,
        "similarity": facts.similarity,
        "groups": facts.groups,
        "documents": documents,
        "missing": [one.id for one in hits.missing],
        "damaged": [one._asdict() for one in hits.damaged],
    }
