"""Two documents of a query, the higher first, as a model embeds them: what deleting words changes, and in which order.

Words are deleted from the higher document, or from the query; the order of the two documents has turned when the higher
one scores less than the lower one.
"""

from __future__ import annotations

from dataclasses import dataclass

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
from jobs.analysis.faithfulness.scores import Texts, units
from jobs.analysis.faithfulness.shapley import Key
from jobs.analysis.query.result import QueryDocument

RULES = (ATTRIBUTIONS, EMBEDDINGS, LEXICAL, RANDOM)
# The texts that words are deleted from.
DOCUMENT, QUERY = "document", "query"
TEXTS = (DOCUMENT, QUERY)


@dataclass(frozen=True)
class Contest:
    """A query and two documents: their words, roles and embeddings [D], for cosine divided by their length."""

    query_id: str
    query: Side
    above: Side
    below: Side
    roles: tuple[str, str]
    query_D: Values
    above_D: Values
    below_D: Values
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
        *,
        cosine: bool,
    ) -> Contest:
        """From the two documents, the higher first by the run's scores, and the embeddings of :meth:`keys`."""
        embedded = np.stack([embeddings[key] for key in Contest.keys(query, documents)])
        if cosine:
            embedded = units(embedded)
        higher, lower = documents
        return Contest(
            query_id=query_id,
            query=Side.of(query),
            above=Side.of(higher.explained),
            below=Side.of(lower.explained),
            roles=(query.role, higher.explained.role),
            query_D=embedded[0],
            above_D=embedded[1],
            below_D=embedded[2],
            higher=higher,
            lower=lower,
        )

    def side(self, text: str) -> Side:
        """Return the words that are deleted."""
        return self.above if text == DOCUMENT else self.query

    def role(self, text: str) -> str:
        """Return the role of the text that they are deleted from."""
        return self.roles[1] if text == DOCUMENT else self.roles[0]

    def margins(self, text: str, changed_ND: Values) -> Values:
        """By how much the higher document is still above the lower one with ``text`` replaced, [N]."""
        if text == DOCUMENT:
            return np.asarray(changed_ND @ self.query_D - self.below_D @ self.query_D)
        return np.asarray(changed_ND @ (self.above_D - self.below_D))

    def scored(self, rule: str, judge: Judge) -> dict[str, Values]:
        """Return the value of each word of both texts by a rule: what goes first is largest.

        A word of the document counts by what it adds to its document's score, a word of the query by what it adds to
        the difference of the two scores.
        """
        if rule == ATTRIBUTIONS:
            rows = list(self.query.groups)
            gained = numbers(self.higher.row_sums)[rows] - numbers(self.lower.row_sums)[rows]
            return {QUERY: gained, DOCUMENT: numbers(self.higher.col_sums)[list(self.above.groups)]}
        if rule == EMBEDDINGS:
            query, above, below = (
                judge.word_vectors(side, role)  # type: ignore[arg-type]
                for side, role in zip(
                    (self.query, self.above, self.below), (self.roles[0], *self.roles[1:] * 2), strict=True
                )
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
