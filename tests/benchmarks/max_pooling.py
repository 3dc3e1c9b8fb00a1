"""What max pooling costs beside mean pooling: nodes, errors and seconds a pair of one model with either.

    python tests/benchmarks/max_pooling.py sentence-transformers/all-MiniLM-L6-v2 stsb-en-dev.csv --count 200

The model is put together again with the pooling in question and a Normalize, and cut at the layers asked for; pairs are
the first two columns of a CSV file, spread over it. One thread; mean pooling also by torch.func, as max pooling is.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from choices import read_pairs
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize
from sentence_transformers.sentence_transformer.modules import Pooling

from attribution_core import Attributor

KINDS = (("mean", "auto"), ("mean", "generic"), ("max", "auto"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder or a name on the hub, of a Transformer and a Pooling")
    parser.add_argument("pairs", type=Path, help="a CSV file of pairs of sentences")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--layers", nargs="+", type=int, default=[-1, -2])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    pairs = read_pairs(asked.pairs, asked.count)
    print(
        "| pooling | layer | nodes: median, 90 %, most | converged | error: median, 99 %, most | CPU seconds a pair |"
    )
    print("|---" * 6 + "|")
    for layer in asked.layers:
        for pooling, products in KINDS:
            measure(asked.model, pooling, products, layer, pairs)


def measure(name: str, pooling: str, products: str, layer: int, pairs: list[tuple[str, str]]) -> None:
    """Print a row."""
    transformer = SentenceTransformer(name, device="cpu")[0]
    width = transformer.get_embedding_dimension()
    model = SentenceTransformer(modules=[transformer, Pooling(width, pooling), Normalize()], device="cpu")
    attributor = Attributor(model, layer=layer, products=products)
    attributor.calibrate()
    attributor.attribute_pairs(pairs[:2])
    began = time.process_time()
    attributed = attributor.attribute_pairs(pairs)
    seconds = (time.process_time() - began) / len(pairs)
    nodes = np.array([text.nodes for pair in attributed for text in (pair.a, pair.b)])
    errors = np.abs([pair.total - pair.score for pair in attributed])
    cells = [
        pooling if products == "auto" else f"{pooling}, torch.func",
        str(layer),
        f"{np.median(nodes):.0f}, {np.quantile(nodes, 0.9):.0f}, {nodes.max()}",
        f"{np.mean([pair.converged for pair in attributed]):.1%}",
        f"{np.median(errors):.0e}, {np.quantile(errors, 0.99):.0e}, {errors.max():.0e}",
        f"{seconds:.2f}",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
