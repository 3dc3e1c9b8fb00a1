"""What the choice of layer and grouping costs and changes: nodes, processor seconds, agreement, reference terms.

Agreement is that of word attributions with those of the default layer: Spearman's correlation over the cells of a pair,
and how many of its five strongest cells are the same. Seconds are of the processor, not of the clock, so that other
work on the machine counts little; calibration is left out. One thread.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe, minilm

from attribution_core import Attributor, PairAttribution
from attribution_core.errors import TextError

TOP = 5
DEFAULT = -2


def read_pairs(path: Path, count: int) -> list[tuple[str, str]]:
    """``count`` pairs spread evenly over a CSV file whose first two columns are texts."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [(row[0], row[1]) for row in csv.reader(file) if len(row) >= 2]
    return [rows[at * len(rows) // count] for at in range(count)]


def text_cells(pair: PairAttribution) -> np.ndarray:
    """The matrix without special tokens."""
    rows = [g for g, kind in enumerate(pair.a.groups.kinds) if kind == "text"]
    cols = [g for g, kind in enumerate(pair.b.groups.kinds) if kind == "text"]
    return pair.matrix[np.ix_(rows, cols)]


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation of two matrices' cells (ties are as good as absent in floats)."""
    ranks = [np.argsort(np.argsort(one.ravel())).astype(float) for one in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def same_top(a: PairAttribution, b: PairAttribution) -> float:
    """The share of the strongest cells that are the same."""
    first, second = ({(cell.i, cell.j) for cell in one.top(TOP)} for one in (a, b))
    return len(first & second) / len(first)


def timed(attributor: Attributor, pairs: list[tuple[str, str]]) -> tuple[list[PairAttribution], float]:
    """Pairs and processor seconds a pair."""
    attributor.calibrate()
    began = time.process_time()
    found = attributor.attribute_pairs(pairs)
    return found, (time.process_time() - began) / len(pairs)


def by_layer(model: str, pairs: list[tuple[str, str]]) -> None:
    """One line a layer."""
    base = Attributor(model, layer=DEFAULT)
    usual, unit = timed(base, pairs)
    head = f"{'layer':>6}{'nodes':>12}{'s a pair':>10}{'ratio':>7}{'|error|':>10}{'rank corr.':>12}{'top 5':>7}"
    print(f"{head}{'special':>9}")
    for layer in reversed(range(base.encoder.layer_count)):
        attributor = Attributor(base.encoder.model, layer=layer, shared=True)
        found, seconds = (usual, unit) if layer == base.layer else timed(attributor, pairs)
        nodes = sorted(text.nodes for pair in found for text in (pair.a, pair.b))
        agreement = statistics.mean(spearman(text_cells(a), text_cells(b)) for a, b in zip(found, usual, strict=True))
        top = statistics.mean(same_top(a, b) for a, b in zip(found, usual, strict=True))
        error = statistics.median(abs(pair.error) for pair in found)
        special = statistics.median(abs(pair.total - float(text_cells(pair).sum())) for pair in found)
        print(
            f"{layer:>6}{f'{nodes[len(nodes) // 2]} to {nodes[-1]}':>12}{seconds:>10.3f}{seconds / unit:>7.1f}"
            f"{error:>10.0e}{agreement:>12.2f}{top:>7.2f}{special:>9.3f}",
            flush=True,
        )
    names = ("score", "total", "reference_a", "reference_b", "reference_ab")
    medians = ((name, statistics.median(getattr(pair, name) for pair in usual)) for name in names)
    print("medians: " + ", ".join(f"{name} {median:.2f}" for name, median in medians))


def by_group(model: str, pairs: list[tuple[str, str]]) -> None:
    """One line a grouping."""
    print(f"{'groups':>9}{'a text':>8}{'s a pair':>10}{'ratio':>7}")
    unit = 0.0
    for groups in ("word", "token", "sentence"):
        settings: dict[str, Any] = {"groups": groups, "way": "forward"}
        found, seconds = timed(Attributor(model, **settings), pairs)
        unit = unit or seconds
        count = statistics.mean(len(text.groups) for pair in found for text in (pair.a, pair.b))
        print(f"{groups:>9}{count:>8.0f}{seconds:>10.3f}{seconds / unit:>7.2f}", flush=True)


def main() -> None:
    """Layers on sentence pairs, groups on pairs of documents where some are given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="default: all-MiniLM-L6-v2")
    parser.add_argument("--pairs", type=Path, help="CSV without header: two sentences a line")
    parser.add_argument("--documents", type=Path, help="CSV without header: two documents a line")
    parser.add_argument("--count", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = options.model or minilm()
    print(describe())
    try:
        if options.pairs:
            by_layer(model, read_pairs(options.pairs, options.count))
        if options.documents:
            by_group(model, read_pairs(options.documents, options.count))
    except TextError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
