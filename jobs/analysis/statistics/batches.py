"""Rows of `attributions` as flat arrays: one value a row sum, column sum or cell, and bounds of the cells that are not
stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import pyarrow as pa

from jobs.analysis.resampling import BUCKETS
from jobs.analysis.statistics.pairs import BATCH_ROWS, Pairs, batches
from jobs.analysis.statistics.sums import Array
from jobs.analysis.statistics.texts import TEXT, Texts
from jobs.errors import RunError
from jobs.run.reader import Run
from jobs.run.tables import has_matches

LIFTS = ("row_lift", "col_lift")
SCALARS = ("score", "total", "error", "positive", "negative", "special", "exact")
# Cells of whole matrices that are held at once.
MOST_CELLS = 2_000_000
# Sums were stored as float32: what is left of a sum is known no better than that.
ROUNDING = 2e-6


@dataclass(frozen=True)
class Cells:
    """Cells of two words that are no special or prompt tokens: ``pair`` [C] counts the batch's pairs, ``a`` and ``b``
    [C] are places in the flat table of words, ``value`` [C] float64."""

    pair: Array
    a: Array
    b: Array
    value: Array


@dataclass(frozen=True)
class Rest:
    """Per pair, bounds of the cells between words that were not stored.

    ``count`` cells are each at most ``limit`` in absolute value; together they come to ``total``, their positive ones
    to at most ``positive``, their negative ones to at least ``negative``. All 0 where whole matrices are there.
    """

    count: Array
    limit: Array
    total: Array
    positive: Array
    negative: Array

    def bounds(self, count: Array) -> tuple[Array, Array, Array]:
        """What ``count`` [n, columns] of the unknown cells come to: an estimate (an even share), at least, at most."""
        at_most = np.minimum(count * self.limit[:, None], self.positive[:, None])
        at_least = np.maximum(-count * self.limit[:, None], self.negative[:, None])
        even = count * (self.total / np.maximum(self.count, 1))[:, None]
        return np.clip(even, at_least, at_most), at_least, at_most

    def of(self, pair: Array) -> Rest:
        """The same of each ``pair`` [m]."""
        return Rest(*(getattr(self, one.name)[pair] for one in fields(self)))


@dataclass(frozen=True)
class Batch:
    """Pairs read together. ``rank`` [n] is their place in the fixed order, ``a`` and ``b`` [n] their texts, ``bucket``
    [n] where they are summed; ``scalars`` their columns as float64. ``row_lifts`` and ``col_lifts`` lie as
    ``row_values`` and ``col_values`` do, None where the run has none. The others as the properties say."""

    texts: Texts
    rank: Array
    bucket: Array
    a: Array
    b: Array
    scalars: dict[str, Array]
    largest: Array
    row_values: Array
    col_values: Array
    cells: Cells | None
    rest: Rest | None
    kept: pa.RecordBatch
    row_lifts: Array | None = None
    col_lifts: Array | None = None

    def __len__(self) -> int:
        return len(self.rank)

    @cached_property
    def rows(self) -> tuple[Array, Array]:
        """For every row sum the batch's pair and the flat place of the word."""
        return flat_words(self.texts, self.a)

    @cached_property
    def cols(self) -> tuple[Array, Array]:
        """The same for the column sums."""
        return flat_words(self.texts, self.b)

    @cached_property
    def text_cells(self) -> Array:
        """How many cells of each pair are between words, [n]."""
        return self.texts.words[self.a].astype(np.int64) * self.texts.words[self.b]

    @cached_property
    def mass(self) -> Array:
        """The sum of absolute values of each pair, [n]: of its word pairs, or of its words where it has none."""
        mass = self.scalars["positive"] - self.scalars["negative"]
        if not np.isnan(mass).any():
            return mass
        sides = (self.rows, self.row_values), (self.cols, self.col_values)
        return np.max([np.bincount(pair, np.abs(values), len(self)) for (pair, _), values in sides], axis=0)

    @cached_property
    def text_total(self) -> Array:
        """The sum over cells between words, [n]; where a run has no word pairs, over the words of the first text."""
        total = self.scalars["total"] - self.scalars["special"]
        if not np.isnan(total).any():
            return total
        pair, word = self.rows
        return np.bincount(pair, np.where(self.texts.kind[word] == TEXT, self.row_values, 0.0), len(self))

    def sizes(self) -> tuple[Array, Array]:
        """Rows and columns of each pair, special and prompt tokens included, [n]."""
        sizes = np.diff(self.texts.offsets)
        return sizes[self.a], sizes[self.b]


