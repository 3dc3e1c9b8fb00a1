"""What ``level="words"`` saves: the same pairs with word pairs and without, in turn, on one core's own time.

    python tests/benchmarks/levels.py
    python tests/benchmarks/levels.py --words 10 --documents 20 --length 150 --layer -1 --tolerance 0.015

A query of ``--words`` words with ``--documents`` documents of ``--length`` words each, and as many pairs of sentences
of 12 words. Prints processor milliseconds a pair, the ratio, and the largest difference of a word's part.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from machine import describe, minilm, text_of
from sentence_transformers import SentenceTransformer

from attribution_core import Attributor
from attribution_core.results import PairAttribution


def main() -> None:
    """One row for the log and one for sentence pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=10)
    parser.add_argument("--documents", type=int, default=10)
    parser.add_argument("--length", type=int, default=150)
    parser.add_argument("--layer", type=int, default=-2)
    parser.add_argument("--tolerance", type=float, default=2e-3)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = SentenceTransformer(minilm(), device="cpu")
    documents = [text_of(options.length, seed) for seed in range(options.documents)]
    log = [(text_of(options.words, 99), document) for document in documents]
    sentences = [(text_of(12, seed), text_of(12, 1000 + seed)) for seed in range(options.documents)]
    print(f"{describe()}; layer {options.layer}, tolerance {options.tolerance:g}")
    print("| pairs | word pairs, ms | words, ms | ratio | largest difference |\n|---|---|---|---|---|")
    for name, pairs, mode in (("a query and its documents", log, "retrieval"), ("sentences", sentences, "symmetric")):
        levels = {
            level: Attributor(model, level=level, mode=mode, layer=options.layer, tolerance=options.tolerance)
            for level in ("pairs", "words")
        }
        least: dict[str, float] = {}
        found: dict[str, list[PairAttribution]] = {}
        for _ in range(options.repeats + 1):  # the first round calibrates
            for level, attributor in levels.items():
                began = time.process_time()
                found[level] = attributor.attribute_pairs(pairs)
                seconds = time.process_time() - began
                least[level] = min(seconds, least.get(level, seconds))
        differences = [
            float(np.abs(getattr(one, sums) - getattr(other, sums)).max())
            for one, other in zip(found["pairs"], found["words"], strict=True)
            for sums in ("row_sums", "col_sums")
        ]
        both = [1000 * least[level] / len(pairs) for level in ("pairs", "words")]
        print(f"| {name} | {both[0]:.0f} | {both[1]:.0f} | {both[0] / both[1]:.2f} × | {max(differences):.1e} |")


if __name__ == "__main__":
    main()
