"""A run's faithfulness from beginning to end: sample, change, encode, compare."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from jobs.errors import JobError, RunError
from jobs.evaluation.curves import PairCurves, Prepared, measure, prepare
from jobs.evaluation.judge import Judge
from jobs.evaluation.result import Faithfulness, summarise_curves
from jobs.evaluation.sampling import sample_pairs

if TYPE_CHECKING:
    from attribution_core.results import PairAttribution
    from jobs.opened_run import Run
    from jobs.progress import Counter

# Pairs read at once, and changed texts encoded at once: what bounds the memory.
PAIRS_AT_ONCE = 256
TEXTS_AT_ONCE = 1024


def evaluate_run(
    run: Run,
    *,
    sample: int = 200,
    seed: int = 0,
    steps: int = 10,
    orders: int = 3,
    judge: str | None = None,
    trust_remote_code: bool = False,
    progress: Counter | None = None,
) -> Faithfulness:
    """Judge the attributions of ``sample`` pairs of a run by deleting and inserting words and encoding what is left.

    ``steps`` is the number of steps from whole to blank, ``orders`` how many random orders and how many shuffles are
    drawn of each pair, ``judge`` another model than the run's own. Nothing is written.

    Raises:
        JobError: where a number is out of range.
        RunError: where the run has no pair to look at, or its model has changed.
        ModelError: where the model cannot be loaded or attributed.
    """
    for name, value, least in (("sample", sample, 2), ("steps", steps, 2), ("orders", orders, 1)):
        if value < least:
            raise JobError(f"--{name} {value}: allowed is a whole number of at least {least}")
    drawn = sample_pairs(run, sample, seed)
    if drawn.of == 0:
        raise RunError(f"{run.url}: there is no pair to evaluate{'' if run.finished else '; the run is not finished'}")
    if progress is not None:
        progress.start("loading the model", None)
    referee = Judge(run, judge, trust_remote_code=trust_remote_code)
    if progress is not None:
        progress.start("pairs", len(drawn.pair_ids))
    found: list[PairCurves] = []
    waiting: list[Prepared] = []
    texts = passed = 0

    def encode() -> None:
        nonlocal texts, passed
        found.extend(_measured(waiting, referee))
        if progress is not None:
            progress.advance(passed)
        waiting.clear()
        texts = passed = 0

    for pair, text_a_id in read_pairs(run, drawn.pair_ids):
        ready = prepare(pair, text_a_id, referee, steps=steps, orders=orders, seed=seed)
        passed += 1
        if ready is not None:
            waiting.append(ready)
            texts += len(ready.texts())
        # Encoding is what takes the time, so pairs count as done when it is.
        if texts >= TEXTS_AT_ONCE:
            encode()
    encode()
    if not found:
        raise RunError(f"{run.url}: none of the {len(drawn.pair_ids):,} pairs drawn has two words to put into an order")
    return summarise_curves(run, referee, drawn, found, seed=seed, steps=steps, orders=orders, asked=sample)


def read_pairs(run: Run, pair_ids: tuple[str, ...]) -> Iterator[tuple[PairAttribution, str]]:
    """Pairs of a run with the ids of their first texts, in the order of their ids, some at a time in memory.

    Pairs of an unfinished run whose texts are not written yet are left out.
    """
    import pyarrow.compute as pc

    for at in range(0, len(pair_ids), PAIRS_AT_ONCE):
        ids = pair_ids[at : at + PAIRS_AT_ONCE]
        rows = {row["pair_id"]: row for row in run.rows(pc.field("pair_id").isin(list(ids))).to_pylist()}
        role_a, role_b = run.roles
        texts_a = run.explained({row["text_a_id"] for row in rows.values()}, role_a)
        texts_b = run.explained({row["text_b_id"] for row in rows.values()}, role_b)
        for pair_id in ids:
            row = rows[pair_id]
            a, b = texts_a.get(row["text_a_id"]), texts_b.get(row["text_b_id"])
            if a is not None and b is not None:
                yield run.attribution(row, a, b), row["text_a_id"]


def _measured(waiting: list[Prepared], judge: Judge) -> list[PairCurves]:
    embeddings = judge.embed(sorted(key for one in waiting for key in one.texts()))
    return [measure(one, embeddings) for one in waiting]
