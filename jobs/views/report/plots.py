"""Small plots as SVG for a page: drawn once, coloured by the page's own variables, so in light, dark and print alike.

Every plot is drawn for a width of 320 pixels, which a telephone shows at its own size, and carries a
description for those who do not see it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH = 320
LINE = 18
# Pixels of one character of a label, and the most characters that the label of a bar has.
LETTER, MOST_LETTERS = 6.2, 26


@dataclass(frozen=True)
class Bar:
    """A labelled value; ``low`` and ``high`` end its interval, ``mark`` is a value to compare it with."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    mark: float | None = None


@dataclass(frozen=True)
class Line:
    """A curve through ``points`` (x, y); ``band`` are (x, low, high)."""

    label: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()


def bars(title: str, rows: Sequence[Bar], *, percent: bool = False, mark: str = "") -> Markup:
    """Horizontal bars from zero with their numbers; ``mark`` explains the tick on a bar."""
    rows = [row for row in rows if math.isfinite(row.value)]
    edges = [0.0] + [v for row in rows for v in (row.value, row.low, row.high, row.mark) if v is not None]
    low, high = min(edges), max(edges)
    column = 8 + LETTER * min(MOST_LETTERS, max((len(row.label) for row in rows), default=0))
    at = _Scale(low, high, column + (8 if low < 0 else 0), WIDTH - 52)
    pieces = []
    for place, row in enumerate(rows):
        y = place * LINE + 4
        x, end = sorted((at(0.0), at(row.value)))
        label = row.label if len(row.label) <= MOST_LETTERS else row.label[: MOST_LETTERS - 1] + "…"
        pieces.append(
            Markup('<text x="{:.1f}" y="{}" text-anchor="end">{}</text>').format(column - 6, y + 10, label)
            + Markup('<rect class="{}" x="{:.1f}" y="{}" width="{:.1f}" height="10"/>').format(
                "up" if row.value >= 0 else "down", x, y + 1, max(end - x, 0.8)
            )
        )
        if row.low is not None and row.high is not None:
            pieces.append(
                Markup('<path class="whisker" d="M{:.1f} {}H{:.1f}"/>').format(at(row.low), y + 6, at(row.high))
            )
        if row.mark is not None:
            pieces.append(Markup('<path class="tick" d="M{:.1f} {}v14"/>').format(at(row.mark), y - 1))
        number = _percent(row.value) if percent else _plain(row.value)
        most = max(v for v in (row.value, row.high, row.mark, 0.0) if v is not None)
        pieces.append(Markup('<text x="{:.1f}" y="{}">{}</text>').format(at(most) + 5, y + 10, number))
    height = len(rows) * LINE + 6
    pieces.append(Markup('<path class="axis" d="M{:.1f} 0V{}"/>').format(at(0.0), height))
    if mark:
        # Its words need more room than the widest labels leave.
        left = min(column + 2, WIDTH - 12 - LETTER * len(mark))
        pieces.append(
            Markup('<path class="tick" d="M{:.1f} {}v12"/><text x="{:.1f}" y="{}">{}</text>').format(
                left, height + 4, left + 6, height + 14, mark
            )
        )
        height += 20
    summary = "; ".join(f"{row.label}: {_percent(row.value) if percent else _plain(row.value)}" for row in rows)
    return _svg(title, summary, height, pieces)


def histogram(title: str, bins: Sequence[tuple[float, float, int]], unit: str) -> Markup:
    """Upright bars of how many values lie in each step, over an axis of values in ``unit``."""
    height, base = 150, 118
    most = max((number for _, _, number in bins), default=0) or 1
    at = _Scale(bins[0][0], bins[-1][1], 8, WIDTH - 8)
    pieces = [
        Markup('<rect class="up" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>').format(
            at(low) + 0.5,
            base - 106 * number / most,
            max(at(high) - at(low) - 1, 0.8),
            106 * number / most,
            f"{_plain(low)} to {_plain(high)}: {number:,}",
        )
        for low, high, number in bins
        if number
    ]
    pieces += _x_axis(bins[0][0], bins[-1][1], at, base, unit)
    peak = max(bins, key=lambda one: one[2])
    summary = f"from {_plain(bins[0][0])} to {_plain(bins[-1][1])}, most often about {_plain((peak[0] + peak[1]) / 2)}"
    return _svg(title, summary, height, pieces)


