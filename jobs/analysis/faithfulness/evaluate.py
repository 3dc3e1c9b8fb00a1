"""The evaluation of a run's faithfulness: sample, check, change, encode, compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow.compute as pc

from attribution_core.results import PairAttribution
from jobs.analysis.faithfulness.agreement import FEWEST_WORDS
from jobs.analysis.faithfulness.curves import PairCurves, Prepared, measure, prepare
from jobs.analysis.faithfulness.judge import TEXTS_AT_ONCE, Judge
from jobs.analysis.faithfulness.result import Faithfulness, summarise_curves
from jobs.analysis.faithfulness.sampling import Sample, sample_pairs
from jobs.analysis.faithfulness.scores import Scores
from jobs.analysis.faithfulness.sentences import delete_sentences
from jobs.analysis.faithfulness.shapley import ORDERS, Key
from jobs.analysis.faithfulness.verdict import FEWEST_DRAWS
from jobs.errors import JobError, RunError
from jobs.progress import Progress, counted
from jobs.run.reader import Run

# Pairs read at once: what bounds the memory.
PAIRS_AT_ONCE = 256


def evaluate_run(
    run: Run,
    *,
    sample: int = 200,
    seed: int = 0,
    steps: int = 10,
    orders: int = 3,
    shapley: int = ORDERS,
    judge: str | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> Faithfulness:
    """Judge the attributions of ``sample`` pairs of a run by deleting and inserting words and encoding what is left;
    where second texts are grouped by sentence, also by deleting each sentence.

    ``steps`` is the number of steps from a whole text to an empty one, ``orders`` how many random orders and how many
    shuffles are drawn of each pair, ``shapley`` in how many orders words are deleted for their Shapley values,
    ``judge`` another model than the run's own. Whether the sample is enough is checked before a model is loaded.
    Nothing is written.

    Raises:
        JobError: where a number is out of range.
        RunError: where the run has too few pairs to look at, or its model has changed.
        ModelError: where the model cannot be loaded or attributed.
    """
    allowed = (("sample", sample, FEWEST_DRAWS), ("steps", steps, 2), ("orders", orders, 1), ("shapley", shapley, 2))
    for name, value, least in allowed:
        if value < least:
            raise JobError(f"--{name} {value}: allowed is a whole number of at least {least}")
    drawn = sample_pairs(run, sample, seed)
    if drawn.of == 0:
        raise RunError(f"{run.url}: there is no pair to evaluate{'' if run.finished else '; the run is not finished'}")
    pair_ids = fit_pairs(run, drawn)
    if progress is not None:
        progress.phase("loading the model")
    referee = Judge(run, judge, trust_remote_code=trust_remote_code)
    if progress is not None:
        progress.phase("pairs to evaluate", len(pair_ids))
    measured: list[PairCurves] = []
    waiting: list[Prepared] = []
    texts: set[Key] = set()

    def encode() -> None:
        measured.extend(_measured(waiting, texts, referee))
        if progress is not None:
            progress.advance(len(waiting))
        waiting.clear()
        texts.clear()

    for pair, text_a_id in read_pairs(run, pair_ids):
        ready = prepare(pair, text_a_id, referee, steps=steps, orders=orders, seed=seed, shapley=shapley)
        waiting.append(ready)
        texts |= ready.texts()
        # Encoding is what takes the time, so pairs count as done when it is.
        if len(texts) >= TEXTS_AT_ONCE:
            encode()
    encode()
    deleted = []
    if run.unit(run.roles[1]) == "sentence":
        if progress is not None:
            progress.phase("pairs whose sentences are deleted", len(pair_ids))
        deleted = delete_sentences(read_pairs(run, pair_ids), referee, progress)
    return summarise_curves(
        run, referee, drawn, measured, deleted, seed=seed, steps=steps, orders=orders, shapley=shapley, asked=sample
    )


def fit_pairs(run: Run, drawn: Sample) -> list[str]:
    """Ids of the drawn pairs that can be judged, those of one first text side by side: each text has a word, and one of
    them three, of which a correlation can be taken.

    Pairs of an unfinished run whose texts are not written yet are left out.

    Raises:
        RunError: where they have too few different first texts for an interval.
    """
    fit: dict[str, str] = {}
    for at in range(0, len(drawn.pair_ids), PAIRS_AT_ONCE):
        ids = list(drawn.pair_ids[at : at + PAIRS_AT_ONCE])
        names = ["pair_id", "text_a_id", "text_b_id"]
        rows = run.rows(pc.field("pair_id").isin(ids), columns=names).to_pylist()
        words = [
            _words_of(run, {row[f"text_{side}_id"] for row in rows}, role)
            for side, role in zip("ab", run.roles, strict=True)
        ]
        for row in rows:
            counts = [of.get(row[f"text_{side}_id"], 0) for side, of in zip("ab", words, strict=True)]
            if min(counts) >= 1 and max(counts) >= FEWEST_WORDS:
                fit[row["pair_id"]] = row["text_a_id"]
    firsts = len(set(fit.values()))
    if firsts < FEWEST_DRAWS:
        units = " or ".join(dict.fromkeys(f"{run.unit(role)}s" for role in run.roles))
        more = "raise --sample" if drawn.of > len(drawn.pair_ids) else "evaluate a run with more"
        if not run.finished:
            more += ", or finish the run"
        raise RunError(
            f"{run.url}: {len(fit):,} of the {counted(len(drawn.pair_ids), 'pair')} drawn can be judged (a text of "
            f"{FEWEST_WORDS} {units} or more), with {counted(firsts, 'different first text')}; an interval needs "
            f"{FEWEST_DRAWS}: {more}"
        )
    return sorted(fit, key=lambda pair_id: (fit[pair_id], pair_id))


def _words_of(run: Run, text_ids: set[str], role: str) -> dict[str, int]:
    """How many words (groups of kind ``text``) each text has."""
    wanted = pc.field("text_id").isin(list(text_ids)) & (pc.field("role") == role)
    rows = run.rows(wanted, "texts", columns=["text_id", "kinds"]).to_pylist()
    return {row["text_id"]: row["kinds"].count("text") for row in rows}


def read_pairs(run: Run, pair_ids: Sequence[str]) -> Iterator[tuple[PairAttribution, str]]:
    """Pairs of a run with the ids of their first texts, in the order of their ids, some at a time in memory.

    Pairs of an unfinished run whose texts are not written yet are left out.
    """
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


def _measured(waiting: Sequence[Prepared], texts: set[Key], judge: Judge) -> list[PairCurves]:
    scores = Scores(judge.embed(sorted(texts)), judge.similarity)
    return [measure(one, scores) for one in waiting]
