"""Splits a margin by words and by word pairs, from the attributions of its two pairs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from attribution_core.display.view import other_kinds, special_sum
from attribution_core.errors import SettingError
from attribution_core.results import ExplainedText, Floats, PairAttribution, text_cells
from attribution_core.text.words import word_key
from jobs.analysis.margin.result import ERROR, OTHER_PAIRS, REFERENCES, Margin, PairPart, WordPart
from jobs.analysis.query.reader import as_number
from jobs.analysis.query.result import QueryDocument

# Word pairs with a line of their own.
MOST_PAIRS = 32
STORED = 32
# Float32 sums differ by less.
LEAST_LINE = 1e-6


def margin_of_pairs(
    a: PairAttribution, b: PairAttribution, *, query_id: str = "", ids: tuple[str, str] = ("A", "B")
) -> Margin:
    """Return the margin of two pairs with the same first text, the query; ``ids`` name the two documents.

    Raises:
        SettingError: where their queries, models or settings differ, since only scores of one model compare.
    """
    documents = (document_of(a, ids[0], 1), document_of(b, ids[1], 2))
    return split(query_id, (a, b), documents)


def document_of(pair: PairAttribution, id: str, rank: int) -> QueryDocument:
    """Return the second text of a pair as a document of a ranking, with the log's columns; ``rank`` where there is
    none."""
    logged = {name: as_number(pair.extra.get(name)) for name in ("rank", "log_score", "relevance")}
    in_log = logged["rank"]
    return QueryDocument(
        id=id,
        pair_id=pair.pair_id,
        rank=rank if in_log is None else int(in_log),
        score=pair.score,
        log_score=logged["log_score"],
        relevance=logged["relevance"],
        tag=None,
        explained=pair.b,
        row_sums=pair.row_sums,
        col_sums=pair.col_sums,
        cells=tuple(pair.top(STORED)),
        row_lift=pair.row_lift,
        col_lift=pair.col_lift,
        by="share" if pair.col_lift is None else "lift",
    )


def split(
    query_id: str,
    pairs: tuple[PairAttribution, PairAttribution],
    documents: tuple[QueryDocument, QueryDocument],
    notes: Sequence[str] = (),
) -> Margin:
    """Return the margin of two pairs whose second texts are ``documents``; SettingError as in
    :func:`margin_of_pairs`."""
    a, b = pairs
    _check_comparable(a, b)
    error = _error(a) - _error(b)
    rest = _lines(a, b)
    query = a.a
    return Margin(
        query_id=query_id,
        query=query,
        score_a=a.score,
        score_b=b.score,
        error=error,
        query_words=(*_words(query, a.row_sums, b.row_sums), *rest),
        a_words=(*_words(a.b, a.col_sums, None), *_lines(a, None)),
        b_words=(*_words(b.b, None, b.col_sums), *_lines(None, b)),
        pairs=_pairs(a, b, rest) if a.has_word_pairs and b.has_word_pairs else (),
        documents=documents,
        notes=(*notes, *_notes(a)),
        model=a.model,
        layer=a.layer,
        similarity=a.similarity,
        sums_to=a.sums_to,
    )


def _check_comparable(a: PairAttribution, b: PairAttribution) -> None:
    """Raise SettingError unless both scores are of one model, layer and query."""
    for name in ("model", "layer", "similarity", "sums_to"):
        one, other = getattr(a, name), getattr(b, name)
        if one != other:
            raise SettingError(
                f"the two pairs differ in {name}: {one!r} and {other!r}; a margin compares scores of one model, "
                "computed with the same settings"
            )
    if (a.a.text, a.a.groups.labels) != (b.a.text, b.a.groups.labels):
        raise SettingError("the two pairs have different first texts: a margin is of two documents of one query")


def _expected(pair: PairAttribution) -> float:
    """Return what the word pairs must sum to; for a centred sum of dot products their sum, because no error is
    known."""
    if pair.sums_to == "difference":
        return pair.score - pair.reference_a - pair.reference_b + pair.reference_ab
    if pair.sums_to == "centred":
        # The stored error is in units of the embeddings' lengths, which for cosine is the score's unit.
        return pair.total - (pair.error if pair.similarity == "cosine" else 0.0)
    return pair.score


def _error(pair: PairAttribution) -> float:
    """Return by how much the sums exceed what they must be, in units of the score."""
    return float(pair.row_sums.sum(dtype=np.float64)) - _expected(pair)


def _lines(a: PairAttribution | None, b: PairAttribution | None) -> tuple[WordPart, ...]:
    """Return the lines that make a list sum to the scores: reference texts, and the numerical error taken off."""
    lines = []
    for label, value in ((REFERENCES, lambda one: one.score - _expected(one)), (ERROR, lambda one: -_error(one))):
        of_a, of_b = (0.0 if one is None else value(one) for one in (a, b))
        if abs(of_a) > LEAST_LINE or abs(of_b) > LEAST_LINE:
            lines.append(WordPart(label, None, of_a - of_b, of_a, of_b))
    return tuple(lines)


def _words(text: ExplainedText, sums_a: Floats | None, sums_b: Floats | None) -> list[WordPart]:
    """Return a line for each word of ``text`` in reading order, and one for its special and prompt tokens."""
    none = np.zeros(len(text.groups))
    of_a, of_b = (none if sums is None else sums.astype(np.float64) for sums in (sums_a, sums_b))
    is_text = np.array([kind == "text" for kind in text.groups.kinds], dtype=bool)
    words = [
        WordPart(text.groups.labels[g], g, float(of_a[g] - of_b[g]), float(of_a[g]), float(of_b[g]))
        for g in np.flatnonzero(is_text).tolist()
    ]
    if not is_text.all():
        special_a, special_b = (float(sums[~is_text].sum()) for sums in (of_a, of_b))
        words.append(WordPart(other_kinds(text), None, special_a - special_b, special_a, special_b))
    return words


def _pairs(a: PairAttribution, b: PairAttribution, rest: tuple[WordPart, ...]) -> tuple[PairPart, ...]:
    """Return the word pairs that differ most, special tokens, ``rest``, and all other word pairs: they sum to the
    margin."""
    of_a, of_b = _known_pairs(a), _known_pairs(b)
    parts = []
    for index, key in of_a.keys() | of_b.keys():
        (value_a, at_a), (value_b, at_b) = (of.get((index, key), (None, ())) for of in (of_a, of_b))
        groups, at = (a.b.groups, at_a) if at_a else (b.b.groups, at_b)
        parts.append(
            PairPart(
                label=a.a.groups.labels[index],
                word=groups.labels[at[0]],
                index=index,
                value=(value_a or 0.0) - (value_b or 0.0),
                a=value_a,
                b=value_b,
                a_indices=at_a,
                b_indices=at_b,
            )
        )
    parts.sort(key=lambda part: (-abs(part.value), part.index, part.word))
    lines = [PairPart(line.label, "", None, line.value, line.a, line.b) for line in rest]
    kinds = other_kinds(a.a, a.b, b.b)
    special_a, special_b = special_sum(a), special_sum(b)
    if kinds and special_a is not None and special_b is not None:
        lines.insert(0, PairPart(kinds, "", None, special_a - special_b, special_a, special_b))
    chosen = parts[:MOST_PAIRS]
    rest_a, rest_b = (
        one.score - sum(getattr(part, side) or 0.0 for part in (*chosen, *lines)) for side, one in (("a", a), ("b", b))
    )
    return (*chosen, PairPart(OTHER_PAIRS, "", None, rest_a - rest_b, rest_a, rest_b), *lines)


def _known_pairs(pair: PairAttribution) -> dict[tuple[int, str], tuple[float, tuple[int, ...]]]:
    """By query word and key of the document's word: the sum of the stored word pairs, and where that word stands."""
    keys = [word_key(label) for label in pair.b.groups.labels]
    known: NDArray[np.bool_] = text_cells(pair.a.groups, pair.b.groups) & np.isfinite(pair.matrix)
    sums: dict[tuple[int, str], float] = defaultdict(float)
    places: dict[tuple[int, str], list[int]] = defaultdict(list)
    for i, j in np.argwhere(known).tolist():
        sums[i, keys[j]] += float(pair.matrix[i, j])
        places[i, keys[j]].append(j)
    return {key: (sums[key], tuple(places[key])) for key in sums}


def _notes(pair: PairAttribution) -> list[str]:
    notes = [] if pair.has_word_pairs else ["The run has no word pairs (level: words), so none are compared."]
    if pair.sums_to == "difference":
        notes.append(
            "The run's word pairs sum to what a score gains over reference texts (sums_to: difference): the line "
            f"“{REFERENCES}” is what reference texts without words score."
        )
    if pair.sums_to == "centred":
        notes.append(
            "The run's word pairs leave out what average texts score (sums_to: centred): the line "
            f"“{REFERENCES}” is that part of the scores."
        )
    return notes
