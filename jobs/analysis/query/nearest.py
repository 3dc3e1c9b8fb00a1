"""Messages about ids that do not exist, with the ids that are most like them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from jobs.run.reader import Run

FEW_IDS = 5
COUNT = 3
LEAST_LIKENESS = 0.6
# More ids take seconds to compare.
MOST_IDS = 100_000


def nearest_ids(wanted: str, ids: Iterable[str]) -> list[str]:
    """Up to three of ``ids`` that look like ``wanted``, the most alike first; letter case is no difference."""
    by_folded: dict[str, str] = {}
    for id in list(ids)[:MOST_IDS]:
        by_folded.setdefault(id.casefold(), id)
    close = difflib.get_close_matches(wanted.casefold(), by_folded, COUNT, LEAST_LIKENESS)
    return [by_folded[one] for one in close]


def no_query(run: Run, query_id: str) -> str:
    """Return the message that a run has no such query."""
    ids = run.to_table(["text_a_id"])["text_a_id"].unique().to_pylist()
    said = f"{run.url}: there is no query {query_id!r}"
    if near := nearest_ids(query_id, ids):
        said += f"; the nearest ids are {_quoted(near)}"
    else:
        said += f"; ids look like {_quoted(ids[:COUNT])}" if ids else "; there is no row yet"
    return said + ("" if run.finished else "; the run is not finished")


def no_document(query_id: str, document_id: str, ids: Sequence[str], state: str = "") -> str:
    """Return the message that a query has no such document, but ``ids``; ``state`` is added to it."""
    said = f"query {query_id!r} has no document {document_id!r}"
    if near := nearest_ids(document_id, ids):
        return f"{said}; the nearest ids are {_quoted(near)}{state}"
    more = f" and {len(ids) - FEW_IDS} more" if len(ids) > FEW_IDS else ""
    return f"{said}: it has {_quoted(ids[:FEW_IDS])}{more}{state}"


def _quoted(ids: Iterable[str]) -> str:
    return ", ".join(map(repr, ids))
