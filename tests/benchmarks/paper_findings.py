"""The three findings of the paper (EMNLP 2023, sections 4 and 5) in the statistics of runs of ours, as a table.

Each RUN is a run directory with statistics; it makes a column. Whole matrices (store: full) are needed.
"""

from __future__ import annotations

import argparse

from jobs.dataset import open_run
from jobs.statistics.results import Statistics
from jobs.statistics.schema import Figure


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    found = [open_run(run).statistics for run in parser.parse_args().runs]
    heads = [f"layer {one.summary.run.layer}, {one.summary.run.pairs:,} pairs" for one in found]
    print(f"| | {' | '.join(heads)} |")
    print("|---" * (len(found) + 1) + "|")
    for percent in (1, 5, 10, 20):
        line(found, f"share of the total from the largest {percent} % of cells", "concentration", f"largest_{percent}")
    line(found, "share that nouns bring", "parts_of_speech", "nouns_share")
    line(found, "nouns against their frequency", "parts_of_speech", "nouns_lift")
    line(found, "verbs against their frequency", "parts_of_speech", "verbs_lift")
    line(found, "cells of two nouns or verbs", "parts_of_speech", "noun_verb_cells")
    print("| next after nouns and verbs | " + " | ".join(map(others, found)) + " |")
    line(found, "identical words", "matches", "exact")
    for percent in (1, 5, 20, 50):
        said = f"ρ(largest {percent} % with reference terms, score)"
        line(found, said, "sufficiency", f"score_{percent}_score")
    for percent in (5, 20, 50, 100):
        gold(found, f"ρ(largest {percent} % with reference terms, gold)", f"score_{percent}")
    for percent in (1, 5, 20, 100):
        gold(found, f"ρ(largest {percent} % alone, gold)", f"cells_{percent}")


def line(found: list[Statistics], said: str, statistic: str, name: str) -> None:
    """A row of one figure."""
    print(f"| {said} | " + " | ".join(written(one[statistic].figure(name)) for one in found) + " |")


def gold(found: list[Statistics], said: str, name: str) -> None:
    """A row of a correlation with each run's own gold column."""
    values = [one["sufficiency"].figure(f"{name}_{one.summary.run.gold}") for one in found]
    print(f"| {said} | " + " | ".join(map(written, values)) + " |")


def others(one: Statistics) -> str:
    """The parts of speech with the largest ratio that are neither nouns nor verbs, of those with 2 % of the cells."""
    rows = one.table("parts_of_speech").to_pylist()
    rows = [row for row in rows if row["side"] == "both" and row["frequency"] >= 0.02]
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
