"""Attributions of many pairs as columns, and one pair as a view of them.

The lift is a second reading of the same contributions, for cosine: with ê a unit embedding and s the score,

    l_i = ĉ_i(a) · (ê(b) − s ê(a)) / ‖e(a)‖,

the part of a group's sum that its text's own length does not explain. It sums to zero over a text, and is negative for
groups that dilute the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attribution_core.results import Contributions, ExplainedText, Match, PairAttribution

EMBEDS_TO_ZERO = "its embedding is zero, so it has no cosine with any text"
# Shares of a pair's cells whose sums are stored.
SHARES = (0.01, 0.02, 0.05, 0.10, 0.20, 0.50)

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Undefined:
    """A pair without a score: under cosine, the texts of ``sides`` ("a", "b") have an embedding of norm zero."""

    sides: tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """What all pairs of one attributor have in common."""

    sums_to: str
    similarity: str
    layer: int
    model: str


@dataclass(eq=False)
class Ragged:
    """One list of values a pair, one behind the other: those of pair p are ``values[first[p]:first[p + 1]]``."""

    first: Ints
    values: NDArray[Any]

    @staticmethod
    def of_sizes(sizes: NDArray[Any], dtype: Any = np.float32) -> Ragged:
        """Lists of so many values each, all zero."""
        first = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        return Ragged(first, np.zeros(int(first[-1]), dtype))

    def __getitem__(self, at: int) -> NDArray[Any]:
        return self.values[self.first[at] : self.first[at + 1]]

    def put(self, pairs: Ints, rows: NDArray[Any]) -> None:
        """Write the lists of some pairs from rows that are padded to one length, [pairs, width]."""
        offset = np.arange(rows.shape[1])
        there = offset < (self.first[pairs + 1] - self.first[pairs])[:, None]
        self.values[(self.first[pairs][:, None] + offset)[there]] = rows[there]


@dataclass(eq=False)
class PairColumns:
    """P pairs: an array [P] has one value a pair, a :class:`Ragged` column one list a pair.

    ``a`` and ``b`` are the places of the pairs' texts in ``texts``. Values are those of
    :class:`~attribution_core.results.PairAttribution`. ``cells`` are the matrices row by row, None unless asked for.
    The columns from ``positive`` on are None unless sums were asked for. They are in the similarity's own unit:
    ``positive`` and ``negative`` split the total by sign, ``special`` is the sum over cells in the row or column of a
    special or prompt token, ``exact`` over cells whose two groups are the same word
    (``attribution_core.text.words.word_key``), ``largest`` [P, 6] the sums of the shares ``SHARES`` of cells that are
    largest by absolute value (at least one). ``top_i``, ``top_j`` and ``top_value`` are the strongest cells of two
    groups of text, strongest first, ties in reading order.

    Of late interaction there are more: ``interactions`` beside ``cells``, ``top_interaction`` beside ``top_value``, and
    where the model matched: output token ``match_i`` of the first text met ``match_j`` of the second, places among
    their tokens, and gave ``match_value``. ``ties`` counts the outputs of the first text that are exactly as near to
    another output of the second. All are None for other models.
    """

    setting: Setting
    texts: Sequence[Contributions]
    a: Ints
    b: Ints
    score: Doubles
    reference_a: Doubles
    reference_b: Doubles
    reference_ab: Doubles
    total: Doubles
    error: Doubles
    row_sums: Ragged
    col_sums: Ragged
    row_lift: Ragged | None
    col_lift: Ragged | None
    cells: Ragged | None
    positive: Doubles | None = None
    negative: Doubles | None = None
    special: Doubles | None = None
    exact: Doubles | None = None
    largest: Doubles | None = None
    top_i: Ragged | None = None
    top_j: Ragged | None = None
    top_value: Ragged | None = None
    interactions: Ragged | None = None
    top_interaction: Ragged | None = None
    match_i: Ragged | None = None
    match_j: Ragged | None = None
    match_value: Ragged | None = None
    ties: Ints | None = None
    # Texts of pairs that were computed again with more nodes, by pair.
    again: dict[int, tuple[Contributions, Contributions]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.a)

    def texts_of(self, at: int) -> tuple[Contributions, Contributions]:
        """The two texts of a pair."""
        return self.again.get(at) or (self.texts[self.a[at]], self.texts[self.b[at]])

    def pair(self, at: int) -> PairAttribution:
        """One pair, with its matrix; NaN where word pairs were not asked for."""
        a, b = (one.explained for one in self.texts_of(at))
        shape = (len(a.groups), len(b.groups))
        interactions = None if self.interactions is None else self.interactions[at].reshape(shape)
        return PairAttribution(
            a=a,
            b=b,
            matrix=np.full(shape, np.nan, np.float32) if self.cells is None else self.cells[at].reshape(shape),
            row_sums=self.row_sums[at],
            col_sums=self.col_sums[at],
            score=float(self.score[at]),
            reference_a=float(self.reference_a[at]),
            reference_b=float(self.reference_b[at]),
            reference_ab=float(self.reference_ab[at]),
            total=float(self.total[at]),
            error=float(self.error[at]),
            row_lift=None if self.row_lift is None else self.row_lift[at],
            col_lift=None if self.col_lift is None else self.col_lift[at],
            sums_to=self.setting.sums_to,
            similarity=self.setting.similarity,
            layer=self.setting.layer,
            model=self.setting.model,
            interactions=interactions,
            matches=self._matches(at, a, b),
        )

    def _matches(self, at: int, a: ExplainedText, b: ExplainedText) -> tuple[Match, ...] | None:
        if self.match_i is None or self.match_j is None or self.match_value is None:
            return None
        of_a, of_b = a.groups.of_token, b.groups.of_token
        matched = zip(*(one[at].tolist() for one in (self.match_i, self.match_j, self.match_value)), strict=True)
        return tuple(
            Match(of_a[i], of_b[j], a.groups.labels[of_a[i]], b.groups.labels[of_b[j]], i, j, value)
            for i, j, value in matched
        )

    def replace(self, at: int, other: PairColumns) -> None:
        """Put the one pair of ``other``, of the same two texts, in place of pair ``at``."""
        for one in fields(self):
            own, new = getattr(self, one.name), getattr(other, one.name)
            if isinstance(own, Ragged):
                own[at][...] = new.values
            elif isinstance(own, np.ndarray) and one.name not in ("a", "b"):
                own[at] = new[0]
        self.again[at] = (other.texts[0], other.texts[1])


def empty_columns(
    setting: Setting,
    texts: Sequence[Contributions],
    a: Ints,
    b: Ints,
    count_N: Ints,
    *,
    sums: bool,
    cells: bool,
    lifts: bool,
) -> PairColumns:
    """Return columns of zeros for the pairs of texts ``a`` and ``b`` [P], which have ``count_N`` groups.

    ``sums``, ``cells`` and ``lifts`` say which of the columns that may be None are there.
    """
    rows, cols = count_N[a], count_N[b]

    def single(*shape: int) -> Doubles:
        return np.zeros((len(a), *shape))

    return PairColumns(
        setting=setting,
        texts=texts,
        a=a,
        b=b,
        score=single(),
        reference_a=single(),
        reference_b=single(),
        reference_ab=single(),
        total=single(),
        error=single(),
        row_sums=Ragged.of_sizes(rows),
        col_sums=Ragged.of_sizes(cols),
        row_lift=Ragged.of_sizes(rows) if lifts else None,
        col_lift=Ragged.of_sizes(cols) if lifts else None,
        cells=Ragged.of_sizes(rows * cols) if cells else None,
        positive=single() if sums else None,
        negative=single() if sums else None,
        special=single() if sums else None,
        exact=single() if sums else None,
        largest=single(len(SHARES)) if sums else None,
    )


def why_undefined(one: Undefined, texts: Sequence[str]) -> str:
    """Why a pair of the two ``texts`` is undefined, naming the text that causes it."""
    side = "ab".index(one.sides[0])
    return f"the {('first', 'second')[side]} text cannot be attributed: {EMBEDS_TO_ZERO}: {texts[side][:60]!r}"
