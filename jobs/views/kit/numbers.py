"""Numbers in sentences: shares in per cent, intervals in brackets, and whether an interval says anything."""

from __future__ import annotations

import math

from jobs.analysis.statistics.schema import Figure

PERCENT = "\u00a0%"  # not to be torn apart at the end of a line
# An interval wider than this part of what a chart or sentence spans leaves the number open.
WIDE = 0.6


def worded(value: float | None, unit: str = "") -> str:
    """Format a number as pages write it: shares in per cent."""
    if value is None or not math.isfinite(value):
        return "–"
    if unit == "share":
        return f"{100 * value:.1f}{PERCENT}".replace(f"-0.0{PERCENT}", f"0.0{PERCENT}")
    if unit == "count" or (float(value).is_integer() and abs(value) < 1e9):
        return f"{value:,.0f}"
    if unit == "ratio":
        return f"{value:.2f} ×"
    return f"{value:.1e}" if 0 < abs(value) < 1e-4 else f"{value:.3g}"


def within(one: Figure) -> str:
    """Return the figure's interval in brackets; "" where it has none."""
    if one.low is None or one.high is None:
        return ""
    # The unit is said once, behind the second number.
    low, high = (worded(end, one.unit).removesuffix(" ×") for end in (one.low, one.high))
    return f" ({low.removesuffix(PERCENT)} to {high})"


def open_ended(low: float | None, high: float | None, span: float) -> bool:
    """Return whether an interval is so wide that its number says nothing on a scale of length ``span``."""
    return low is not None and high is not None and span > 0 and high - low > WIDE * span
