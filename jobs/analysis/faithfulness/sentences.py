"""Top-sentence deletion: whether the sentence of a document that a method chooses is the one that the score needs most.

Each sentence of a document is deleted in turn and the rest is encoded again, so what every sentence costs the score is
known. A method chooses one sentence, by its largest value. What that sentence costs, summed over pairs, is divided by
what the sentence that costs most does: 1 is perfect, and what chance gets is the mean over the sentences.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from attribution_core.model.inspection import LATE_SIMILARITIES
from attribution_core.results import PairAttribution
from jobs.analysis.faithfulness.judge import TEXTS_AT_ONCE, Judge
from jobs.analysis.faithfulness.orders import MATCHED, Values
from jobs.analysis.faithfulness.perturbation import Side, numbers
from jobs.analysis.faithfulness.scores import Scores
from jobs.analysis.faithfulness.shapley import Key
from jobs.analysis.faithfulness.verdict import FEWEST_DRAWS
from jobs.analysis.resampling import Bootstrap, Mean
from jobs.progress import Progress

LIFT = "lift"
# The sums of a run by what they sum to.
SUMS = {"score": "sums", "difference": "paper's sums", "centred": "centred sums"}
ALONE = "sentence alone"
POOLED = "pooled tokens"
CHANCE = "chance"
# Of two sentences chance finds the right one half of the time.
FEWEST_SENTENCES = 3


@dataclass(frozen=True, eq=False)
class DeletedSentences:
    """One pair: its ``score``, by how much it drops without each sentence of the second text, ``drops`` [n], and the
    ``values`` [n] that each method gives the sentences."""

    pair_id: str
    text_a_id: str
    score: float
    drops: Values
    values: Mapping[str, Values]

    def chosen(self, method: str) -> float:
        """The drop of the sentence to which ``method`` gives the largest value."""
        return float(self.drops.mean() if method == CHANCE else self.drops[self.values[method].argmax()])


@dataclass(frozen=True)
class TopSentence:
    """What the sentences that ``method`` chooses cost: on average (``drop``, in units of the score), and as a ``share``
    of those that cost most. ``ahead`` is by how much the attributions' share is larger, None for theirs."""

    method: str
    drop: float
    share: Mean
    ahead: Mean | None


@dataclass(frozen=True)
class TopSentences:
    """All methods over ``pairs`` with ``draws`` different first texts, whose documents have ``sentences`` sentences
    together; ``best`` is the mean drop of the sentences that cost most. The first method is the attributions'."""

    pairs: int
    draws: int
    sentences: int
    best: float
    methods: tuple[TopSentence, ...]


def delete_sentences(
    pairs: Iterable[tuple[PairAttribution, str]], judge: Judge, progress: Progress | None = None
) -> list[DeletedSentences]:
    """Delete each sentence of the second texts in turn; pairs whose second text has fewer than three are left out.

    ``pairs`` come with the ids of their first texts. RunError where a text has no embedding.
    """
    measured: list[DeletedSentences] = []
    waiting: list[_Prepared] = []
    texts: set[Key] = set()
    seen = 0

    def encode() -> None:
        nonlocal seen
        scores = Scores(judge.embed(sorted(texts)), judge.similarity)
        measured.extend(_measured(one, scores) for one in waiting)
        if progress is not None:
            progress.advance(seen)
        waiting.clear()
        texts.clear()
        seen = 0

    for pair, text_a_id in pairs:
        seen += 1
        document = Side.of(pair.b)
        if len(document) >= FEWEST_SENTENCES:
            waiting.append(_prepared(pair, text_a_id, document, judge))
            texts.update(waiting[-1].texts)
        if len(texts) >= TEXTS_AT_ONCE:
            encode()
    encode()
    return measured


def attributed(pair: PairAttribution, document: Side) -> dict[str, Values]:
    """What the attributions give each sentence: first what highlights show, the lift, or the sums where there is
    none."""
    at = list(document.groups)
    sums = {SUMS[pair.sums_to]: numbers(pair.col_sums)[at]}
    return sums if pair.col_lift is None else {LIFT: numbers(pair.col_lift)[at]} | sums


def top_sentences(measured: Sequence[DeletedSentences], seed: int) -> TopSentences | None:
    """The methods' shares with intervals over first texts; None where there are too few of these for an interval, or
    no sentence costs anything. The order of the pairs does not matter."""
    if not measured:
        return None
    pairs = sorted(measured, key=lambda one: one.pair_id)
    bootstrap = Bootstrap([one.text_a_id for one in pairs], seed)
    best = np.array([one.drops.max() for one in pairs])
    if bootstrap.clusters < FEWEST_DRAWS or best.sum() <= 0:
        return None
    methods = [*pairs[0].values, CHANCE]
    drops = np.array([[one.chosen(method) for method in methods] for one in pairs])
    shares, ahead = (bootstrap.ratios(values, best) for values in (drops, drops[:, :1] - drops))
    return TopSentences(
        pairs=len(pairs),
        draws=bootstrap.clusters,
        sentences=sum(len(one.drops) for one in pairs),
        best=float(best.mean()),
        methods=tuple(
            TopSentence(method, float(drops[:, at].mean()), shares[at], ahead[at] if at else None)
            for at, method in enumerate(methods)
        ),
    )


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A pair with the texts to encode: both texts, the second without each sentence, and each sentence by itself.

    ``values`` are those of methods that no text has to be encoded for; ``pooled_ND`` has each sentence's mean token
    embedding, None for late interaction.
    """

    pair_id: str
    text_a_id: str
    whole: tuple[Key, Key]
    without: tuple[Key, ...]
    alone: tuple[Key, ...]
    values: dict[str, Values]
    pooled_ND: Values | None

    @property
    def texts(self) -> tuple[Key, ...]:
        return self.whole + self.without + self.alone


def _prepared(pair: PairAttribution, text_a_id: str, document: Side, judge: Judge) -> _Prepared:
    role_a, role_b = pair.a.role, pair.b.role
    query = Side.of(pair.a)
    values, pooled_ND = attributed(pair, document), None
    if judge.similarity in LATE_SIMILARITIES:
        values[MATCHED] = judge.matches(query, document, (role_a, role_b))[0].b  # type: ignore[arg-type]
    else:
        pooled_ND = judge.word_vectors(document, role_b, mean=True)  # type: ignore[arg-type]
    return _Prepared(
        pair_id=pair.pair_id,
        text_a_id=text_a_id,
        whole=((role_a, query.text), (role_b, document.text)),
        without=tuple((role_b, document.without([at])) for at in range(len(document))),
        alone=tuple((role_b, document.text[start:end]) for start, end in document.spans),
        values=values,
        pooled_ND=pooled_ND,
    )


def _measured(one: _Prepared, scores: Scores) -> DeletedSentences:
    a, b = one.whole
    score, *without = scores.table([a], [b, *one.without])[0]
    values = one.values | {ALONE: scores.table([a], one.alone)[0]}
    # A model whose embeddings are of another width than its tokens has no score for them.
    if one.pooled_ND is not None and one.pooled_ND.shape[1] == len(scores.embeddings[a]):
        pooled = {(POOLED, str(at)): row_D for at, row_D in enumerate(one.pooled_ND)}
        values[POOLED] = Scores({a: scores.embeddings[a], **pooled}, scores.similarity).table([a], list(pooled))[0]
    return DeletedSentences(one.pair_id, one.text_a_id, float(score), score - np.array(without), values)
