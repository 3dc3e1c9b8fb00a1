"""Computes the metrics of a run's rankings by ir_measures, whose numbers are those of pytrec_eval and trec_eval.

trec_eval orders by score and equal scores by id, the largest first. So that the log's own order decides, not that rule,
the evaluator is given -1, -2, … in place of scores: those of the log's documents by rank, those of the model's by
score, of which equals are ordered by id as in trec_eval.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import ir_measures
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from jobs.analysis.ranking.judgments import OF_ROWS, is_number, judgments
from jobs.analysis.ranking.result import By, Measure, Ranking
from jobs.analysis.resampling import mean_intervals
from jobs.progress import counted
from jobs.run.manifest import NOT_IN_LOG, Plan, read_judgments, read_pairs
from jobs.run.reader import Run
from jobs.storage.store import Store

CUTOFF = 10
RESAMPLES = 1000
# Rows that are evaluated at once: ids and scores of more would fill the memory.
ROWS_AT_ONCE = 500_000
KINDS = (ir_measures.nDCG, ir_measures.R, ir_measures.RR, ir_measures.AP, ir_measures.Judged)
DEEP = (ir_measures.R, ir_measures.AP)
Values = dict[str, dict[str, float]]


def ranking_metrics(run: Run, resamples: int = RESAMPLES, seed: int = 0) -> Ranking | None:
    """Return the metrics of the log's own ranking (column rank) and of the model's (by score) over the queries with
    judgments.

    The cutoff is 10, or the run's depth where that is smaller; R and AP are also cut at a greater depth. The model's
    ranking orders the documents that the run holds. None where there is nothing to compute; :func:`why_none` says why.
    """
    judged = judgments(run) if run.roles[0] == "query" else None
    if judged is None:
        return None
    rows, notes = read_rows(run)
    ranked = "rank" in rows.column_names
    orders: dict[By, pa.Table] = {"log": _by_rank(rows)} if ranked else {}
    orders["model"] = by_score(rows)
    texts = run.written_texts(set(judged["query"].to_pylist()), "query")
    if not ranked:
        notes.append("The run has no ranks, so these are of the model's order alone.")
    else:
        notes += _gaps(rows)
    return metrics_of(orders, judged, depth_of(run), texts, resamples, seed, notes)


def read_rows(run: Run) -> tuple[pa.Table, list[str]]:
    """Return the rows of whole rankings: query, document, score and, where there is one in numbers, rank; and notes.

    Of an unfinished run, queries of which a document is not computed yet are left out.
    """
    names = {"text_a_id": "query", "text_b_id": "document", "score": "score"}
    if is_number(run, "rank"):
        names["rank"] = "rank"
    rows = run.to_table(list(names)).rename_columns(list(names.values()))
    if not run.unfinished:
        return rows, []
    rows, note = _complete(run, rows)
    return rows, [note]


def depth_of(run: Run) -> int | None:
    """Return how many documents a query the run's job asked for at most; None for all."""
    depth = run.setting("depth")
    return depth if isinstance(depth, int) else None


def by_score(rows: pa.Table) -> pa.Table:
    """Return the rows by query and falling score, of equals by falling id as in trec_eval."""
    return rows.sort_by([("query", "ascending"), ("score", "descending"), ("document", "descending")])


def why_none(run: Run) -> str:
    """Return why :func:`ranking_metrics` has nothing to compute for this run."""
    if run.roles[0] != "query":
        return "The run is of pairs of texts and not a retrieval log: it has no rankings."
    if judgments(run) is None:
        return (
            "The run has no judgments (qrels, or a column relevance with whole numbers), "
            "so how good its rankings are is not known."
        )
    return "No query with judgments has all its documents yet."


def planned_metrics(store: Store, plan: Plan, depth: int | None, seed: int = 0) -> Ranking | None:
    """Return the metrics of a planned log's own ranking, for which no model is needed; None for a job without
    judgments.

    ``depth`` is the job's. Raises RunError where the plan's files cannot be read.
    """
    judged = read_judgments(store, plan)
    if judged is None:
        return None
    rows = read_pairs(store, plan, ["text_a_id", "text_b_id", "rank"]).rename_columns(["query", "document", "rank"])
    return metrics_of({"log": _by_rank(rows)}, judged, depth, {}, RESAMPLES, seed, _gaps(rows))


