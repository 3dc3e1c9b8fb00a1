"""Texts and pairs a second by model size, and how the cost grows with text length, nodes, groups and partners."""

from __future__ import annotations

import argparse

import torch
from machine import SHAPES, describe, memory, model_of, read_exactly, seconds, text_of

from attribution_core import Attributor


def main() -> None:
    """First one row a model, then one a size that grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory", type=int, default=memory())
    parser.add_argument("--repeats", type=int, default=3, help="runs after a warm-up, of which the median counts")
    parser.add_argument("--growth", action="store_true", help="only the growth table (MiniLM)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(describe())
    if options.growth:
        growth()
        return
    print(f"{'model':12}{'tokens':>8}{'nodes':>7}{'texts/s':>9}{'pairs/s':>9}")
    for shape in options.shapes:
        # Only the layers above the cut are worked on, so a random model needs no more of them.
        model = model_of(shape, layers=None if shape == "MiniLM" else 3)
        for tokens, count in ((16, 1024), (128, 128)) if torch.cuda.is_available() else ((16, 16), (128, 1)):
            attributor = Attributor(model, nodes=8, memory=options.memory)
            attributor.contributor.mesh  # noqa: B018 - learned before the clock starts
            texts = read_exactly(attributor, tokens, count)
            by_text = seconds(lambda a=attributor, t=texts: a.contributor.contributions(t), options.repeats) / count  # type: ignore[misc]
            pairs = [(text_of(tokens, at), text_of(tokens, at + count)) for at in range(count)]
            by_pair = seconds(lambda a=attributor, p=pairs: a.attribute_pairs(p), options.repeats) / count  # type: ignore[misc]
            print(f"{shape:12}{tokens:>8}{8:>7}{1 / by_text:>9.3g}{1 / by_pair:>9.3g}", flush=True)


def growth() -> None:
    """Seconds a text as one size grows and the others stay."""
    model = model_of("MiniLM")
    print(f"{'what grows':14}{'value':>8}{'s a text':>10}")
    for tokens in (16, 32, 64, 128, 256):
        row("tokens", tokens, Attributor(model, nodes=4, quadrature="riemann"), tokens)
    for nodes in (2, 4, 8, 16, 32):
        row("nodes", nodes, Attributor(model, nodes=nodes, quadrature="riemann"), 32)
    for groups in ("sentence", "word", "token"):
        row("groups", groups, Attributor(model, nodes=4, quadrature="riemann", groups=groups), 64)
    for partners in (1, 4, 16):
        attributor = Attributor(model, nodes=4, quadrature="riemann", way="partner")
        pairs = [(text_of(8, first), text_of(128)) for first in range(partners)]
        print(f"{'partners':14}{partners:>8}{seconds(lambda a=attributor, p=pairs: a.attribute_pairs(p)):>10.4f}")


def row(what: str, value: object, attributor: Attributor, tokens: int) -> None:
    """One line of the growth table."""
    texts = read_exactly(attributor, tokens)
    print(f"{what:14}{value!s:>8}{seconds(lambda: attributor.contributor.contributions(texts)):>10.4f}", flush=True)


if __name__ == "__main__":
    main()
