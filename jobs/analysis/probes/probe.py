"""Probes a model on a run's own documents: draws pairs, edits their documents, encodes them, compares scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from attribution_core.text.words import sentence_spans
from jobs.analysis.failures.sentences import TEXTS_AT_ONCE, score, score_sentences
from jobs.analysis.faithfulness.judge import Judge
from jobs.analysis.faithfulness.sampling import generator, sample_queries
from jobs.analysis.probes.edits import EDITS, Edit, Source, source
from jobs.analysis.probes.result import SMALL, Estimate, Probe, Probes
from jobs.analysis.ranking.judgments import judgments
from jobs.analysis.resampling import Bootstrap, few_draws
from jobs.errors import JobError, RunError
from jobs.progress import Progress
from jobs.run.reader import Run, among
from jobs.run.untrusted import as_written

Array = NDArray[Any]

SAMPLE, FEWEST = 200, 2
# Of a document that is cut only the first sentences are taken, up to this share of what the model reads, so that no
# edit is cut off.
OF_READ = 0.75
PROMPT = Edit(
    "prompt", "drops the prompt", "exchanges the colon or space behind the prompt for a dash", lambda source: None
)


@dataclass(frozen=True)
class _Pair:
    """A query, a document to edit, and the score of the document next below it; None where there is none."""

    query_id: str
    query: str
    text: str
    next_text: str | None
    next_score: float | None


def probe(run: Run, model: Judge, *, sample: int = SAMPLE, seed: int = 0, progress: Progress | None = None) -> Probes:
    """Probe ``model``, the run's own, on one document of up to ``sample`` queries drawn by ``seed``: the relevant one
    that scores highest where a query is judged, else the highest. Nothing is written.

    Raises:
        JobError: where ``sample`` is below 2.
        RunError: where the run has too few pairs with both texts, or cannot be read.
    """
    if sample < FEWEST:
        raise JobError(f"--sample {sample}: allowed is a whole number of at least {FEWEST}")
    assert model.own, "the next document's score is the run's own"
    with as_written(run.url):
        pairs, of, shortened = _pairs(run, sample, seed)
    if len(pairs) < FEWEST:
        raise RunError(f"{run.url}: {len(pairs)} queries have a document to edit; probes need {FEWEST}")
    sources = _sources(run, model, pairs, seed, progress)
    notes = [run.unfinished] if run.unfinished else []
    if shortened:
        notes.append(
            f"{shortened:,} of {len(pairs):,} documents are longer than the model reads: their first sentences are "
            f"edited, up to {OF_READ:.0%} of what it reads."
        )
    if few := few_draws(len(pairs)):
        notes.append(few.replace("first texts", "queries"))
    if progress is not None:
        progress.phase("documents to encode", len(pairs))
    originals = _scores(run, model, [(pair.query, pair.text) for pair in pairs], progress)
    tried = [_probed(run, model, edit, pairs, sources, originals, seed, progress) for edit in EDITS]
    results = [one for one in tried if one is not None]
    if (prompt := _without_prompt(run, model, pairs, seed, progress)) is not None:
        results.append(prompt)
    done = {one.name for one in results}
    notes += [f"No document offers what this needs: {edit.title}." for edit in EDITS if edit.name not in done]
    return Probes(
        model=model.name,
        similarity=model.similarity,
        pairs=len(pairs),
        of=of,
        seed=seed,
        probes=tuple(results),
        notes=tuple(notes),
    )


def _pairs(run: Run, sample: int, seed: int) -> tuple[list[_Pair], int, int]:
    """Return the pairs, how many queries the run has, and how many documents were shortened."""
    names, queries_in_run = sample_queries(run, sample, seed)
    judged = judgments(run)
    relevant: set[tuple[str, str]] = set()
    if judged is not None:
        judged = judged.filter((pc.field("relevance") > 0) & pc.field("query").isin(names))
        relevant = set(zip(judged["query"].to_pylist(), judged["document"].to_pylist(), strict=True))
    ranked: dict[str, list[tuple[float, str]]] = defaultdict(list)
    rows = run.rows(among("text_a_id", names), columns=["text_a_id", "text_b_id", "score"])
    for row in rows.to_pylist():
        ranked[row["text_a_id"]].append((-row["score"], row["text_b_id"]))
    chosen: dict[str, tuple[str, str | None, float | None]] = {}
    for name in sorted(ranked):
        order = sorted(ranked[name])
        at = next((at for at, (_, one) in enumerate(order) if (name, one) in relevant), 0)
        below = order[at + 1] if at + 1 < len(order) else None
        chosen[name] = (order[at][1], below[1] if below else None, -below[0] if below else None)
    role_a, role_b = run.roles
    queries = run.written_texts(chosen, role_a)
    wanted = {one for document, other, _ in chosen.values() for one in (document, other) if one is not None}
    documents = run.explained(wanted, role_b)
    pairs, shortened = [], 0
    for name, (document, lower, lower_score) in chosen.items():
        if name not in queries or document not in documents:
            continue
        text = documents[document].text
        short = _readable(text, documents[document].cut_at)
        shortened += short != text
        if short:
            other = documents[lower].text if lower in documents else None
            pairs.append(_Pair(name, queries[name], short, other, None if other is None else lower_score))
    return pairs, queries_in_run, shortened


def _readable(text: str, cut_at: int | None) -> str:
    """Return the text, or of a cut one the first sentences that leave room for an edit."""
    if cut_at is None:
        return text
    ends = [end for _, end in sentence_spans(text) if end <= OF_READ * cut_at]
    return text[: ends[-1]] if ends else text[: int(OF_READ * cut_at)].rsplit(None, 1)[0]


def _sources(run: Run, model: Judge, pairs: Sequence[_Pair], seed: int, progress: Progress | None) -> list[Source]:
    if progress is not None:
        progress.phase("documents to encode by sentence", len(pairs))
    scored = list(score_sentences(model, run.roles, [(pair.query, pair.text) for pair in pairs], progress))
    sources = []
    for at, (pair, one) in enumerate(zip(pairs, scored, strict=True)):
        rng = generator(seed, pair.query_id)
        # A sentence of another query's document; the same text may answer both.
        others = [other for other in (*scored[at + 1 :], *scored[:at]) if other.text != pair.text]
        other = others[int(rng.integers(len(others)))] if others else None
        appended = other[int(rng.integers(len(other.spans)))] if other is not None else None
        sources.append(source(pair.text, one.scores.tolist(), lambda n, rng=rng: int(rng.integers(n)), appended))  # type: ignore[misc]
    return sources


def _probed(
    run: Run,
    model: Judge,
    edit: Edit,
    pairs: Sequence[_Pair],
    sources: Sequence[Source],
    originals: Array,
    seed: int,
    progress: Progress | None,
) -> Probe | None:
    made = [edit.make(source) for source in sources]
    at = [place for place, one in enumerate(made) if one is not None]
    if not at:
        return None
    if progress is not None:
        progress.phase(f"copies to encode: {edit.title}", 2 * len(at))
    edited = [(pairs[place].query, one.text) for place, one in enumerate(made) if one is not None]
    controls = [(pairs[place].query, one.control) for place, one in enumerate(made) if one is not None]
    columns = [originals[at], *(_scores(run, model, texts, progress) for texts in (edited, controls))]
    below = np.array([np.nan if pairs[place].next_score is None else pairs[place].next_score for place in at])
    nexts = np.repeat(below.astype(np.float64)[:, None], 3, axis=1)
    return _summary(edit, [pairs[place] for place in at], np.stack(columns, axis=1), nexts, len(pairs), seed)


def _scores(run: Run, model: Judge, pairs: Sequence[tuple[str, str]], progress: Progress | None) -> Array:
    """Return the model's scores of pairs of texts, [n]."""
    scores: list[float] = []
    for at in range(0, len(pairs), TEXTS_AT_ONCE // 4):
        some = pairs[at : at + TEXTS_AT_ONCE // 4]
        texts = model.embed([(role, text) for pair in some for role, text in zip(run.roles, pair, strict=True)])
        scores += [score(model, run.roles, texts, a, b) for a, b in some]
        if progress is not None:
            progress.advance(len(some))
    return np.array(scores)


def _without_prompt(
    run: Run, model: Judge, pairs: Sequence[_Pair], seed: int, progress: Progress | None
) -> Probe | None:
    """Probe the model without its prompts, and with a dash behind them; None where it has none."""
    prompts = {role: model.prompt(role) for role in dict.fromkeys(run.roles)}
    if not any(prompts.values()):
        return None
    dashed = {role: f"{prompt.rstrip(' :')} - " if prompt else "" for role, prompt in prompts.items()}
    if progress is not None:
        progress.phase(f"pairs to encode: {PROMPT.title}", 3 * len(pairs))
    with_next = [at for at, pair in enumerate(pairs) if pair.next_text is not None]
    scores, nexts = np.full((len(pairs), 3), np.nan), np.full((len(pairs), 3), np.nan)
    for column, chosen in enumerate((prompts, dict.fromkeys(prompts, ""), dashed)):
        other = model.with_prompts(chosen)
        scores[:, column] = _scores(run, other, [(pair.query, pair.text) for pair in pairs], progress)
        following = [(pairs[at].query, text) for at in with_next if (text := pairs[at].next_text) is not None]
        nexts[with_next, column] = _scores(run, other, following, None)
    return _summary(PROMPT, pairs, scores, nexts, len(pairs), seed, of_documents=False)


def _summary(
    edit: Edit,
    pairs: Sequence[_Pair],
    scores: Array,
    nexts: Array,
    of: int,
    seed: int,
    *,
    of_documents: bool = True,
) -> Probe:
    """Summarise the scores [pairs, 3] of originals, edited texts and controls.

    ``nexts`` [pairs, 3] are the scores of the next documents, NaN where there is none.
    """
    queries = [pair.query_id for pair in pairs]
    changes = scores - scores[:, :1]
    above = (changes > 0).astype(np.float64)
    # Only what stands above the next document can fall below it.
    stands = scores[:, 0] > nexts[:, 0]
    fallen = (scores < nexts)[stands].astype(np.float64)
    firsts = [query for query, there in zip(queries, stands, strict=True) if there]

    def estimate(values: Array, of_queries: Sequence[str] = queries) -> Estimate:
        mean = Bootstrap(of_queries, seed).mean(values)
        several = len(of_queries) >= FEWEST
        return Estimate(value=mean.mean, low=mean.low if several else None, high=mean.high if several else None)

    return Probe(
        name=edit.name,
        title=edit.title,
        control=edit.control,
        contradicts=edit.contradicts,
        pairs=len(pairs),
        skipped=of - len(pairs),
        change=estimate(changes[:, 1]),
        control_change=estimate(changes[:, 2]),
        difference=estimate(changes[:, 1] - changes[:, 2]),
        small=estimate((np.abs(changes[:, 1]) < SMALL).astype(np.float64)),
        above=estimate(above[:, 1]) if of_documents else None,
        control_above=estimate(above[:, 2]) if of_documents else None,
        with_next=len(firsts),
        turned=estimate(fallen[:, 1], firsts) if firsts else None,
        control_turned=estimate(fallen[:, 2], firsts) if firsts else None,
    )
