"""How near the attributions of a model as it is come to those of an exact model, which takes a fine-tuning.

An exact model (`tokenpair train`) subtracts every text's reference and is trained to do its work without it; the
paper's attributions A sum to its score. Of the base model that it was made from, three attributions are compared with
those, pair by pair at the same layer: cells that sum to the score (the default), the paper's A, and products of token
embeddings, which cost nothing. Values are within-pair correlations, Pearson's and Spearman's, of words' sums (the mean
of both texts) and of word pairs, and their means over the pairs with bootstrap intervals over first texts.

Read them with care: the exact model embeds a text to e − e(reference), and A of the base model is A of that very
function before its training. So A has a start, and a high figure says that training changed little of the function, not
that A says more of the base model, which has another one. A correlation does not see either that A sums to more than
the base model's score.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from choices import read_pairs
from machine import describe, minilm
from numpy.typing import NDArray

from attribution_core import Attributor
from attribution_core.model.encoder import ReadText
from attribution_core.pairs.completion import Completion
from attribution_core.results import Contributions
from jobs.analysis.comparison.agreement import cosine, spearman
from jobs.analysis.resampling import Bootstrap, few_draws

Values = NDArray[np.float64]
MEASURES = ("words, Pearson", "words, Spearman", "word pairs, Pearson", "word pairs, Spearman")
SCORE, PAPER = Completion("score"), Completion("difference")


@dataclass(frozen=True)
class Read:
    """One attribution of a pair: sums of its words, of either text, and the values of its word pairs."""

    rows: Values
    cols: Values
    cells: Values


def read_of(products_IJ: Values, a: ReadText, b: ReadText) -> Read:
    """Words and word pairs of a matrix over all groups; a word's sum is over special tokens of the other text too."""
    i, j = (np.flatnonzero([kind == "text" for kind in one.groups.kinds]) for one in (a, b))
    exact_IJ = products_IJ.astype(np.float64)
    return Read(exact_IJ.sum(1)[i], exact_IJ.sum(0)[j], exact_IJ[np.ix_(i, j)].ravel())


def attributions(
    attributor: Attributor, pairs: list[tuple[str, str]], completions: tuple[Completion, ...]
) -> list[list[Read]]:
    """Each pair's attributions by each of ``completions``, from the same contributions."""
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    read = dict(zip(texts, attributor.read(texts, "text"), strict=True))
    found: dict[str, Contributions] = dict(
        zip(texts, attributor.contributions([read[text] for text in texts]), strict=True)
    )
    return [[read_of(one.products(found[a], found[b]), read[a], read[b]) for a, b in pairs] for one in completions]


def products_of_token_embeddings(attributor: Attributor, pairs: list[tuple[str, str]]) -> list[Read]:
    """Products of the words' token embeddings at the top of the model, each word's tokens summed."""
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    read = dict(zip(texts, attributor.read(texts, "text"), strict=True))
    embedded: Any = attributor.encoder.model.encode(texts, output_value="token_embeddings")
    summed: dict[str, Values] = {}
    for text, tokens in zip(texts, embedded, strict=True):
        values_Td = tokens[: len(read[text])].cpu().numpy().astype(np.float64)
        summed[text] = np.zeros((len(read[text].groups), values_Td.shape[1]))
        np.add.at(summed[text], np.asarray(read[text].groups.of_token), values_Td)
    return [read_of(summed[a] @ summed[b].T, read[a], read[b]) for a, b in pairs]


def agreement(one: Read, other: Read) -> list[float]:
    """The four MEASURES of a pair; NaN where one is not defined."""

    def mean(measure: Callable[[Values, Values], float | None]) -> float:
        both = [measure(one.rows, other.rows), measure(one.cols, other.cols)]
        there = [value for value in both if value is not None]
        return float(np.mean(there)) if there else float("nan")

    def cells(measure: Callable[[Values, Values], float | None]) -> float:
        found = measure(one.cells, other.cells)
        return float("nan") if found is None else found

    return [mean(pearson), mean(spearman), cells(pearson), cells(spearman)]


def pearson(one: Values, other: Values) -> float | None:
    """The correlation of two vectors; None below three values, or where one does not vary."""
    return cosine(one - one.mean(), other - other.mean()) if len(one) > 2 else None


def compare_layer(base: Any, exact: Any, layer: int, pairs: list[tuple[str, str]], seed: int) -> None:
    """A line for each attribution of the base model."""
    began = time.perf_counter()
    own = Attributor(base, layer=layer)
    (wanted,) = attributions(Attributor(exact, layer=layer), pairs, (PAPER,))
    by_score, by_paper = attributions(own, pairs, (SCORE, PAPER))
    told = {
        "sums to the score": by_score,
        "the paper's A": by_paper,
        "token embeddings": products_of_token_embeddings(own, pairs),
    }
    values = {
        name: np.array([agreement(one, other) for one, other in zip(found, wanted, strict=True)])
        for name, found in told.items()
    }
    there = np.all([np.isfinite(found).all(1) for found in values.values()], axis=0)
    bootstrap = Bootstrap([a for (a, _), kept in zip(pairs, there, strict=True) if kept], seed)
    print(f"\nlayer {layer}: {int(there.sum())} pairs of {len(pairs)}, {time.perf_counter() - began:.0f} s")
    print(few_draws(bootstrap.clusters), end="\n" if few_draws(bootstrap.clusters) else "")
    print(f"| base model | {' | '.join(MEASURES)} |\n|---|{'---|' * len(MEASURES)}")
    for name, found in values.items():
        means, low, high = bootstrap.means(found[there])
        shown = (f"{m:.3f} [{x:.3f}, {y:.3f}]" for m, x, y in zip(means, low, high, strict=True))
        print(f"| {name} | {' | '.join(shown)} |")
    for other in ("the paper's A", "token embeddings"):
        means, low, high = bootstrap.means((values["sums to the score"] - values[other])[there])
        shown = (f"{m:+.3f} [{x:+.3f}, {y:+.3f}]" for m, x, y in zip(means, low, high, strict=True))
        print(f"| sums to the score, less {other} | {' | '.join(shown)} |", flush=True)


def main() -> None:
    """A table a layer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exact", help="folder of the exact model: OUTPUT/model of `tokenpair train`")
    parser.add_argument("--base", default="", help="the model that it was made from; default: all-MiniLM-L6-v2")
    parser.add_argument("--pairs", type=Path, required=True, help="CSV without header: two sentences a line")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--layers", type=int, nargs="+", default=[-1, -2, 0])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from attribution_core.model.loading import load_model

    torch.manual_seed(options.seed)
    (_, base), (_, exact) = load_model(options.base or minilm()), load_model(options.exact)
    pairs = read_pairs(options.pairs, options.count)
    scores = [
        np.asarray(model.similarity_pairwise(model.encode([a for a, _ in pairs]), model.encode([b for _, b in pairs])))
        for model in (base, exact)
    ]
    print(describe())
    print(f"{len(pairs)} pairs; scores of the two models: Pearson {np.corrcoef(*scores)[0, 1]:.3f}")
    for layer in options.layers:
        compare_layer(base, exact, layer, pairs, options.seed)


if __name__ == "__main__":
    main()
