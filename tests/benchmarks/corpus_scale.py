"""Time and memory of the statistics over a corpus of 100,000 documents of ten sentences, and what of it they recognise.

The rows are random: each document is near one of 1,000 topics, and each sentence near its document. Planted are copies
of documents with noise, sentences with the text of another document's, and a sentence that every tenth document has.
``--queries`` random queries are near topics, and stand for embeddings of a log's.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from attribution_core.results import Contributions
from attribution_core.text.tokenized import ReadText
from jobs.analysis.corpus import compute
from jobs.index.format import BATCH, document_batch, encoded_part, id_hash
from jobs.index.reader import open_index
from jobs.index.snapshot import Facts, Part, Probe, Snapshot, commit_snapshot, write_ids
from jobs.progress import Lines
from jobs.storage.store import Store
from jobs.views.corpus.terminal import corpus_text

WIDTH, SENTENCES, TOPICS = 384, 10, 1000
COPIED, SAME_TEXT, BOILERPLATE = 100, 50, 10  # one document in so many
DOCUMENTS_A_PART = 100 * BATCH


def main() -> None:
    """Write the index, unless it is there, and print what was measured and what the statistics say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--folder", default=None, help="where the index is written, or is; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tokenpair-corpus-") as own:
        folder = Path(options.folder or own)
        if not (folder / "snapshots").exists():
            write_index(folder, options.documents)
        chance = np.random.default_rng(2)
        queries = topics()[chance.integers(0, TOPICS, options.queries)] + noise(chance, options.queries, 1.0)
        probe = open_index(folder).facts.probe.embedding

        def encode(text: str) -> Any:
            return queries[int(text.split()[1])] if text.startswith("query ") else probe

        index = open_index(folder, encode=encode)
        memory = Memory()
        started, cpu = time.perf_counter(), time.process_time()
        texts = [f"query {at}" for at in range(options.queries)]
        found = compute.corpus_statistics(index, texts, progress=Lines(lambda line: print(f"{spent(started)} {line}")))
        print(f"{spent(started)}, {time.process_time() - cpu:.0f} s of processor time")
        print(f"peak {memory.stop():,.0f} MiB ({memory.before:,.0f} before), without mapped pages of the index")
        print(corpus_text(found))


def spent(started: float) -> str:
    """Seconds since ``started``."""
    return f"{time.perf_counter() - started:.1f} s"


class Memory:
    """Looks at this process's own memory ten times a second."""

    def __init__(self) -> None:
        self.before = self._most = own_memory()
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look)
        self._watch.start()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            self._most = max(self._most, own_memory())

    def stop(self) -> float:
        """The most MiB that were seen."""
        self._over.set()
        self._watch.join()
        return self._most


def own_memory() -> float:
    """MiB of memory that is no mapped file."""
    (line,) = (one for one in Path("/proc/self/status").read_text("utf-8").splitlines() if one.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def topics() -> Any:
    """The directions [T, D] of topics."""
    return noise(np.random.default_rng(0), TOPICS, 1.0)


def noise(chance: np.random.Generator, count: int, length: float) -> Any:
    """Rows [count, D] of about this length."""
    return chance.normal(0, length / np.sqrt(WIDTH), (count, WIDTH)).astype(np.float32)


def write_index(folder: Path, documents: int) -> None:
    """Write the index."""
    store = Store.open(folder)
    parts: list[Part] = []
    drawn = draw(documents)
    for first in range(0, documents, DOCUMENTS_A_PART):
        last = min(first + DOCUMENTS_A_PART, documents)
        batches = []
        for at in range(first, last, BATCH):
            here = range(at, min(at + BATCH, last))
            batches.append(document_batch([next(drawn) for _ in here], [f"doc{one:07d}" for one in here]))
        name = f"generations/00001/documents/part-{len(parts):05d}.arrow"
        store.commit(name, encoded_part(batches))
        parts.append(Part(name, last - first))
    number = np.arange(documents)
    columns = {
        "hash": pa.array([id_hash(f"doc{one:07d}") for one in number], pa.uint64()),
        "text_hash": pa.array(number, pa.uint64()),
        "part": pa.array(number // DOCUMENTS_A_PART, pa.uint32()),
        "row": pa.array(number % DOCUMENTS_A_PART, pa.uint32()),
    }
    ids = write_ids(store, 1, pa.table(columns))
    probe = Probe("a text", (1.0,) * WIDTH)
    facts = Facts("random", "none", 0, "cosine", "sentence", "int8", WIDTH, {}, "pad", probe)
    assert commit_snapshot(store, Snapshot(1, documents, 0, tuple(parts), ids, facts))


def draw(documents: int) -> Iterator[Contributions]:
    """Documents, one after the other."""
    chance = np.random.default_rng(1)
    directions = topics()
    rows = texts = None
    for number in range(documents):
        if number % COPIED == 1 and rows is not None:
            # Of the document before: each row at a cosine of about 0.99.
            rows = rows + np.linalg.norm(rows, axis=1, keepdims=True) * noise(chance, len(rows), 0.14)
            texts = [f"{one} copied" for one in texts or ()]
        else:
            document = directions[chance.integers(TOPICS)] + noise(chance, 1, 0.8)
            rows = 0.1 * (document + noise(chance, SENTENCES, 1.2))
            taken = texts
            texts = [
                f"Sentence {at} of document {number} says {chance.integers(1 << 40):x}." for at in range(SENTENCES)
            ]
            if number % SAME_TEXT == 2 and taken:
                texts[3] = taken[3]
        if number % BOILERPLATE == 0:
            texts[-1] = "All rights reserved."
        yield contributions(rows, texts)


def contributions(rows: Any, texts: list[str]) -> Contributions:
    """A document of these sentences."""
    ends = np.cumsum([len(one) + 1 for one in texts]) - 1
    starts = ends - [len(one) for one in texts]
    kinds, tokens = np.zeros(len(texts), np.int8), np.zeros(len(texts), np.int64)
    text = ReadText(
        " ".join(texts), "document", "", None, "sentence", tokens, None, tokens > 0, tokens, kinds, kinds == 0, starts,
        ends, np.full(len(texts), 1 / len(texts)), lambda _, ids: [str(one) for one in ids],
    )  # fmt: skip
    return Contributions(text, 8, 1e-2, True, "forward", rows, rows.sum(0), np.zeros(WIDTH, np.float32))


if __name__ == "__main__":
    main()
