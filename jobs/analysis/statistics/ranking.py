"""How good a log's ranking and the model's are, by the metrics of trec_eval, and for which queries they are worst."""

from __future__ import annotations

from jobs.analysis.ranking.metrics import ranking_metrics, why_none
from jobs.analysis.ranking.result import meaning_of
from jobs.analysis.statistics.batches import Batch
from jobs.analysis.statistics.measure import Measure, Result, Table, columns_table, figure
from jobs.analysis.statistics.schema import Figure


class Ranking(Measure):
    name = "ranking"
    title = "Ranking"
    meaning = (
        "How good the log's own ranking is, and the order of the same documents by the model's scores, over the "
        "queries with judgments, as trec_eval computes it."
    )

    def add(self, batch: Batch) -> None:
        """The metrics need whole rankings, which are read at the end."""

    def result(self) -> Result:
        ranking = ranking_metrics(self.scene.run, self.scene.resamples, self.scene.seed)
        if ranking is None:
            return Result(notes=[why_none(self.scene.run)])
        notes = list(ranking.notes)
        if self.scene.pairs.count < len(self.scene.pairs.rank):
            notes.append("These are of all pairs of the run, whatever pairs the other statistics are of.")
        figures: list[Figure] = []
        for one in ranking.measures:
            whose = "the log's ranking" if one.ranking == "log" else "the model's ranking"
            said = f"{one.name} of {whose}; {meaning_of(one.name)}"
            figures.append(figure(f"{one.ranking}_{one.name}", said, (one.value, _nan(one.low), _nan(one.high)), ""))
        rows = columns_table(
            metric=[one.name for one in ranking.measures],
            ranking=[one.ranking for one in ranking.measures],
            value=[one.value for one in ranking.measures],
            low=[_nan(one.low) for one in ranking.measures],
            high=[_nan(one.high) for one in ranking.measures],
            queries=[one.queries for one in ranking.measures],
        )
        described = {
            "metric": "; ".join({one.name: f"{one.name}: {meaning_of(one.name)}" for one in ranking.measures}.values()),
            "ranking": "log: the order of column rank; model: the order of the model's scores",
            "value": "mean over queries",
            "queries": "how many queries with judgments",
        }
        of_queries = {
            "query": "a query's id, for: tokenpair show RUN --query ID",
            "text": "the query as it was given",
            "relevant": "how many documents are judged relevant, those outside the run too",
            "judged": "how many documents are judged",
        }
        of_queries |= {f"{one.ranking} {one.name}": meaning_of(one.name) for one in ranking.measures}
        return Result(
            figures,
            [
                Table("ranking", "Metrics of the log's ranking and of the model's.", rows, described),
                Table("ranking_queries", "Metrics of every query, the worst first.", ranking.per_query, of_queries),
            ],
            notes,
        )


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value
