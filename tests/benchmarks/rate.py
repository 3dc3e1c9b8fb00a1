"""Matrix-product rate of the contribution pass against the machine's own rate at the same shapes.

Products are counted as they are executed (torch's FlopCounterMode sees every matrix product, padding included), and
divided by the time of the whole contribution pass: features, choice of nodes left out, values at the nodes, tangents,
pooling. The machine's rate is that of the layer's own weight products, run back to back on as many rows.
"""

from __future__ import annotations

import argparse

import torch
from machine import SHAPES, describe, model_of, product_rate, read_exactly, seconds
from torch.utils.flop_counter import FlopCounterMode

from attribution_core import Attributor


def main() -> None:
    """One row a model shape and text length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["MiniLM", "mpnet-base"], choices=list(SHAPES))
    parser.add_argument("--tokens", nargs="+", type=int, default=[16, 128, 256])
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--groups", default="word")
    parser.add_argument("--way", default="forward", choices=["forward", "reverse"])
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--memory", type=int, default=2 << 30)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(describe())
    print(f"{'model':12}{'tokens':>8}{'texts':>7}{'Gflop':>10}{'s':>9}{'Gflop/s':>10}{'machine':>10}{'share':>8}")
    for shape in options.shapes:
        model = model_of(shape, layers=3 if shape != "MiniLM" else None)
        attributor = Attributor(
            model,
            nodes=options.nodes,
            way=options.way,
            groups=options.groups,
            memory=options.memory,
            precision=options.precision,
        )
        attributor.contributor.mesh  # noqa: B018 - learned before the clock starts
        for tokens in options.tokens:
            texts = read_exactly(attributor, tokens, count=max(1, 256 // tokens))
            with FlopCounterMode(display=False) as counter:
                attributor.contributor.contributions(texts)
            taken = seconds(lambda a=attributor, t=texts: a.contributor.contributions(t), 3)  # type: ignore[misc]
            rate = counter.get_total_flops() / taken
            own = product_rate(attributor.encoder.width, 64 * max(tokens, 64))
            print(
                f"{shape:12}{tokens:>8}{len(texts):>7}{counter.get_total_flops() / 1e9:>10.1f}{taken:>9.3f}"
                f"{rate / 1e9:>10.1f}{own / 1e9:>10.1f}{rate / own:>8.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
