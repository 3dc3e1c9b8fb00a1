"""The curves of an evaluation as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.evaluation.curves import DELETION, INSERTION
from jobs.evaluation.orders import ATTRIBUTIONS, EMBEDDINGS, LEXICAL, RANDOM, SHUFFLED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jobs.evaluation.result import Faithfulness

# (colour, line style) apart by both, so that print and colour-blind readers can tell the orders apart.
STYLES = {
    ATTRIBUTIONS: ("#0b5fa5", "-"),
    EMBEDDINGS: ("#b35900", "--"),
    LEXICAL: ("#3d7a1f", "-."),
    SHUFFLED: ("#8a8a8a", ":"),
    RANDOM: ("#222222", (0, (6, 2))),
}
LEVELS = {
    "words of a": "words of a, b whole",
    "words of b": "words of b, a whole",
    "pairs": "pairs: words of both",
}


def faithfulness_figure(found: Faithfulness) -> Figure:
    """Two rows (deletion, insertion) of three panels; bands are 95 % intervals. No window is opened."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.6), layout="constrained")
    panels = figure.subplots(2, 3, sharex=True)
    shares = [100 * share for share in found.shares]
    for row, operation in enumerate((DELETION, INSERTION)):
        for column, (level, title) in enumerate(LEVELS.items()):
            axes = panels[row][column]
            for method, (colour, style) in STYLES.items():
                curve = found.curve(level, operation, method)
                width = 2 if method == ATTRIBUTIONS else 1.3
                axes.plot(shares, curve.values, color=colour, linestyle=style, linewidth=width, label=method)
                if method in (ATTRIBUTIONS, RANDOM):
                    axes.fill_between(shares, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.25)
            if row == 0:
                axes.set_title(title, fontsize=10)
            else:
                axes.set_xlabel("share of the words (%)")
            if column == 0:
                axes.set_ylabel(f"{operation}: {'lower' if operation == DELETION else 'higher'} is better\nscore")
            elif level == "pairs":
                axes.set_ylabel("score brought together")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    return figure
