"""Which queries got better or worse from one run to the other, by nDCG of the models' orders, and through which words.

Queries and documents are matched by id. A query's words are compared by what they add to its relevant documents and not
to its other ones: this gap decides the order, while a change that all documents share does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from jobs.analysis.comparison.alignment import summed
from jobs.analysis.comparison.details import SideBySide, side_by_side
from jobs.analysis.comparison.examples import SCORE, SHARE, SMALLEST, WORDS_SHOWN, Moved, shares_or_zero
from jobs.analysis.ranking.judgments import OF_ROWS, judgments
from jobs.analysis.ranking.metrics import RESAMPLES, by_score, depth_of, finite, metrics_of, places, read_rows, why_none
from jobs.analysis.resampling import mean_intervals
from jobs.progress import counted
from jobs.run.reader import Run

DOCUMENTS_SHOWN = 4
# Metrics that differ by no more are the same.
SAME = 1e-9


@dataclass(frozen=True)
class MovedDocument:
    """A document of a query in both runs: its place by the model's score from 1, None where the run lacks it.

    ``relevance`` is None without a judgment.
    """

    document: str
    relevance: int | None
    rank_1: int | None
    rank_2: int | None
    score_1: float | None
    score_2: float | None


@dataclass(frozen=True)
class QueryChange:
    """A query's metric in both runs, and for those that changed most what moved.

    ``documents`` moved most, by what their rank counts in nDCG. A word's ``first`` and ``second`` are what it adds to
    the relevant documents less what it adds to the others, on average over the documents that both runs hold; to all
    of them where ``against`` is false, because there are no relevant or no other ones.
    """

    query: str
    text: str
    first: float
    second: float
    documents: tuple[MovedDocument, ...] = ()
    words: tuple[Moved, ...] = ()
    against: bool = True

    @property
    def difference(self) -> float:
        """How much better the second run is."""
        return self.second - self.first


@dataclass(frozen=True)
class RankingChange:
    """The metric ``name`` of two runs over the queries in both: means, their ``difference`` with the ends of its 95 %
    interval (paired, over queries; None with one query), and every query, from the largest loss to the largest gain.

    ``unit`` says what a word's value is, as in :class:`jobs.analysis.comparison.examples.Example`.
    """

    name: str
    unit: str
    first: float
    second: float
    difference: float
    low: float | None
    high: float | None
    queries: tuple[QueryChange, ...]
    notes: tuple[str, ...]

    @property
    def better(self) -> list[QueryChange]:
        """The queries for which the second run is better, the largest gain first."""
        return [one for one in reversed(self.queries) if one.difference > SAME]

    @property
    def worse(self) -> list[QueryChange]:
        """The queries for which the second run is worse, the largest loss first."""
        return [one for one in self.queries if one.difference < -SAME]


def compare_rankings(
    con: duckdb.DuckDBPyConnection, first: Run, second: Run, count: int, seed: int, *, parts_of_score: bool
) -> tuple[RankingChange | None, str]:
    """Return the change of nDCG, with documents and words of the ``count`` queries that lost most and gained most.

    The second value says why there is none. ``con`` has table ``matched``.
    """
    for run in (first, second):
        if run.roles[0] != "query":
            return None, why_none(run)
    judged, conflicts = _judgments(first, second)
    if judged is None:
        return None, why_none(first)
    rows = [read_rows(run) for run in (first, second)]
    orders = [by_score(table) for table, _ in rows]
    asked = [depth for depth in map(depth_of, (first, second)) if depth is not None]
    depth = min(asked, default=None)
    queries = set(judged["query"].to_pylist())
    results = [
        metrics_of({"model": order}, judged, depth, run.written_texts(queries, "query"), 0, seed, notes)
        for run, order, (_, notes) in zip((first, second), orders, rows, strict=True)
    ]
    there = [one for one in results if one is not None]
    if len(there) < 2:
        return None, "No query with judgments has all its documents in both runs."
    name = f"nDCG@{there[0].cutoff}"
    of_query = [{row["query"]: row for row in one.per_query.to_pylist()} for one in there]
    shared = sorted(set(of_query[0]) & set(of_query[1]))
    same = [query for query in shared if of_query[0][query]["text"] == of_query[1][query]["text"]]
    if not same:
        return None, "The runs share no query with judgments."
    values = [[float(one[query][f"model {name}"]) for query in same] for one in of_query]
    texts = [str(of_query[0][query]["text"]) for query in same]
    changes = [QueryChange(*one) for one in zip(same, texts, *values, strict=True)]
    changes.sort(key=lambda one: (one.difference, one.query))
    difference = np.array([[one.difference] for one in changes])
    value, low, high = (float(part[0]) for part in mean_intervals(difference, RESAMPLES, seed))
    notes = [*dict.fromkeys(note for one in there for note in one.notes)]
    alone = len(of_query[0]) + len(of_query[1]) - 2 * len(shared)
    if alone:
        notes.append(f"{counted(alone, 'query')} with judgments in one run alone left out.")
    if len(same) < len(shared):
        notes.append(f"{counted(len(shared) - len(same), 'query')} with another text in the second run left out.")
    if conflicts:
        notes.append(f"{counted(conflicts, 'document')} judged differently in the two runs: the first run's counts.")
    change = RankingChange(
        name=name,
        unit=SCORE if parts_of_score else SHARE,
        first=float(np.mean([one.first for one in changes])),
        second=float(np.mean([one.second for one in changes])),
        difference=value,
        low=finite(low),
        high=finite(high),
        queries=tuple(changes),
        notes=tuple(notes),
    )
    return _explained(con, first, second, change, judged, orders, count), ""


def _judgments(first: Run, second: Run) -> tuple[pa.Table | None, int]:
    """Return the judgments of both runs, the first run's where both have one, and how many of these differ."""
    tables = [table for table in map(judgments, (first, second)) if table is not None]
    if len(tables) < 2:
        return (tables[0] if tables else None), 0
    keys = ["query", "document"]
    both = tables[0].join(tables[1], keys, join_type="inner", right_suffix="_2")
    conflicts = pc.sum(pc.not_equal(both["relevance"], both["relevance_2"])).as_py() or 0
    union = pa.concat_tables([tables[0], tables[1].join(tables[0], keys, join_type="left anti")])
    # With the stored judgments of one run, those of the other's rows are no longer all that is known.
    of_rows = all(OF_ROWS in (table.schema.metadata or {}) for table in tables)
    union = union.replace_schema_metadata({OF_ROWS: b"1"} if of_rows else None)
    return union.sort_by([(name, "ascending") for name in keys]), int(conflicts)


