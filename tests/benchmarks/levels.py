"""What ``level="words"`` saves: the same pairs with word pairs and without, in turn, on one core's own time.

    python tests/benchmarks/levels.py
    python tests/benchmarks/levels.py --words 10 --documents 20 --length 150 --layer -1 --tolerance 0.015

A query of ``--words`` words with ``--documents`` documents of ``--length`` words each, as many pairs of sentences of 12
words, and whole jobs of two such queries (``level``), planning and writing included. Prints processor milliseconds a
pair, the ratio, and the largest difference of a word's part.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import describe, minilm, text_of
from sentence_transformers import SentenceTransformer

from attribution_core import Attributor
from attribution_core.results import PairAttribution
from jobs.config.job import parse_job
from jobs.engine.driver import run_job
from jobs.run.reader import open_run


def main() -> None:
    """One row for the log, one for sentence pairs and one for jobs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=10)
    parser.add_argument("--documents", type=int, default=10)
    parser.add_argument("--length", type=int, default=150)
    parser.add_argument("--layer", type=int, default=-2)
    parser.add_argument("--tolerance", type=float, default=2e-3)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = SentenceTransformer(minilm(), device="cpu")
    documents = [text_of(options.length, seed) for seed in range(options.documents)]
    log = [(text_of(options.words, 99), document) for document in documents]
    sentences = [(text_of(12, seed), text_of(12, 1000 + seed)) for seed in range(options.documents)]
    print(f"{describe()}; layer {options.layer}, tolerance {options.tolerance:g}")
    print("| pairs | word pairs, ms | words, ms | ratio | largest difference |\n|---|---|---|---|---|")
    for name, pairs, mode in (("a query and its documents", log, "retrieval"), ("sentences", sentences, "symmetric")):
        levels = {
            level: Attributor(model, level=level, mode=mode, layer=options.layer, tolerance=options.tolerance)
            for level in ("pairs", "words")
        }
        least: dict[str, float] = {}
        found: dict[str, list[PairAttribution]] = {}
        for _ in range(options.repeats + 1):  # the first round calibrates
            for level, attributor in levels.items():
                began = time.process_time()
                found[level] = attributor.attribute_pairs(pairs)
                seconds = time.process_time() - began
                least[level] = min(seconds, least.get(level, seconds))
        differences = [
            float(np.abs(getattr(one, sums) - getattr(other, sums)).max())
            for one, other in zip(found["pairs"], found["words"], strict=True)
            for sums in ("row_sums", "col_sums")
        ]
        both = [1000 * least[level] / len(pairs) for level in ("pairs", "words")]
        print(f"| {name} | {both[0]:.0f} | {both[1]:.0f} | {both[0] / both[1]:.2f} × | {max(differences):.1e} |")
    jobs_row(options)


def jobs_row(options: argparse.Namespace) -> None:
    """Both levels of one job of two queries with their documents, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        pairs = [(f"q{at % 2}", f"d{at}") for at in range(2 * options.documents)]
        texts = {"queries": {f"q{at}": text_of(options.words, 99 + at) for at in range(2)}}
        texts["corpus"] = {document: text_of(options.length, at) for at, (_, document) in enumerate(pairs)}
        for name, of in texts.items():
            lines = (json.dumps({"_id": key, "text": text}) for key, text in of.items())
            (place / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        ranked = (f"{query} Q0 {document} {at} {1 / at:.6f} t\n" for at, (query, document) in enumerate(pairs, 1))
        (place / "run.trec").write_text("".join(ranked))
        settings = {
            "model": minilm(),
            "log": str(place / "run.trec"),
            **{name: str(place / f"{name}.jsonl") for name in texts},
            "layer": options.layer,
            "quadrature": {"tolerance": options.tolerance},
            "workers": {"ray": False, "cpus": 1},
        }
        least: dict[str, float] = {}
        for repeat in range(options.repeats):
            for level in ("pairs", "words"):
                job = parse_job(settings | {"level": level, "output": str(place / f"{level}{repeat}")})
                began = time.process_time()
                assert run_job(job, quiet=True).exit_code == 0
                seconds = time.process_time() - began
                least[level] = min(seconds, least.get(level, seconds))
        tables = [open_run(place / f"{level}0").to_table().sort_by("pair_id") for level in least]
        difference = max(
            float(np.abs(np.subtract(one, other)).max())
            for name in ("row_sums", "col_sums")
            for one, other in zip(*(table[name].to_pylist() for table in tables), strict=True)
        )
        both = [1000 * least[level] / len(pairs) for level in ("pairs", "words")]
        print(f"| a job of such a log | {both[0]:.0f} | {both[1]:.0f} | {both[0] / both[1]:.2f} × | {difference:.1e} |")


if __name__ == "__main__":
    main()
