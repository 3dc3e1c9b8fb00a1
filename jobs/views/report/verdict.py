"""The top of the page: how good the ranking is, and three to five sentences on what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from jobs.analysis.ranking.result import Measure, Ranking
from jobs.views.kit.numbers import open_ended
from jobs.views.statistics.advice import Advice

MOST = 5
# With fewer judged queries a metric says nothing of the others.
FEW_QUERIES = 5
RANKINGS = {"log": "the log's order", "model": "the model's order"}


@dataclass(frozen=True)
class Sentence:
    """``finding`` with its number and interval, ``act`` what to do, and where on the page to read on."""

    finding: str
    act: str = ""
    link: str = ""
    link_words: str = ""


def metrics(ranking: Ranking | None) -> list[dict[str, Any]]:
    """A tile for each metric with its values by ranking: those of both orders, or one where they are the same."""
    if ranking is None:
        return []
    same = one_order(ranking)
    tiles: dict[str, dict[str, Any]] = {}
    for one in ranking.measures:
        if same and one.ranking == "log":
            continue
        tile = tiles.setdefault(one.name, {"name": one.name, "meaning": one.meaning, "values": []})
        tile["values"].append(
            {"of": "" if same else RANKINGS[one.ranking], "value": _value(one), "interval": _interval(one)}
        )
    return list(tiles.values())


def one_order(ranking: Ranking) -> bool:
    """Whether there is but one ranking to speak of: the log has none, or every metric of every query is the same."""
    table = ranking.per_query
    both = [name.removeprefix("log ") for name in table.column_names if name.startswith("log ")]
    return all(table[f"log {name}"].equals(table[f"model {name}"]) for name in both if _has(table, f"model {name}"))


def _has(table: Any, name: str) -> bool:
    return name in table.column_names


def too_few(one: Measure) -> bool:
    """Whether the metric's interval makes it meaningless."""
    return one.low is None or one.queries < FEW_QUERIES or open_ended(one.low, one.high, 1.0)


def _value(one: Measure) -> str:
    return f"too few judged queries ({one.queries})" if too_few(one) else f"{one.value:.3f}"


def _interval(one: Measure) -> str:
    if too_few(one) or one.low is None or one.high is None:
        return ""
    return f"{one.low:.3f} to {one.high:.3f}"


def ranking_sentence(ranking: Ranking | None, missing: str) -> Sentence:
    """How good the ranking is, in a sentence; ``missing`` says why there is none."""
    if ranking is None:
        return Sentence(
            missing,
            "Judge a few documents for some queries and name them as qrels in the job; until then the failing queries "
            "are those with words without effect, with cut documents, or on which a second run disagrees.",
            "#failing",
            "these queries",
        )
    best = ranking.measure("nDCG", "model")
    assert best is not None, "nDCG is always computed for the model's ranking"
    if too_few(best):
        return Sentence(
            f"How good the ranking is, is open: too few judged queries ({best.queries}).",
            "Judge more queries.",
            "#failing",
            "the judged queries",
        )
    said = f"{best.name} is {best.value:.3f} ({_interval(best)}) over {best.queries:,} queries"
    log = ranking.measure("nDCG", "log")
    if log is not None and not one_order(ranking):
        said += f" in the model's order, {log.value:.3f} ({_interval(log)}) in the log's"
    table = ranking.per_query
    answerable = table.filter(pc.greater(table["relevant"], 0))
    none = pc.sum(pc.equal(answerable[f"model RR@{ranking.cutoff}"], 0)).as_py() or 0
    if none:
        said += (
            f"; {none:,} of the {len(answerable):,} with relevant documents have none among the first {ranking.cutoff}"
        )
    return Sentence(f"{said}.", "Start with the worst queries.", "#failing", "failing queries")


def sentences(first: Sentence | None, failures: Sequence[Sentence], advice: Iterable[Advice]) -> list[Sentence]:
    """The verdict: how good the ranking is, the kinds of failure, and the statistics that ask for something."""
    more = [
        Sentence(one.finding, one.act, f"#found-{one.statistic.replace('_', '-')}", "the numbers")
        for one in advice
        if one.act
    ]
    return [*([first] if first else []), *failures, *more][:MOST]
