"""The result of an evaluation: agreement with deletion, curves, advantages with intervals, a verdict; and its files.

``statistics/faithfulness.json`` is :meth:`Faithfulness.to_dict`, ``statistics/faithfulness.parquet`` has one row a
pair, curve and order (:func:`curve_schema`), and ``statistics/faithfulness-agreement.parquet`` one a pair and rule
(:func:`agreement_schema`). Where sentences were deleted, ``statistics/faithfulness-sentences.parquet`` has one row a
pair (:func:`sentence_schema`). With another judge than the run's own model ``faithfulness`` becomes
``faithfulness-by-<fingerprint>`` in all names.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from attribution_core.display.view import model_words
from attribution_core.hooks import hook
from jobs.analysis.faithfulness.agreement import AGREEMENTS, WORD_PAIRS, Agreement, Lead, share_won, summarise_agreement
from jobs.analysis.faithfulness.curves import DELETION, PairCurves, area, measures_of, shares_of
from jobs.analysis.faithfulness.judge import Judge
from jobs.analysis.faithfulness.orders import ATTRIBUTIONS, MATCHED, RANDOM, Values
from jobs.analysis.faithfulness.sampling import Sample
from jobs.analysis.faithfulness.sentences import DeletedSentences, TopSentences, top_sentences
from jobs.analysis.faithfulness.summaries import Against, Curve
from jobs.analysis.faithfulness.verdict import Verdict, judge_agreement
from jobs.analysis.resampling import Bootstrap
from jobs.run.reader import Run
from jobs.storage.store import Store

# 2: agreement with Shapley values, the verdict after it, and what the word pairs sum to.
FORMAT = 2
FOLDER = "statistics"


@dataclass(frozen=True)
class Faithfulness:
    """The result of an evaluation.

    ``sums_to`` says what a pair's word pairs sum to in the run (score, difference or centred), ``shapley_orders`` how
    many orders the gold standard was sampled with. Of ``asked`` pairs, drawn out of ``of``, ``pairs`` had words enough,
    with ``draws`` different first texts. ``sentences`` is what deleting single sentences showed, None where second
    texts are not grouped by sentence, or too few have three. ``level`` is the run's: with words there are no word pairs
    to judge.
    """

    run: str
    model: str
    layer: int
    similarity: str
    groups: str
    sums_to: str
    judge: str
    judge_fingerprint: str
    own_judge: bool
    seed: int
    asked: int
    of: int
    pairs: int
    draws: int
    orders: int
    shapley_orders: int
    agreement: tuple[Agreement, ...]
    leads: tuple[Lead, ...]
    curves: tuple[Curve, ...]
    overall: tuple[Against, ...]
    verdict: Verdict
    measured: tuple[PairCurves, ...]
    sentences: TopSentences | None = None
    deleted: tuple[DeletedSentences, ...] = ()
    level: str = "pairs"

    def curve(self, level: str, operation: str, method: str) -> Curve:
        """One of the curves."""
        return next(c for c in self.curves if (c.level, c.operation, c.method) == (level, operation, method))

    def against(self, method: str, other: str) -> Against:
        """The advantage of ``method`` over ``other`` in all curves together."""
        return next(one for one in self.overall if (one.method, one.against) == (method, other))

    def lead(self, level: str, correlation: str, rule: str) -> Lead | None:
        """By how much the attributions agree better with deletion than ``rule``; None where no pair has that level."""
        return {(one.level, one.correlation, one.against): one for one in self.leads}.get((level, correlation, rule))

    def agreed(self, level: str, correlation: str, rule: str) -> Agreement | None:
        """How far a rule agrees with deletion; None where no pair has that level."""
        return {(one.level, one.correlation, one.method): one for one in self.agreement}.get((level, correlation, rule))

    @property
    def rules(self) -> tuple[str, ...]:
        """The attributions and the rules that they are held against, as they are shown."""
        return tuple(dict.fromkeys(one.method for one in self.agreement))

    @property
    def methods(self) -> tuple[str, ...]:
        """The rules, and random order."""
        return (*self.rules, RANDOM)

    @property
    def late(self) -> bool:
        """Whether the judging model scores by late interaction."""
        return MATCHED in self.rules

    @property
    def whole(self) -> int:
        """How many pairs had all their word pairs stored."""
        return max((one.pairs for one in self.agreement if one.level == WORD_PAIRS), default=0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in ``faithfulness.json``.

        ``agreement`` is a list of :class:`Agreement`, ``leads`` of :class:`Lead`, ``curves`` of :class:`Curve`,
        ``overall`` of :class:`Against`, ``verdict`` a :class:`Verdict`, ``sentences`` a :class:`TopSentences` or None;
        the rest are the other fields, and ``format``.
        """
        plain = {name: value for name, value in vars(self).items() if name not in ("measured", "deleted")}
        listed = {
            name: [asdict(one) for one in plain.pop(name)] for name in ("agreement", "leads", "overall", "curves")
        }
        sentences = None if self.sentences is None else asdict(self.sentences)
        return {"format": FORMAT, **plain, "verdict": asdict(self.verdict), **listed, "sentences": sentences}

    def to_table(self) -> pa.Table:
        """One row a pair, curve and order."""
        rows = []
        for one in self.measured:
            advantages, areas = advantages_of(one), one.areas()
            for m, method in enumerate(one.methods):
                for k, (level, operation) in enumerate(measures_of(self.sums_to)):
                    scores = one.scores[m, k - 4] if k >= 4 else one.values[m, k]
                    names = (one.pair_id, one.text_a_id, *one.words, level, operation, method)
                    rows.append((*names, one.values[m, k], scores, areas[m, k], advantages[m, k]))
        return _table(rows, curve_schema())

    def to_agreement_table(self) -> pa.Table:
        """One row a pair and rule."""
        rows = []
        for one in self.measured:
            for rule, values in zip(one.rules, one.agreement.tolist(), strict=True):
                known = (None if np.isnan(value) else value for value in values)
                rows.append((one.pair_id, one.text_a_id, *one.words, rule, *known))
        return _table(rows, agreement_schema())

    def to_sentence_table(self) -> pa.Table:
        """One row a pair whose sentences were deleted."""
        rows = [(one.pair_id, one.text_a_id, one.score, one.drops, list(one.values.items())) for one in self.deleted]
        return _table(rows, sentence_schema())

    def write(self, run: Store) -> list[str]:
        """Write the files into the run; their names."""
        name = f"{FOLDER}/faithfulness" + ("" if self.own_judge else f"-by-{self.judge_fingerprint[:8]}")
        tables = {f"{name}.parquet": self.to_table(), f"{name}-agreement.parquet": self.to_agreement_table()}
        if self.sentences is not None:
            tables[f"{name}-sentences.parquet"] = self.to_sentence_table()
        for file, table in tables.items():
            sink = io.BytesIO()
            pq.write_table(table, sink, compression="zstd")
            run.replace(file, sink.getvalue())
        # The file that names the result comes last.
        run.replace(f"{name}.json", json.dumps(self.to_dict(), ensure_ascii=False, indent=1).encode())
        return [f"{name}.json", *tables]

    def __str__(self) -> str:
        return str(hook("faithfulness_text")(self))

    def __repr__(self) -> str:
        return f"Faithfulness({self.run!r}, pairs={self.pairs}, {self.against(ATTRIBUTIONS, RANDOM).advantage})"


