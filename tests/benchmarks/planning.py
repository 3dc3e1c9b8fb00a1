"""Time and peak memory of planning a synthetic retrieval log, and what a driver holds of the plan afterwards.

Ten documents of 1 kB a query, each document in about ten pairs: 0.1, 1 and 10 million pairs by default. The log is
written to a folder of its own below --folder and removed. Each plan is made in a process of its own, whose largest
resident set is what the operating system counted; --twice makes it again and compares the files' hashes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

DOCUMENTS_A_QUERY = 10
CHARACTERS = 1000
BLOCK = 10_000


def main() -> None:
    """One row a size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", nargs="+", type=float, default=[0.1, 1, 10], help="pairs of each log")
    parser.add_argument(
        "--folder", default=None, help="where the logs are written, a few GB; default: the system's own"
    )
    parser.add_argument("--model", default=None, help="a model's folder whose tokenizer is asked; default: MiniLM")
    parser.add_argument("--twice", action="store_true", help="plan twice and compare the files byte for byte")
    parser.add_argument("--plan", nargs=2, metavar=("FOLDER", "OUTPUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plan:
        plan_once(*map(Path, options.plan), options.model)
        return
    print(
        f"{'pairs':>12}{'documents':>11}{'log, MB':>9}{'s':>8}{'peak, MiB':>11}{'driver, MiB':>13}{'shards':>8}  same"
    )
    for millions in options.millions:
        row(int(millions * 1e6), options)


def row(pairs: int, options: argparse.Namespace) -> None:
    """Write the log, plan it, say what it took."""
    folder = Path(tempfile.mkdtemp(prefix="tokenpair-planning-", dir=options.folder))
    try:
        # In a process of its own: what the generator held must not be counted.
        writer = multiprocessing.get_context("spawn").Process(target=write_log, args=(folder, pairs))
        writer.start()
        writer.join()
        size = sum(path.stat().st_size for path in folder.iterdir())
        first = planned(folder, folder / "run-0", options)
        same = "-"
        if options.twice:
            planned(folder, folder / "run-1", options)
            same = "yes" if hashes(folder / "run-0") == hashes(folder / "run-1") else "NO"
        print(
            f"{first['pairs']:>12,}{pairs // DOCUMENTS_A_QUERY:>11,}{size / 1e6:>9,.0f}{first['seconds']:>8.1f}"
            f"{first['peak']:>11,.0f}{first['driver']:>13.1f}{first['shards']:>8,}  {same}",
            flush=True,
        )
    finally:
        shutil.rmtree(folder)


def planned(folder: Path, output: Path, options: argparse.Namespace) -> dict[str, float]:
    """One plan by a fresh process."""
    command = [sys.executable, __file__, "--plan", str(folder), str(output)]
    command += ["--model", options.model] if options.model else []
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def plan_once(folder: Path, output: Path, model: str | None) -> None:
    """Make a plan and print what it took as JSON; then load it as a driver does."""
    from machine import minilm

    from jobs.config.job import load_job
    from jobs.plan.plan import make_plan
    from jobs.run.manifest import load_plan
    from jobs.storage.store import Store

    places = {"log": "run.trec", "queries": "queries.jsonl", "corpus": "corpus.jsonl"}
    settings = {name: str(folder / file) for name, file in places.items()}
    job = load_job(None, {"model": model or minilm(), "output": str(output), "depth": 10, **settings})
    started = time.perf_counter()
    plan = make_plan(job, Store.open(job.output))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    before = resident()
    again = load_plan(Store.open(job.output))
    assert again == plan
    shown = {"pairs": plan.pairs, "seconds": seconds, "peak": peak, "shards": len(plan.shards)}
    print(json.dumps(shown | {"driver": max(resident() - before, 0.0)}))


def resident() -> float:
    """This process's resident set in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def hashes(run: Path) -> dict[str, str]:
    """The hash of every file of a plan."""
    found = {}
    for path in sorted((run / "plan").iterdir()):
        with open(path, "rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def write_log(folder: Path, pairs: int) -> None:
    """A TREC run, queries and documents: words drawn by Zipf's law from a made-up vocabulary."""
    chance = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkqjxz"))
    vocabulary = np.array(["".join(chance.choice(letters[:20], chance.integers(2, 10))) for _ in range(20_000)])
    queries = documents = pairs // DOCUMENTS_A_QUERY
    with open(folder / "corpus.jsonl", "w", encoding="utf-8") as file:
        for at in range(0, documents, BLOCK):
            words = vocabulary[np.minimum(chance.zipf(1.3, (min(BLOCK, documents - at), 260)), 20_000) - 1]
            for number, line in enumerate(words, at):
                text = " ".join(line)[:CHARACTERS]
                file.write(f'{{"_id": "D{number}", "title": "", "text": "{text}"}}\n')
    with open(folder / "queries.jsonl", "w", encoding="utf-8") as file:
        for at in range(0, queries, BLOCK):
            words = vocabulary[np.minimum(chance.zipf(1.3, (min(BLOCK, queries - at), 7)), 20_000) - 1]
            for number, line in enumerate(words, at):
                file.write(f'{{"_id": "Q{number}", "text": "{" ".join(line)}"}}\n')
    with open(folder / "run.trec", "w", encoding="utf-8") as file:
        for at in range(0, queries, BLOCK):
            count = min(BLOCK, queries - at)
            # No document twice a query: places that are far apart by turns.
            first = chance.integers(0, documents, count)
            step = chance.integers(1, max(documents // DOCUMENTS_A_QUERY, 2), count)
            scores = -np.sort(-chance.random((count, DOCUMENTS_A_QUERY)), axis=1)
            for row_at in range(count):
                for rank in range(DOCUMENTS_A_QUERY):
                    document = (first[row_at] + rank * step[row_at]) % documents
                    score = scores[row_at, rank]
                    file.write(f"Q{at + row_at} Q0 D{document} {rank + 1} {score:.6f} synthetic\n")


if __name__ == "__main__":
    main()
