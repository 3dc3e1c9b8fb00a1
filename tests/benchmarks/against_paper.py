"""Attributions by this package against the published procedure: whole time and identity error, in one run.

The procedure is the paper's, as fast as it can honestly be made on one process: features of text and reference at the
cut, N = 50 right-hand Riemann nodes, one backward pass for each of the D coordinates of the embedding, all nodes in one
batch, and nothing kept between pairs. The [S·d, S·d] matrix of the published code is not built; the Jacobian is
contracted with x − r as soon as it is there. On a GPU its products run in TF32. Times are also given for the same
procedure when it keeps every text's Jacobian (each distinct text paid for once).

It takes a minute or more a pair, so it runs on a seeded sample of the pairs that the package runs in full; ratios are
to its time for all of them. That is estimated from the forward pass and some of the backward passes, which are all
alike, of texts of up to sixteen lengths from the shortest to the longest, and interpolated between; "slices" says what
the same estimate makes of the sample that was timed.

With ``--cells`` both are also compared with an integral of 24 nodes, cell by cell, on some of the pairs. For that the
package makes the procedure's matrices at the procedure's nodes; how far they are from those of the sample is told.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe, memory, minilm
from torch.func import jvp

from attribution_core import Attributor, PairAttribution
from attribution_core.directions.precision import products_in
from attribution_core.model.encoder import Encoder, ReadText
from attribution_core.model.loading import load_model

NODES = 50
TRUTH = 24  # nodes of the integral that cells are compared with
SLICE = 16  # backward passes of a text that tell its time, of D
SLICES = 16  # lengths at which they are made


@dataclass(frozen=True)
class PaperText:
    """Contributions [S, D] by the procedure, with both embeddings."""

    values_SD: torch.Tensor
    embedding_D: torch.Tensor
    reference_D: torch.Tensor


def paper_text(encoder: Encoder, text: ReadText, coordinates: int | None = None) -> PaperText:
    """D backward passes over N = 50 nodes of one text, or those of its first ``coordinates`` alone."""
    batch = encoder.batch([text])
    delta = batch.x_BSd - batch.r_BSd
    alpha = torch.arange(1, NODES + 1, device=delta.device) / NODES
    points = (batch.r_BSd + alpha.view(-1, 1, 1) * delta).requires_grad_(True)
    embeddings = encoder.g(points, batch, copies=NODES)
    rows = []
    for coordinate in range(coordinates or embeddings.shape[1]):
        (jacobian,) = torch.autograd.grad(embeddings[:, coordinate].sum(), points, retain_graph=True)
        rows.append((jacobian.mean(0) * delta[0]).sum(-1))
    with torch.no_grad():
        return PaperText(torch.stack(rows, 1), encoder.g(batch.x_BSd, batch)[0], encoder.g(batch.r_BSd, batch)[0])


def paper_pair(a: PaperText, b: PaperText) -> tuple[torch.Tensor, float]:
    """The matrix of a pair and its identity error in units of the norms."""
    norm = a.embedding_D.norm() * b.embedding_D.norm()
    matrix = a.values_SD @ b.values_SD.T / norm
    return matrix, float(matrix.double().sum()) - expected_sum(a, b)


def expected_sum(a: PaperText, b: PaperText) -> float:
    """What the matrix of a pair sums to when the integrals are exact."""
    norm = a.embedding_D.norm() * b.embedding_D.norm()
    return float(((a.embedding_D - a.reference_D) @ (b.embedding_D - b.reference_D) / norm).double())


@torch.no_grad()
def paper_sum(encoder: Encoder, text: ReadText) -> PaperText:
    """The procedure's sum over tokens, [1, D], for its error: one forward-mode pass in place of D backward passes."""
    batch = encoder.batch([text])
    delta = batch.x_BSd - batch.r_BSd
    alpha = (torch.arange(1, NODES + 1, device=delta.device) / NODES).view(-1, 1, 1)
    sums = []
    for some in alpha.split(10):
        points = batch.r_BSd + some * delta
        copies = len(some)
        _, moved = jvp(lambda x, n=copies: encoder.g(x, batch, copies=n), (points,), (delta.expand_as(points),))
        sums.append(moved.sum(0))
    total_1D = torch.stack(sums).sum(0, keepdim=True) / NODES
    return PaperText(total_1D, encoder.g(batch.x_BSd, batch)[0], encoder.g(batch.r_BSd, batch)[0])


def in_groups(matrix_TT: torch.Tensor, a: ReadText, b: ReadText) -> np.ndarray:
    """A matrix of tokens, summed over the groups of both texts."""
    matrix = np.zeros((len(a.groups), len(b.groups)))
    np.add.at(matrix, np.ix_(a.groups.of_token, b.groups.of_token), matrix_TT.double().numpy(force=True))
    return matrix


