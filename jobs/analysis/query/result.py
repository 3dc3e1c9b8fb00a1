"""The result for one query: the documents in rank order, with what each word adds to their scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

import numpy as np

from attribution_core.hooks import hook
from attribution_core.results import Cell, ExplainedText, Floats
from jobs.analysis.query.nearest import no_document
from jobs.errors import RunError
from jobs.run.export import pandas

if TYPE_CHECKING:
    import pandas as pd

By = Literal["lift", "share"]
BY: tuple[str, ...] = get_args(By)


@dataclass(frozen=True)
class Span:
    """One word or sentence of a document: ``text`` is the document's ``[start:end]``, character for character.

    ``share`` is what it adds to the pair's sum, which is the score (or what ``QueryResult.sums_to`` says): its column
    summed over the whole query, special tokens included, exact also where word pairs were not stored. ``lift`` is what
    it lifts the score above what the document's length lets every word have; it is negative for words that pull the
    score down, and None where the run has no lifts. ``value`` is the one of the two that is drawn, as
    ``QueryDocument.by`` says. ``query_word`` is the word of the query, number ``query_index``, with which it makes its
    strongest pair (by absolute value), and ``cell`` what that pair adds to the sum; all None where no pair of the word
    was stored.
    """

    start: int
    end: int
    text: str
    value: float
    share: float
    lift: float | None = None
    query_word: str | None = None
    query_index: int | None = None
    cell: float | None = None


@dataclass(frozen=True, eq=False)  # arrays have no single answer to "equal?"
class QueryDocument:
    """One document of a query's ranking.

    ``rank`` is the log's, or the place by score in a log without ranks; ``score`` is the model's, ``log_score`` what
    the log says; ``relevance`` is None without a judgment. ``row_sums`` [I] is how much each word of the query adds to
    the pair's sum and ``col_sums`` [J] how much each word of the document adds, special tokens included in both;
    ``row_lift`` [I] and ``col_lift`` [J] are their lifts, None where the run has none. ``cells`` are the stored word
    pairs, strongest first, without special and prompt tokens. ``pair_id`` is for ``Run.pair``. ``by`` says what chooses
    the words that are marked and the part that is shown: their lift or their share.
    """

    id: str
    pair_id: str
    rank: int
    score: float
    log_score: float | None
    relevance: float | None
    tag: str | None
    explained: ExplainedText
    row_sums: Floats
    col_sums: Floats
    cells: tuple[Cell, ...]
    row_lift: Floats | None = None
    col_lift: Floats | None = None
    by: By = "share"

    @property
    def text(self) -> str:
        """The document as it was given."""
        return self.explained.text

    @property
    def total(self) -> float:
        """The sum over all pairs of words and special tokens: the score, or what ``QueryResult.sums_to`` says."""
        return float(self.row_sums.sum(dtype=np.float64))

    def top(self, k: int = 5) -> list[Cell]:
        """The ``k`` strongest word pairs, word of the query first, by absolute value."""
        return list(self.cells[: max(k, 0)])

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """The words of the document that the model read, in reading order; no two overlap."""
        groups = self.explained.groups
        met: dict[int, Cell] = {}
        for cell in self.cells:  # strongest first
            met.setdefault(cell.j, cell)
        spans: list[Span] = []
        for members in _places(self.explained):
            start, end = groups.starts[members[0]], max(groups.ends[j] for j in members)
            cells = [met[j] for j in members if j in met]
            strongest = max(cells, key=lambda cell: abs(cell.value), default=None)
            answer = (None, None, None) if strongest is None else (strongest.a, strongest.i, strongest.value)
            share = float(self.col_sums[members].sum(dtype=np.float64))
            lift = None if self.col_lift is None else float(self.col_lift[members].sum(dtype=np.float64))
            value = lift if self.by == "lift" and lift is not None else share
            spans.append(Span(start, end, self.text[start:end], value, share, lift, *answer))
        return tuple(spans)


@dataclass(frozen=True, eq=False)
class QueryResult(Sequence[QueryDocument]):
    """A query and its documents in rank order: iterable, indexable by place (0 is the best), and it prints itself.

    ``query`` is the query as the model read it; ``unfinished`` is a sentence where the run has more to come, else "".
    ``sums_to`` says what every document's sums add up to: its ``score``, the ``difference`` of its score from reference
    texts, or what is left of it when average texts are taken off (``centred``). ``by`` says what chooses the words that
    are marked: their lift, or their share of that sum.
    """

    id: str
    query: ExplainedText
    documents: tuple[QueryDocument, ...]
    unfinished: str = ""
    model: str = ""
    layer: int = 0
    similarity: str = "cosine"
    sums_to: str = "score"
    by: By = "share"

    @property
    def text(self) -> str:
        """The query as it was given."""
        return self.query.text

    @property
    def words(self) -> tuple[str, ...]:
        """The query's words, special and prompt tokens included: the labels of every document's ``row_sums``."""
        return self.query.groups.labels

    def document(self, document_id: str) -> QueryDocument:
        """The document of that id; RunError where the query has none, with the nearest ids."""
        for document in self.documents:
            if document.id == str(document_id):
                return document
        state = "; the run is not finished" if self.unfinished else ""
        raise RunError(no_document(self.id, str(document_id), [document.id for document in self.documents], state))

    def to_pandas(self) -> pd.DataFrame:
        """One row a document, in rank order.

        ``row_sums`` and ``row_lift`` are for ``words``; ``top`` holds the stored word pairs and ``spans`` the
        document's words, both as lists of dicts. Raises ExportError where pandas is not installed.
        """
        rows = [
            {
                "rank": one.rank,
                "document": one.id,
                "pair_id": one.pair_id,
                "score": one.score,
                "log_score": one.log_score,
                "relevance": one.relevance,
                "tag": one.tag,
                "text": one.text,
                "row_sums": one.row_sums,
                "row_lift": one.row_lift,
                "top": [cell._asdict() for cell in one.cells],
                "spans": [vars(span) for span in one.spans],
            }
            for one in self.documents
        ]
        # A column of None alone would come out as objects.
        return pandas().DataFrame(rows).astype({"log_score": "float64", "relevance": "float64"})

    def __iter__(self) -> Iterator[QueryDocument]:
        return iter(self.documents)

    def __len__(self) -> int:
        return len(self.documents)

    @overload
    def __getitem__(self, place: int) -> QueryDocument: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[QueryDocument, ...]: ...
    def __getitem__(self, place: int | slice) -> Any:
        return self.documents[place]

    def __str__(self) -> str:
        return str(hook("query_text")(self))

    def __repr__(self) -> str:
        return f"QueryResult({self.id!r}, {len(self.documents)} documents)"

    def _repr_html_(self) -> str:
        return str(hook("query_html")(self))


def _places(text: ExplainedText) -> list[list[int]]:
    """The groups of each stretch of ``text``: byte-level tokens of one character share theirs, and are one."""
    groups = text.groups
    places: list[list[int]] = []
    reached = 0
    for j, kind in enumerate(groups.kinds):
        start, end = groups.starts[j], groups.ends[j]
        if kind != "text" or end <= start:
            continue
        if places and start < reached:
            places[-1].append(j)
        else:
            places.append([j])
        reached = max(reached, end)
    return places
