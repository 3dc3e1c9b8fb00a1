"""Reads the result of one query from a run, and no more of the run than that needs."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from attribution_core.errors import SettingError
from attribution_core.results import Cell, ExplainedText
from attribution_core.text.grouping import Groups, Kind, Unit
from jobs.analysis.query.nearest import no_query
from jobs.analysis.query.result import BY, By, QueryDocument, QueryResult
from jobs.errors import RunError
from jobs.run.reader import Run, among
from jobs.run.tables import LIFTS, stored_lift

OWN = ("pair_id", "text_b_id", "score", "rows", "cols", "row_sums", "col_sums", "top")
# Columns of a log that were passed through, where the log has them.
LOGGED = ("rank", "log_score", "tag", "relevance")


def read_query(run: Run, query_id: str, by: str | None = None) -> QueryResult:
    """The rows of ``attributions`` whose first text is ``query_id``; RunError where there is none.

    ``by`` is lift or share; None takes the lift where the run has it. SettingError where it is neither, and for lift
    where the run has none.
    """
    results = read_queries(run, [query_id], by)
    if query_id not in results:
        raise RunError(no_query(run, query_id))
    return results[query_id]


def read_queries(run: Run, query_ids: Collection[str], by: str | None = None) -> dict[str, QueryResult]:
    """Several queries by id, without those that the run does not have; each part of the run is read once."""
    if by is not None and by not in BY:
        raise SettingError(f"by must be lift or share, not {by!r}")
    there = run.dataset().schema.names
    columns = ["text_a_id", *OWN, *(name for name in (*LIFTS, *LOGGED) if name in there)]
    role_a, role_b = run.roles
    by_query: dict[str, list[dict[str, Any]]] = {}
    for row in run.rows(among("text_a_id", query_ids), columns=columns).to_pylist():
        by_query.setdefault(row["text_a_id"], []).append(row)
    queries = run.explained(list(by_query), role_a)
    texts = run.explained(list({row["text_b_id"] for rows in by_query.values() for row in rows}), role_b)
    return {
        query_id: _result(run, query_id, by_query[query_id], queries.get(query_id), texts, by)
        for query_id in query_ids
        if query_id in by_query
    }


def _result(
    run: Run,
    query_id: str,
    rows: list[dict[str, Any]],
    query: ExplainedText | None,
    texts: Mapping[str, ExplainedText],
    by: str | None,
) -> QueryResult:
    chosen = _chosen(run, by, rows)
    role_a, role_b = run.roles
    # In a log without ranks the score decides, and of two equals the id, so that the order is always the same.
    rows.sort(key=lambda row: (_place(row), -row["score"], row["text_b_id"]))
    documents = []
    for place, row in enumerate(rows, start=1):
        text = texts.get(row["text_b_id"]) or _unwritten([row], ("cols", "j", "b"), role_b, run.unit(role_b))
        documents.append(_document(row, place, text, chosen))
    return QueryResult(
        id=query_id,
        query=query or _unwritten(rows, ("rows", "i", "a"), role_a, run.unit(role_a)),
        documents=tuple(documents),
        unfinished=run.unfinished,
        model=str(run.setting("model") or ""),
        layer=int(run.setting("layer") or 0),
        similarity=str(run.setting("similarity") or "cosine"),
        sums_to=run.sums_to,
        by=chosen,
    )


def _chosen(run: Run, by: str | None, rows: list[dict[str, Any]]) -> By:
    """The value by which words are marked: ``by``, or by default the lift where all ``rows`` have it."""
    there = all(row.get(name) is not None for row in rows for name in LIFTS)
    if by == "lift" and not there:
        why = "it was made by an earlier version, which did not store them"
        similarity = str(run.setting("similarity") or "cosine")
        if similarity != "cosine":
            why = f"its similarity is {similarity}, and the lift is defined for cosine only"
        raise SettingError(f"{run.url}: the run has no lifts: {why}; use --by share, or by='share' in Python")
    return "lift" if there and by != "share" else "share"


def _document(row: dict[str, Any], place: int, text: ExplainedText, by: By) -> QueryDocument:
    rank = as_number(row.get("rank"))
    tag = row.get("tag")
    return QueryDocument(
        id=row["text_b_id"],
        pair_id=row["pair_id"],
        rank=place if rank is None else int(rank),
        score=row["score"],
        log_score=as_number(row.get("log_score")),
        relevance=as_number(row.get("relevance")),
        tag=None if tag is None else str(tag),
        explained=text,
        row_sums=np.asarray(row["row_sums"], np.float32),
        col_sums=np.asarray(row["col_sums"], np.float32),
        cells=tuple(Cell(**cell) for cell in row["top"]),
        row_lift=stored_lift(row, "row_lift"),
        col_lift=stored_lift(row, "col_lift"),
        by=by,
    )


def _place(row: dict[str, Any]) -> float:
    rank = as_number(row.get("rank"))
    return math.inf if rank is None else rank


def as_number(value: object) -> float | None:
    """A number from a column of the user's table, also if it is written as text; None for anything else."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _unwritten(rows: list[dict[str, Any]], names: tuple[str, str, str], role: str, unit: Unit) -> ExplainedText:
    """A text of which an unfinished run has not written the row yet: the words that its stored cells name, if any.

    ``names`` are what its side calls the number of groups in a row, and a group's index and label in a cell.
    """
    size, index, label = names
    known = {cell[index]: cell[label] for row in rows for cell in row["top"]}
    # Without word pairs (level: words) nothing says which groups are words.
    other: Kind = "special" if known else "text"
    count = rows[0][size]
    groups = Groups(
        unit=unit,
        labels=tuple(known.get(g, "…") for g in range(count)),
        starts=(0,) * count,
        ends=(0,) * count,
        kinds=tuple("text" if g in known else other for g in range(count)),
        of_token=(),
    )
    return ExplainedText(text="", role=role, groups=groups, tokens=())