def _by_rank(rows: pa.Table) -> pa.Table:
    return rows.sort_by([("query", "ascending"), ("rank", "ascending"), ("document", "descending")])


def _complete(run: Run, rows: pa.Table) -> tuple[pa.Table, str]:
    """Return the rows of the queries of an unfinished run that have all their documents, and a note about the
    others."""
    there = rows.group_by("query").aggregate([("document", "count")])
    if run.plan is None:
        return rows.slice(0, 0), run.unfinished
    planned = read_pairs(run.store, run.plan, ["text_a_id"]).rename_columns(["query"])
    wanted = planned.group_by("query").aggregate([([], "count_all")])
    both = wanted.join(there, "query")
    done = both.filter(pc.equal(both["count_all"], pc.fill_null(both["document_count"], 0)))["query"]
    missing = len(wanted) - len(done)
    note = f"{counted(missing, 'query')} of {len(wanted):,} left out: not all of the documents are computed yet."
    return rows.filter(pc.is_in(rows["query"], done.combine_chunks())), note


def _gaps(rows: pa.Table) -> list[str]:
    """Return a note where the log's ranks have gaps: rows that were rejected."""
    sizes = rows.group_by("query").aggregate([("rank", "max"), ("rank", "count")])
    missing = pc.sum(pc.max_element_wise(pc.subtract(sizes["rank_max"], sizes["rank_count"]), 0)).as_py()
    if not missing:
        return []
    return [f"{counted(int(missing), 'row')} of the log could not be used: the documents below move up a rank."]


def metrics_of(
    orders: Mapping[By, pa.Table],
    judged: pa.Table,
    depth: int | None,
    texts: Mapping[str, str],
    resamples: int,
    seed: int,
    notes: list[str],
) -> Ranking | None:
    """Return the metrics of rankings, whose rows (query, document) are sorted by query and place; the last one's decide
    which query is worst.

    ``judged`` are judgments as :func:`judgments` returns them, ``depth`` how many documents a query were asked for at
    most, ``texts`` the queries' by id. None where no query has judgments.
    """
    rows = next(iter(orders.values()))
    in_rows = pc.unique(rows["query"].combine_chunks())
    known = judged.filter(pc.is_in(judged["query"], in_rows))
    if not len(known):
        return None
    of_rows = OF_ROWS in (judged.schema.metadata or {})
    most = int(np.bincount(_query_numbers(rows)).max())
    cutoff = CUTOFF if depth is None else min(CUTOFF, depth)
    depth = most if depth is None else min(depth, most)
    asked = [kind @ cutoff for kind in KINDS] + ([kind @ depth for kind in DEEP] if depth > cutoff else [])
    if of_rows:
        asked = [one for one in asked if one.NAME != "R"]
    values: dict[By, Values] = {by: _evaluated(order, known, asked, max(cutoff, depth)) for by, order in orders.items()}
    counts = known.append_column("good", pc.cast(pc.greater(known["relevance"], 0), pa.int64())).group_by("query")
    per_query = (
        counts.aggregate([("good", "sum"), ("document", "count")])
        .rename_columns(["query", "relevant", "judged"])
        .sort_by("query")
    )
    ids = per_query["query"].to_pylist()
    per_query = per_query.add_column(1, "text", pa.array([texts.get(one, "") for one in ids], pa.string()))
    names = [(str(one), by) for one in asked for by in values]
    columns = np.array([[values[by][name][query] for name, by in names] for query in ids])
    for (name, by), column in zip(names, columns.T, strict=True):
        per_query = per_query.append_column(f"{by} {name}", pa.array(column))
    measures = [
        Measure(name, by, float(value), finite(low), finite(high), len(ids))
        for (name, by), value, low, high in zip(names, *mean_intervals(columns, resamples, seed), strict=True)
    ]
    return Ranking(
        measures=tuple(measures),
        per_query=_worst_first(per_query, f"{list(orders)[-1]} nDCG@{cutoff}"),
        cutoff=cutoff,
        depth=depth,
        queries=len(ids),
        notes=(*notes, *_notes(judged, per_query, len(in_rows), of_rows)),
    )


