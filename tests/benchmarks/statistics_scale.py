"""Time and peak memory of the statistics of a synthetic run: one million pairs over 50,000 distinct texts by default.

The run has the real schema: sentences of English-looking words drawn by Zipf's law, matrices whose cells are larger
where words are the same, their exact sums and 32 strongest cells. It is written to --folder and removed (--keep keeps
it). Tagging is measured apart and then left out: the timed command finds the tags that are kept. --symmetric makes
sentence pairs in place of a log.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

TOP_K = 32
PAIRS_A_PART = 20_000
DOCUMENTS_A_QUERY = 20
SHARES = (0.01, 0.02, 0.05, 0.10, 0.20, 0.50)
STEMS = ["walk", "talk", "open", "close", "read", "write", "heat", "flow", "press", "measure", "report", "answer"]
ENDINGS = ("", "s", "ed", "ing", "er", "ers")
LITTLE = ["the", "a", "of", "to", "in", "is", "and", "not", "no", "for", "on", "with", "3", "7", "12", ".", ",", "it"]


def main() -> None:
    """One line a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--texts", type=int, default=50_000)
    parser.add_argument("--words", type=int, default=12, help="mean number of words a text")
    parser.add_argument("--folder", default=None, help="where the run is written, some GB; default: the system's own")
    parser.add_argument("--keep", action="store_true", help="keep the run, and use one that is there")
    parser.add_argument("--symmetric", action="store_true", help="sentence pairs in place of a log")
    parser.add_argument("--measure", metavar="RUN", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure)
        return
    folder = Path(options.folder or tempfile.mkdtemp(prefix="tokenpair-statistics-"))
    run = folder / "run"
    try:
        if not (run / "_SUCCESS").exists():
            started = time.perf_counter()
            write_run(run, options.pairs, options.texts, options.words, log=not options.symmetric)
            print(f"made {options.pairs:,} pairs of {options.texts:,} texts in {time.perf_counter() - started:.0f} s")
        size = sum(path.stat().st_size for path in run.rglob("*.parquet"))
        print(f"{size / 1e6:,.0f} MB on disk", flush=True)
        first = measured(run)
        rate = first["words"] / first["tagging"] if first["tagging"] else 0
        print(f"tagging {first['tagged']:,} texts: {first['tagging']:.0f} s, {rate:,.0f} words/s", flush=True)
        again = measured(run)
        memory = f"{again['peak']:,.0f} MiB at the peak"
        print(
            f"stats {again['seconds']:.1f} s, {again['processor']:.1f} s of processor time, {memory} (tags were kept)"
        )
    finally:
        if not options.keep:
            shutil.rmtree(folder)


def measured(run: Path) -> dict[str, Any]:
    """One call of ``stats`` by a fresh process."""
    command = [sys.executable, __file__, "--measure", str(run)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return found


def measure(run: str) -> None:
    """Compute all statistics and print what that took as JSON."""
    from jobs.analysis.statistics import texts
    from jobs.analysis.statistics.compute import compute_statistics
    from jobs.analysis.statistics.tagging import Tagged, chosen_pipeline, tag_texts
    from jobs.run.reader import open_run

    tagged: list[Tagged] = []

    def watched(*arguments: Any) -> Any:
        facts, done = tag_texts(*arguments)
        tagged.append(done)
        return facts, done

    texts.tag_texts = watched  # type: ignore[assignment]
    started = time.perf_counter()
    compute_statistics(open_run(run), pipeline=chosen_pipeline(None))
    seconds = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_SELF)
    peak, processor = used.ru_maxrss / 1024, used.ru_utime + used.ru_stime
    one = tagged[0] if tagged else Tagged(0, 0, 0.0)
    shown = {"seconds": seconds, "processor": processor, "peak": peak}
    shown |= {"tagged": one.texts, "words": one.words, "tagging": one.seconds}
    print(json.dumps(shown))


