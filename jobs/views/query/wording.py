"""The sentences of a query's display: what its numbers are, what they sum to, and what the marks mean."""

from __future__ import annotations

import numpy as np

from attribution_core.display.view import other_kinds
from jobs.analysis.query.result import QueryDocument, QueryResult

# What a row sums to, where that is not the document's score.
SUMS = {
    "difference": "what the score gains over reference texts, which are the same texts with one token, such as "
    "padding, in place of every word",
    "centred": "what sets the pair apart from average texts: the run's mean embeddings are left out",
}


def aim(result: QueryResult) -> str:
    """What the numbers of the display add up to: "the score" or "the sum"."""
    return "the score" if result.sums_to == "score" else "the sum"


def kept_kinds(result: QueryResult) -> str:
    """The query's groups that are not words: "special tokens", "special and prompt tokens", or "" for nothing."""
    return other_kinds(result.query)


def special_sum(result: QueryResult, document: QueryDocument) -> float:
    """What the query's special and prompt tokens add to the document's sum."""
    others = np.array([kind != "text" for kind in result.query.groups.kinds], bool)
    return float(document.row_sums[others].sum(dtype=np.float64))


def row_sums_to(result: QueryResult, special: bool) -> str:
    """What a row of bars sums to, as a sentence; with ``special`` the query's special tokens have bars of their own."""
    kinds = "" if special else kept_kinds(result)
    if result.sums_to == "score":
        return f"A row sums to the document's score{kinds and f', with {kinds}'}."
    return f"A row{kinds and f', with {kinds},'} does not sum to the score but to {SUMS[result.sums_to]}."


def marks(result: QueryResult) -> tuple[str, str]:
    """What marked words do, those above zero and those below it."""
    if result.by == "lift":
        return "lift the score most", "pull it down"
    return f"add most to {aim(result)}", "lower it"


def more_on_marks(result: QueryResult) -> str:
    """What a lift is, and which pairs are listed, or that there are none; "word" is replaced by the documents' unit."""
    unit = result.documents[0].explained.groups.unit
    lifts = (
        f"A {unit} lifts the score where it adds more than an average part of its document does; one that adds less "
        "pulls it down, though it may still add something. "
    )
    pairs = f"Below each document: its strongest {_pairs(result)}, and what each adds to {aim(result)}."
    if not any(document.cells for document in result.documents):
        pairs = f"The run has no {_pairs(result)} (level: words)."
    return (lifts if result.by == "lift" else "") + pairs


def facts(result: QueryResult, document: QueryDocument) -> list[str]:
    """What is known of a document beside its text, a few words each; first what its score is the sum of."""
    words = [f"score {document.score:.3f}"]
    parts = _parts(result, document)
    if result.sums_to != "score":
        words.append(f"sum {document.total:.3f}")
    if parts:
        words[-1] += f" = {parts}"
    if document.log_score is not None:
        words.append(f"log score {document.log_score:.3f}")
    if document.relevance is not None:
        words.append(f"relevance {document.relevance:g}")
    return words


def _parts(result: QueryResult, document: QueryDocument) -> str:
    """The document's row of bars in two parts; "" where it has but one."""
    kinds, special = kept_kinds(result), special_sum(result, document)
    if not kinds:
        return ""
    words = f"{result.query.groups.unit}s {_short(document.total - special, document)}"
    sign = "-" if _short(special, document).startswith("-") else "+"
    return f"{words} {sign} {kinds} {_short(abs(special), document)}"


def _short(value: float, document: QueryDocument) -> str:
    """Two decimals, or three where the document's sum is small."""
    text = f"{value:.{3 if abs(document.total) < 0.0995 else 2}f}"
    return text.lstrip("-") if float(text) == 0 else text


def _pairs(result: QueryResult) -> str:
    units = dict.fromkeys((result.query.groups.unit, result.documents[0].explained.groups.unit))
    return f"{' and '.join(units)} pairs"
