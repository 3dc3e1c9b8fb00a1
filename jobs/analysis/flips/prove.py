"""Tests margins by deletion: one margin, and a sample of a run's inversions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attribution_core.results import PairAttribution
from jobs.analysis.faithfulness.agreement import share_won
from jobs.analysis.faithfulness.judge import Judge
from jobs.analysis.faithfulness.orders import ATTRIBUTIONS, LEXICAL, RANDOM
from jobs.analysis.faithfulness.sampling import draw
from jobs.analysis.flips.contest import DOCUMENT, QUERY, RULES, TEXTS, Contest
from jobs.analysis.flips.result import Deletions, FlipLead, FlipMean, Flips, Measured, Proof
from jobs.analysis.flips.search import Walk, fewest, turn
from jobs.analysis.margin.inversions import Inversion, inversions, relevant_documents
from jobs.analysis.margin.result import Margin
from jobs.analysis.margin.split import document_of
from jobs.analysis.resampling import Bootstrap
from jobs.errors import RunError
from jobs.progress import Progress
from jobs.run.reader import Run

RANDOM_ORDERS = 10
SAMPLE, SAMPLE_ORDERS = 50, 3
# Sets of words that brute force may encode for each text.
MOST_SETS = 1000
# What bounds the memory: inversions whose texts are encoded together.
INVERSIONS_AT_ONCE = 8


def prove(
    run: Run,
    margin: Margin,
    *,
    model: str | None = None,
    seed: int = 0,
    orders: int = RANDOM_ORDERS,
    most_sets: int = MOST_SETS,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> Proof:
    """Delete words until the two documents of ``margin`` change places, from the higher document and from the query.

    Words go in the order of the attributions, the largest part of the margin first, in ``orders`` random orders, and
    as sets of growing size while there are at most ``most_sets`` of them. ``model`` is another model than the run's.

    Raises:
        RunError: where the run's model has other weights now.
        ModelError: where the model cannot be loaded.
    """
    if progress is not None:
        progress.phase("loading the model")
    judge = Judge(run, model, trust_remote_code=trust_remote_code, flag="--model")
    if progress is not None:
        progress.phase("deleting words")
    first, second = margin.documents
    documents = (first, second) if margin.difference >= 0 else (second, first)
    embeddings = judge.embed(Contest.keys(margin.query, documents))
    contest = Contest.of(margin.query_id, margin.query, documents, embeddings, judge.similarity)
    values = {rule: contest.scored(rule, judge) for rule in (ATTRIBUTIONS, RANDOM)}
    walks = {
        (text, rule): [
            Walk(contest, text, contest.order(values[rule], text, rule, number, seed))
            for number in range(orders if rule == RANDOM else 1)
        ]
        for text in TEXTS
        for rule in (ATTRIBUTIONS, RANDOM)
    }
    turn([walk for some in walks.values() for walk in some], judge)
    deletions = {}
    for text in TEXTS:
        (own,), random = walks[text, ATTRIBUTIONS], walks[text, RANDOM]
        words = len(contest.side(text))
        # A set that is smaller than what the attributions need.
        bound = words if own.turned is None else own.turned
        best, tried = fewest(contest, text, judge, below=bound, most_texts=most_sets)
        if best is None and own.turned is not None and tried >= own.turned - 1:
            best = own.turned
        deletions[text] = Deletions(
            text=text,
            words=words,
            count=own.turned,
            deleted=own.deleted,
            random=float(np.mean([words if walk.turned is None else walk.turned for walk in random])),
            random_never=sum(walk.turned is None for walk in random),
            orders=orders,
            best=best,
            tried=tried,
        )
    higher, lower = documents
    return Proof(higher.id, lower.id, deletions[DOCUMENT], deletions[QUERY], judge.name, judge.own)


def sample_flips(
    run: Run,
    *,
    sample: int = SAMPLE,
    seed: int = 0,
    orders: int = SAMPLE_ORDERS,
    model: str | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> Flips:
    """Return how many words go until the documents of an inversion change places, over ``sample`` inversions of a run.

    By the attributions, by token embeddings, by identical words and by chance (a mean of ``orders`` orders; they break
    the ties of identical words too), with paired intervals over queries. Nothing is written.

    Raises:
        RunError: where the run has no judgments or no inversion, or its model has other weights now.
        ModelError: where the model cannot be loaded.
    """
    every = inversions(run)
    if not every:
        judged = relevant_documents(run) is not None
        why = "no irrelevant document is above a relevant one" if judged else "it has no judgments"
        raise RunError(f"{run.url}: the run has no inversion to test, because {why}")
    chosen = sorted(every, key=lambda one: draw(seed, one.query_id))[:sample]
    if progress is not None:
        progress.phase("loading the model")
    judge = Judge(run, model, trust_remote_code=trust_remote_code, flag="--model")
    if progress is not None:
        progress.phase("inversions", len(chosen))
    measured: list[Measured] = []
    for at in range(0, len(chosen), INVERSIONS_AT_ONCE):
        some = chosen[at : at + INVERSIONS_AT_ONCE]
        pairs = run.pairs({pair_id for one in some for pair_id in (one.pair_above, one.pair_below)})
        # Without those whose texts an unfinished run has not written.
        known = [one for one in some if one.pair_above in pairs and one.pair_below in pairs]
        attributed = [(one, pairs[one.pair_above], pairs[one.pair_below]) for one in known]
        measured += measure_flips(attributed, judge, orders=orders, seed=seed)
        if progress is not None:
            progress.advance(len(some))
    if not measured:
        raise RunError(f"{run.url}: has not written the texts of its inversions yet")
    return summarise_flips(run, judge, measured, of=len(every), orders=orders, seed=seed)


def measure_flips(
    attributed: Sequence[tuple[Inversion, PairAttribution, PairAttribution]], judge: Judge, *, orders: int, seed: int
) -> list[Measured]:
    """Return the deletions of some inversions by every rule, from the attributions of the higher and of the lower
    document."""
    known, of_pairs = [one for one, _, _ in attributed], [pairs for _, *pairs in attributed]
    documents = [
        (document_of(above, one.above, one.rank_above), document_of(below, one.below, one.rank_below))
        for one, above, below in attributed
    ]
    queries = [above.a for above, _ in of_pairs]
    embeddings = judge.embed(
        key for query, two in zip(queries, documents, strict=True) for key in Contest.keys(query, two)
    )
    contests = [
        Contest.of(one.query_id, query, two, embeddings, judge.similarity)
        for one, query, two in zip(known, queries, documents, strict=True)
    ]
    walks: list[dict[tuple[str, str], list[Walk]]] = []
    for contest in contests:
        values = {rule: contest.scored(rule, judge) for rule in RULES}
        walks.append(
            {
                (text, rule): [
                    Walk(contest, text, contest.order(values[rule], text, rule, number, seed))
                    for number in range(orders if rule in (LEXICAL, RANDOM) else 1)
                ]
                for text in TEXTS
                for rule in RULES
            }
        )
    turn([walk for of in walks for some in of.values() for walk in some], judge)
    return [
        Measured(
            query_id=one.query_id,
            above=one.above,
            below=one.below,
            margin=one.margin,
            words={text: len(contest.side(text)) for text in TEXTS},
            deletions={
                key: float(np.mean([len(walk.order) if walk.turned is None else walk.turned for walk in some]))
                for key, some in of.items()
            },
            turned={key: float(np.mean([walk.turned is not None for walk in some])) for key, some in of.items()},
        )
        for one, contest, of in zip(known, contests, walks, strict=True)
    ]


def summarise_flips(run: Run, judge: Judge, measured: Sequence[Measured], *, of: int, orders: int, seed: int) -> Flips:
    """Means and paired intervals over ``measured`` inversions, whose order does not matter; ``of`` is how many the run
    has."""
    measured = sorted(measured, key=lambda one: one.query_id)
    bootstrap = Bootstrap([one.query_id for one in measured], seed)
    means, leads = [], []
    for text in TEXTS:
        counts = {rule: np.array([one.deletions[text, rule] for one in measured]) for rule in RULES}
        for rule in RULES:
            turned = float(np.mean([one.turned[text, rule] for one in measured]))
            means.append(FlipMean(text, rule, bootstrap.mean(counts[rule]), turned))
            if rule != ATTRIBUTIONS:
                fewer = counts[rule] - counts[ATTRIBUTIONS]
                leads.append(FlipLead(text, rule, bootstrap.mean(fewer), share_won(fewer)))
    return Flips(
        run=run.url,
        model=str(run.setting("model") or ""),
        layer=int(run.setting("layer") or 0),
        judge=judge.name,
        judge_fingerprint=judge.fingerprint,
        own_judge=judge.own,
        seed=seed,
        orders=orders,
        of=of,
        inversions=len(measured),
        words={text: float(np.mean([one.words[text] for one in measured])) for text in TEXTS},
        means=tuple(means),
        leads=tuple(leads),
        measured=tuple(measured),
    )