def flat_words(texts: Texts, which: Array) -> tuple[Array, Array]:
    """Every word of texts ``which`` [n]: the number of its text in ``which``, and its flat place."""
    sizes = np.diff(texts.offsets)[which]
    pair = np.repeat(np.arange(len(which)), sizes)
    first = np.cumsum(sizes) - sizes
    return pair, np.arange(len(pair)) - first[pair] + texts.offsets[which][pair]


def bucket_of(pairs: Pairs, rank: Array) -> Array:
    """The bucket of the pairs of these ranks. Pairs, and the queries of a log, are in the order of a hash, so
    neighbours have nothing in common; the pairs of one query do, and share a bucket."""
    return _bucket(rank if pairs.query is None else pairs.query[rank], pairs.draws)


def buckets_of(pairs: Pairs) -> int:
    """How many buckets there are."""
    return int(_bucket(np.array([pairs.draws - 1]), pairs.draws)[0]) + 1


def _bucket(draw: Array, draws: int) -> Array:
    return draw if draws <= BUCKETS else (draw.astype(np.int64) * BUCKETS // draws).astype(np.int32)


def has_lifts(run: Run) -> bool:
    """Whether the run's pairs have lifts: not those of an old run, nor those of a dot product."""
    dataset = run.dataset()
    if LIFTS[0] not in dataset.schema.names:
        return False
    try:
        with run.store.guard("read", "attributions"):
            first = dataset.head(1, columns=[LIFTS[0]])[LIFTS[0]]
            return first.null_count < len(first)
    except pa.ArrowException:
        raise RunError(f"{run.url}: a part of its attributions is damaged") from None


def read_batches(
    run: Run, pairs: Pairs, texts: Texts, *, cells: bool, lifts: bool, kept: tuple[str, ...]
) -> Iterator[Batch]:
    """The pairs of the statistics; with ``cells`` their cells, all of them where the run stored whole matrices; with
    ``lifts`` their lifts."""
    whole = "matrix" in run.dataset().schema.names
    columns = [*SCALARS, "rows", "cols", "row_sums", "col_sums", "largest", *kept]
    columns += LIFTS if lifts else ()
    columns += (["top"] if cells else []) + (["matrix", "matrix_scale"] if cells and whole else [])
    size = BATCH_ROWS
    if cells and whole:
        mean = float(np.mean(texts.words)) + 2
        size = int(min(max(MOST_CELLS / mean**2, 16), BATCH_ROWS))
    at = 0
    for table in batches(run, columns, size):
        rank = pairs.rank[at : at + len(table)]
        used = np.flatnonzero(rank >= 0)
        a, b = pairs.a[at : at + len(table)][used], pairs.b[at : at + len(table)][used]
        at += len(table)
        if not len(used):
            continue
        if len(used) < len(table):
            table = table.take(pa.array(used))
        yield _batch(run, texts, table, rank[used], bucket_of(pairs, rank[used]), a, b)


def _batch(run: Run, texts: Texts, table: pa.RecordBatch, rank: Array, bucket: Array, a: Array, b: Array) -> Batch:
    sizes = np.diff(texts.offsets)
    rows, cols = (table[name].to_numpy(zero_copy_only=False) for name in ("rows", "cols"))
    row_values, col_values = (_flat(table[name]) for name in ("row_sums", "col_sums"))
    lifts = [_flat(table[name]) if name in table.schema.names else None for name in LIFTS]
    whole = len(row_values) == rows.sum() and len(col_values) == cols.sum()
    whole &= lifts[0] is None or len(lifts[0]) == len(row_values)
    whole &= lifts[1] is None or len(lifts[1]) == len(col_values)
    if not whole or (sizes[a] != rows).any() or (sizes[b] != cols).any():
        raise RunError(f"{run.url}: a pair does not have the words of its texts; the run is damaged")
    scalars = {name: _flat(table[name]) for name in SCALARS}
    cells = rest = None
    names = table.schema.names
    if "top" in names:
        top = _top(texts, table["top"], a, b)
        if "matrix" in names:
            cells = _matrix(texts, table, a, b, top)
            nothing = np.zeros(len(a))
            rest = Rest(nothing, nothing, nothing, nothing, nothing)
        else:
            cells = top
            rest = _rest(texts, top, scalars, a, b, by_interaction=has_matches(table.schema))
    largest = _flat(table["largest"]).reshape(len(a), -1)  # [n, 0] where the run has no word pairs
    return Batch(texts, rank, bucket, a, b, scalars, largest, row_values, col_values, cells, rest, table, *lifts)


def _flat(column: pa.Array) -> Array:
    flat = column.flatten() if pa.types.is_list(column.type) else column
    return np.asarray(flat.to_numpy(zero_copy_only=False), np.float64)


def _lengths(column: pa.Array) -> Array:
    return np.diff(column.offsets.to_numpy())


def _top(texts: Texts, column: pa.Array, a: Array, b: Array) -> Cells:
    pair = np.repeat(np.arange(len(a)), _lengths(column))
    cells = column.flatten()
    i, j = (cells.field(name).to_numpy(zero_copy_only=False).astype(np.int64) for name in ("i", "j"))
    value = _flat(cells.field("value"))
    return Cells(pair, texts.offsets[a][pair] + i, texts.offsets[b][pair] + j, value)


def _matrix(texts: Texts, table: pa.RecordBatch, a: Array, b: Array, top: Cells) -> Cells:
    sizes = np.diff(texts.offsets)
    rows, cols = sizes[a], sizes[b]
    begins = np.concatenate([[0], np.cumsum(rows * cols)])
    value = _flat(table["matrix"])
    if len(value) != begins[-1]:
        raise RunError("a matrix does not have the size of its texts; the run is damaged")
    pair = np.repeat(np.arange(len(a)), rows * cols)
    value = value * _flat(table["matrix_scale"])[pair]
    # The strongest cells were kept as float32 as well.
    i, j = top.a - texts.offsets[a][top.pair], top.b - texts.offsets[b][top.pair]
    value[begins[top.pair] + i * cols[top.pair] + j] = top.value
    inside = np.arange(len(pair)) - begins[pair]
    i, j = np.divmod(inside, cols[pair])
    in_a, in_b = texts.offsets[a][pair] + i, texts.offsets[b][pair] + j
    own = (texts.kind[in_a] == TEXT) & (texts.kind[in_b] == TEXT)
    return Cells(pair[own], in_a[own], in_b[own], value[own])


def _rest(texts: Texts, top: Cells, scalars: dict[str, Array], a: Array, b: Array, *, by_interaction: bool) -> Rest:
    """What is known of cells that are not among the strongest; those chosen ``by_interaction`` bound no other value."""
    n = len(a)
    kept = np.bincount(top.pair, minlength=n)
    count = texts.words[a].astype(np.int64) * texts.words[b] - kept
    limit = np.full(n, np.inf)
    if not by_interaction:
        np.minimum.at(limit, top.pair, np.abs(top.value))
    positive, negative = (np.bincount(top.pair, np.where(s * top.value > 0, top.value, 0), n) for s in (1, -1))
    rounding = ROUNDING * (scalars["positive"] - scalars["negative"])
    some = count > 0
    # Cells of special tokens are in the run's sums by sign, so these are bounds and no more.
    at_most = np.maximum(scalars["positive"] - positive, 0) + rounding
    at_least = np.minimum(scalars["negative"] - negative, 0) - rounding
    total = scalars["total"] - scalars["special"] - positive - negative
    limit = np.where(np.isinf(limit), np.maximum(at_most, -at_least), limit)
    return Rest(count, *(np.where(some, values, 0.0) for values in (limit, total, at_most, at_least)))
