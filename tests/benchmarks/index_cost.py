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
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

from attribution_core import Attributor
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
    known = []
    for low in range(0, len(texts), TURN):
        some = texts[low : low + TURN]
        encoding.append(
            seconds(lambda some=some: model.encode(some, batch_size=TURN, show_progress_bar=False)) / len(some)
        )
        read = attributor.read(some, "document")

        def build(read=read, some=some, low=low) -> None:  # type: ignore[no-untyped-def]
            computed = attributor.contributions(read)
            known.extend(computed)
            document_batch(computed, [str(low + at) for at in range(len(some))], texts=False)

        building.append(seconds(build) / len(some))
        print(
            f"{low + len(some):5} documents: encode {encoding[-1]:.3f} s, index {building[-1]:.3f} s, {building[-1] / encoding[-1]:.2f} ×"
        )
    parts = [
        document_batch(
            known[low : low + BATCH], [str(at) for at in range(low, min(low + BATCH, len(known)))], texts=False
        )
        for low in range(0, len(known), BATCH)
    ]
    size = len(encoded_part(parts)) / len(known)
    tokens = statistics.mean(len(one.text) for one in known)
    groups = statistics.mean(one.text.group_count for one in known)
    print(
        f"{len(known)} documents of {tokens:.0f} tokens and {groups:.1f} groups: encoding {statistics.mean(encoding):.3f} s, "
        f"index {statistics.mean(building):.3f} s, {sum(building) / sum(encoding):.2f} × (median of turns "
        f"{statistics.median(b / e for b, e in zip(building, encoding, strict=True)):.2f} ×); {size:,.0f} bytes a document"
    )


if __name__ == "__main__":
    main()
