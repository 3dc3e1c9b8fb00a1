"""An evaluation as a figure: agreement with deletion, and the curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attribution_core.display.colours import CURVES
from jobs.analysis.faithfulness.agreement import SPEARMAN, WORD_PAIRS, WORDS, WORDS_A, WORDS_B
from jobs.analysis.faithfulness.curves import BOTH, DELETION, INSERTION, measures_of
from jobs.analysis.faithfulness.orders import ATTRIBUTIONS, PAIRS, RANDOM
from jobs.analysis.faithfulness.result import Faithfulness

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Colour and line style of each order.
DASHES = ("-", "--", "-.", ":", (0, (6, 2)))
STYLES = tuple(zip(CURVES, DASHES, strict=True))
LEVELS = {
    "words of a": "words of a, b whole",
    "words of b": "words of b, a whole",
    BOTH: "words of both texts",
    PAIRS: "pairs: words of both",
}


def faithfulness_figure(result: Faithfulness) -> Figure:
    """Bars of the rank correlation with Shapley values, of words and of word pairs, and beside them two rows (deletion,
    insertion) of three panels of curves; marks and bands are 95 % intervals. No window is opened."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.8), layout="constrained")
    bars, curves = figure.subfigures(1, 2, width_ratios=(3, 10), squeeze=False)[0]
    asked = (WORDS_A, WORDS_B, WORD_PAIRS) if result.late else (WORDS, WORD_PAIRS)
    levels = [level for level in asked if result.agreed(level, SPEARMAN, ATTRIBUTIONS) is not None]
    for level, axes in zip(levels, bars.subplots(len(levels), 1, sharex=True, squeeze=False).ravel(), strict=True):
        _agreement(result, level, axes)
        last = axes
    last.set_xlabel("rank correlation with deletion")
    panels = curves.subplots(2, 3, sharex="col")
    names = list(dict.fromkeys(level for level, _ in measures_of(result.sums_to)))
    for row, operation in enumerate((DELETION, INSERTION)):
        for column, level in enumerate(names):
            axes = panels[row][column]
            for method, (colour, style) in zip(result.methods, STYLES, strict=True):
                curve = result.curve(level, operation, method)
                shares = [100 * share for share in curve.shares]
                width = 2 if method == ATTRIBUTIONS else 1.3
                axes.plot(shares, curve.values, color=colour, linestyle=style, linewidth=width, label=method)
                if method in (ATTRIBUTIONS, RANDOM):
                    axes.fill_between(shares, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.25)
            if row == 0:
                axes.set_title(LEVELS[level], fontsize=10)
            else:
                axes.set_xlabel("share of the words (%)")
            if column == 0:
                axes.set_ylabel(f"{operation}: {'lower' if operation == DELETION else 'higher'} is better\nscore")
            elif level == PAIRS:
                axes.set_ylabel("score contributed together")
    handles, labels = panels[0][0].get_legend_handles_labels()
    curves.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    return figure


def _agreement(result: Faithfulness, level: str, axes: Axes) -> None:
    """A bar for each rule."""
    for place, rule in enumerate(result.rules):
        agreed = result.agreed(level, SPEARMAN, rule)
        assert agreed is not None, "a level has all rules"
        value = agreed.value
        error = [[value.mean - value.low], [value.high - value.mean]]
        axes.barh(place, value.mean, color=STYLES[place][0], xerr=error, error_kw={"ecolor": "#222222", "capsize": 2})
    axes.set_yticks(range(len(result.rules)), result.rules)
    axes.invert_yaxis()
    axes.axvline(0, color="#222222", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{level}: agreement", fontsize=10)
