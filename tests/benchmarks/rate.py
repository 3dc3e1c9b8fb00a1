"""Matrix-product rate of the contribution pass against the machine's own rate at the same shapes.

Products are counted as they are executed (torch's FlopCounterMode sees every matrix product, padding included), and
divided by the time of the whole contribution pass: features, choice of nodes left out, values at the nodes, tangents,
pooling. The machine's rate is that of the layer's own weight products, run back to back on as many rows, in bfloat16 on
a GPU. What the GPU kernels multiply is counted on the eager operations in their place, which make the same products.
"""

from __future__ import annotations

import argparse
import math

import torch
from machine import SHAPES, describe, memory, model_of, product_rate, read_exactly, seconds
from torch.utils.flop_counter import FlopCounterMode

from attribution_core import Attributor
from attribution_core.directions import kernels


def product_flops(_: object, a: torch.Size, b: torch.Size, *__: object, **___: object) -> int:
    """Of a product that is added to something."""
    return 2 * math.prod(a) * b[-1]


# The counter knows these two out of place only.
IN_PLACE = {torch.ops.aten.addmm_: product_flops, torch.ops.aten.baddbmm_: product_flops}


def main() -> None:
    """One row a model shape and text length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["MiniLM", "mpnet-base"], choices=list(SHAPES))
    parser.add_argument("--tokens", nargs="+", type=int, default=[16, 128, 256])
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--groups", default="word")
    parser.add_argument("--way", default="forward", choices=["forward", "reverse"])
    parser.add_argument("--precision", default="auto")
    parser.add_argument(
        "--tolerance", type=float, default=2e-3, help="what misses it with coarse tangents is computed again"
    )
    parser.add_argument("--memory", type=int, default=memory())
    parser.add_argument(
        "--batch", type=int, default=8192 if torch.cuda.is_available() else 256, help="tokens of all texts together"
    )
    parser.add_argument("--eager", action="store_true", help="on a GPU without its kernels, for comparison")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    on_gpu = torch.cuda.is_available()
    kernels.ENABLED = not options.eager
    print(f"{describe()}, tangents in {options.precision}{', no kernels' if options.eager else ''}")
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
            tolerance=options.tolerance,
        )
        attributor.contributor.mesh  # noqa: B018 - learned before the clock starts
        for tokens in options.tokens:
            texts = read_exactly(attributor, tokens, count=max(1, options.batch // tokens))
            kernels.ENABLED = False
            with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
                attributor.contributor.contributions(texts)
            kernels.ENABLED = not options.eager
            taken = seconds(lambda a=attributor, t=texts: a.contributor.contributions(t), 3)  # type: ignore[misc]
            rate = counter.get_total_flops() / taken
            rows = 1 << 16 if on_gpu else 64 * max(tokens, 64)
            own = product_rate(attributor.encoder.width, rows, torch.bfloat16 if on_gpu else torch.float32)
            print(
                f"{shape:12}{tokens:>8}{len(texts):>7}{counter.get_total_flops() / 1e9:>10.1f}{taken:>9.3f}"
                f"{rate / 1e9:>10.1f}{own / 1e9:>10.1f}{rate / own:>8.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