def curves(title: str, lines: Sequence[Line], x_unit: str, *, log_x: bool = False, percent: bool = False) -> Markup:
    """Curves with their bands over one axis, each with dashes of its own and named below."""
    height, base, left = 196, 142, 40
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points] + [v for line in lines for one in line.band for v in one[1:]]
    low, high = min([0.0, *ys]), max([0.0, *ys]) or 1.0
    along = _Scale(min(xs), max(xs), left, WIDTH - 10, log=log_x)
    up = _Scale(low, high, base, 10)
    pieces: list[Markup] = []
    for tick in _ticks(low, high):
        number = _percent(tick) if percent else _plain(tick)
        pieces.append(
            Markup('<path class="grid" d="M{} {:.1f}H{}"/><text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
                left, up(tick), WIDTH - 10, left - 5, up(tick) + 4, number
            )
        )
    for place, line in enumerate(lines):
        kind = f"line{place % 4}"
        if line.band:
            there = [f"{along(x):.1f} {up(top):.1f}" for x, _, top in line.band]
            back = [f"{along(x):.1f} {up(bottom):.1f}" for x, bottom, _ in reversed(line.band)]
            pieces.append(Markup('<path class="band {}" d="M{}Z"/>').format(kind, "L".join([*there, *back])))
        path = "L".join(f"{along(x):.1f} {up(y):.1f}" for x, y in line.points)
        pieces.append(Markup('<path class="line {}" d="M{}"/>').format(kind, path))
    if log_x:
        pieces.append(Markup('<path class="axis" d="M{} {}H{}"/>').format(left, base, WIDTH - 10))
        for x in sorted(set(xs)):
            pieces.append(
                Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(along(x), base + 14, _plain(x))
            )
        pieces.append(Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(WIDTH - 10, base + 28, x_unit))
    else:
        pieces += _x_axis(min(xs), max(xs), along, base, x_unit)
    y = base + 46
    for place, line in enumerate(lines):
        pieces.append(
            Markup('<path class="line line{}" d="M{} {}h24"/><text x="{}" y="{}">{}</text>').format(
                place % 4, left, y - 4, left + 30, y, line.label
            )
        )
        y += 15
    summary = "; ".join(
        f"{line.label}: {_plain(line.points[0][1])} at {_plain(line.points[0][0])}, "
        f"{_plain(line.points[-1][1])} at {_plain(line.points[-1][0])}"
        for line in lines
        if line.points
    )
    return _svg(title, summary, max(height, y - 8), pieces)


def _svg(title: str, summary: str, height: float, pieces: Sequence[Markup]) -> Markup:
    return Markup('<svg class="plot" role="img" viewBox="0 0 {} {:.0f}" aria-label="{}">{}</svg>').format(
        WIDTH, height, f"{title}. {summary}", Markup("").join(pieces)
    )


class _Scale:
    """Maps ``low`` … ``high`` to ``start`` … ``end``."""

    def __init__(self, low: float, high: float, start: float, end: float, *, log: bool = False) -> None:
        self.log = log and low > 0
        self.low, self.high = (math.log(low), math.log(high)) if self.log else (low, high)
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        value = math.log(value) if self.log else value
        span = (self.high - self.low) or 1.0
        return self.start + (value - self.low) / span * (self.end - self.start)


def _x_axis(low: float, high: float, at: _Scale, base: float, unit: str) -> list[Markup]:
    pieces = [Markup('<path class="axis" d="M{:.1f} {}H{:.1f}"/>').format(at(low), base, at(high))]
    for tick in _ticks(low, high):
        pieces.append(
            Markup(
                '<path class="axis" d="M{:.1f} {}v4"/><text x="{:.1f}" y="{}" text-anchor="middle">{}</text>'
            ).format(at(tick), base, at(tick), base + 16, _plain(tick))
        )
    pieces.append(Markup('<text x="{:.1f}" y="{}" text-anchor="end">{}</text>').format(at(high), base + 30, unit))
    return pieces


def _ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values within ``low`` … ``high``."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(size * power for size in (1, 2, 2.5, 5, 10) if size * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [at * step for at in range(first, first + 2 * most + 2) if at * step <= high + 1e-9 * span]


def _percent(value: float) -> str:
    text = f"{100 * value:.0f} %" if abs(value) >= 0.0995 or value == 0 else f"{100 * value:.1f} %"
    return "0.0 %" if text == "-0.0 %" else text


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
