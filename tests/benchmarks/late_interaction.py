"""How far attributions of late-interaction models agree with the deletion of single words, by model and layer.

    python tests/benchmarks/late_interaction.py cranfield late-plain late-projected late-expanded

``log`` and the models are those of late_interaction_train.py. The pairs are the queries held out there, each with its
first relevant document, cut to ``--words`` words; where ``log`` is a CSV file of texts and their label, without header,
pairs of a label of 2.5 or more and six words or more, at equal distances. Each word is deleted in turn, the rest
encoded again and scored by MaxSim with its matches searched anew. The table has rank correlations within a pair, means
over pairs: of the document's words for the attributions, the similarities of matched tokens and their margins to the
best match with another word; of the query's words for the attributions and the row maxima. Differences have 95 %
intervals, bootstrapped over queries.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
from late_interaction_train import held_out, read_log

from attribution_core import Attributor
from attribution_core.model.encoder import Encoder, Role
from attribution_core.model.multi_vector import LateEncoder
from jobs.analysis.faithfulness.agreement import SPEARMAN, correlation
from jobs.analysis.faithfulness.judge import matches_of
from jobs.analysis.faithfulness.orders import Values, of_attributions
from jobs.analysis.faithfulness.perturbation import Side
from jobs.analysis.faithfulness.scores import Scores, Texts
from jobs.analysis.resampling import Bootstrap
from jobs.cluster.environment import quiet_libraries

HEADER = (
    "| model | layer | document words: attributions | matched similarities | margins | over matched | over margins "
    "| query words: attributions | row maxima | over row maxima | seconds |\n" + "|---" * 11 + "|"
)
ROLES: tuple[Role, Role] = ("query", "document")
Pair = tuple[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path, help="a folder in BEIR's format, or a CSV file of labelled pairs")
    parser.add_argument("models", nargs="+", type=Path, help="folders of late-interaction models")
    parser.add_argument("--layers", nargs="+", type=int, default=[-1, -2])
    parser.add_argument("--count", type=int, default=75)
    parser.add_argument("--words", type=int, default=15, help="words that are kept of a document")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    quiet_libraries()
    pairs = alike(asked.log) if asked.log.suffix == ".csv" else logged(asked.log, asked.words)
    pairs = pairs[:: max(1, len(pairs) // asked.count)][: asked.count]
    bootstrap = Bootstrap([query for query, _ in pairs], asked.seed)
    print(HEADER)
    for model in asked.models:
        measure(model, pairs, asked.layers, bootstrap)


def logged(folder: Path, words: int) -> list[Pair]:
    """Each query that was held out with the beginning of its first relevant document."""
    queries, corpus, relevant = read_log(folder)
    return [(queries[one], " ".join(corpus[relevant[one][0]].split()[:words])) for one in held_out(relevant)]


def alike(file: Path) -> list[Pair]:
    """The labelled pairs of a file that are alike."""
    with open(file, newline="", encoding="utf-8") as rows:
        labelled = [(row[0], row[1]) for row in csv.reader(rows) if len(row) == 3 and float(row[2]) >= 2.5]
    return [pair for pair in labelled if min(len(text.split()) for text in pair) >= 6]


def measure(model: Path, pairs: list[Pair], layers: list[int], bootstrap: Bootstrap) -> None:
    """Print a row for each layer."""
    drops: list[tuple[Values, Values]] = []
    for layer in layers:
        started = time.perf_counter()
        attributor = Attributor(str(model), layer=layer, level="words")
        attributed = attributor.attribute_pairs(pairs)
        seconds = time.perf_counter() - started
        encoders = {role: attributor.encoder_of(role) for role in ROLES}
        sides = [(Side.of(pair.a), Side.of(pair.b)) for pair in attributed]
        if not drops:
            drops = [deleted(a, b, encoders, attributor.similarity) for a, b in sides]
        rows = []
        for pair, (a, b), (of_query, of_document) in zip(attributed, sides, drops, strict=True):
            matched, margins = matches_of(a, b, ROLES, encoders)
            own = of_attributions(pair, a, b)
            rows.append(
                [correlation(one.b, of_document, SPEARMAN) for one in (own, matched, margins)]
                + [correlation(one.a, of_query, SPEARMAN) for one in (own, matched)]
            )
        document, cosines, margin, query, maxima = np.array(rows).T
        over = [bootstrap.mean(more) for more in (document - cosines, document - margin, query - maxima)]
        values = [f"{one.mean():.3f}" for one in (document, cosines, margin, query, maxima)]
        cells = [model.name, str(layer), *values[:3], *map(str, over[:2]), *values[3:], str(over[2]), f"{seconds:.0f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


def deleted(a: Side, b: Side, encoders: dict[Role, Encoder], similarity: str) -> tuple[Values, Values]:
    """By how much the score drops without each word of the query, and without each of the document."""
    query, document = [[side.text, *(side.without([at]) for at in range(len(side)))] for side in (a, b)]
    embeddings: Texts = {}
    keys = []
    for role, texts in zip(ROLES, (query, document), strict=True):
        encoder = encoders[role]
        assert isinstance(encoder, LateEncoder), "the models are those of late interaction"
        keys.append([(role, text) for text in texts])
        embeddings.update(zip(keys[-1], encoder.outputs(encoder.read(texts, role, "token")), strict=True))
    scores = Scores(embeddings, similarity)
    of_query, of_document = scores.table(keys[0], keys[1][:1])[:, 0], scores.table(keys[0][:1], keys[1])[0]
    return of_query[0] - of_query[1:], of_document[0] - of_document[1:]


if __name__ == "__main__":
    main()