_PAIR = [
    *((name, pa.string()) for name in ("pair_id", "text_a_id")),
    *((name, pa.int32()) for name in ("words_a", "words_b")),
]


def curve_schema() -> pa.Schema:
    """Columns of ``faithfulness.parquet``; ``values`` and ``scores`` have an entry for each of the curve's ``shares``;
    ``scores`` are the model's own where ``values`` are what pairs contribute together, and the same elsewhere;
    ``words_a`` and ``words_b`` count the words put into order."""
    fields = [(name, pa.string()) for name in ("level", "operation", "method")]
    fields += [(name, pa.list_(pa.float32())) for name in ("values", "scores")]
    return pa.schema([*_PAIR, *fields, *((name, pa.float32()) for name in ("area", "advantage"))])


def agreement_schema() -> pa.Schema:
    """Columns of ``faithfulness-agreement.parquet``: of each rule (``method``) the correlations with Shapley values
    within the pair, ``words_spearman`` to ``words_of_b_spearman``; null where not all word pairs were stored."""
    return pa.schema([*_PAIR, ("method", pa.string()), *((name, pa.float32()) for name in _correlations())])


def sentence_schema() -> pa.Schema:
    """Columns of ``faithfulness-sentences.parquet``: the judge's score of the pair, by how much it ``drops`` without
    each sentence of the second text, in their order, and by method the value of each sentence."""
    values = pa.list_(pa.float32())
    return pa.schema([*_PAIR[:2], ("score", pa.float32()), ("drops", values), ("values", pa.map_(pa.string(), values))])


