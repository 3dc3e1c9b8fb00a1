"""Which pairs of a run are evaluated: the same ones for the same seed, however the run was sharded or ordered."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jobs.run.reader import Run

if TYPE_CHECKING:
    pass  # torch

BATCH_ROWS = 1 << 16


@dataclass(frozen=True)
class Sample:
    """``pair_ids`` in the order of their draw, out of ``of`` pairs of the run."""

    pair_ids: tuple[str, ...]
    of: int


def sample_pairs(run: Run, count: int, seed: int) -> Sample:
    """``count`` random pairs (all where there are no more), in memory that does not grow with the run.

    RunError where a part is damaged, StoreError where the store fails.
    """
    best: list[tuple[int, str]] = []
    seen = 0
    with run._reading():
        for batch in run.dataset().to_batches(columns=["pair_id"], batch_size=BATCH_ROWS):
            ids = batch.column(0).to_pylist()
            seen += len(ids)
            best += [(draw(seed, pair_id), pair_id) for pair_id in ids]
            if len(best) > count:
                best = sorted(best)[:count]
    return Sample(tuple(pair_id for _, pair_id in sorted(best)), seen)


def sample_queries(run: Run, count: int, seed: int, among: Iterable[str] | None = None) -> tuple[list[str], int]:
    """Return the ids of ``count`` random queries (all where there are no more), in the order of their draw, and how
    many the run has.

    They are drawn from ``among``, or from all. Raises as :func:`sample_pairs`.
    """
    seen: set[str] = set()
    with run._reading():
        for batch in run.dataset().to_batches(columns=["text_a_id"]):
            seen.update(batch.column(0).unique().to_pylist())
    wanted = seen if among is None else among
    return heapq.nsmallest(count, wanted, key=lambda name: (draw(seed, name), name)), len(seen)


def draw(seed: int, *names: str) -> int:
    """A random number of 64 bits that depends on the seed and the names alone."""
    digest = hashlib.blake2b("\x1f".join((str(seed), *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def generator(seed: int, *names: str) -> np.random.Generator:
    """Random numbers that depend on the seed and the names alone, not on a pair's position."""
    return np.random.default_rng(draw(seed, *names))
