"""What `tokenpair evaluate` found of a run, where it was asked: the verdict, and the curves behind it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from jobs.evaluation.intervals import few_draws
from jobs.report import plots
from jobs.report.trust import State, Trust

if TYPE_CHECKING:
    from jobs.stores import Store

FILE = "statistics/faithfulness.json"
FORMAT = 1
STATES: dict[str, State] = {"faithful": "good", "partly": "note", "undecided": "open"}
TITLES = {"faithful": "the attributions are faithful to the model", "partly": "partly shown"}
DRAWN = ("attributions", "identical words", "token embeddings", "random")
NAMES = {
    "attributions": "in the attributions' order",
    "identical words": "identical words first",
    "token embeddings": "token embeddings alone",
    "random": "in random order",
}
# What a curve goes through where it is not the score.
QUANTITIES = {"pairs": "the score that words bring together"}


def read_faithfulness(store: Store) -> dict[str, Any] | None:
    """The evaluation's result, or None where there is none that this version can read."""
    if not store.exists(FILE):
        return None
    try:
        found = json.loads(store.read(FILE))
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("format") == FORMAT else None


def judged(found: dict[str, Any] | None, called: str) -> Trust:
    """Whether the words that the attributions name first matter first to the model."""
    if found is None:
        words = f"Whether these are the words that matter to the model can be tested with: tokenpair evaluate {called}"
        return Trust("open", "Faithfulness was not tested.", words)
    verdict = found["verdict"]
    chance = next(
        one["advantage"] for one in found["overall"] if (one["method"], one["against"]) == ("attributions", "random")
    )
    words = (
        f"{verdict['text']} Tested on {found['pairs']:,} pairs by taking words away and putting them back; the "
        f"advantage over random order is {chance['mean']:+.3f} in units of the score "
        f"({chance['low']:+.3f} to {chance['high']:+.3f})."
    )
    words = f"{words} {few_draws(found['draws'])}".rstrip()
    grade = verdict["grade"]
    return Trust(STATES.get(grade, "warn"), f"Faithfulness: {TITLES.get(grade, grade)}.", words)


def section(found: dict[str, Any]) -> dict[str, Any]:
    """The evaluation as a part of the page beside the statistics."""
    return {
        "id": "found-faithfulness",
        "title": "Faithfulness",
        "meaning": "How fast the score falls when words are taken away in the attributions' order, and comes back when "
        "they are put back; the further from random order, the better the attributions name what matters.",
        "notes": [],
        "plots": curves(found),
        "figures": [],
        "tables": [],
    }


def curves(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Deletion and insertion: the mean after each step, of what the title says, for the orders that a reader
    compares."""
    charts = []
    said = {"deletion": "as words are taken away", "insertion": "as words are put back"}
    for level in dict.fromkeys(one["level"] for one in found["curves"]):
        for operation, what in said.items():
            own = {
                one["method"]: one for one in found["curves"] if (one["level"], one["operation"]) == (level, operation)
            }
            lines = []
            for method in DRAWN:
                if method in own:
                    xs = [100 * share for share in found["shares"]]
                    band = list(zip(xs, own[method]["low"], own[method]["high"], strict=True))
                    points = list(zip(xs, own[method]["values"], strict=True))
                    lines.append(plots.Line(NAMES[method], points, band))
            if lines:
                title = f"Faithfulness, {level}: {QUANTITIES.get(level, 'the score')} {what}"
                svg = plots.curves(title, lines, "% of them")
                charts.append({"title": title, "note": "mean over pairs, with intervals", "svg": svg})
    return charts
