"""Query words without effect, as ``tokenpair stats`` stores them: the rule is in analysis/statistics/query_words.py.

It says "the model gained nothing from this word", and not that the documents lack it: a word that stands in them only
as a synonym sets it off as well.
"""

from __future__ import annotations

from itertools import groupby

import pyarrow.compute as pc

from jobs.analysis.failures.result import Case, Kind, Rate
from jobs.analysis.statistics.results import Statistics
from jobs.analysis.statistics.schema import read_summary
from jobs.errors import RunError
from jobs.run.reader import Run

NAME = "words_without_effect"
TABLE, TERMS = "words_without_effect", "query_terms"
# Of MiniLM, by tests/benchmarks/planted.py on 2026-11-29.
MEASURED = (
    Rate(collection="Cranfield", planted=59, controls=632, recognised=0.93, false_alarms=0.03),
    Rate(collection="SciFact", planted=59, controls=574, recognised=0.69, false_alarms=0.05),
)
LEFT_OUT = "Query words without effect are left out"
SHARE = "queries_without_effect"


def words_without_effect(run: Run) -> Kind | str:
    """Return the kind over all queries of the run's statistics, or a sentence that says why there is none."""
    try:
        summary = read_summary(run.store)
        retrieval = summary.statistics["retrieval"]
        figure = retrieval.figure(SHARE)
        statistics = Statistics(run, summary)
        rows, terms = statistics.table(TABLE).to_pylist(), statistics.table(TERMS)
    except RunError:
        return f"{LEFT_OUT}: tokenpair stats {run.url} computes them."
    except KeyError:
        return f"{LEFT_OUT}: the statistics of this run do not have them."
    # The queries with the lowest lift first, each with its words in order.
    lowest: dict[str, float] = {}
    for row in rows:
        lowest[row["query_id"]] = min(row["mean_lift"], lowest.get(row["query_id"], row["mean_lift"]))
    rows.sort(key=lambda row: (lowest[row["query_id"]], str(row["query_id"]), row["place"]))
    cases = [
        Case(
            query_id=str(query),
            words=tuple(row["word"] for row in some),
            text=f"the model gained nothing from {', '.join(repr(row['word']) for row in some)}",
        )
        for query, some in ((query, list(some)) for query, some in groupby(rows, lambda row: row["query_id"]))
    ]
    return Kind(
        name=NAME,
        title="a query word without effect",
        advice="The model gained nothing from these words: match them by a lexical index beside the model.",
        count=len(cases),
        of=pc.count_distinct(terms.filter(pc.field("content"))["query_id"]).as_py(),
        low=figure.low,
        high=figure.high,
        cases=tuple(cases),
        rates=MEASURED,
        of_what="queries",
    )
