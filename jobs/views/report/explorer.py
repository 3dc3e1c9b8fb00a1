"""Pairs as the data that the page's script draws: compact, bounded, and every piece of text safe to show.

The same views, words, notes and colours as in every other display of a pair; the script only draws them.
"""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attribution_core.display.view import (
    View,
    decimals_for,
    names,
    notes,
    printable,
    shortened,
    shown_groups,
    terms,
    unit_words,
    view_of,
    warns,
)
from attribution_core.results import ExplainedText, PairAttribution

# Of a matrix with more cells the rows and columns with the largest numbers are kept, as in the page of one pair.
MOST_CELLS, MOST_ROWS = 8000, 160
MOST_TEXT = 20_000
LONGEST_LABEL, LONGEST_EXTRA, LONGEST_TITLE = 40, 60, 48
# A cell that was not stored, and what the largest absolute value becomes: cells are 16-bit shares of it.
NOT_STORED, FULL = -32768, 32767
# A pair of which so few cells are known is a list of them and not a matrix.
FEW_KNOWN = 0.3


class Explorer:
    """Collects pairs up to ``room`` bytes of JSON; each text and each pair is held once."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.left_out = 0
        self._texts: list[str] = []
        self._pairs: list[str] = []
        self._text_at: dict[tuple[str, str], int] = {}
        self._pair_at: dict[str, int] = {}

    def add(self, pair: PairAttribution) -> bool:
        """Add ``pair``, unless it is there or there is no room; return whether it is there now."""
        if pair.pair_id in self._pair_at:
            return True
        fresh = {key: encoded(_text(text)) for text in (pair.a, pair.b) if (key := _key(text)) not in self._text_at}
        ahead = len(self._texts)
        place = self._text_at | {key: ahead + at for at, key in enumerate(fresh)}
        described = encoded(_pair(pair, place[_key(pair.a)], place[_key(pair.b)]))
        size = len(described.encode()) + sum(len(text.encode()) for text in fresh.values())
        if size > self.room:
            self.left_out += 1
            return False
        self.room -= size
        self._text_at = place
        self._texts += fresh.values()
        self._pair_at[pair.pair_id] = len(self._pairs)
        self._pairs.append(described)
        return True

    def __contains__(self, pair_id: object) -> bool:
        return pair_id in self._pair_at

    def __len__(self) -> int:
        return len(self._pairs)

    def json(self, lists: Iterable[tuple[str, Iterable[str]]]) -> str:
        """Everything as JSON for a data block of a page; ``lists`` are labelled ids of pairs, those not held are
        left out."""
        shown = [
            {"label": printable(label), "pairs": pairs}
            for label, pair_ids in lists
            if (pairs := [self._pair_at[one] for one in pair_ids if one in self._pair_at])
        ]
        return f'{{"texts":[{",".join(self._texts)}],"pairs":[{",".join(self._pairs)}],"lists":{encoded(shown)}}}'


def encoded(value: Any) -> str:
    """JSON that is safe inside a script element: nothing in it ends the element or opens a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    # Half a surrogate pair is no character and cannot be written.
    return text.encode("utf-8", "replace").decode()


def _key(text: ExplainedText) -> tuple[str, str]:
    return text.role, text.text


def _text(text: ExplainedText) -> dict[str, Any]:
    """The text in pieces: a word is [number of its group, the word], the text between words is a string."""
    groups = text.groups
    pieces: list[Any] = []
    at = 0
    for g, kind in enumerate(groups.kinds):
        start, end = max(groups.starts[g], at), groups.ends[g]
        if kind != "text" or end <= start:
            continue
        if at >= MOST_TEXT:
            break
        if start > at:
            pieces.append(_between(text.text[at:start]))
        pieces.append([g, printable(text.text[start : min(end, start + MOST_TEXT)])])
        at = end
    rest = text.text[at:]
    if rest:
        room = max(MOST_TEXT - at, 0)
        pieces.append((_between(rest[:room]) if room else "") + ("…" if len(rest) > room else ""))
    # Of a text that an unfinished run has not written its words are known from the stored cells.
    if not text.text:
        for g, label in enumerate(groups.labels):
            if groups.kinds[g] == "text":
                pieces += [[g, printable(label)], " "]
    labels = [shortened(printable(label), LONGEST_LABEL) for label in groups.labels]
    return {"pieces": pieces, "labels": labels, "length": len(text.text)}


