"""The result of a comparison, and its files: ``comparison.json`` and ``pairs.parquet``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from attribution_core.hooks import hook
from jobs.analysis.comparison.agreement import MEASURES
from jobs.analysis.comparison.examples import Example
from jobs.analysis.comparison.groups import Column, Group
from jobs.analysis.comparison.matching import Matched
from jobs.analysis.comparison.rankings import RankingChange
from jobs.analysis.comparison.scores import Scores, Spread
from jobs.analysis.quantiles import SPREAD
from jobs.storage.store import Store

FORMAT = 2
BATCH_ROWS = 1 << 16


@dataclass(frozen=True)
class Comparison:
    """Two runs on the pairs that they share.

    ``first`` and ``second`` say what the runs are. Scores are those of all matched pairs; ``agreement`` (see
    ``agreement.agreement``) and the distances of ``groups`` are those of ``compared`` pairs, a random sample.
    ``rankings`` has the queries that got better or worse; ``no_rankings`` says why it is None.
    ``words_of_one_run`` of their words were read by one run alone and take no part in it.
    """

    first: dict[str, Any]
    second: dict[str, Any]
    matched: Matched
    scores: Scores
    compared: int
    seed: int
    words_of_one_run: int
    words_of_both_runs: int
    agreement: dict[str, Spread | None]
    columns: tuple[Column, ...]
    groups: tuple[Group, ...]
    examples: tuple[Example, ...]
    rankings: RankingChange | None = None
    no_rankings: str = ""

    @property
    def one_sum(self) -> bool:
        """Whether word pairs sum to the same thing in both runs: the score, a difference, or a centred score."""
        return bool(self.first["sums_to"] == self.second["sums_to"])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in ``comparison.json``; the fields of the dataclasses of this folder."""
        return {"format": FORMAT, "quantiles": list(SPREAD), "one_sum": self.one_sum, **asdict(self)}

    def write(self, con: duckdb.DuckDBPyConnection, room: Path, output: Store) -> None:
        """Write both files in place of older ones.

        ``pairs.parquet`` has a row a matched pair: ``pair_id`` and ``pair_id_2`` (of either run), ``text_a_id``,
        ``text_b_id`` (of the first), ``score_1``, ``score_2``, ``difference``, ``total_1``, ``total_2``, and the
        measures of agreement, null for pairs whose attributions were not compared.
        """
        aside = room / "pairs.parquet"
        reader = con.sql(
            "SELECT pair_1 AS pair_id, pair_2 AS pair_id_2, text_a AS text_a_id, text_b AS text_b_id, "
            f"score_1, score_2, score_2 - score_1 AS difference, total_1, total_2, {', '.join(MEASURES)} "
            "FROM matched LEFT JOIN details USING (n) ORDER BY n"
        ).to_arrow_reader(BATCH_ROWS)
        with pq.ParquetWriter(aside, reader.schema, compression="zstd") as writer:
            for batch in reader:
                writer.write_batch(batch)
        for name in ("comparison.json", "pairs.parquet"):
            output.remove(name)
        output.commit_file("pairs.parquet", aside)
        output.replace("comparison.json", json.dumps(self.to_dict(), ensure_ascii=False, indent=1).encode())

    def __str__(self) -> str:
        return str(hook("comparison_text")(self))
