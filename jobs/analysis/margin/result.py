"""A margin: what every word adds to the difference of two documents' scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from attribution_core.hooks import hook
from attribution_core.results import ExplainedText
from jobs.analysis.query.result import QueryDocument

# Labels of the lines that are no word.
ERROR, REFERENCES, OTHER_PAIRS = "numerical error", "reference texts", "all other word pairs"


@dataclass(frozen=True)
class WordPart:
    """A line of a margin by words: ``value`` is what it adds to the difference, ``a`` and ``b`` to the two scores.

    ``index`` is the word's number among the groups of its text; None for a line that is no single word, such as that
    of all special tokens.
    """

    label: str
    index: int | None
    value: float
    a: float = 0.0
    b: float = 0.0


@dataclass(frozen=True)
class PairPart:
    """A word of the query and a word of the documents, with all its occurrences: what they add to the difference.

    ``a`` and ``b`` are what they add to each score, over the occurrences ``a_indices`` and ``b_indices`` (groups of
    the documents) of which the run stored the word pair; None where it stored none. ``label`` and ``index`` are of the
    query, ``index`` None for a line that is no word pair.
    """

    label: str
    word: str
    index: int | None
    value: float
    a: float | None = None
    b: float | None = None
    a_indices: tuple[int, ...] = ()
    b_indices: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Margin:
    """The difference of the scores of documents ``a`` and ``b`` for a query, split three times.

    ``query_words`` sums to ``difference`` = ``score_a`` - ``score_b``; so does ``pairs``, the strongest word pairs
    first and the rest in one line (empty in a run without word pairs); ``a_words`` sums to ``score_a`` and ``b_words``
    to -``score_b``, so both together sum to the difference. In each list all special and prompt tokens are one line,
    and what the integral missed is another: ``error`` is its size for the whole margin, so the words alone sum to the
    difference within ``error``. In a run whose word pairs do not sum to the score (``sums_to``), what their sum leaves
    out is a line too.

    ``documents`` are a and b as in a QueryResult; ``notes`` are sentences that a reader must know.
    """

    query_id: str
    query: ExplainedText
    score_a: float
    score_b: float
    error: float
    query_words: tuple[WordPart, ...]
    a_words: tuple[WordPart, ...]
    b_words: tuple[WordPart, ...]
    pairs: tuple[PairPart, ...]
    documents: tuple[QueryDocument, QueryDocument]
    notes: tuple[str, ...] = ()
    model: str = ""
    layer: int = 0
    similarity: str = "cosine"
    sums_to: str = "score"

    @property
    def a(self) -> str:
        """The id of the first document."""
        return self.documents[0].id

    @property
    def b(self) -> str:
        """The id of the second document."""
        return self.documents[1].id

    @property
    def text(self) -> str:
        """The query as it was given."""
        return self.query.text

    @property
    def difference(self) -> float:
        """``score_a`` - ``score_b``: above 0 where a is above b."""
        return self.score_a - self.score_b

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the fields of the class, its lists as lists of mappings, and the documents' texts."""
        lists: dict[str, Sequence[WordPart | PairPart]] = {
            "query_words": self.query_words,
            "a_words": self.a_words,
            "b_words": self.b_words,
            "pairs": self.pairs,
        }
        first, second = self.documents
        return {
            "query_id": self.query_id,
            "query": self.text,
            "a": self.a,
            "b": self.b,
            "score_a": self.score_a,
            "score_b": self.score_b,
            "difference": self.difference,
            "error": self.error,
            "relevance_a": first.relevance,
            "relevance_b": second.relevance,
            "text_a": first.text,
            "text_b": second.text,
            **{name: [asdict(part) for part in parts] for name, parts in lists.items()},
            "notes": list(self.notes),
            "model": self.model,
            "layer": self.layer,
            "similarity": self.similarity,
            "sums_to": self.sums_to,
        }

    def __str__(self) -> str:
        return str(hook("margin_text")(self))

    def __repr__(self) -> str:
        return f"Margin({self.query_id!r}, {self.a!r}, {self.b!r}, difference={self.difference:+.4f})"

    def _repr_html_(self) -> str:
        return str(hook("margin_html")(self))
