"""The margin of two documents of a run's query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from jobs.analysis.margin.inversions import Inversion, relevant_documents, worst_of
from jobs.analysis.margin.result import Margin
from jobs.analysis.margin.split import document_of, margin_of_pairs, split
from jobs.analysis.query.nearest import no_document, no_query
from jobs.errors import RunError
from jobs.progress import counted
from jobs.run.reader import Run

if TYPE_CHECKING:
    from attribution_core.attribution import Attributor

NO_JUDGMENTS = "The run has no judgments, so no inversion is known: these are the query's two best documents."
NO_INVERSION = "No irrelevant document is above a relevant one in this query: these are the query's two best documents."
NONE_HERE = (
    "None of the {} that are judged relevant for this query is among its documents in the run: these are the two best "
    "of those."
)


def margin(run: Run, query_id: str, a: str | None = None, b: str | None = None) -> Margin:
    """Return why document ``a`` scores more, or less, than document ``b`` for a query of ``run``.

    Without documents it is the query's worst inversion, the document that is not relevant first; where there is none,
    the two documents with the largest scores. Only rows of this query are read.

    Raises RunError if the run has no such query or document (the nearest ids are named), has not written it yet, or
    has one document of the query.
    """
    if (a is None) != (b is None):
        raise RunError("a margin needs two documents, or none for the query's worst inversion")
    rows = run.rows(pc.field("text_a_id") == query_id, columns=["pair_id", "text_b_id", "score"]).to_pylist()
    if not rows:
        raise RunError(no_query(run, query_id))
    rows.sort(key=lambda row: (-row["score"], row["text_b_id"]))
    places = {row["text_b_id"]: at for at, row in reversed(list(enumerate(rows)))}
    notes = [run.unfinished] if run.unfinished else []
    if a is None or b is None:
        if len(rows) < 2:
            raise RunError(
                f"query {query_id!r} has one document in the run, {rows[0]['text_b_id']!r}, and a margin needs two"
                + ("" if run.finished else "; the run is not finished")
            )
        relevant = relevant_documents(run, query_id)
        inversion = None if relevant is None else worst_of(query_id, rows, relevant)
        if inversion is not None:
            a, b = inversion.above, inversion.below
        else:
            a, b = rows[0]["text_b_id"], rows[1]["text_b_id"]
            notes.append(_why_no_inversion(rows, relevant))
    for id in (a, b):
        if id not in places:
            raise RunError(no_document(query_id, id, list(places), "" if run.finished else "; the run is not finished"))
    if a == b:
        raise RunError(f"query {query_id!r}: a margin needs two different documents, not {a!r} twice")
    first, second = ((id, rows[places[id]]["pair_id"], places[id] + 1) for id in (a, b))
    return _margins(run, [(query_id, first, second)], notes)[0]


def _why_no_inversion(rows: Sequence[Mapping[str, Any]], relevant: set[tuple[str, str]] | None) -> str:
    """Return why a query with these rows has no inversion; ``relevant`` are its (query, document) pairs."""
    if relevant is None:
        return NO_JUDGMENTS
    wanted = {document for _, document in relevant}
    if wanted and not wanted & {row["text_b_id"] for row in rows}:
        return NONE_HERE.format(counted(len(wanted), "document"))
    return NO_INVERSION


def margins_of(run: Run, inverted: Sequence[Inversion]) -> list[Margin]:
    """Return the margins of some inversions of ``run``, in their order; each part of the run is read once.

    Raises RunError if a text is not written yet.
    """
    asked = [
        (
            one.query_id,
            (one.above, one.pair_above, one.rank_above),
            (one.below, one.pair_below, one.rank_below),
        )
        for one in inverted
    ]
    return _margins(run, asked, [run.unfinished] if run.unfinished else [])


# The id of a document, of its pair with the query, and its rank by the model's score.
_Asked = tuple[str, str, int]


def _margins(run: Run, asked: Sequence[tuple[str, _Asked, _Asked]], notes: Sequence[str]) -> list[Margin]:
    pairs = run.pairs({pair_id for _, *two in asked for _, pair_id, _ in two})
    margins = []
    for query_id, *two in asked:
        for id, pair_id, _ in two:
            if pair_id not in pairs:
                raise RunError(f"{run.url}: the run has not written the texts of query {query_id!r} and {id!r} yet")
        first, second = ((pairs[pair_id], document_of(pairs[pair_id], id, rank)) for id, pair_id, rank in two)
        margins.append(split(query_id, (first[0], second[0]), (first[1], second[1]), notes))
    return margins


def margin_of_texts(attributor: Attributor, query: str, a: str, b: str) -> Margin:
    """Return the margin of two texts for a query, computed by ``attributor``; TextError where a text has no word."""
    first, second = attributor.attribute_pairs([(query, a), (query, b)])
    return margin_of_pairs(first, second)