def _explained(
    con: duckdb.DuckDBPyConnection,
    first: Run,
    second: Run,
    change: RankingChange,
    judged: pa.Table,
    orders: Sequence[pa.Table],
    count: int,
) -> RankingChange:
    """``change`` with documents and words of the queries that lost and gained most."""
    wanted = [one.query for one in (*change.worse[:count], *change.better[:count])]
    if not wanted:
        return change
    grades: dict[str, dict[str, int]] = {query: {} for query in wanted}
    for row in judged.filter(pc.is_in(judged["query"], pa.array(wanted, pa.string()))).to_pylist():
        grades[row["query"]][row["document"]] = row["relevance"]
    ranks = [_ranks(order, wanted) for order in orders]
    pairs = _pairs(con, first, second, wanted)
    explained = {}
    for one in change.queries:
        if one.query in grades:
            own = grades[one.query]
            words, against = _words(pairs.get(one.query, []), own, change.unit)
            documents = _documents(ranks[0][one.query], ranks[1][one.query], own)
            explained[one.query] = replace(one, documents=documents, words=words, against=against)
    return replace(change, queries=tuple(explained.get(one.query, one) for one in change.queries))


def _ranks(order: pa.Table, queries: Sequence[str]) -> dict[str, dict[str, tuple[int, float]]]:
    """Rank by score, from 1, and score of every document of some queries."""
    order = order.filter(pc.is_in(order["query"], pa.array(queries, pa.string())))
    ranks: dict[str, dict[str, tuple[int, float]]] = {query: {} for query in queries}
    columns = (order[name].to_pylist() for name in ("query", "document", "score"))
    for query, document, score, place in zip(*columns, places(order).tolist(), strict=True):
        ranks[query].setdefault(document, (place + 1, score))
    return ranks


