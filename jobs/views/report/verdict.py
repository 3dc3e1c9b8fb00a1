"""The top of the page: how good the ranking is, and three to five sentences on what to do about it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.analysis.ranking.result import Measure, Ranking, meaning_of
from jobs.views.statistics.advice import RANKING, Advice, too_few
from jobs.views.statistics.view import known_as

MOST, MOST_KINDS = 5, 2
RANKINGS = {"log": "the log's order", "model": "the model's order"}


@dataclass(frozen=True)
class Sentence:
    """``finding`` with its number and interval, ``act`` what to do, and where on the page to read on."""

    finding: str
    act: str = ""
    link: str = ""
    link_words: str = ""


def metrics(ranking: Ranking | None) -> list[dict[str, Any]]:
    """Return a tile for each metric with its values by ranking: those of both orders, or one where they are the
    same."""
    if ranking is None:
        return []
    same = one_order(ranking)
    tiles: dict[str, dict[str, Any]] = {}
    for one in ranking.measures:
        if same and one.ranking == "log":
            continue
        tile = tiles.setdefault(one.name, {"name": known_as(one.name), "meaning": meaning_of(one.name), "values": []})
        tile["values"].append(
            {"of": "" if same else RANKINGS[one.ranking], "value": _value(one), "interval": _interval(one)}
        )
    return list(tiles.values())


def one_order(ranking: Ranking) -> bool:
    """Return whether there is but one ranking to speak of: the log has none, or every metric of every query is the
    same."""
    table = ranking.per_query
    both = [name.removeprefix("log ") for name in table.column_names if name.startswith("log ")]
    return all(table[f"log {name}"].equals(table[f"model {name}"]) for name in both if _has(table, f"model {name}"))


def _has(table: Any, name: str) -> bool:
    return name in table.column_names


def _value(one: Measure) -> str:
    return f"too few judged queries ({one.queries})" if too_few(one.queries, one.low, one.high) else f"{one.value:.3f}"


def _interval(one: Measure) -> str:
    if too_few(one.queries, one.low, one.high) or one.low is None or one.high is None:
        return ""
    return f"{one.low:.3f} to {one.high:.3f}"


def sentences(
    failures: Sequence[Sentence],
    advice: Iterable[Advice],
    probes: Sequence[Sentence],
    *,
    failing: bool,
    without: Collection[str] = (),
) -> list[Sentence]:
    """Return the verdict: how good the ranking is, the kinds of failure, the statistics that ask for something, and
    edits.

    ``failing`` says whether the page has a table of failing queries; ``without`` leaves out what the kinds of failure
    say better, by what it is about.
    """
    advice = list(advice)
    asking = [one for one in advice if one.act]
    first = [
        Sentence(one.finding, one.act, "#failing" if failing else "", "failing queries")
        for one in advice
        if one.about == RANKING
    ]
    more = [
        Sentence(one.finding, one.act, f"#found-{one.statistic.replace('_', '-')}", "the numbers")
        for one in asking
        if one.about not in (RANKING, *without)
    ]
    return [*first, *failures[:MOST_KINDS], *more, *probes][:MOST]