def write_run(run: Path, pairs: int, texts: int, words: int, *, log: bool) -> None:
    """A finished run of ``pairs`` pairs over ``texts`` distinct texts."""
    import yaml

    from jobs.run.tables import encoded
    from jobs.storage.store import Store

    store = Store.open(str(run))
    mode = "retrieval" if log else "symmetric"
    record = {"model": "synthetic", "mode": mode, "layer": 4, "similarity": "cosine", "top_k": TOP_K, "groups": "word"}
    record["sums_to"] = "score"
    store.replace("job.yaml", yaml.safe_dump(record).encode())
    chance = np.random.default_rng(0)
    vocabulary = _vocabulary(chance)
    queries = max(pairs // DOCUMENTS_A_QUERY, 1) if log else texts
    queries = min(queries, texts // 2) if log else texts
    table = _texts(chance, vocabulary, texts, words)
    role = np.where(np.arange(texts) < queries, "query", "document") if log else np.full(texts, "text")
    for at in range(0, texts, PAIRS_A_PART):
        piece = _text_table(table, role, vocabulary, at, min(at + PAIRS_A_PART, texts))
        store.replace(f"texts/part-{at // PAIRS_A_PART:05d}.parquet", encoded(piece, "parquet"))
    for part, at in enumerate(range(0, pairs, PAIRS_A_PART)):
        n = min(PAIRS_A_PART, pairs - at)
        a = (np.arange(at, at + n) // max(pairs // queries, 1)) % queries if log else chance.integers(0, texts, n)
        b = chance.integers(queries, texts, n) if log else chance.integers(0, texts, n)
        piece = _pair_table(chance, vocabulary, table, a, b, at, log)
        store.replace(f"attributions/part-{part:05d}.parquet", encoded(piece, "parquet"))
    store.replace("_SUCCESS", b"")


def _vocabulary(chance: np.random.Generator) -> np.ndarray[Any, Any]:
    known = [*LITTLE, *(stem + end for stem in STEMS for end in ENDINGS)]
    letters = np.array(list("etaoinshrdlucmfwypvbgkqjxz"))
    made = ["".join(chance.choice(letters[:20], chance.integers(3, 10))) for _ in range(20_000 - len(known))]
    return np.array([*known, *made])


def _texts(chance: np.random.Generator, vocabulary: Any, texts: int, words: int) -> tuple[Any, Any]:
    """Offsets [texts + 1] and word numbers of all texts, special tokens (-1) included."""
    sizes = np.maximum(chance.poisson(words, texts), 2) + 2
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    ids = np.minimum(chance.zipf(1.25, offsets[-1]), len(vocabulary)) - 1
    ids[offsets[:-1]] = ids[offsets[1:] - 1] = -1
    return offsets, ids


def _text_table(table: tuple[Any, Any], role: Any, vocabulary: Any, first: int, last: int) -> pa.Table:
    from jobs.run.tables import text_schema

    offsets, ids = table
    inside = slice(offsets[first], offsets[last])
    begins = offsets[first : last + 1] - offsets[first]
    special = ids[inside] < 0
    names = pa.array(np.append(vocabulary, "[SEP]")).take(pa.array(ids[inside] % (len(vocabulary) + 1)))
    lengths = np.where(special, 0, np.char.str_len(np.append(vocabulary, ""))[ids[inside]])
    steps = np.where(special, 0, lengths + 1)
    running = np.cumsum(steps) - steps
    starts = np.where(special, 0, running - np.repeat(running[begins[:-1]], np.diff(begins)))
    lists = pa.array(begins.astype(np.int32))
    words = np.split(np.where(special, "", np.append(vocabulary, "")[ids[inside]]), begins[1:-1])
    n = last - first

    def listed(values: Any) -> pa.Array:
        return pa.ListArray.from_arrays(lists, pa.array(values) if isinstance(values, np.ndarray) else values)

    nodes = np.array([6, 8, 12, 16], np.int32)[np.arange(first, last) % 4]
    columns: dict[str, Any] = {
        "text_id": [f"T{at}" for at in range(first, last)],
        "role": role[first:last],
        "text": [" ".join(one[1:-1].tolist()) for one in words],
        "groups": listed(names),
        "starts": listed(starts.astype(np.int32)),
        "ends": listed((starts + lengths).astype(np.int32)),
        "kinds": listed(pa.array(["text", "special"]).take(pa.array(special.astype(np.int8)))),
        "tokens": listed(names),
        "truncated": np.zeros(n, bool),
        "cut_at": pa.nulls(n, pa.int32()),
        "nodes": nodes,
        "residual": (1e-3 / nodes).astype(np.float32),
        "converged": np.ones(n, bool),
        "way": np.full(n, "forward"),
        "prompt": np.full(n, ""),
    }
    return pa.table(columns).cast(text_schema())


def _pair_table(
    chance: np.random.Generator, vocabulary: Any, table: tuple[Any, Any], a: Any, b: Any, first: int, log: bool
) -> pa.Table:
    from jobs.run.tables import attribution_schema

    offsets, ids = table
    n = len(a)
    rows, cols = (np.diff(offsets)[which] for which in (a, b))
    begins = np.concatenate([[0], np.cumsum(rows * cols)])
    pair = np.repeat(np.arange(n), rows * cols)
    i, j = np.divmod(np.arange(begins[-1]) - begins[pair], cols[pair])
    word_a, word_b = ids[offsets[a][pair] + i], ids[offsets[b][pair] + j]
    own = (word_a >= 0) & (word_b >= 0)
    same = own & (word_a == word_b)
    value = (chance.exponential(0.02, len(pair)) - 0.006 + 0.2 * same * chance.random(len(pair))).astype(np.float32)
    sums = {"total": value, "positive": np.maximum(value, 0), "negative": np.minimum(value, 0)}
    sums |= {"special": value * ~own, "exact": value * same}
    order = np.lexsort((-np.abs(value), pair))
    cumulated = np.concatenate([[0], np.cumsum(value[order], dtype=np.float64)])
    counts = np.maximum(1, np.ceil(np.outer(rows * cols, SHARES) - 1e-9)).astype(np.int64)
    largest = cumulated[begins[:-1, None] + counts] - cumulated[begins[:-1, None]]
    # The strongest cells are of words alone.
    order = order[own[order]]
    text_begins = np.concatenate([[0], np.cumsum(np.bincount(pair[own], minlength=n))])
    kept = order[np.arange(len(order)) - text_begins[pair[order]] < TOP_K]
    kept_begins = np.concatenate([[0], np.cumsum(np.bincount(pair[kept], minlength=n))]).astype(np.int32)
    names = pa.array(vocabulary)
    top = pa.StructArray.from_arrays(
        [
            pa.array(i[kept].astype(np.uint16)),
            pa.array(j[kept].astype(np.uint16)),
            names.take(pa.array(word_a[kept])),
            names.take(pa.array(word_b[kept])),
            pa.array(value[kept]),
        ],
        ["i", "j", "a", "b", "value"],
    )

    def listed(key: Any, sizes: Any) -> pa.Array:
        lists = np.concatenate([[0], np.cumsum(sizes)])
        flat = np.bincount(lists[pair] + key, value, lists[-1]).astype(np.float32)
        return pa.ListArray.from_arrays(pa.array(lists.astype(np.int32)), pa.array(flat))

    def lifted(sizes: Any) -> pa.Array:
        lists = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(lists), pa.array(chance.normal(0, 0.05, lists[-1]).astype(np.float32)))

    references = chance.normal(0, 0.05, (3, n))
    found = {name: np.bincount(pair, values, n).astype(np.float32) for name, values in sums.items()}
    numbers = np.arange(first, first + n)
    columns: dict[str, Any] = {
        "pair_id": [f"pair:{number}" for number in numbers],
        "text_a_id": [f"T{at}" for at in a],
        "text_b_id": [f"T{at}" for at in b],
        "score": found["total"],
        "reference_a": references[0].astype(np.float32),
        "reference_b": references[1].astype(np.float32),
        "reference_ab": references[2].astype(np.float32),
        "error": chance.normal(0, 1e-3, n).astype(np.float32),
        "rows": rows.astype(np.int32),
        "cols": cols.astype(np.int32),
        "row_sums": listed(i, rows),
        "col_sums": listed(j, cols),
        "row_lift": lifted(rows),
        "col_lift": lifted(cols),
        "largest": pa.FixedSizeListArray.from_arrays(pa.array(largest.ravel().astype(np.float32)), len(SHARES)).cast(
            pa.list_(pa.float32())
        ),
        "top": pa.ListArray.from_arrays(pa.array(kept_begins), top),
        **found,
    }
    schema = attribution_schema("top")
    made = pa.table({field.name: columns[field.name] for field in schema}).cast(schema)
    if log:
        made = made.append_column("rank", pa.array((numbers % DOCUMENTS_A_QUERY + 1).astype(np.int32)))
        judged = pa.array((numbers % 3).astype(np.int32), mask=numbers % 5 == 0)
        return made.append_column("relevance", judged)
    return made.append_column("label", pa.array(chance.uniform(0, 5, n)))


if __name__ == "__main__":
    main()
