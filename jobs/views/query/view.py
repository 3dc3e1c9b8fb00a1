"""The parts of a query's display that the terminal and the page share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attribution_core.display.view import SMALLEST_LIMIT, shown_groups, text_notes
from attribution_core.results import Cell, ExplainedText, Floats
from attribution_core.text.words import word_key
from jobs.analysis.query.result import QueryDocument, QueryResult

PAIRS = 5


@dataclass(frozen=True)
class Bars:
    """How much each shown word of the query adds to the sum of each shown document.

    ``words`` [W] are indices into the query's groups in reading order, ``values`` [D, W] the documents' row sums, and
    ``limit`` the largest |value|: one scale for all, so that rows and columns compare.
    """

    words: NDArray[np.intp]
    values: Floats
    limit: float


def bars_of(query: ExplainedText, documents: tuple[QueryDocument, ...], special: bool) -> Bars:
    """The bars of ``documents``: all words of ``query``, special and prompt tokens only when asked for."""
    words = shown_groups(query, special)
    values = np.array([one.row_sums[words] for one in documents], np.float32).reshape(len(documents), len(words))
    limit = float(np.abs(values).max(initial=0.0))
    return Bars(words, values, limit if limit > SMALLEST_LIMIT else 0.0)


def query_notes(result: QueryResult) -> list[str]:
    """What a reader must know before trusting what is shown of the query, one sentence each."""
    lines = [result.unfinished] if result.unfinished else []
    if not result.query.text:
        known = any(document.cells for document in result.documents)
        words = ": its words are known from the stored word pairs alone" if known else ""
        lines.append(f"The query's own text is not written yet{words}.")
    return [*lines, *text_notes("the query", result.query)]


def document_notes(document: QueryDocument) -> list[str]:
    """The same of one document."""
    if not document.text:
        return ["Its text is not written yet."]
    return text_notes("the document", document.explained)


def heading(result: QueryResult, shown: int) -> str:
    """How many documents there are, and in which order."""
    count = len(result)
    said = f"{count} document{'s' if count != 1 else ''} in rank order"
    return f"The first {shown} of {said}" if shown < count else said


def strongest(document: QueryDocument) -> list[Cell]:
    """The word pairs listed under a document, each pair of words once, at its strongest."""
    by_words: dict[tuple[str, str], Cell] = {}
    for cell in document.cells:
        by_words.setdefault((word_key(cell.a), word_key(cell.b)), cell)
    return list(by_words.values())[:PAIRS]
