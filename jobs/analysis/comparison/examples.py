"""Pairs where two runs differ most, with the words whose part went up or down."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
from numpy.typing import NDArray

from jobs.analysis.comparison.agreement import agreement, shares
from jobs.analysis.comparison.alignment import Aligned, summed
from jobs.analysis.comparison.details import SideBySide, side_by_side
from jobs.analysis.comparison.scores import ROUNDING
from jobs.run.reader import Run

WORDS_SHOWN = 4
SMALLEST = 0.005
SCORE, SHARE = "score", "share"


@dataclass(frozen=True)
class Moved:
    """A word whose value changed from ``first`` to ``second``; the example's ``unit`` says what the value is."""

    side: str
    word: str
    start: int
    end: int
    first: float
    second: float


@dataclass(frozen=True)
class Example:
    """A pair chosen ``by`` its score's or its attributions' difference, and the words whose values changed most.

    ``unit`` is "score" where a word's value is its sum, a part of the score: then the changes of all words and special
    tokens of a text add up to the score's. It is "share" where the sums of the two runs are no numbers of one kind:
    then a value is the word's sum divided by the sum of all words' absolute values.
    """

    by: str
    unit: str
    pair_1: str
    pair_2: str
    a: str
    b: str
    score_1: float
    score_2: float
    distance: float | None
    up: tuple[Moved, ...]
    down: tuple[Moved, ...]


def find_examples(
    con: duckdb.DuckDBPyConnection, first: Run, second: Run, count: int, *, parts_of_score: bool
) -> list[Example]:
    """``count`` pairs by score and as many by attribution, most different first; ties by the pair's id.

    ``parts_of_score`` says that words' sums of both runs are parts of scores of one kind.
    """
    if not count:
        return []
    difference = "abs(score_2 - score_1)"
    orders = {
        "score": f"SELECT n FROM matched WHERE {difference} > {ROUNDING} ORDER BY {difference} DESC, n",
        "attribution": "SELECT n FROM details WHERE distance > 0 ORDER BY distance DESC, n",
    }
    chosen = {by: [n for (n,) in con.execute(f"{sql} LIMIT {int(count)}").fetchall()] for by, sql in orders.items()}
    con.execute("CREATE OR REPLACE TABLE chosen (n BIGINT)")
    numbers = sorted({n for ids in chosen.values() for n in ids})
    if not numbers:
        return []
    con.executemany("INSERT INTO chosen VALUES (?)", [[n] for n in numbers])
    pairs = {one.n: one for one in side_by_side(con, first, second)}
    rows = con.execute("SELECT n, pair_1, pair_2, score_1, score_2 FROM matched JOIN chosen USING (n)").fetchall()
    facts = {row[0]: row[1:] for row in rows}
    unit = SCORE if parts_of_score else SHARE
    return [_example(by, unit, pairs[n], facts[n]) for by, ids in chosen.items() for n in ids if n in pairs]


def _example(by: str, unit: str, pair: SideBySide, facts: tuple[str, str, float, float]) -> Example:
    moved = [
        *_moved("a", unit, pair.texts[0], pair.first.row_sums, pair.second.row_sums, pair.a),
        *_moved("b", unit, pair.texts[1], pair.first.col_sums, pair.second.col_sums, pair.b),
    ]
    moved.sort(key=lambda word: (word.first - word.second, word.side, word.start))
    return Example(
        by=by,
        unit=unit,
        pair_1=facts[0],
        pair_2=facts[1],
        a=pair.texts[0],
        b=pair.texts[1],
        score_1=facts[2],
        score_2=facts[3],
        distance=agreement(pair.first, pair.second, pair.a, pair.b)["distance"],
        up=tuple(word for word in moved if word.second - word.first > SMALLEST)[:WORDS_SHOWN],
        down=tuple(word for word in reversed(moved) if word.first - word.second > SMALLEST)[:WORDS_SHOWN],
    )


def _moved(side: str, unit: str, text: str, one: object, other: object, units: Aligned) -> list[Moved]:
    sums = summed(one, units.first, units.units), summed(other, units.second, units.units)
    first, second = sums if unit == SCORE else (shares_or_zero(value) for value in sums)
    return [
        Moved(side, text[start:end], int(start), int(end), float(old), float(new))
        for (start, end), old, new in zip(units.spans.tolist(), first, second, strict=True)
    ]


def shares_or_zero(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """The words' shares of the sum of absolute values, zeros where every word's sum is 0."""
    values = shares(sums)
    return np.zeros_like(sums) if values is None else values
