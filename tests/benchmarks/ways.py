"""Does the cost model take the cheapest way? Every way is forced and timed beside the one that is chosen."""

from __future__ import annotations

import argparse
import itertools

import torch
from machine import describe, minilm, seconds, text_of
from sentence_transformers import SentenceTransformer

from attribution_core import Attributor

HOPELESS = 5
CASES = {"short/short": (12, 12), "short/long": (12, 96), "long/long": (96, 96)}


def main() -> None:
    """One row a case: seconds by way, the choice, and how far it is from the best."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--partners", nargs="+", type=int, default=[1, 10, 100])
    parser.add_argument("--groups", nargs="+", default=["token", "word", "sentence"])
    parser.add_argument("--nodes", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--reverse", action="store_true", help="time full reverse as well (slow, D directions)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ways = ["forward", "partner", *(["reverse"] if options.reverse else [])]
    model = SentenceTransformer(minilm(), device="cpu")
    print(describe())
    print(
        f"{'case':12}{'partners':>9}{'groups':>10}" + "".join(f"{way:>10}" for way in [*ways, "auto"]) + f"{'loss':>8}"
    )
    for case, partners, groups in itertools.product(options.cases, options.partners, options.groups):
        a, b = CASES[case]
        # Partners are the short side: one document with its queries, or one sentence with others.
        pairs = [(text_of(a, first), text_of(b, 99)) for first in range(partners)]
        taken = {}
        for way in [*ways, "auto"]:
            attributor = Attributor(model, groups=groups, way=way, nodes=options.nodes, quadrature="riemann")
            if way == "partner" and hopeless(attributor, pairs):
                continue
            taken[way] = seconds(lambda a=attributor, p=pairs: a.attribute_pairs(p), options.repeats)  # type: ignore[misc]
        loss = taken["auto"] / min(taken[way] for way in ways if way in taken) - 1
        row = "".join(f"{taken[way]:>10.3f}" if way in taken else f"{'—':>10}" for way in [*ways, "auto"])
        print(f"{case:12}{partners:>9}{groups:>10}{row}{loss:>8.0%}", flush=True)


def hopeless(attributor: Attributor, pairs: list[tuple[str, str]]) -> bool:
    """Whether the one long text has several times more directions through its partners than forward."""
    short, long = (attributor.read(sorted(set(texts)), "text") for texts in zip(*pairs, strict=True))
    return sum(len(text.groups) for text in short) > HOPELESS * max(len(text.groups) for text in long)


if __name__ == "__main__":
    main()
