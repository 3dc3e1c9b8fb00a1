"""Time to highlight ten random hits from an index of 100,000 documents, and to import and open it.

The documents are random rows of the real schema: 9 or 10 groups with two special tokens, 384 values, a text of 1,200
characters. Each round of ten hits is timed against a plain numpy product of the same documents' rows with the query,
scaled, one document after the other, in the same process with one thread. A document of every record batch was
highlighted before.

Processor time is said beside the time on the clock: on a busy machine the latter has other programs' turns in it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Before numpy: one thread.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import numpy as np
import pyarrow as pa

from attribution_core.results import Contributions
from attribution_core.text.tokenized import ReadText
from jobs.index.format import BATCH, document_batch, encoded_part, id_hash
from jobs.index.reader import open_index
from jobs.index.snapshot import Facts, Part, Probe, Snapshot, commit_snapshot, write_ids
from jobs.storage.store import Store

WIDTH, CHARACTERS, TOKENS = 384, 1200, 250
DOCUMENTS_A_PART = 100 * BATCH
HITS = 10
IMPORT = """
import json, sys, time
started = time.perf_counter()
from jobs import open_index
imported = time.perf_counter()
index = open_index(sys.argv[1])
opened = time.perf_counter()
print(json.dumps([imported - started, opened - imported, "torch" in sys.modules]))
"""


def main() -> None:
    """Write the index, then print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5_000)
    parser.add_argument("--folder", default=None, help="where the index is written, or is; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tokenpair-index-") as own:
        folder = Path(options.folder or own)
        if not (folder / "snapshots").exists():
            started = time.perf_counter()
            write_index(folder, options.documents)
            size = sum(path.stat().st_size for path in folder.rglob("*.arrow"))
            bytes_each = size / options.documents - CHARACTERS
            seconds = time.perf_counter() - started
            print(
                f"{options.documents:,} documents: {bytes_each:,.0f} B each beside the text, written in {seconds:.0f} s"
            )
        starts = [json.loads(fresh(folder)) for _ in range(5)]
        assert not any(torch for *_, torch in starts)
        imported, opened = (sorted(one[at] for one in starts)[2] for at in (0, 1))
        print(f"import {imported:.2f} s, open {opened:.2f} s (medians of 5 fresh interpreters, no torch)")
        measure(folder, options.documents, options.rounds)


def fresh(folder: Path) -> str:
    """Import and open in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", IMPORT, str(folder)],
        check=True,
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def measure(folder: Path, documents: int, rounds: int) -> None:
    """Highlight random hits, and take the plain product of the same rows, round by round."""
    index = open_index(folder)
    query = np.random.default_rng(2).normal(0, 1, WIDTH).astype(np.float32)
    started = time.perf_counter()
    index.highlight_vector(query, [name_of(at) for at in range(0, documents, BATCH)])
    seconds = (time.perf_counter() - started) / len(range(0, documents, BATCH))
    print(f"the first document of a record batch: {seconds * 1e3:.1f} ms, with reading and checking the batch")
    chance = np.random.default_rng(1)
    draws = [[name_of(at) for at in chance.integers(0, documents, HITS)] for _ in range(rounds)]
    queries = chance.normal(0, 1, (rounds, WIDTH)).astype(np.float32)
    index.highlight_vectors(queries[:200], draws[:200])
    took = np.empty((rounds, 2, 2))
    for at, (query, ids) in enumerate(zip(queries, draws, strict=True)):
        rows = [
            (batch.rows[low:high], batch.scales[low:high])
            for batch, row in index._stored(ids)
            for low, high in [batch.bounds[row : row + 2]]
        ]
        begun = now()
        for values, scales in rows:
            (values.astype(np.float32) @ query) * scales
        plain = now()
        hits = index.highlight_vector(query, ids)
        ended = now()
        assert len(hits) == HITS
        took[at] = plain - begun, ended - plain
    middle, last = np.quantile(took, [0.5, 0.99], axis=0) * 1e6
    for place, clock in enumerate(("on the clock", "processor time")):
        for at, name in enumerate(("plain numpy product", "highlight_vector")):
            both = f"{middle[at, place]:.0f} µs at the median, {last[at, place]:.0f} µs at the 99th percentile"
            print(f"{name}, {clock}: {both}")
        print(f"ratio of the medians {middle[1, place] / middle[0, place]:.1f}")


def now() -> np.ndarray:
    """Seconds on the clock, and of this thread's processor time."""
    return np.array([time.perf_counter(), time.thread_time()])


def name_of(at: int) -> str:
    """The id of a document."""
    return f"doc{at:07d}"


def write_index(folder: Path, documents: int) -> None:
    """Write an index of random documents."""
    store = Store.open(folder)
    chance = np.random.default_rng(0)
    parts = []
    for first in range(0, documents, DOCUMENTS_A_PART):
        places = range(first, min(first + DOCUMENTS_A_PART, documents))
        batches = []
        for at in range(places.start, places.stop, BATCH):
            here = range(at, min(at + BATCH, places.stop))
            batches.append(document_batch([drawn(chance) for _ in here], [name_of(one) for one in here]))
        name = f"generations/00001/documents/part-{len(parts):05d}.arrow"
        store.commit(name, encoded_part(batches))
        parts.append(Part(name, len(places)))
    number = np.arange(documents)
    columns = {
        "hash": [id_hash(name_of(one)) for one in number],
        "text_hash": number,
        "part": number // DOCUMENTS_A_PART,
    }
    types = {"hash": pa.uint64(), "text_hash": pa.uint64(), "part": pa.uint32(), "row": pa.uint32()}
    columns["row"] = number % DOCUMENTS_A_PART
    ids = write_ids(store, 1, pa.table({name: pa.array(columns[name], types[name]) for name in types}))
    probe = Probe("a text", tuple(chance.normal(0, 1, WIDTH).tolist()))
    facts = Facts("random", "none", 0, "cosine", "sentence", "int8", WIDTH, {}, "pad", probe)
    assert commit_snapshot(store, Snapshot(1, documents, 0, tuple(parts), ids, facts))


def drawn(chance: np.random.Generator) -> Contributions:
    """A document of 9 or 10 groups, 9.3 at the mean."""
    groups = 9 + int(chance.random() < 0.3)
    kinds = np.zeros(groups, np.int8)
    kinds[[0, -1]] = 1
    ends = np.sort(chance.integers(40, CHARACTERS, groups))
    tokens = np.zeros(TOKENS, np.int64)
    shares = np.where(kinds == 0, 1 / (groups - 2), 0.0)
    text = ReadText(
        "words " * (CHARACTERS // 6), "document", "", None, "sentence", tokens, None, tokens > 0, tokens, kinds,
        kinds == 0, ends - 40, ends, shares, lambda _, ids: [str(one) for one in ids],
    )  # fmt: skip
    values, reference = (chance.normal(0, 0.02, size).astype(np.float32) for size in ((groups, WIDTH), WIDTH))
    error = chance.normal(0, 1e-4, WIDTH).astype(np.float32)
    return Contributions(text, 8, 1e-2, True, "forward", values, values.sum(0) + reference + error, reference)


if __name__ == "__main__":
    main()