def _evaluated(order: pa.Table, judged: pa.Table, asked: list[ir_measures.Measure], deepest: int) -> Values:
    """Return values by metric and query. RR@k is trec_eval's recip_rank of the first k documents."""
    values: Values = {str(one): {} for one in asked}
    for rows, grades in _portions(order, judged, deepest):
        evaluator = ir_measures.evaluator(asked, grades)
        for metric in evaluator.iter_calc(rows):
            values[str(metric.measure)][metric.query_id] = float(metric.value)
    return values


def _portions(
    order: pa.Table, judged: pa.Table, deepest: int
) -> Iterator[tuple[dict[str, dict[str, float]], dict[str, dict[str, int]]]]:
    """Yield the first documents of the judged queries with falling numbers in place of scores, and the queries'
    grades."""
    place = places(order)
    wanted = pc.and_(pc.is_in(order["query"], pc.unique(judged["query"].combine_chunks())), pa.array(place < deepest))
    order = order.append_column("place", pa.array(place)).filter(wanted)
    grades: dict[str, dict[str, int]] = {}
    for query, document, grade in zip(*(judged[name].to_pylist() for name in judged.column_names), strict=True):
        grades.setdefault(query, {}).setdefault(document, grade)
    ends = np.append(np.flatnonzero(np.diff(_query_numbers(order))) + 1, len(order))
    start = 0
    while start < len(order):
        end = int(ends[min(int(np.searchsorted(ends, start + ROWS_AT_ONCE)), len(ends) - 1)])
        rows: dict[str, dict[str, float]] = {}
        portion = order.slice(start, end - start)
        columns = (portion[name].to_pylist() for name in ("query", "document", "place"))
        for query, document, at in zip(*columns, strict=True):
            rows.setdefault(query, {}).setdefault(document, -1.0 - at)
        yield rows, {query: grades[query] for query in rows}
        start = end


def _query_numbers(order: pa.Table) -> NDArray[np.int64]:
    """Return the query of each row as a number, in the order of the rows, which are sorted by query."""
    codes = order["query"].combine_chunks().dictionary_encode().indices
    return np.asarray(codes.to_numpy(zero_copy_only=False), np.int64)


def places(order: pa.Table) -> NDArray[np.int64]:
    """Return the place of each row within its query, from 0."""
    number = _query_numbers(order)
    starts = np.append(0, np.flatnonzero(np.diff(number)) + 1)
    sizes = np.diff(np.append(starts, len(number)))
    return np.arange(len(number)) - np.repeat(starts, sizes)


def _worst_first(per_query: pa.Table, by: str) -> pa.Table:
    """Queries with a relevant document by the metric ``by``, of equals those with more relevant documents first."""
    sorted_by = [("none", "ascending"), (by, "ascending"), ("relevant", "descending"), ("query", "ascending")]
    none = pc.equal(per_query["relevant"], 0)
    return per_query.append_column("none", none).sort_by(sorted_by).drop_columns(["none"]).combine_chunks()


def _notes(judged: pa.Table, per_query: pa.Table, in_rows: int, of_rows: bool) -> list[str]:
    notes = []
    if len(per_query) < in_rows:
        left = in_rows - len(per_query)
        notes.append(f"{counted(left, 'query')} of {in_rows:,} without judgments left out.")
    absent = int((judged.schema.metadata or {}).get(NOT_IN_LOG, 0))
    if absent:
        said = "1 judged query is" if absent == 1 else f"{absent:,} judged queries are"
        notes.append(f"{said} not in the log and left out, as trec_eval does without -c.")
    none = pc.sum(pc.equal(per_query["relevant"], 0)).as_py()
    if none:
        said = "1 judged query has" if none == 1 else f"{none:,} judged queries have"
        notes.append(f"{said} no relevant document: counted as 0, as in trec_eval.")
    if of_rows:
        notes.append(
            "The judgments are those of the run's rows, for no qrels are stored with it: relevant documents outside "
            "the run are not known, so nDCG and AP may be too high, and R cannot be computed."
        )
    return notes


def finite(value: float) -> float | None:
    """Return a float, None in place of NaN."""
    return float(value) if np.isfinite(value) else None
