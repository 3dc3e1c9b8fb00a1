"""Finds kinds of failure in a run: which queries are looked at, what is read for them, and each rule's cases."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc
from scipy.stats import binomtest

from attribution_core.results import ExplainedText
from attribution_core.text.words import sentence_spans
from jobs.analysis.failures import behind_the_cut, near_duplicates, sentence_would_win, words_without_effect
from jobs.analysis.failures.identical_words import document_counts, identical_words, words_of_groups
from jobs.analysis.failures.result import Case, Failures, Kind, OnlyInWrong, stored_failures
from jobs.analysis.failures.sentences import ScoredSentences, score_sentences
from jobs.analysis.faithfulness.judge import Judge
from jobs.analysis.faithfulness.sampling import sample_queries
from jobs.analysis.margin.inversions import Inversion, inversions
from jobs.analysis.ranking.judgments import judgments
from jobs.errors import RunError
from jobs.progress import Progress, counted
from jobs.run.reader import Run, among
from jobs.run.untrusted import as_written

# Queries that are looked at, and the top ranks of each.
QUERIES, TOP = 200, 10
NOTHING_FAILS = "No judged query has an irrelevant document above a relevant one: no failure is looked at."
NO_MODEL = "need the model: tokenpair probe {} looks at them"


def find_failures(
    run: Run, *, model: Judge | None = None, queries: int = QUERIES, seed: int = 0, progress: Progress | None = None
) -> Failures:
    """Kinds of failure in up to ``queries`` queries, drawn by ``seed``.

    Where the run has judgments, queries with a relevant document below one that is not relevant are looked at: their
    worst inversion each. Without judgments it is the top ranks of any queries. ``model`` is the run's own; without it
    the rules that encode sentences are left out, and a note says so. Nothing is written.

    Raises:
        RunError: where the run has no pair yet or cannot be read, or ``model`` gives no embedding of a sentence.
    """
    assert model is None or model.own, "scores of sentences are compared with the run's own"
    with as_written(run.url):
        return _find(run, model, queries, seed, progress)


def read_failures(run: Run) -> Failures:
    """Return what ``tokenpair probe`` stored, with the words without effect of the run's statistics now; without a
    stored result what :func:`find_failures` finds without a model."""
    stored = stored_failures(run)
    if stored is None:
        return find_failures(run)
    name = words_without_effect.NAME
    kinds = [kind for kind in stored.kinds if kind.name != name]
    notes = [note for note in stored.notes if not note.startswith(words_without_effect.LEFT_OUT)]
    kind = words_without_effect.words_without_effect(run)
    if isinstance(kind, Kind):
        kinds.append(kind)
    else:
        notes.append(kind)
    return stored.model_copy(update={"kinds": tuple(kinds), "notes": tuple(notes)})


@dataclass(frozen=True)
class _Row:
    """A pair of the run: its document, its score and what each group of its query adds."""

    document: str
    score: float
    row_sums: Sequence[float]


@dataclass(frozen=True)
class _Document:
    """The text of a document and where the model stopped reading it."""

    text: str
    cut_at: int | None


@dataclass(frozen=True)
class _Scene:
    """What the rules look at: queries with their documents by the model's score, texts by id, and the worst inversions;
    where nothing is judged, ``worst`` is None."""

    ranked: Mapping[str, Sequence[_Row]]
    queries: Mapping[str, ExplainedText]
    documents: Mapping[str, _Document]
    words: Mapping[str, frozenset[str]]
    worst: Mapping[str, Inversion] | None

    @property
    def of_what(self) -> str:
        return "queries" if self.worst is None else "failing queries"


def _find(run: Run, model: Judge | None, most: int, seed: int, progress: Progress | None) -> Failures:
    known = judgments(run)
    judged = None if known is None else int(pc.count_distinct(known["query"]).as_py())
    failing = inversions(run) if judged is not None else []
    by_query = {one.query_id: one for one in failing}
    names, all_queries = sample_queries(run, most, seed, by_query if judged is not None else None)
    if not all_queries:
        raise RunError(f"{run.url}: has no pair yet")
    scene = _scene(run, names, {name: by_query[name] for name in names} if judged is not None else None)
    notes = [run.unfinished] if run.unfinished else []
    notes += _sample_notes(scene, names, len(failing) if judged is not None else all_queries)
    kinds: list[Kind] = []
    looked: Iterable[Kind | str] = (NOTHING_FAILS,)
    if judged is None or failing:
        looked = (_near_duplicates(scene), *_by_sentences(run, scene, model, progress))
    for one in (*looked, words_without_effect.words_without_effect(run)):
        if isinstance(one, Kind):
            kinds.append(one)
        else:
            notes.append(one)
    documents, cut = _cut_documents(run)
    return Failures(
        queries=all_queries,
        judged=judged or 0,
        failing=len(failing),
        looked_at=len(names),
        documents=documents,
        cut=cut,
        with_model=model is not None,
        kinds=tuple(kinds),
        only_in_wrong=_only_in_wrong(run, scene),
        notes=tuple(notes),
    )


def _scene(run: Run, names: list[str], worst: Mapping[str, Inversion] | None) -> _Scene:
    columns = ["text_a_id", "text_b_id", "score", "row_sums"]
    ranked: dict[str, list[_Row]] = defaultdict(list)
    for row in run.rows(among("text_a_id", names), columns=columns).to_pylist():
        ranked[row["text_a_id"]].append(_Row(row["text_b_id"], row["score"], row["row_sums"]))
    wanted: set[str] = set()
    for name, rows in ranked.items():
        rows.sort(key=lambda row: (-row.score, row.document))
        ends = {worst[name].above, worst[name].below} if worst is not None else set()
        ranked[name] = [row for at, row in enumerate(rows) if at < TOP or row.document in ends]
        wanted |= {row.document for row in ranked[name]}
    role_a, role_b = run.roles
    explained = run.explained(wanted, role_b)
    return _Scene(
        ranked=ranked,
        queries=run.explained(names, role_a),
        documents={name: _Document(one.text, one.cut_at) for name, one in explained.items()},
        words={name: words_of_groups(one) for name, one in explained.items()} if worst is not None else {},
        worst=worst,
    )


def _sample_notes(scene: _Scene, names: Sequence[str], of: int) -> Iterator[str]:
    if scene.worst is None:
        yield (
            f"Nothing is judged: the top {TOP} documents of queries are looked at, and whether a document is the right "
            "one is not known."
        )
    if len(names) < of:
        yield f"{len(names):,} of {of:,} {scene.of_what} were looked at, drawn at random."
    if scene.worst is None and names and all(len(rows) < 2 for rows in scene.ranked.values()):
        yield "No query has two documents: near-duplicates and rankings cannot be looked at."
    missing = sum(row.document not in scene.documents for rows in scene.ranked.values() for row in rows)
    if missing:
        yield f"{counted(missing, 'document')} had no text written yet and were left out."


def _near_duplicates(scene: _Scene) -> Kind | str:
    if all(len(rows) < 2 for rows in scene.ranked.values()):
        return "Near-duplicates are left out: no query that was looked at has two documents."
    cases = []
    for query, rows in scene.ranked.items():
        there = [row.document for row in rows if row.document in scene.documents]
        texts = [scene.documents[name].text for name in there]
        right = scene.worst[query].below if scene.worst is not None else None
        for i, j, _ in near_duplicates.near_duplicates(texts):
            # In a failing query only copies of the right document matter: they stand above it.
            if right is not None and there[j] != right:
                continue
            differ = near_duplicates.differences(texts[i], texts[j])
            words = (*differ.negations, *differ.numbers, *differ.others)
            cases.append(
                Case(query_id=query, document_id=there[j], other_id=there[i], words=words, text=differ.sentence())
            )
    return _kind(
        scene,
        near_duplicates.NAME,
        "near-duplicates in the top ranks"
        if scene.worst is None
        else "a near-duplicate of the right document above it",
        "Remove copies before indexing, or show one document of each group.",
        cases,
        near_duplicates.MEASURED,
    )


def _by_sentences(run: Run, scene: _Scene, model: Judge | None, progress: Progress | None) -> Iterator[Kind | str]:
    """Yield the kinds of the two rules that encode sentences: those of failing queries' right documents, or, without
    judgments, of documents that are cut."""
    wanted = [
        (query, row.document)
        for query, rows in scene.ranked.items()
        for row in rows
        if query in scene.queries
        and row.document in scene.documents
        and (
            scene.documents[row.document].cut_at is not None
            if scene.worst is None
            else row.document == scene.worst[query].below
        )
    ]
    # Neither rule can recognise anything in a text of one sentence.
    wanted = [one for one in wanted if len(sentence_spans(scene.documents[one[1]].text)) > 1]
    if model is None:
        rules = "Text behind the cut is" if scene.worst is None else "Text behind the cut and winning sentences are"
        yield f"{rules} left out: they {NO_MODEL.format(run.url)}."
        return
    if progress is not None:
        progress.phase("documents to encode by sentence", len(wanted))
    pairs = [(scene.queries[query].text, scene.documents[document].text) for query, document in wanted]
    unread: list[Case] = []
    winning: list[Case] = []
    for (query, document), scored in zip(wanted, score_sentences(model, run.roles, pairs, progress), strict=True):
        at = behind_the_cut.better_unread(
            scored.scores, [start for start, _ in scored.spans], scene.documents[document].cut_at
        )
        if at is not None:
            unread.append(_sentence_case(query, document, None, scored, at, "the unread part may hold a better match"))
        if scene.worst is not None:
            above = scene.worst[query].above
            winner = next(row.score for row in scene.ranked[query] if row.document == above)
            at = sentence_would_win.winning_sentence(scored.scores, winner)
            if at is not None:
                said = f"this sentence alone scores {scored.scores[at]:.3f}, the document above {winner:.3f}"
                winning.append(_sentence_case(query, document, above, scored, at, said))
    yield _kind(
        scene,
        behind_the_cut.NAME,
        "a better match may stand behind the cut",
        "Split these documents into chunks: the unread part may hold a better match.",
        unread,
        behind_the_cut.MEASURED,
    )
    if scene.worst is None:
        yield "Winning sentences are left out: without judgments the right document is not known."
        return
    yield _kind(
        scene,
        sentence_would_win.NAME,
        "a sentence of the right document would win",
        "Split these documents into chunks: a sentence of theirs, encoded by itself, outranks the winner.",
        winning,
        sentence_would_win.MEASURED,
    )


def _sentence_case(query: str, document: str, other: str | None, scored: ScoredSentences, at: int, said: str) -> Case:
    return Case(query_id=query, document_id=document, other_id=other, words=(scored[at],), text=said)


def _kind(scene: _Scene, name: str, title: str, advice: str, cases: Sequence[Case], rates: Sequence[Any]) -> Kind:
    met = {case.query_id for case in cases}
    of = len(scene.ranked)
    # A query counts once, so that queries are independent; Wilson's interval holds for a count of 0 too.
    ends = binomtest(len(met), of).proportion_ci(method="wilson") if of else None
    return Kind(
        name=name,
        title=title,
        advice=advice,
        count=len(met),
        of=of,
        low=float(ends.low) if ends is not None else None,
        high=float(ends.high) if ends is not None else None,
        cases=tuple(cases),
        rates=tuple(rates),
        of_what=scene.of_what,
    )


def _only_in_wrong(run: Run, scene: _Scene) -> tuple[OnlyInWrong, ...]:
    if scene.worst is None:
        return ()
    wanted = [
        one
        for query, one in scene.worst.items()
        if query in scene.queries and one.above in scene.words and one.below in scene.words
    ]
    in_queries = frozenset().union(*(words_of_groups(scene.queries[one.query_id]) for one in wanted))
    counts, of = document_counts(run, in_queries)
    described = []
    for one in wanted:
        rows = {row.document: row for row in scene.ranked[one.query_id]}
        above, below = ((scene.words[name], rows[name].row_sums, rows[name].score) for name in (one.above, one.below))
        words = identical_words(scene.queries[one.query_id], above, below, counts, of)
        if words:
            described.append(OnlyInWrong(query_id=one.query_id, above=one.above, below=one.below, words=words))
    return tuple(described)


def _cut_documents(run: Run) -> tuple[int, int]:
    """Return how many documents the run has, and how many of them are longer than the model reads."""
    seen: set[str] = set()
    cut: set[str] = set()
    with run._reading():
        parts = run.dataset("texts").to_batches(columns=["text_id", "cut_at"], filter=pc.field("role") == run.roles[1])
        for batch in parts:
            seen.update(batch["text_id"].to_pylist())
            cut.update(batch.filter(pc.is_valid(batch["cut_at"]))["text_id"].to_pylist())
    return len(seen), len(cut)
