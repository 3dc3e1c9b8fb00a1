"""The three findings of the paper (EMNLP 2023, sections 4 and 5) in the statistics of runs of ours, as a table.

Each RUN is a run directory with statistics and makes a column, whatever its attributions sum to. The first and the
third block need nothing but what every run stores; pairs of nouns and verbs are exact where every word pair was kept
(store: full).
"""

from __future__ import annotations

import argparse

import numpy as np

from attribution_core.pairs.columns import SHARES
from jobs.analysis.resampling import Resampling
from jobs.analysis.statistics.results import Statistics
from jobs.analysis.statistics.schema import Figure
from jobs.run.reader import Run, open_run

CLEAR = 0.3  # a score above it is one that there is something to explain of


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    runs = [open_run(run) for run in parser.parse_args().runs]
    found = [run.statistics for run in runs]
    facts = [one.summary.run for one in found]
    print("| | " + " | ".join(f"{one.sums_to}, layer {one.layer}, {one.pairs:,} pairs" for one in facts) + " |")
    print("|---" * (len(found) + 1) + "|")
    for percent in (1, 5, 10, 20):
        said = f"share of the sum from the largest {percent} % of word pairs"
        line(found, said, "concentration", f"largest_{percent}")
        if percent == 5:
            clear = " | ".join(written(largest_where_clear(run, percent / 100)) for run in runs)
            print(f"| {said}, pairs with a score above {CLEAR:g} | {clear} |")
    line(found, "share of the sum of absolute values that is negative", "concentration", "negative_mass")
    line(found, "share that nouns and names give", "parts_of_speech", "nouns_share")
    line(found, "nouns and names against their frequency", "parts_of_speech", "nouns_lift")
    line(found, "verbs against their frequency", "parts_of_speech", "verbs_lift")
    line(found, "share of word pairs of two nouns, names or verbs", "parts_of_speech", "noun_verb_cells")
    print("| next after nouns and verbs | " + " | ".join(map(others, found)) + " |")
    line(found, "share of identical words", "matches", "exact")
    for percent in (1, 5, 10, 20, 50):
        correlation(found, f"ρ(score of the largest {percent} % of word pairs, score)", percent, "score")
    for percent in (1, 5, 10, 20, 50, 100):
        correlation(found, f"ρ(score of the largest {percent} % of word pairs, gold)", percent, None)
    if any(one.sums_to != "score" for one in facts):
        for percent in (1, 5, 20, 100):
            correlation(found, f"ρ(sum of the largest {percent} % alone, gold)", percent, None, alone=True)


def line(found: list[Statistics], said: str, statistic: str, name: str) -> None:
    """A row of one figure."""
    print(f"| {said} | " + " | ".join(written(one[statistic].figure(name)) for one in found) + " |")


def correlation(found: list[Statistics], said: str, percent: int, against: str | None, *, alone: bool = False) -> None:
    """A row of correlations of the sum of the largest word pairs, or of the score that they make, with a column;
    ``against`` None is each run's own gold column."""
    values = []
    for one in found:
        facts = one.summary.run
        # Where attributions sum to the score, the sum of some is the score that they make.
        kind = "cells" if alone or facts.sums_to == "score" else "score"
        values.append(written(one["sufficiency"].figure(f"{kind}_{percent}_{against or facts.gold}")))
    print(f"| {said} | " + " | ".join(values) + " |")


def largest_where_clear(run: Run, share: float) -> Figure:
    """The share of the sum that the largest word pairs give, over the pairs whose score is above ``CLEAR``."""
    table = run.dataset().to_table(columns=["score", "total", "positive", "negative", "largest"])
    score, total, positive, negative = (table[name].to_numpy() for name in ("score", "total", "positive", "negative"))
    largest = np.array([row[SHARES.index(share)] for row in table["largest"].to_pylist()])
    clear = score > CLEAR
    draw = Resampling.drawn(int(clear.sum()), 1000, 0)
    value, low, high = draw.share(largest[clear], total[clear], (positive - negative)[clear])
    return Figure(name="", value=float(value[0]), low=float(low[0]), high=float(high[0]))


def others(one: Statistics) -> str:
    """The parts of speech with the largest ratio that are no nouns or verbs, of those in 2 % of the word pairs."""
    rows = one.table("parts_of_speech").to_pylist()
    rows = [row for row in rows if row["side"] == "both" and row["frequency"] >= 0.02 and row["lift"] is not None]
    rows = [row for row in rows if row["pos"] not in ("NOUN", "PROPN", "VERB")]
    rows.sort(key=lambda row: -row["lift"])
    return ", ".join(f"{row['pos']} {row['lift']:.2f}" for row in rows[:3])


def written(figure: Figure) -> str:
    """A figure and its interval."""
    if figure.value is None or figure.low is None or figure.high is None:
        return "-"
    if figure.unit == "share":
        return f"{100 * figure.value:.1f} % ({100 * figure.low:.1f} to {100 * figure.high:.1f})"
    return f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})"


if __name__ == "__main__":
    main()
