"""Pairs made by hand for the tests of the displays, and what looks at the displays."""

from __future__ import annotations

import io
import re
import warnings
from html.parser import HTMLParser

import numpy as np

from attribution_core.display.pair import plot_pair
from attribution_core.results import ExplainedText, PairAttribution
from attribution_core.text.grouping import Groups, Kind

SEQUENCE = re.compile("\x1b\\[[0-9;]*m")
# Escape sequences, markup, direction overrides, a stack of marks, formulas and page code, all as ordinary text.
HOSTILE = "[red]boo[/red] \x1b[31mred\x1b[0m \x1b]0;title\x07 \u202egnol \x9b2J <script>alert(1)</script> $\\frac$"
HOSTILE_TOO = (
    '"><img src=x onerror=alert(2)> {{7*7}} e'
    + "\u0301" * 50
    + " שלום 日本語 👩‍💻 \udc80 [link=file:///x]y[/link] \r\n \b"
)

COFFEE = {("coffee", "coffee"): 0.24, ("bad", "not"): 0.11, ("bad", "a"): -0.06, ("is", "is"): 0.04}


def explained(text: str, role: str = "text", **more: object) -> ExplainedText:
    """``text`` split at white space, between a first and a last special token."""
    spans = [match.span() for match in re.finditer(r"[^\s]+", text)]
    labels = ("[CLS]", *(text[start:end] for start, end in spans), "[SEP]")
    kinds: tuple[Kind, ...] = ("special", *("text" for _ in spans), "special")  # type: ignore[assignment]
    groups = Groups(
        unit="word",
        labels=labels,
        starts=(0, *(start for start, _ in spans), 0),
        ends=(0, *(end for _, end in spans), 0),
        kinds=kinds,
        of_token=tuple(range(len(labels))),
    )
    return ExplainedText(text=text, role=role, groups=groups, tokens=labels, **more)  # type: ignore[arg-type]


def pair_of(
    a: ExplainedText | str,
    b: ExplainedText | str,
    cells: dict[tuple[str, str], float] | None = None,
    seed: int = 0,
    sums_to: str = "score",
) -> PairAttribution:
    """A pair with the given cells (by label) over small noise, which sum to what ``sums_to`` says."""
    a = explained(a) if isinstance(a, str) else a
    b = explained(b) if isinstance(b, str) else b
    matrix = np.random.default_rng(seed).normal(0, 0.01, (len(a.groups), len(b.groups))).astype(np.float32)
    for (left, right), value in (cells or {}).items():
        matrix[a.groups.labels.index(left), b.groups.labels.index(right)] = value
    total = float(matrix.sum())
    return PairAttribution(
        a=a,
        b=b,
        matrix=matrix,
        row_sums=matrix.sum(1),
        col_sums=matrix.sum(0),
        score=total + {"score": -3e-4, "difference": 0.125 + 0.25 - 0.0625, "centred": 0.5}[sums_to],
        reference_a=0.125,
        reference_b=0.25,
        reference_ab=0.0625,
        total=total,
        error=3e-4,
        sums_to=sums_to,
        layer=4,
        model="some-model",
    )


def coffee_pair() -> PairAttribution:
    """Two sentences that share some words."""
    return pair_of("The coffee is bad", "This is not a good coffee", COFFEE)


class Page(HTMLParser):
    """The tags, attributes and text of a page; complains of tags that are not closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.words.append(data)


def drawn(pair: PairAttribution) -> tuple[object, object]:
    """The figure of a pair, saved once; a warning of matplotlib's is an error."""
    figure, axes = plot_pair(pair)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # such as "Glyph 128512 missing from font"
        figure.savefig(io.BytesIO(), format="png", dpi=40)
    return figure, axes
