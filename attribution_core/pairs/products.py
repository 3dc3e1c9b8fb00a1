"""Two texts' contributions become one pair: its cells, what they sum to, and its strongest cells; many pairs at once.

Pairs of like size are computed together in *tiles*, padded with zeros to the most groups of their first and second
texts, I and J. Sums are of float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attribution_core.pairs.columns import Ints, PairColumns, Setting, empty_columns
from attribution_core.pairs.completion import Completion
from attribution_core.pairs.tiles import SHORTEST, TILE_CELLS, Pulled, TextTable, Tiles
from attribution_core.pairs.word_tiles import WordTiles
from attribution_core.results import Contributions, Floats

# Sizes within a step of each other share a tile: an eighth of the size, but no less than this.
STEP = 4


class PairProducts:
    """The pairs of some texts, whose contributions or products with their partners are known.

    The ``top_k`` strongest cells of each pair are selected and its sums computed; None: neither. ``cells`` says whether
    matrices are stored. With ``words`` there are no word pairs, but what each word adds to the whole score.
    """

    def __init__(
        self, completion: Completion, setting: Setting, top_k: int | None, *, cells: bool, words: bool = False
    ) -> None:
        self.completion = completion
        self.setting = setting
        self.top_k = None if words else top_k
        self.cells = cells and not words
        self.words = words

    @property
    def cosine(self) -> bool:
        """Whether the similarity is cosine."""
        return self.setting.similarity == "cosine"

    @property
    def needs_across(self) -> bool:
        """Whether a lift needs products with the partner's embedding that are not among the cells' sums."""
        return self.cosine and self.completion.sums_to != "score"

    def cotangents(
        self, known: dict[int, Contributions], pulled: Sequence[int], edges: NDArray[np.int64]
    ) -> tuple[list[Floats], Pulled]:
        """What each of the texts ``pulled`` is pulled back along, [K, D] each, and where its products will be."""
        columns: dict[int, dict[int, slice]] = {at: {} for at in pulled}
        stacks: dict[int, list[Floats]] = {at: [] for at in pulled}
        for i, j in edges.tolist():
            for own, other in ((i, j), (j, i)):
                if own in stacks and other not in columns[own]:
                    low = sum(len(rows) for rows in stacks[own])
                    stacks[own].append(self.completion.completed(known[other]))
                    columns[own][other] = slice(low, low + len(stacks[own][-1]))
                    if self.needs_across:
                        stacks[own].append(known[other].embedding_D[None])
        return [np.concatenate(stacks[at]) for at in pulled], Pulled(columns)

    def cotangents_of_words(
        self, ends: Mapping[int, Contributions], pulled: Mapping[int, Sequence[int]]
    ) -> tuple[list[Floats], Pulled]:
        """Return the same where word pairs are not asked for: each text of ``pulled`` with its distinct partners.

        A text is pulled back along what its partners sum to, and along their embeddings where lifts need these too;
        ``ends`` has the partners' embeddings, and no contributions.
        """
        columns: dict[int, dict[int, slice]] = {}
        stacks: list[Floats] = []
        for at, partners in pulled.items():
            rows: list[NDArray[Any]] = []
            columns[at] = {}
            for other in partners:
                one = ends[other]
                columns[at][other] = slice(len(rows), len(rows) + 1)
                rows.append(self.completion.target(one).astype(one.embedding_D.dtype))
                if self.needs_across:
                    rows.append(one.embedding_D)
            stacks.append(np.stack(rows))
        return stacks, Pulled(columns)

    def columns(
        self, texts: Sequence[Contributions], edges: NDArray[np.int64], pulled: Pulled | None = None
    ) -> tuple[PairColumns, Ints]:
        """The pairs ``edges`` [P, 2] of numbered texts that have a score, and their places among all."""
        table = TextTable.with_contributions(texts, self.completion, pulled or Pulled({}))
        defined = np.arange(len(edges))
        if self.cosine:
            defined = np.flatnonzero((table.length_N[edges] > SHORTEST).all(1))
        a, b = edges[defined, 0], edges[defined, 1]
        out = empty_columns(
            self.setting, texts, a, b, table.count_N, sums=self.top_k is not None, cells=self.cells, lifts=self.cosine
        )
        work: Tiles | WordTiles = (
            WordTiles(self.completion, table, out, across=self.needs_across)
            if self.words
            else Tiles(self.completion, table, out, self.top_k, across=self.needs_across)
        )
        for pairs in _alike(table, a, b):
            work.compute(pairs)
        work.finish()
        return out, defined


def _alike(table: TextTable, a: Ints, b: Ints) -> Iterator[Ints]:
    """Places of pairs in tiles of like size, each of one kind: computed alone, or the first or second text pulled."""
    pulled = np.zeros(len(table.count_N), np.int64)
    pulled[list(table.pulled.columns)] = 1
    rows, cols = table.count_N[a], table.count_N[b]
    kind = pulled[a] + 2 * pulled[b]
    by_rows, by_cols = _steps(rows), _steps(cols)
    order = np.lexsort((cols, rows, by_cols, by_rows, kind))
    same = np.stack([kind, by_rows, by_cols])[:, order]
    breaks = np.flatnonzero((same[:, 1:] != same[:, :-1]).any(0)) + 1
    for run in np.split(order, breaks):
        if len(run):
            size = max(1, TILE_CELLS // int(max(rows[run].max() * cols[run].max(), 1)))
            yield from (run[low : low + size] for low in range(0, len(run), size))


def _steps(sizes: Ints) -> Ints:
    """The step that each size is in: of ``STEP`` up to 8 · ``STEP``, of an eighth of the size from there."""
    large = np.log(np.maximum(sizes, 8 * STEP) / (8.0 * STEP)) / np.log(1.125)
    return np.where(sizes <= 8 * STEP, -(-sizes // STEP), 8 + np.ceil(large)).astype(np.int64)
