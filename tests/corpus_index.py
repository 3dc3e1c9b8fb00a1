"""Indexes of rows that are chosen by hand, without a model, for the statistics over a corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from index_files import write_index
from numpy.typing import NDArray

from attribution_core.results import Contributions
from attribution_core.text.tokenized import ReadText
from jobs.index.reader import Index, open_index
from jobs.index.snapshot import Facts, Probe
from jobs.storage.store import Store

WIDTH = 16
FACTS = Facts("by hand", "none", 0, "cosine", "sentence", "float32", WIDTH, {}, "pad", Probe("a text", (1.0,) * WIDTH))
# A sentence and its row.
Written = Sequence[tuple[str, NDArray[Any]]]


def contributions(sentences: Written) -> Contributions:
    """A document of these sentences, joined by spaces; its embedding is the sum of their rows."""
    ends = np.cumsum([len(words) + 1 for words, _ in sentences]) - 1
    starts = ends - [len(words) for words, _ in sentences]
    kinds, tokens = np.zeros(len(sentences), np.int8), np.zeros(len(sentences), np.int64)
    text = ReadText(
        " ".join(words for words, _ in sentences), "document", "", None, "sentence", tokens, None, tokens > 0, tokens,
        kinds, kinds == 0, starts, ends, np.zeros(len(sentences)), lambda _, ids: [str(one) for one in ids],
    )  # fmt: skip
    values = np.stack([row for _, row in sentences]).astype(np.float32)
    reference = np.zeros(values.shape[1], np.float32)
    return Contributions(text, 8, 0.0, True, "forward", values, values.sum(0), reference)


def index_of(folder: Path, documents: Mapping[str, Written], *, encode: Any = None, **facts: Any) -> Index:
    """An index of documents by their ids."""
    known = [contributions(sentences) for sentences in documents.values()]
    write_index(Store.open(str(folder)), known, list(documents), replace(FACTS, **facts))
    return open_index(folder, encode=encode)


def directions(count: int, seed: int = 0, width: int = WIDTH) -> NDArray[np.float64]:
    """Random rows of length 1."""
    rows = np.random.default_rng(seed).normal(size=(count, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def turned(row: NDArray[Any], cosine: float, seed: int = 0) -> NDArray[np.float64]:
    """A row of length 1 with this cosine to ``row``."""
    own = row / np.linalg.norm(row)
    other = np.random.default_rng([seed, 1]).normal(size=len(row))
    other -= own * (own @ other)
    result: NDArray[np.float64] = cosine * own + np.sqrt(1 - cosine**2) * other / np.linalg.norm(other)
    return result
