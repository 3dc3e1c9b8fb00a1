"""Two documents of a query, the higher first, as a model embeds them: what deleting words changes, and in which order.

Words are deleted from the higher document, or from the query; the order of the two documents has turned when the higher
one scores less than the lower one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attribution_core.results import ExplainedText
from jobs.analysis.faithfulness.judge import Judge
from jobs.analysis.faithfulness.orders import (
    ATTRIBUTIONS,
    EMBEDDINGS,
    LEXICAL,
    RANDOM,
    WORDS,
    Scored,
    Values,
    of_identical_words,
    of_products,
)
from jobs.analysis.faithfulness.perturbation import Order, Side, numbers
from jobs.analysis.faithfulness.sampling import generator
from jobs.analysis.faithfulness.scores import Scores, Texts, units
from jobs.analysis.faithfulness.shapley import Key
from jobs.analysis.query.result import QueryDocument

RULES = (ATTRIBUTIONS, EMBEDDINGS, LEXICAL, RANDOM)
# The texts that words are deleted from.
DOCUMENT, QUERY = "document", "query"
TEXTS = (DOCUMENT, QUERY)


@dataclass(frozen=True)
class Contest:
    """A query and two documents: their words, ``texts`` by role, and the ``scores`` of these texts."""

    query_id: str
    query: Side
    above: Side
    below: Side
    texts: tuple[Key, Key, Key]
    scores: Scores
    higher: QueryDocument
    lower: QueryDocument

    @staticmethod
    def keys(query: ExplainedText, documents: tuple[QueryDocument, QueryDocument]) -> list[Key]:
        """Return the three texts that have to be embedded, by role."""
        return [(one.role, Side.of(one).text) for one in (query, *(document.explained for document in documents))]

    @staticmethod
    def of(
        query_id: str,
        query: ExplainedText,
        documents: tuple[QueryDocument, QueryDocument],
        embeddings: Texts,
        similarity: str,
    ) -> Contest:
        """From the two documents, the higher first by the run's scores, and the embeddings of :meth:`keys`."""
        higher, lower = documents
        texts = Contest.keys(query, documents)
        return Contest(
            query_id=query_id,
            query=Side.of(query),
            above=Side.of(higher.explained),
            below=Side.of(lower.explained),
            texts=(texts[0], texts[1], texts[2]),
            scores=Scores({key: embeddings[key] for key in texts}, similarity),
            higher=higher,
            lower=lower,
        )

    def side(self, text: str) -> Side:
        """Return the words that are deleted."""
        return self.above if text == DOCUMENT else self.query

    def role(self, text: str) -> str:
        """Return the role of the text that they are deleted from."""
        return self.texts[1][0] if text == DOCUMENT else self.texts[0][0]

    @property
    def margin(self) -> float:
        """By how much the higher document is above the lower one."""
        return float(self.margins(QUERY, self.texts[:1], {})[0])

    def margins(self, text: str, changed: Sequence[Key], embeddings: Texts) -> Values:
        """By how much the higher document is still above the lower one with ``text`` replaced by each of N texts, [N].

        ``embeddings`` are those of the ``changed`` texts.
        """
        query, above, below = self.texts
        scores = Scores({**embeddings, **self.scores.embeddings}, self.scores.similarity)
        if text == DOCUMENT:
            table = scores.table([query], [below, *changed])[0]
            return np.asarray(table[1:] - table[0])
        table = scores.table(changed, [above, below])
        return np.asarray(table[:, 0] - table[:, 1])

    def scored(self, rule: str, judge: Judge) -> dict[str, Values]:
        """Return the value of each word of both texts by a rule: what goes first is largest.

        By token embeddings a word of a late-interaction model has the similarities of its matches.

        A word of the document counts by what it adds to its document's score, a word of the query by what it adds to
        the difference of the two scores.
        """
        if rule == ATTRIBUTIONS:
            rows = list(self.query.groups)
            gained = numbers(self.higher.row_sums)[rows] - numbers(self.lower.row_sums)[rows]
            return {QUERY: gained, DOCUMENT: numbers(self.higher.col_sums)[list(self.above.groups)]}
        if rule == EMBEDDINGS and self.scores.late:
            roles: Any = (self.role(QUERY), self.role(DOCUMENT))
            of_above, of_below = (judge.matches(self.query, side, roles)[0] for side in (self.above, self.below))
            return {QUERY: of_above.a - of_below.a, DOCUMENT: of_above.b}
        if rule == EMBEDDINGS:
            query, above, below = (
                judge.word_vectors(side, role)  # type: ignore[arg-type]
                for side, (role, _) in zip((self.query, self.above, self.below), self.texts, strict=True)
            )
            # The sum of a text's word vectors points where its embedding points.
            ahead = units(above.sum(0)[None])[0] - units(below.sum(0)[None])[0]
            return {QUERY: query @ ahead, DOCUMENT: of_products(query, above).b}
        if rule == LEXICAL:
            with_above, with_below = (of_identical_words(self.query, side) for side in (self.above, self.below))
            return {QUERY: with_above.a - with_below.a, DOCUMENT: with_above.b}
        return {QUERY: np.zeros(len(self.query)), DOCUMENT: np.zeros(len(self.above))}

    def order(self, values: dict[str, Values], text: str, rule: str, number: int, seed: int) -> Order:
        """Return the order in which the words of a text are deleted; ties are broken at random, by ``seed`` and
        ``number``."""
        chance = generator(seed, self.query_id, rule, text, str(number))
        return Scored(np.zeros((0, 0)), values[text], values[text]).orders(WORDS, chance)[0]
