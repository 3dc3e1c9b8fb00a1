"""The margin of two documents of a run's query."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.analysis.margin.inversions import has_judgments, worst_inversion
from jobs.analysis.margin.result import Margin
from jobs.analysis.margin.split import margin_of_pairs, split
from jobs.errors import RunError
from jobs.run.reader import Run

if TYPE_CHECKING:
    from attribution_core.attribution import Attributor

NO_JUDGMENTS = "The run has no judgments, so no inversion is known: these are the query's two best documents."
NO_INVERSION = (
    "No document without relevance is above a relevant one in this query: these are the query's two best documents."
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
    result = run.query(query_id)
    notes = []
    if a is None or b is None:
        if len(result) < 2:
            raise RunError(
                f"query {query_id!r} has one document in the run, {result[0].id!r}, and a margin needs two"
                + ("" if run.finished else "; the run is not finished")
            )
        inversion = worst_inversion(run, query_id)
        if inversion is not None:
            a, b = inversion.above, inversion.below
        else:
            best = sorted(result, key=lambda one: (-one.score, one.id))
            a, b = best[0].id, best[1].id
            notes.append(NO_INVERSION if has_judgments(run) else NO_JUDGMENTS)
    documents = (result.document(a), result.document(b))
    if documents[0].pair_id == documents[1].pair_id:
        raise RunError(f"query {query_id!r}: a margin needs two different documents, not {a!r} twice")
    pairs = run.pairs([one.pair_id for one in documents])
    missing = [one.id for one in documents if one.pair_id not in pairs]
    if missing:
        raise RunError(f"{run.url}: the run has not written the texts of query {query_id!r} and {missing[0]!r} yet")
    if run.unfinished:
        notes.insert(0, run.unfinished)
    first, second = (pairs[one.pair_id] for one in documents)
    return split(query_id, (first, second), documents, notes)


def margin_of_texts(attributor: Attributor, query: str, a: str, b: str) -> Margin:
    """The margin of two texts for a query, computed by ``attributor``; TextError where a text has no word."""
    first, second = attributor.attribute_pairs([(query, a), (query, b)])
    return margin_of_pairs(first, second)
