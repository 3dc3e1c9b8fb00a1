"""How well the integrals were computed, and at what cost."""

from __future__ import annotations

import numpy as np

from attribution_core.model.inspection import LATE_SIMILARITIES
from attribution_core.results import unit_of_errors
from jobs.analysis.quantiles import quantiles, sql_quantiles
from jobs.analysis.statistics.batches import Batch
from jobs.analysis.statistics.measure import Measure, Result, Scene, Table, columns_table, figure, mean_interval, number
from jobs.analysis.statistics.pairs import batches
from jobs.analysis.statistics.schema import Figure

WORST = 20
RESIDUAL = "what a text's integral misses, as a part of its embedding's length"
# What the sum over a pair's word pairs is to be.
EXACT = {
    "score": "score",
    "difference": "(f(a, b) − f(a, r_b) − f(r_a, b) + f(r_a, r_b))",
    "centred": "(e(a) − o) · (e(b) − o)",
}


class Convergence(Measure):
    name = "convergence"
    title = "Convergence"
    meaning = "How exact the sums are, how many integration nodes that took, and what it cost."

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self.error = scene.array()

    def add(self, batch: Batch) -> None:
        self.error[batch.rank] = np.abs(batch.scalars["error"])

    def result(self) -> Result:
        con = self.scene.con
        con.execute(
            "CREATE OR REPLACE TABLE computed (role VARCHAR, text_id VARCHAR, way VARCHAR, nodes INTEGER, "
            "residual FLOAT, converged BOOLEAN, tokens INTEGER, groups INTEGER)"
        )
        columns = ["role", "text_id", "way", "nodes", "residual", "converged", "tokens", "groups"]
        for batch in batches(self.scene.run, columns, folder="texts"):
            con.register("batch", batch)
            con.execute(
                "INSERT INTO computed SELECT role, text_id, way, nodes, residual, converged, len(tokens), len(groups) "
                "FROM batch"
            )
            con.unregister("batch")
        source = "FROM (SELECT DISTINCT ON (role, text_id) * FROM computed ORDER BY role, text_id, nodes)"
        cost = "sum(nodes * tokens::BIGINT)"
        measures = (
            "count(*) AS texts, count(*) FILTER (converged) AS converged, "
            f"{sql_quantiles('residual', (0.5,))}[1] AS residual, max(residual) AS residual_max, "
            f"avg(tokens::DOUBLE) AS tokens, avg(groups::DOUBLE) AS groups, {cost} / sum({cost}) OVER () AS cost"
        )
        by_nodes = con.sql(f"SELECT nodes, {measures} {source} GROUP BY nodes ORDER BY nodes").to_arrow_table()
        by_way = con.sql(
            f"SELECT role, way, {measures}, avg(nodes) AS nodes {source} GROUP BY role, way ORDER BY role, way"
        ).to_arrow_table()
        every = con.sql(f"SELECT {measures}, {sql_quantiles('nodes', (0.5,))}[1] AS nodes {source}").fetchall()[0]
        texts, converged, residual, residual_max, *_, nodes = every
        at = quantiles(self.error, (0.5, 0.99, 1.0))
        exact, similarity = EXACT[self.scene.sums_to], str(self.scene.run.setting("similarity") or "cosine")
        unit = (
            "in units of the score"
            if similarity == "cosine"
            else f"as a part of {unit_of_errors(late=similarity in LATE_SIMILARITIES)}"
        )
        unit += ", with o the mean embedding of a sample" if self.scene.sums_to == "centred" else ""
        error = f"|sum of word pairs − {exact}|, {unit}"
        figures = [
            _plain("unconverged", 1 - converged / texts, "share of the texts that missed the tolerance", "share"),
            _plain("nodes", nodes, "integration nodes of a text, median"),
            _plain("residual", residual, "residual of a text, median"),
            _plain("residual_max", residual_max, "largest residual of a text"),
            figure("error_mean", "error of a pair's sum, mean", mean_interval(self.scene, self.error), ""),
            _plain("error_median", at[0], "error of a pair's sum, median"),
            _plain("error_99", at[1], "error of a sum that 99 % of pairs stay below"),
            _plain("error_max", at[2], "largest error of a pair's sum"),
        ]
        worst = np.argsort(-self.error, kind="stable")[:WORST]
        examples = columns_table(pair_id=self.scene.pairs.ids(worst.tolist()), error=self.error[worst])
        described = {
            "texts": "distinct texts",
            "converged": "how many of them met the tolerance",
            "residual": f"median residual: {RESIDUAL}",
            "residual_max": "largest residual",
            "tokens": "mean number of tokens",
            "groups": "mean number of groups",
            "cost": "share of nodes × tokens: what a direction through the layers above the cut is paid for",
            "nodes": "integration nodes (of a way: mean)",
            "role": "text, query or document",
            "way": "how contributions were computed: forward, reverse or partner",
            "error": error,
        }
        tables = [
            Table("convergence_nodes", "Texts by their number of integration nodes.", by_nodes, described),
            Table("convergence_ways", "Texts by the way their contributions were computed.", by_way, described),
            Table("convergence_examples", "The pairs whose sum is farthest off.", examples, described),
        ]
        return Result(figures, tables, [f"Residual: {RESIDUAL}. Error of a pair's sum: {error}."])


def _plain(name: str, value: object, meaning: str, unit: str = "") -> Figure:
    return Figure(name=name, value=number(value), meaning=meaning, unit=unit)