def _table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )


def _correlations() -> list[str]:
    return [f"{level} {kind}".replace(" ", "_") for level, kind in AGREEMENTS]


def advantages_of(one: PairCurves) -> Values:
    """By how much each order's area is better than random order's, [methods, measures]."""
    areas = one.areas()
    # Deletion and insertion take turns, whatever the levels.
    signs = np.array([-1.0 if operation == DELETION else 1.0 for _, operation in measures_of("score")])
    return np.asarray(signs * (areas - areas[-1]))


def summarise_curves(
    run: Run,
    judge: Judge,
    sample: Sample,
    measured: list[PairCurves],
    deleted: list[DeletedSentences],
    *,
    seed: int,
    steps: int,
    orders: int,
    shapley: int,
    asked: int,
) -> Faithfulness:
    """Means and intervals of the curves of all pairs, and of their ``deleted`` sentences.

    The order of the pairs does not matter.
    """
    pairs = sorted(measured, key=lambda one: one.pair_id)
    bootstrap = Bootstrap([one.text_a_id for one in pairs], seed)
    advantages = np.stack([advantages_of(one) for one in pairs])
    rules, methods = pairs[0].rules, pairs[0].methods
    curves = []
    for m, method in enumerate(methods):
        for k, (level, operation) in enumerate(measures_of(run.sums_to)):
            values = np.stack([one.values[m, k] for one in pairs])
            mean, low, high = (tuple(bound.tolist()) for bound in bootstrap.means(values))
            gained = advantages[:, m, k]
            curves.append(
                Curve(
                    level=level,
                    operation=operation,
                    method=method,
                    shares=shares_of(level, steps),
                    values=mean,
                    low=low,
                    high=high,
                    area=float(area(values).mean()),
                    advantage=bootstrap.mean(gained),
                    wins=share_won(gained),
                )
            )
    together = advantages.mean(2)
    overall = []
    beaten = [(rule, RANDOM) for rule in rules]
    beaten += [(ATTRIBUTIONS, rule) for rule in rules if rule != ATTRIBUTIONS]
    for method, other in beaten:
        gained = together[:, methods.index(method)] - together[:, methods.index(other)]
        overall.append(Against(method, other, bootstrap.mean(gained), share_won(gained)))
    agreement, leads = summarise_agreement(
        np.stack([one.agreement for one in pairs]), [one.text_a_id for one in pairs], seed, rules
    )
    return Faithfulness(
        run=run.url,
        model=str(run.setting("model") or ""),
        layer=int(run.setting("layer") or 0),
        similarity=judge.similarity,
        groups=run.units,
        sums_to=run.sums_to,
        judge=judge.name,
        judge_fingerprint=judge.fingerprint,
        own_judge=judge.own,
        seed=seed,
        asked=asked,
        of=sample.of,
        pairs=len(pairs),
        draws=bootstrap.clusters,
        orders=orders,
        shapley_orders=shapley,
        agreement=agreement,
        leads=leads,
        curves=tuple(curves),
        overall=tuple(overall),
        verdict=judge_agreement(agreement, leads, curves, overall, "" if judge.own else model_words(judge.name)),
        measured=tuple(pairs),
        sentences=top_sentences(deleted, seed),
        deleted=tuple(sorted(deleted, key=lambda one: one.pair_id)),
        level="pairs" if run.has_word_pairs else "words",
    )
