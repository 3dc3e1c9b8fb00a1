"""Does the cost model take the cheapest way? Every way is forced and timed, and the choice is looked up among them.

The seconds are those of one core's own work (one thread, processor time, the least of some interleaved repeats), so
that other work on the machine moves them little. A choice that mixes ways as no forced run does is timed as well.
"""

from __future__ import annotations

import argparse
import itertools
import time

import torch
from machine import describe, minilm, text_of
from sentence_transformers import SentenceTransformer

from attribution_core import Attributor

HOPELESS = 5
CASES = {"short/short": (12, 12), "short/long": (12, 96), "long/long": (96, 96)}


def main() -> None:
    """One row a case: seconds by way, the choice, and how far it is from the best."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--partners", nargs="+", type=int, default=[1, 10, 100])
    parser.add_argument("--groups", nargs="+", default=["token", "word", "sentence"])
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--reverse", action="store_true", help="time full reverse as well (slow, D directions)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    forced = ["forward", "partner", *(["reverse"] if options.reverse else [])]
    model = SentenceTransformer(minilm(), device="cpu")
    print(describe())
    print(f"{'case':12}{'partners':>9}{'groups':>10}" + "".join(f"{way:>10}" for way in forced) + "  choice      loss")
    for case, partners, groups in itertools.product(options.cases, options.partners, options.groups):
        a, b = CASES[case]
        # Partners are the short side: one document with its queries, or one sentence with others.
        pairs = [(text_of(a, first), text_of(b, 99)) for first in range(partners)]
        runs = {
            way: Attributor(model, groups=groups, way=way, nodes=options.nodes, quadrature="riemann")
            for way in [*forced, "auto"]
        }
        if hopeless(runs["partner"], pairs):
            del runs["partner"]
        taken_ways = {way: ways_of(attributor, pairs) for way, attributor in runs.items()}
        choice = next((way for way in forced if taken_ways.get(way) == taken_ways["auto"]), "auto")
        if choice != "auto":
            del runs["auto"]
        taken = least_seconds(runs, pairs, options.repeats)
        loss = taken[choice] / min(taken[way] for way in forced if way in taken) - 1
        row = "".join(f"{taken[way]:>10.3f}" if way in taken else f"{'—':>10}" for way in forced)
        named = choice if choice != "auto" else f"mixed {taken['auto']:.3f}"
        print(f"{case:12}{partners:>9}{groups:>10}{row}  {named:12}{loss:>4.0%}", flush=True)


def ways_of(attributor: Attributor, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The ways of both texts of every pair; it also warms the attributor up."""
    return [(pair.a.way, pair.b.way) for pair in attributor.attribute_pairs(pairs)]


def least_seconds(runs: dict[str, Attributor], pairs: list[tuple[str, str]], repeats: int) -> dict[str, float]:
    """The least processor time of each run, the runs taken in turn."""
    taken: dict[str, list[float]] = {way: [] for way in runs}
    for _ in range(repeats):
        for way, attributor in runs.items():
            started = time.process_time()
            attributor.attribute_pairs(pairs)
            taken[way].append(time.process_time() - started)
    return {way: min(times) for way, times in taken.items()}


def hopeless(attributor: Attributor, pairs: list[tuple[str, str]]) -> bool:
    """Whether the one long text has several times more directions through its partners than forward."""
    short, long = (attributor.read(sorted(set(texts)), "text") for texts in zip(*pairs, strict=True))
    return sum(len(text.groups) for text in short) > HOPELESS * max(len(text.groups) for text in long)


if __name__ == "__main__":
    main()
