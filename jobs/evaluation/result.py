"""What an evaluation found: advantages with intervals, curves, a verdict; and its files.

``statistics/faithfulness.json`` is :meth:`Faithfulness.to_dict`, ``statistics/faithfulness.parquet`` has one row a
pair, curve and order (:func:`curve_schema`). With another judge than the run's own model both names get the fingerprint
of that one.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.evaluation.curves import DELETION, MEASURES, PairCurves, area
from jobs.evaluation.intervals import Bootstrap, Mean
from jobs.evaluation.orders import ATTRIBUTIONS, METHODS, RANDOM
from jobs.evaluation.verdict import Verdict, judge_advantages

if TYPE_CHECKING:
    import pyarrow as pa

    from jobs.evaluation.judge import Judge
    from jobs.evaluation.orders import Values
    from jobs.evaluation.sampling import Sample
    from jobs.opened_run import Run
    from jobs.stores import Store

FORMAT = 1
FOLDER = "statistics"


@dataclass(frozen=True)
class Curve:
    """The mean curve of one order: ``values`` after each step with bounds, and by how much it beats random order.

    ``advantage`` is the area by which the curve lies on the right side of random order's, in units of the score: below
    it for deletion, above it for insertion. ``wins`` is the share of pairs where it does (ties count half).
    """

    level: str
    operation: str
    method: str
    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    area: float
    advantage: Mean
    wins: float


@dataclass(frozen=True)
class Against:
    """By how much an order beats another one, over all curves (a mean of them), in units of the score."""

    method: str
    against: str
    advantage: Mean
    wins: float


@dataclass(frozen=True)
class Faithfulness:
    """Everything that an evaluation found. ``shares`` are the shares of words after each step."""

    run: str
    model: str
    layer: int
    similarity: str
    groups: str
    judge: str
    judge_fingerprint: str
    own_judge: bool
    seed: int
    asked: int
    of: int
    pairs: int
    draws: int
    orders: int
    shares: tuple[float, ...]
    curves: tuple[Curve, ...]
    overall: tuple[Against, ...]
    verdict: Verdict
    found: tuple[PairCurves, ...]

    def curve(self, level: str, operation: str, method: str) -> Curve:
        """One of the curves."""
        return next(c for c in self.curves if (c.level, c.operation, c.method) == (level, operation, method))

    def against(self, method: str, other: str) -> Against:
        """The advantage of ``method`` over ``other`` in all curves together."""
        return next(one for one in self.overall if (one.method, one.against) == (method, other))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they stand in ``faithfulness.json``."""
        plain = {name: value for name, value in vars(self).items() if name not in ("found", "curves", "overall")}
        return {
            "format": FORMAT,
            **plain,
            "shares": list(self.shares),
            "verdict": asdict(self.verdict),
            "overall": [asdict(one) for one in self.overall],
            "curves": [asdict(one) for one in self.curves],
        }

    def to_table(self) -> pa.Table:
        """One row a pair, curve and order."""
        import pyarrow as pa

        rows: dict[str, list[Any]] = {name: [] for name in curve_schema().names}
        for one in self.found:
            advantages = advantages_of(one)
            for m, method in enumerate(METHODS):
                for k, (level, operation) in enumerate(MEASURES):
                    plain = one.scores[m, k - 4] if k >= 4 else one.values[m, k]
                    values: tuple[Any, ...] = (one.pair_id, one.text_a_id, *one.words, level, operation, method)
                    values += (one.values[m, k], plain, one.areas()[m, k], advantages[m, k])
                    for name, value in zip(rows, values, strict=True):
                        rows[name].append(value)
        return pa.table({f.name: pa.array(rows[f.name], f.type) for f in curve_schema()}, schema=curve_schema())

    def write(self, run: Store) -> list[str]:
        """Write both files into the run; their names."""
        import pyarrow.parquet as pq

        name = f"{FOLDER}/faithfulness" + ("" if self.own_judge else f"-by-{self.judge_fingerprint[:8]}")
        sink = io.BytesIO()
        pq.write_table(self.to_table(), sink, compression="zstd")
        run.replace(f"{name}.parquet", sink.getvalue())
        # The file that names the result comes last.
        run.replace(f"{name}.json", json.dumps(self.to_dict(), ensure_ascii=False, indent=1).encode())
        return [f"{name}.json", f"{name}.parquet"]

    def __str__(self) -> str:
        from jobs.evaluation.terminal import faithfulness_text

        return faithfulness_text(self)

    def __repr__(self) -> str:
        return f"Faithfulness({self.run!r}, pairs={self.pairs}, {self.against(ATTRIBUTIONS, RANDOM).advantage})"


