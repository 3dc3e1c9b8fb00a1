"""What becomes of the score of a pair while its words go, or come, in one order or another.

Deleting words from both texts of a Siamese encoder makes both blank, and two blank texts are alike: the score first
falls and ends at 1. So a removal of pairs is not judged by the score but by what its words brought *together*: with I
deleted from a and J from b that is

    f(a, b) − f(a∖I, b) − f(a, b∖J) + f(a∖I, b∖J),

the share of Σ A (the same four terms, with blank texts in place of a∖I and b∖J) that the cells I × J stand for. The
four are scores of the model, so this needs no more than embeddings: for cosine and dot it is the product of the two
texts' differences, (e(a) − e(a∖I)) · (e(b) − e(b∖J)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attribution_core.results import PairAttribution
from jobs.evaluation.judge import Judge, Texts
from jobs.evaluation.orders import (
    ATTRIBUTIONS,
    EMBEDDINGS,
    LEXICAL,
    METHODS,
    PAIRS,
    RANDOM,
    SHUFFLED,
    WORDS,
    Scored,
    Values,
    by_chance,
    of_attributions,
    of_identical_words,
    of_products,
    shuffled,
)
from jobs.evaluation.perturbing import Side, deletions, insertions
from jobs.evaluation.sampling import generator

DELETION, INSERTION = "deletion", "insertion"
# (level, operation) of each curve: words of a with b whole, words of b with a whole, words of both by pairs.
MEASURES = tuple((level, operation) for level in ("words of a", "words of b", "pairs") for operation in
                 (DELETION, INSERTION))  # fmt: skip
Key = tuple[str, str]  # role, text


@dataclass(frozen=True)
class Changed:
    """The texts after each step of one order at one level, [steps + 1] each: words deleted, and words inserted."""

    deleted_a: tuple[Key, ...]
    deleted_b: tuple[Key, ...]
    inserted_a: tuple[Key, ...]
    inserted_b: tuple[Key, ...]

    def texts(self) -> tuple[Key, ...]:
        """All of them."""
        return self.deleted_a + self.deleted_b + self.inserted_a + self.inserted_b


@dataclass(frozen=True)
class Prepared:
    """One pair with every text that its curves need. ``orders[method]`` has one entry an order drawn, by level."""

    pair_id: str
    text_a_id: str
    a: Side
    b: Side
    orders: dict[str, list[dict[str, Changed]]]

    def texts(self) -> set[Key]:
        """Every text that has to be encoded."""
        changed = [one for drawn in self.orders.values() for levels in drawn for one in levels.values()]
        return {key for one in changed for key in one.texts()}


@dataclass(frozen=True)
class PairCurves:
    """Curves of one pair: ``values`` [methods, measures, steps + 1], in the order of METHODS and MEASURES.

    A curve of words is the score. A curve of pairs is what the words that are there bring together: all of it with
    nothing deleted, 0 when one text is blank. ``scores`` [methods, 2, steps + 1] are the plain scores of the two curves
    of pairs. What is random is a mean over the orders drawn.
    """

    pair_id: str
    text_a_id: str
    words: tuple[int, int]
    values: NDArray[np.float64]
    scores: NDArray[np.float64]

    def areas(self) -> Values:
        """The area under each curve, over the share of words from 0 to 1, [methods, measures]."""
        return area(self.values)


def area(values: Values) -> Values:
    """The area under curves with equal steps from 0 to 1 along the last axis."""
    inner = values[..., 1:-1].sum(-1) + (values[..., 0] + values[..., -1]) / 2
    return np.asarray(inner / (values.shape[-1] - 1))


def prepare(
    pair: PairAttribution, text_a_id: str, judge: Judge, *, steps: int, orders: int, seed: int
) -> Prepared | None:
    """The texts to encode for a pair; None where neither text has two words to put into an order."""
    a, b = Side.of(pair.a), Side.of(pair.b)
    if not len(a) or not len(b) or max(len(a), len(b)) < 2:
        return None
    role_a, role_b = pair.a.role, pair.b.role
    attributed = of_attributions(pair, a, b)
    products = of_products(judge.word_vectors(a, role_a), judge.word_vectors(b, role_b))  # type: ignore[arg-type]
    rules: dict[str, list[Scored]] = {
        ATTRIBUTIONS: [attributed],
        EMBEDDINGS: [products],
        LEXICAL: [of_identical_words(a, b)],
        SHUFFLED: [shuffled(attributed, generator(seed, pair.pair_id, "shuffle", str(n))) for n in range(orders)],
        RANDOM: [by_chance(a, b)] * orders,
    }
    texts: dict[tuple[bytes, bytes], Changed] = {}

    def changed(scored: Scored, level: str, method: str, number: int) -> Changed:
        # The same lots at both levels: where a rule says the same at both, so do the orders.
        order_a, order_b = scored.orders(level, generator(seed, pair.pair_id, method, str(number)))
        key = (order_a.tobytes(), order_b.tobytes())
        if key not in texts:
            texts[key] = Changed(
                tuple((role_a, text) for text in deletions(a, order_a, steps)),
                tuple((role_b, text) for text in deletions(b, order_b, steps)),
                tuple((role_a, text) for text in insertions(a, order_a, steps)),
                tuple((role_b, text) for text in insertions(b, order_b, steps)),
            )
        return texts[key]

    return Prepared(
        pair_id=pair.pair_id,
        text_a_id=text_a_id,
        a=a,
        b=b,
        orders={
            method: [
                {level: changed(scored, level, method, number) for level in (WORDS, PAIRS)}
                for number, scored in enumerate(drawn)
            ]
            for method, drawn in rules.items()
        },
    )


def measure(prepared: Prepared, embeddings: Texts) -> PairCurves:
    """The curves of a pair from the embeddings of its texts."""
    values, scores = [], []
    for method in METHODS:
        drawn = [_curves(levels, embeddings) for levels in prepared.orders[method]]
        values.append(np.mean([one for one, _ in drawn], axis=0))
        scores.append(np.mean([one for _, one in drawn], axis=0))
    return PairCurves(
        prepared.pair_id,
        prepared.text_a_id,
        (len(prepared.a), len(prepared.b)),
        np.stack(values),
        np.stack(scores),
    )


def _curves(levels: dict[str, Changed], embeddings: Texts) -> tuple[Values, Values]:
    """The six curves [6, steps + 1] and the two plain scores [2, steps + 1] of one order."""

    def rows(keys: tuple[Key, ...]) -> Values:
        return np.stack([embeddings[key] for key in keys])

    words, pairs = levels[WORDS], levels[PAIRS]
    gone_a, gone_b = rows(words.deleted_a), rows(words.deleted_b)
    come_a, come_b = rows(words.inserted_a), rows(words.inserted_b)
    whole_a, whole_b = gone_a[0], gone_b[0]
    blank_a, blank_b = gone_a[-1], gone_b[-1]
    left_a, left_b = rows(pairs.deleted_a), rows(pairs.deleted_b)
    kept_a, kept_b = rows(pairs.inserted_a), rows(pairs.inserted_b)
    together = float((whole_a - blank_a) @ (whole_b - blank_b))
    taken = ((whole_a - left_a) * (whole_b - left_b)).sum(1)
    brought = ((kept_a - blank_a) * (kept_b - blank_b)).sum(1)
    values = [gone_a @ whole_b, come_a @ whole_b, gone_b @ whole_a, come_b @ whole_a, together - taken, brought]
    return np.stack(values), np.stack([(left_a * left_b).sum(1), (kept_a * kept_b).sum(1)])
