"""The result of `tokenpair evaluate` for a run, where it was run: the verdict, and the curves behind it."""

from __future__ import annotations

import json
from typing import Any

from jobs.analysis.resampling import few_draws
from jobs.storage.store import Store
from jobs.views.report import plots
from jobs.views.report.trust import State, Trust

FILE = "statistics/faithfulness.json"
FORMAT = 2
STATES: dict[str, State] = {"faithful": "good", "partly": "note", "undecided": "open"}
TITLES = {"faithful": "the attributions are faithful to the model", "partly": "partly shown"}
DRAWN = ("attributions", "identical words", "token embeddings", "matched similarities", "random")
NAMES = {
    "attributions": "in the attributions' order",
    "identical words": "identical words first",
    "token embeddings": "token embeddings alone",
    "matched similarities": "by the similarities of matched tokens",
    "random": "in random order",
}
# What a curve goes through where it is not the score of what is left.
QUANTITIES = {"pairs": "what words contribute to the score together"}
LABELS = {"shuffled": "the same values shuffled"}
SENTENCES = {
    "lift": "lift (highlighted)",
    "sums": "sums",
    "sentence alone": "sentence by itself",
    "pooled tokens": "pooled token embeddings",
    "chance": "chance",
}


def read_faithfulness(store: Store) -> dict[str, Any] | None:
    """The evaluation's result, or None where there is none that this version can read."""
    if not store.exists(FILE):
        return None
    try:
        result = json.loads(store.read(FILE))
    except ValueError:
        return None
    return result if isinstance(result, dict) and result.get("format") == FORMAT else None


def judged(result: dict[str, Any] | None, called: str) -> Trust:
    """Whether the attributions agree with what the model does when words are deleted."""
    if result is None:
        words = f"Whether these are the words that matter to the model can be tested with: tokenpair evaluate {called}"
        return Trust("open", "Faithfulness was not tested.", words)
    verdict = result["verdict"]
    chance = next(
        one["advantage"] for one in result["overall"] if (one["method"], one["against"]) == ("attributions", "random")
    )
    words = (
        f"{verdict['text']} Tested on {result['pairs']:,} pairs by deleting words and putting them back; in the curves "
        f"the advantage over random order is {chance['mean']:+.3f} in units of the score "
        f"({chance['low']:+.3f} to {chance['high']:+.3f})."
    )
    words = f"{words} {few_draws(result['draws'])}".rstrip()
    grade = verdict["grade"]
    return Trust(STATES.get(grade, "warn"), f"Faithfulness: {TITLES.get(grade, grade)}.", words)


def sections(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The evaluation as parts of the page beside the statistics."""
    return [part for part in (sentences(result), section(result)) if part is not None]


def section(result: dict[str, Any]) -> dict[str, Any]:
    """Agreement with deletion and the curves, as a part of the page."""
    notes = [result["verdict"]["text"]]
    if result.get("level") == "words":
        notes.append("Word pairs are not judged: the run has no word pairs (level: words).")
    elif result["sums_to"] != "score":
        notes.append(f"What was judged are word pairs of sums_to: {result['sums_to']}.")
    return {
        "id": "found-faithfulness",
        "title": "Faithfulness",
        "meaning": "How well the attributions agree, within a pair, with what the model itself loses when words are "
        f"deleted (Shapley values, {result['shapley_orders']} orders), beside simple rules. Then how fast "
        "the score falls when words are deleted in each order, and comes back when they are put back.",
        "notes": notes,
        "plots": agreement(result) + curves(result),
        "numbers": [],
    }


def sentences(result: dict[str, Any]) -> dict[str, Any] | None:
    """What deleting single sentences showed, as a part of the page; None where none were deleted."""
    found = result.get("sentences")
    if found is None:
        return None
    methods = found["methods"]
    own = methods[0]
    rows = [
        plots.Bar(
            SENTENCES.get(one["method"], one["method"]), *(round(one["share"][at], 3) for at in ("mean", "low", "high"))
        )
        for one in methods
    ]
    ahead = [
        f"{SENTENCES.get(one['method'], one['method'])} {one['ahead']['mean']:+.2f} "
        f"({one['ahead']['low']:+.2f} to {one['ahead']['high']:+.2f})"
        for one in methods[1:]
    ]
    title = "Deleting the chosen sentence"
    note = "drop of the score as a share of the largest possible, with intervals"
    return {
        "id": "found-sentences",
        "title": "The sentence that matters most",
        "meaning": f"Each sentence of a document was deleted in turn, and the rest encoded again. The sentence that "
        f"costs most costs {found['best']:.3f} of the score on average; the one that the attributions choose costs "
        f"{own['share']['mean']:.0%} of that ({own['share']['low']:.0%} to {own['share']['high']:.0%}).",
        "notes": [
            f"{found['pairs']:,} documents of three sentences or more, {found['sentences'] / found['pairs']:.1f} on "
            f"average, with {found['draws']:,} different first texts. The attributions' lead, with 95 % "
            f"intervals, over: {'; '.join(ahead)}."
        ],
        "plots": [{"title": title, "note": note, "svg": plots.bars(title, rows)}],
        "numbers": [],
    }


def agreement(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Bars of the rank correlation with Shapley values, of words and of word pairs where these were stored."""
    charts = []
    # The two texts play different parts in late interaction.
    late = any(one["method"] == "matched similarities" for one in result["agreement"])
    apart = ("words",) if late else ("words of a", "words of b")
    of_ranks = [one for one in result["agreement"] if one["correlation"] == "spearman" and one["level"] not in apart]
    for level in dict.fromkeys(one["level"] for one in of_ranks):
        own = [one for one in of_ranks if one["level"] == level]
        rows = [
            plots.Bar(
                LABELS.get(one["method"], one["method"]),
                *(round(one["value"][name], 3) for name in ("mean", "low", "high")),
            )
            for one in own
        ]
        title = f"Agreement with deletion: {level}"
        note = f"rank correlation within a pair, mean over {own[0]['pairs']:,} pairs"
        charts.append({"title": title, "note": note, "svg": plots.bars(title, rows)})
    return charts


def curves(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Deletion and insertion: the mean after each step, of what the title says, for the orders that a reader
    compares."""
    charts = []
    said = {"deletion": "as words are deleted", "insertion": "as words are put back"}
    for level in dict.fromkeys(one["level"] for one in result["curves"]):
        for operation, what in said.items():
            own = {
                one["method"]: one for one in result["curves"] if (one["level"], one["operation"]) == (level, operation)
            }
            lines = []
            for method in DRAWN:
                if method in own:
                    xs = [100 * share for share in own[method]["shares"]]
                    band = list(zip(xs, own[method]["low"], own[method]["high"], strict=True))
                    points = list(zip(xs, own[method]["values"], strict=True))
                    lines.append(plots.Line(NAMES[method], points, band))
            if lines:
                title = f"Faithfulness, {level}: {QUANTITIES.get(level, 'the score')} {what}"
                svg = plots.curves(title, lines, "% of the words")
                charts.append({"title": title, "note": "mean over pairs, with intervals", "svg": svg})
    return charts