def _pairs(
    con: duckdb.DuckDBPyConnection, first: Run, second: Run, queries: Sequence[str]
) -> dict[str, list[tuple[str, SideBySide]]]:
    """Return what both runs stored of the queries' documents that they share, by query, with the documents' ids."""
    con.execute("CREATE OR REPLACE TABLE chosen (n BIGINT)")
    con.execute(
        "INSERT INTO chosen SELECT n FROM matched WHERE text_a = a_2 AND text_b = b_2 AND list_contains(?, text_a)",
        [list(queries)],
    )
    rows = con.execute("SELECT n, text_a, text_b FROM matched JOIN chosen USING (n)").fetchall()
    ids = {n: (query, document) for n, query, document in rows}
    pairs: dict[str, list[tuple[str, SideBySide]]] = {}
    for one in side_by_side(con, first, second) if ids else ():
        query, document = ids[one.n]
        pairs.setdefault(query, []).append((document, one))
    return pairs


def _documents(
    first: Mapping[str, tuple[int, float]], second: Mapping[str, tuple[int, float]], grades: Mapping[str, int]
) -> tuple[MovedDocument, ...]:
    """Return the documents whose rank changed most, by nDCG's discount; relevant ones first."""
    nowhere: tuple[None, None] = (None, None)
    moved = []
    for document in {**first, **second}:
        (rank_1, score_1), (rank_2, score_2) = first.get(document, nowhere), second.get(document, nowhere)
        change = abs(_discount(rank_1) - _discount(rank_2))
        if change:
            one = MovedDocument(document, grades.get(document), rank_1, rank_2, score_1, score_2)
            # Relevant documents decide the metric; others only take their place.
            moved.append(((one.relevance or 0) <= 0, -change, document, one))
    moved.sort(key=lambda one: one[:3])
    relevant = [one[-1] for one in moved if not one[0]][: DOCUMENTS_SHOWN - 1]
    others = [one[-1] for one in moved if one[0]][: DOCUMENTS_SHOWN - len(relevant)]
    return (*relevant, *others)


def _discount(rank: int | None) -> float:
    return 0.0 if rank is None else float(1 / np.log2(1 + rank))


def _words(
    pairs: Sequence[tuple[str, SideBySide]], grades: Mapping[str, int], unit: str
) -> tuple[tuple[Moved, ...], bool]:
    """Return the query's words whose value changed most, and whether it is against the other documents."""
    if not pairs:
        return (), True

    def query_values(sums: Any, groups: NDArray[np.int64], count: int) -> NDArray[np.float64]:
        values = summed(sums, groups, count)
        return values if unit == SCORE else shares_or_zero(values)

    pairs = sorted(pairs, key=lambda one: one[0])
    query = pairs[0][1]
    values = np.array(
        [
            [
                query_values(pair.first.row_sums, pair.a.first, pair.a.units),
                query_values(pair.second.row_sums, pair.a.second, pair.a.units),
            ]
            for _, pair in pairs
        ]
    )
    relevant = np.array([grades.get(document, 0) > 0 for document, _ in pairs])
    against = bool(relevant.any() and not relevant.all())
    first, second = values[relevant].mean(0) - values[~relevant].mean(0) if against else values.mean(0)
    words = [
        Moved("a", query.texts[0][start:end], int(start), int(end), float(old), float(new))
        for (start, end), old, new in zip(query.a.spans.tolist(), first, second, strict=True)
        if abs(new - old) > SMALLEST
    ]
    words.sort(key=lambda word: (-abs(word.second - word.first), word.start))
    return tuple(words[:WORDS_SHOWN]), against