def _between(gap: str) -> str:
    """The text between words; a run of spaces needs no escapes."""
    return " " if gap.isspace() else printable(gap)


def _pair(pair: PairAttribution, a: int, b: int) -> dict[str, Any]:
    view = view_of(pair, False)
    rows = min(len(view.rows), MOST_ROWS)
    drawn = view.smaller(rows, MOST_CELLS // max(rows, 1))
    said = notes(view)
    words_a, words_b = (shown_groups(text, False) for text in (pair.a, pair.b))
    return {
        "id": pair.pair_id,
        "title": _title(pair),
        "quoted": shlex.quote(printable(pair.pair_id)),
        "texts": [a, b],
        "names": names(pair),
        "unit": unit_words(pair),
        "score": _short(pair.score),
        "similarity": printable(pair.similarity),
        "error": _short(abs(pair.error)),
        "terms": [[term.sign, term.words, _short(term.value)] for term in terms(pair)],
        "notes": [[note, int(warns(note))] for note in (*said, *([drawn.left_out] if drawn.left_out else []))],
        "extra": _extra(pair.extra),
        "complete": pair.complete,
        "decimals": decimals_for(view.limit),
        "limit": _short(view.limit),
        "rows": drawn.rows.tolist(),
        "cols": drawn.cols.tolist(),
        "sums": [_sums(pair.row_sums, words_a), _sums(pair.col_sums, words_b)],
        "lifts": _lifts(pair, words_a, words_b),
        "aim": "the score" if pair.sums_to == "score" else "the sum",
        **_cells(drawn),
    }


def _title(pair: PairAttribution) -> str:
    a, b = (shortened(printable(text.text[: 4 * LONGEST_TITLE]), LONGEST_TITLE) for text in (pair.a, pair.b))
    return f"{a} × {b}"


def _cells(view: View) -> dict[str, Any]:
    """``matrix`` in base64: little-endian 16-bit shares of ``scale``, row by row; or ``cells`` as place, value."""
    cells = view.cells
    known = np.isfinite(cells)
    scale = float(np.abs(cells[known]).max(initial=0.0))
    if known.sum() < FEW_KNOWN * cells.size:
        at = np.flatnonzero(known)
        return {"cells": [[int(place), _short(float(cells.flat[place]))] for place in at]}
    shares = np.full(cells.shape, NOT_STORED, np.int16)
    shares[known] = np.rint(cells[known].astype(np.float64) / (scale or 1.0) * FULL).astype(np.int16)
    return {"scale": scale, "matrix": base64.b64encode(shares.astype("<i2").tobytes()).decode()}


def _sums(sums: NDArray[np.float32], shown: NDArray[np.intp]) -> list[list[float]]:
    """[group, sum] of the shown groups."""
    return [[int(g), _short(float(sums[g]))] for g in shown]


def _lifts(pair: PairAttribution, a: NDArray[np.intp], b: NDArray[np.intp]) -> list[list[list[float]]] | None:
    """The same of the lifts; None where the pair has none."""
    if pair.row_lift is None or pair.col_lift is None:
        return None
    return [_sums(pair.row_lift, a), _sums(pair.col_lift, b)]


def _extra(extra: Mapping[str, Any]) -> list[list[str]]:
    """The columns that were passed through, as text: numbers and short strings only."""
    pairs = []
    for name, value in extra.items():
        if isinstance(value, bool | int | float | str):
            words = f"{value:.4g}" if isinstance(value, float) else str(value)
            pairs.append([shortened(printable(name), LONGEST_LABEL), shortened(printable(words), LONGEST_EXTRA)])
    return pairs


def _short(value: float) -> float:
    """``value`` in as many digits as a reader could use; zero for what is not finite."""
    return float(f"{value:.5g}") if np.isfinite(value) else 0.0