def cell_errors(found: list[PairAttribution], truth: list[PairAttribution]) -> tuple[float, float]:
    """Means over pairs: the worst cell's error over the largest cell, and ‖error‖ over ‖matrix‖ of all cells."""
    worst, every = [], []
    for one, exact in zip(found, truth, strict=True):
        wrong = one.matrix - exact.matrix
        worst.append(np.abs(wrong).max() / np.abs(exact.matrix).max())
        every.append(np.linalg.norm(wrong) / np.linalg.norm(exact.matrix))
    return float(np.mean(worst)), float(np.mean(every))


def main() -> None:
    """Run both, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="model folder; default: the demo's MiniLM")
    parser.add_argument("--pairs", type=Path, help="CSV without header, two texts a row (such as STS-b)")
    parser.add_argument("--log", type=Path, help="BEIR folder with a TREC run run.*.trec; ten documents a query")
    parser.add_argument(
        "--keywords",
        action="store_true",
        help="queries of the log as most people type them: without stop words (needs spaCy)",
    )
    parser.add_argument("--count", type=int, default=200, help="pairs (or queries of a log) for the package")
    parser.add_argument("--sample", type=int, default=3, help="pairs for the paper's procedure")
    parser.add_argument("--errors", type=int, default=20, help="pairs for the mean error of the paper's procedure")
    parser.add_argument("--cells", type=int, default=0, help="pairs whose cells are compared with a finer integral")
    parser.add_argument(
        "--settings",
        nargs="+",
        default=["2e-3", "1e-2", "1.5e-2:bf16"],
        help="tolerances for the package, each with the precision of its tangents where that is not the default",
    )
    parser.add_argument("--memory", type=int, default=memory())
    parser.add_argument("--layer", type=int, default=-2)
    parser.add_argument("--groups", default="word")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ["TOKENPAIR_CACHE"] = "off"  # every setting learns its quadrature itself
    torch.set_num_threads(options.threads)
    _, model = load_model(options.model or minilm())
    pairs = (
        read_log(options.log, options.count, options.keywords)
        if options.log
        else read_pairs(options.pairs, options.count)
    )

    compared = random.Random(options.seed + 1).sample(range(len(pairs)), min(options.cells, len(pairs)))
    common: dict[str, Any] = {
        "layer": options.layer,
        "groups": options.groups,
        "memory": options.memory,
        "mode": "retrieval" if options.log else "symmetric",
    }
    ours: dict[str, tuple[float, float]] = {}
    cells: dict[str, list[PairAttribution]] = {}
    for setting in options.settings:
        tolerance, _, precision = setting.partition(":")
        started = time.perf_counter()
        attributor = Attributor(
            model, tolerance=float(tolerance), pair_tolerance=1.0, precision=precision or "auto", **common
        )
        attributions = attributor.attribute_pairs(pairs)
        taken = (time.perf_counter() - started) / len(pairs)
        ours[setting] = taken, float(np.mean([abs(pair.error) for pair in attributions]))
        cells[setting] = [attributions[at] for at in compared]
        nodes = Counter(text.nodes for pair in attributions for text in (pair.a, pair.b))
        counts = ", ".join(f"{count}: {often}" for count, often in sorted(nodes.items()))
        print(f"{setting}: {taken:.4f} s a pair; nodes of the pairs' texts {counts}", file=sys.stderr, flush=True)
        del attributions

    sample = random.Random(options.seed).sample(pairs, min(options.sample, len(pairs)))
    encoder = attributor.encoder
    reads = [attributor.read([pair[side] for pair in pairs], role) for side, role in enumerate(attributor.roles)]
    read = {pair: both for pair, *both in zip(pairs, *reads, strict=True)}
    distinct = {(text.role, text.text): text for both in read.values() for text in both}

    if torch.cuda.is_available():
        paper_text(encoder, read[sample[0]][0])  # what is loaded once is there
    errors: dict[tuple[str, str], float] = {}
    matrices: dict[tuple[str, str], np.ndarray] = {}
    paper_time = 0.0
    for texts in sample:
        (a, taken_a), (b, taken_b) = (timed_text(encoder, text) for text in read[texts])
        paper_time += taken_a + taken_b
        matrix_TT, error = paper_pair(a, b)
        matrices[texts], errors[texts] = in_groups(matrix_TT, *read[texts]), abs(error)
    for texts in random.Random(options.seed).sample(pairs, min(options.errors, len(pairs))):
        if texts not in errors:
            a, b = (paper_sum(encoder, text) for text in read[texts])
            errors[texts] = abs(paper_pair(a, b)[1])
    paper = paper_time / len(sample)
    of_length = paper_seconds(encoder, list(distinct.values()))
    every, sliced = (
        sum(of_length(len(text)) for pair in some for text in read[pair]) / len(some) for some in (pairs, sample)
    )
    kept = sum(of_length(len(text)) for text in distinct.values()) / len(pairs)
    error = float(np.mean(list(errors.values())))
    columns: dict[str, str] = {}
    if compared:
        truth = Attributor(model, nodes=TRUTH, **common).attribute_pairs([pairs[at] for at in compared])
        theirs = Attributor(model, nodes=NODES, quadrature="riemann", **common)
        cells["paper"] = theirs.attribute_pairs([pairs[at] for at in compared])
        for texts, matrix in matrices.items():
            difference = np.abs(theirs.attribute(*texts).matrix - matrix).max() / np.abs(matrix).max()
            print(f"the package at the procedure's nodes: largest difference {difference:.1e}", file=sys.stderr)
        for setting, found in cells.items():
            worst, every_cell = cell_errors(found, truth)
            columns[setting] = f"{worst:>10.1e}{every_cell:>10.1e}"
    paper_columns = f"{'':18}{columns.get('paper', '')}"
    print(f"{describe()}, layer {attributor.layer}, {options.groups} groups")
    print(
        f"{'':36}{'pairs':>8}{'s a pair':>12}{'mean |error|':>16}{'ratio':>9}{'to kept':>9}{'worst':>10}{'cells':>10}"
    )
    print(f"{'paper, nothing kept, measured':36}{len(sample):>8}{paper:>12.2f}{error:>16.2e}")
    print(f"{'paper, the same pairs by slices':36}{len(sample):>8}{sliced:>12.2f}")
    print(f"{'paper, nothing kept, estimate':36}{len(pairs):>8}{every:>12.2f}{error:>16.2e}{paper_columns}")
    print(f"{'paper, Jacobians kept, estimate':36}{len(pairs):>8}{kept:>12.2f}{error:>16.2e}")
    for setting, (taken, mean_error) in ours.items():
        print(
            f"{f'tokenpair, {setting}, mesh and all':36}{len(pairs):>8}{taken:>12.4f}{mean_error:>16.2e}"
            f"{every / taken:>8.0f}x{kept / taken:>8.0f}x{columns.get(setting, '')}"
        )


def paper_seconds(encoder: Encoder, texts: list[ReadText]) -> Callable[[int], float]:
    """Seconds of the procedure for a text of so many tokens, from slices of it on texts of ``SLICES`` lengths."""
    by_length = {len(text): text for text in texts}
    lengths = sorted(by_length)
    chosen = sorted({lengths[round(at)] for at in np.linspace(0, len(lengths) - 1, SLICES)})
    taken = [slice_seconds(encoder, by_length[length]) for length in chosen]
    return lambda tokens: float(np.interp(tokens, chosen, taken))


def slice_seconds(encoder: Encoder, text: ReadText) -> float:
    """Seconds of the procedure for a text, from its forward passes and those of few coordinates backward."""
    few, more = (timed_text(encoder, text, count)[1] for count in (SLICE // 4, SLICE))
    each = (more - few) / (SLICE - SLICE // 4)
    return few + each * (encoder.embedding_width - SLICE // 4)


def timed_text(encoder: Encoder, text: ReadText, coordinates: int | None = None) -> tuple[PaperText, float]:
    """:func:`paper_text`, its products in TF32 where there is a GPU, and its seconds."""
    started = time.perf_counter()
    with products_in("tf32"):
        found = paper_text(encoder, text, coordinates)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return found, time.perf_counter() - started


def read_pairs(path: Path | None, count: int) -> list[tuple[str, str]]:
    """The first pairs of a CSV, or of the built-in example's documentation where none is given."""
    if path is None:
        from jobs.demo.documents import standard_library_documents

        texts = [document.text for document in standard_library_documents()]
        return list(zip(texts[0::2], texts[1::2], strict=False))[:count]
    with path.open(newline="", encoding="utf-8") as file:
        return [(row[0], row[1]) for row in csv.reader(file)][:count]


def read_log(folder: Path, queries: int, keywords: bool = False) -> list[tuple[str, str]]:
    """Query and document texts of the ten best documents of the first queries of a run."""

    def texts(name: str) -> dict[str, str]:
        rows = [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]
        return {row["_id"]: (row.get("title", "") + " " + row["text"]).strip() for row in rows}

    query_of, document_of = texts("queries.jsonl"), texts("corpus.jsonl")
    pairs: list[tuple[str, str]] = []
    seen: dict[str, int] = {}
    for line in next(folder.glob("run*.trec")).read_text(encoding="utf-8").splitlines():
        query, _, document, *_ = line.split()
        if (query in seen or len(seen) < queries) and seen.get(query, 0) < 10 and document_of[document]:
            seen[query] = seen.get(query, 0) + 1
            asked = typed(query_of[query]) if keywords else query_of[query]
            pairs.append((asked, document_of[document]))
    return pairs


def typed(question: str) -> str:
    """A question without its stop words and punctuation."""
    from spacy.lang.en.stop_words import STOP_WORDS

    return " ".join(word for word in re.findall(r"[\w-]+", question) if word.lower() not in STOP_WORDS)


if __name__ == "__main__":
    main()
