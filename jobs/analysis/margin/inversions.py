"""Inversions: documents that are not relevant above relevant ones, by the model's score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.analysis.ranking.judgments import judgments
from jobs.run.reader import Run
from jobs.run.untrusted import as_written

OWN = ("pair_id", "text_a_id", "text_b_id", "score")


@dataclass(frozen=True)
class Inversion:
    """The worst inversion of a query: ``above`` is the highest document that is not relevant, ``below`` the lowest that
    is.

    Ranks are by the model's score among the documents of the run, from 1; ``margin`` is the difference of the two
    scores, 0 or more. ``pair_above`` and ``pair_below`` are the pair ids.
    """

    query_id: str
    above: str
    below: str
    rank_above: int
    rank_below: int
    margin: float
    pair_above: str
    pair_below: str


def inversions(run: Run) -> list[Inversion]:
    """Return the worst inversion of every query that has one, the largest margin first; none where nothing is judged.

    Documents without a judgment count as not relevant, as in trec_eval.
    """
    with as_written(run.url):
        return _inversions(run, None)


def worst_inversion(run: Run, query_id: str) -> Inversion | None:
    """Return the inversion of one query; None where it has none or nothing is judged."""
    with as_written(run.url):
        return next(iter(_inversions(run, query_id)), None)


def relevant_documents(run: Run, query_id: str | None = None) -> set[tuple[str, str]] | None:
    """Return the (query, document) pairs that are judged relevant, of one query or of all; None where nothing is
    judged."""
    judged = judgments(run)
    if judged is None or not len(judged):
        return None
    wanted = pc.field("relevance") > 0
    if query_id is not None:
        wanted &= pc.field("query") == query_id
    judged = judged.filter(wanted)
    return set(zip(judged["query"].to_pylist(), judged["document"].to_pylist(), strict=True))


def _inversions(run: Run, query_id: str | None) -> list[Inversion]:
    relevant = relevant_documents(run, query_id)
    if not relevant:
        return []
    table = run.to_table(OWN) if query_id is None else run.rows(pc.field("text_a_id") == query_id, columns=OWN)
    # Most queries of a large run are not judged; only one query's rows at a time become Python objects.
    judged = pa.array({query for query, _ in relevant}, table.schema.field("text_a_id").type)
    table = table.filter(pc.is_in(table["text_a_id"], judged)).sort_by("text_a_id").combine_chunks()
    runs = pc.run_end_encode(table["text_a_id"].combine_chunks()) if len(table) else None
    worst: list[Inversion] = []
    low = 0
    for query, high in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True) if runs else ():
        one = worst_of(query, table.slice(low, high - low).to_pylist(), relevant)
        worst += [one] if one is not None else []
        low = high
    return sorted(worst, key=lambda one: (-one.margin, one.query_id))


def worst_of(query_id: str, rows: Sequence[Mapping[str, Any]], relevant: set[tuple[str, str]]) -> Inversion | None:
    """Return the worst inversion of a query from its rows (pair_id, text_b_id, score); None without one."""
    ranked = sorted(rows, key=lambda row: (-row["score"], row["text_b_id"]))
    is_relevant = [(query_id, row["text_b_id"]) in relevant for row in ranked]
    above = next((at for at, known in enumerate(is_relevant) if not known), len(ranked))
    below = max((at for at, known in enumerate(is_relevant) if known), default=-1)
    if above > below:
        return None
    first, last = ranked[above], ranked[below]
    return Inversion(
        query_id=query_id,
        above=first["text_b_id"],
        below=last["text_b_id"],
        rank_above=above + 1,
        rank_below=below + 1,
        margin=first["score"] - last["score"],
        pair_above=first["pair_id"],
        pair_below=last["pair_id"],
    )
