"""What building an index costs: processor seconds a document against encoding it, in turns, in one process.

Usage: python tests/benchmarks/index_cost.py MODEL CORPUS.jsonl [DOCUMENTS]
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

from attribution_core import Attributor
from attribution_core.results import Contributions
from jobs.config.job import INDEX_LAYER, INDEX_TOLERANCE
from jobs.index.format import BATCH, document_batch, encoded_part
from jobs.sources.tables import with_title

DOCUMENTS = 64
# Documents of one turn.
TURN = 16


def texts_of(path: Path, count: int, seed: int = 0) -> list[str]:
    """So many documents of a BEIR corpus, drawn at random."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    texts = [with_title(row.get("title", ""), row["text"]) for row in rows if row["text"].strip()]
    return random.Random(seed).sample(texts, min(count, len(texts)))


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds of some work."""
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    """Print processor seconds a document, the ratio, and the bytes of a document."""
    model_name, corpus = sys.argv[1], Path(sys.argv[2])
    texts = texts_of(corpus, int(sys.argv[3]) if len(sys.argv) > 3 else DOCUMENTS)
    torch.set_num_threads(1)
    model = SentenceTransformer(model_name, device="cpu")
    attributor = Attributor(
        model, layer=INDEX_LAYER, tolerance=INDEX_TOLERANCE, groups="sentence", mode="retrieval", device="cpu"
    )
    attributor.calibrate()
    attributor.contributions(attributor.read(texts[:2], "document"))
    model.encode(texts[:2])
    encoding: list[float] = []
    building: list[float] = []
    known: list[Contributions] = []

    def encode(some: list[str]) -> None:
        model.encode(some, batch_size=TURN, show_progress_bar=False)

    def build(some: list[str]) -> None:
        computed = attributor.contributions(attributor.read(some, "document"))
        document_batch(computed, [str(at) for at in range(len(some))], texts=False)
        known.extend(computed)

    for low in range(0, len(texts), TURN):
        some = texts[low : low + TURN]
        for work, took in ((encode, encoding), (build, building)):
            took.append(seconds(partial(work, some)) / len(some))
        both = f"encode {encoding[-1]:.3f} s, index {building[-1]:.3f} s, {building[-1] / encoding[-1]:.2f} ×"
        print(f"{low + len(some):5} documents: {both}")
    whole = seconds(lambda: model.encode(texts, show_progress_bar=False)) / len(texts)
    batches = [known[low : low + BATCH] for low in range(0, len(known), BATCH)]
    parts = [document_batch(some, [str(at) for at in range(len(some))], texts=False) for some in batches]
    size = len(encoded_part(parts)) / len(known)
    tokens = statistics.mean(len(one.text) for one in known)
    groups = statistics.mean(one.text.group_count for one in known)
    print(f"{len(known)} documents of {tokens:.0f} tokens and {groups:.1f} groups, {size:,.0f} bytes each without text")
    mean = statistics.mean(building)
    print(
        f"index {mean:.3f} s a document; encoding {statistics.mean(encoding):.3f} s in batches of {TURN} "
        f"({sum(building) / sum(encoding):.2f} ×), {whole:.3f} s by encode as it comes ({mean / whole:.2f} ×)"
    )


if __name__ == "__main__":
    main()
