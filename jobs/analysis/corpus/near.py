"""Groups vectors that point almost the same way: every pair of a few, and random hyperplanes for many.

*Buckets.* A random hyperplane separates two vectors at the angle θ with probability θ / π. A table gives every vector
the signs of ``bits`` hyperplanes, and compares the vectors whose signs are all the same. Pairs at the threshold are in
one bucket of a table with probability q = (1 − θ / π) ** bits, and with T tables at least once with 1 − (1 − q) ** T.
As many bits are used as leave about one pair a vector to compare by chance, estimated from a sample, and as many tables
as the recall needs. Every pair in a bucket is then compared by its cosine, so none is reported that is not one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from jobs.analysis.corpus.collect import Array

# So many vectors are compared pair by pair.
EXHAUSTIVE = 20_000
# The share of the pairs at the threshold that is to be compared, and the most tables for it.
RECALL, MOST_TABLES, MOST_BITS = 0.95, 64, 62
# Pairs to compare by chance in a table, for each vector.
PAIRS_A_VECTOR = 1.0
# In a bucket of more, a vector is compared with so many on each side, in random order: groups are chains of pairs.
NEIGHBOURS = 64
SAMPLE = 2000
# Vectors, and pairs, that are products at once: what bounds the memory beside the vectors themselves.
BLOCK, PAIRS_AT_ONCE, TABLES_AT_ONCE = 2048, 16_384, 8


@dataclass(frozen=True)
class Groups:
    """``labels`` [X] are equal for vectors of one group; ``recall`` is the expected share of the pairs with exactly the
    least cosine that were compared (closer ones are compared more often)."""

    labels: NDArray[np.int64]
    recall: float


def near_groups(values_HD: Array, chosen_X: Array, owners_X: Array, least: float, seed: int = 0) -> Groups:
    """Group vectors: those with a cosine of ``least`` or more and different owners are in one group.

    The vectors are the rows ``chosen_X`` of ``values_HD``, which may be of any length and type; those of zeros are in
    no group.
    """
    if len(chosen_X) <= EXHAUSTIVE:
        return Groups(_every_pair(values_HD[chosen_X], owners_X, least), 1.0)
    return bucket_groups(values_HD, chosen_X, owners_X, least, seed)


def _every_pair(values_XD: Array, owners_X: Array, least: float) -> NDArray[np.int64]:
    labels = np.arange(len(values_XD))
    units = unit_rows(values_XD)
    for first in range(0, len(units), BLOCK):
        i, j = np.nonzero(units[first : first + BLOCK] @ units[first:].T >= least)
        i, j = i + first, j + first
        chosen = (i < j) & (owners_X[i] != owners_X[j])
        labels = _merged(labels, i[chosen], j[chosen])
    return labels


def bucket_groups(values_HD: Array, chosen_X: Array, owners_X: Array, least: float, seed: int = 0) -> Groups:
    """:func:`near_groups` by random hyperplanes."""
    random = np.random.default_rng([seed, 7])
    sample = chosen_X[random.permutation(len(chosen_X))[:SAMPLE]]
    bits = _bits(unit_rows(values_HD[sample]), len(chosen_X), least)
    together = float(_same_side(least)) ** bits
    tables = min(int(np.ceil(np.log(1 - RECALL) / np.log(1 - together))), MOST_TABLES)
    labels, norms = np.arange(len(chosen_X)), _norms(values_HD, chosen_X)
    missed = 1.0
    for codes in _codes(values_HD, chosen_X, bits, tables, random):
        # In random order, so that what a crowded bucket compares is a sample of it.
        order = random.permutation(len(codes))
        order = order[np.argsort(codes[order])]
        codes = codes[order]
        missed *= 1 - together * _compared(codes)
        for i, j in _bucket_pairs(codes, order):
            apart = (owners_X[i] != owners_X[j]) & (labels[i] != labels[j]) & (norms[i] > 0) & (norms[j] > 0)
            i, j = i[apart], j[apart]
            close = np.zeros(len(i), bool)
            for first in range(0, len(i), PAIRS_AT_ONCE):
                here = slice(first, first + PAIRS_AT_ONCE)
                a, b = (values_HD[chosen_X[one[here]]].astype(np.float32) for one in (i, j))
                close[here] = np.einsum("xd,xd->x", a, b) >= least * norms[i[here]] * norms[j[here]]
            labels = _merged(labels, i[close], j[close])
    return Groups(labels, 1 - missed)


def unit_rows(values_XD: Array) -> NDArray[np.float32]:
    """Return vectors of length 1; those of zeros stay zero."""
    values = values_XD.astype(np.float32)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(values, norms, out=values, where=norms > 0)


def _norms(values_HD: Array, chosen_X: Array) -> NDArray[np.float32]:
    norms = np.empty(len(chosen_X), np.float32)
    for at in range(0, len(chosen_X), BLOCK):
        norms[at : at + BLOCK] = np.linalg.norm(values_HD[chosen_X[at : at + BLOCK]].astype(np.float32), axis=1)
    return norms


def _same_side(cosine: float | Array) -> Array:
    """The probability that a random hyperplane does not separate two vectors."""
    return np.asarray(1 - np.arccos(np.clip(cosine, -1, 1)) / np.pi)


def _bits(sample_SD: Array, count: int, least: float) -> int:
    """As few hyperplanes as leave about PAIRS_A_VECTOR pairs of ``count`` vectors in a bucket that are not close."""
    cosines = (sample_SD @ sample_SD.T)[np.triu_indices(len(sample_SD), 1)]
    same = _same_side(cosines[cosines < least]).astype(np.float64)
    for bits in range(8, MOST_BITS):
        if count / 2 * float(np.mean(same**bits) if len(same) else 0.0) <= PAIRS_A_VECTOR:
            return bits
    return MOST_BITS


def _codes(
    values_HD: Array, chosen_X: Array, bits: int, tables: int, random: np.random.Generator
) -> Iterator[NDArray[np.uint64]]:
    """The bucket [X] of every vector, table by table."""
    powers = np.left_shift(np.uint64(1), np.arange(bits, dtype=np.uint64))
    for first in range(0, tables, TABLES_AT_ONCE):
        here = min(TABLES_AT_ONCE, tables - first)
        planes = random.normal(size=(values_HD.shape[1], here * bits)).astype(np.float32)
        codes = np.empty((here, len(chosen_X)), np.uint64)
        for at in range(0, len(chosen_X), BLOCK):
            sides = values_HD[chosen_X[at : at + BLOCK]].astype(np.float32) @ planes > 0
            codes[:, at : at + BLOCK] = (sides.reshape(len(sides), here, bits) @ powers).T
        yield from codes


def _bucket_pairs(sorted_codes: Array, order: Array) -> Iterator[tuple[Array, Array]]:
    """Pairs (i, j) in one bucket: of neighbours first, then of those with one vector between them, and so on."""
    for offset in range(1, min(NEIGHBOURS, len(order) - 1) + 1):
        same = np.flatnonzero(sorted_codes[offset:] == sorted_codes[:-offset])
        if not len(same):
            break
        yield order[same], order[same + offset]


def _compared(sorted_codes: Array) -> float:
    """The share of its bucket that a vector is compared with, mean over the vectors that are not alone."""
    first = np.flatnonzero(np.concatenate([[True], sorted_codes[1:] != sorted_codes[:-1]]))
    sizes = np.diff(np.append(first, len(sorted_codes)))
    sizes = sizes[sizes > 1]
    shares = np.minimum(2 * NEIGHBOURS / np.maximum(sizes - 1, 1), 1)
    return float((shares * sizes).sum() / sizes.sum()) if len(sizes) else 1.0


def _merged(labels: NDArray[np.int64], i: Array, j: Array) -> NDArray[np.int64]:
    """Labels in which those of ``i`` and ``j``, pair by pair, are the same."""
    if not len(i):
        return labels
    edges = coo_array((np.ones(len(i), bool), (labels[i], labels[j])), shape=(len(labels), len(labels)))
    return connected_components(edges, directed=False)[1].astype(np.int64)[labels]