def curve_schema() -> pa.Schema:
    """Columns of ``faithfulness.parquet``; ``values`` and ``scores`` have an entry a step, from whole (deletion) or
    blank (insertion) on; ``words_a`` and ``words_b`` count the words that were put into order."""
    import pyarrow as pa

    fields = [(name, pa.string()) for name in ("pair_id", "text_a_id")]
    fields += [(name, pa.int32()) for name in ("words_a", "words_b")]
    fields += [(name, pa.string()) for name in ("level", "operation", "method")]
    fields += [(name, pa.list_(pa.float32())) for name in ("values", "scores")]
    fields += [(name, pa.float32()) for name in ("area", "advantage")]
    return pa.schema(fields)


def advantages_of(one: PairCurves) -> Values:
    """By how much each order's area is better than random order's, [methods, measures]."""
    areas = one.areas()
    signs = np.array([-1.0 if operation == DELETION else 1.0 for _, operation in MEASURES])
    return np.asarray(signs * (areas - areas[METHODS.index(RANDOM)]))


def summarise_curves(
    run: Run,
    judge: Judge,
    sample: Sample,
    found: list[PairCurves],
    *,
    seed: int,
    steps: int,
    orders: int,
    asked: int,
) -> Faithfulness:
    """Means and intervals of the curves of all pairs; the order of the pairs does not matter."""
    found = sorted(found, key=lambda one: one.pair_id)
    bootstrap = Bootstrap([one.text_a_id for one in found], seed)
    advantages = np.stack([advantages_of(one) for one in found])
    curves = []
    for m, method in enumerate(METHODS):
        for k, (level, operation) in enumerate(MEASURES):
            values = np.stack([one.values[m, k] for one in found])
            mean, low, high = (tuple(bound.tolist()) for bound in bootstrap.means(values))
            gained = advantages[:, m, k]
            curves.append(
                Curve(
                    level=level,
                    operation=operation,
                    method=method,
                    values=mean,
                    low=low,
                    high=high,
                    area=float(area(values).mean()),
                    advantage=bootstrap.mean(gained),
                    wins=_wins(gained),
                )
            )
    together = advantages.mean(2)
    overall = []
    for method, other in [(m, RANDOM) for m in METHODS if m != RANDOM] + [
        (ATTRIBUTIONS, m) for m in METHODS if m not in (ATTRIBUTIONS, RANDOM)
    ]:
        gained = together[:, METHODS.index(method)] - together[:, METHODS.index(other)]
        overall.append(Against(method, other, bootstrap.mean(gained), _wins(gained)))
    return Faithfulness(
        run=run.url,
        model=str(run.setting("model") or ""),
        layer=int(run.setting("layer") or 0),
        similarity=judge.similarity,
        groups=str(run.setting("groups") or "word"),
        judge=judge.name,
        judge_fingerprint=judge.fingerprint,
        own_judge=judge.own,
        seed=seed,
        asked=asked,
        of=sample.of,
        pairs=len(found),
        draws=bootstrap.clusters,
        orders=orders,
        shares=tuple(step / steps for step in range(steps + 1)),
        curves=tuple(curves),
        overall=tuple(overall),
        verdict=judge_advantages(curves, overall, "" if judge.own else short_name(judge.name), bootstrap.clusters),
        found=tuple(found),
    )


def short_name(model: str) -> str:
    """Of a model that is a folder the last two parts of its path."""
    parts = model.replace("\\", "/").rstrip("/").split("/")
    return model if parts[0] and len(parts) <= 2 else "/".join(parts[-2:])


def _wins(gained: Values) -> float:
    return float(np.mean((gained > 0) + 0.5 * (gained == 0)))
