"""One against two one-thread workers on the same job: rate between commits, the engine's own share, start-up, memory.

Every run is `tokenpair run` as a process of its own into an empty folder, with a Ray of its own; what happened when is
read from the logs in the run directory. The pairs are made by chance with a seed, as many as keep two workers busy for
`--seconds`. Wants a machine on which two cores are free.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from machine import WORDS, describe, minilm

ROOT = Path(__file__).parent.parent.parent
PROGRAM = [sys.executable, "-c", "from jobs.cli.main import main; main()"]
TRIED = 48
LEAST_SECONDS = 120.0


@dataclass(frozen=True)
class Measured:
    """One run. ``rate`` is of the pairs after the first commit, in pairs a second; times in seconds."""

    workers: int
    pairs: int
    to_first_commit: float
    between: float
    rate: float
    after_loading: float
    busiest: float
    driver_mebibytes: float
    whole: float

    @property
    def overhead(self) -> float:
        """What of the time after start-up and loading the busiest worker did not compute, to the end of the process."""
        return (self.after_loading - self.busiest) / self.after_loading


def main() -> None:
    """Make the pairs, run them with each number of workers in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=minilm(), help="folder of the model (all-MiniLM-L6-v2)")
    parser.add_argument("--seconds", type=float, default=150.0, help="how long two workers should be busy")
    parser.add_argument("--pairs", type=int, help="so many pairs instead")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=1, help="runs of each, in turn; medians are compared")
    parser.add_argument("--shards", type=int, help="the job's own number unless given")
    parser.add_argument("--words", type=int, nargs=2, default=[8, 40], help="words of a text, from and to")
    parser.add_argument("--folder", type=Path, help="keep input and runs here")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="tokenpair-scaling-"))
    folder.mkdir(parents=True, exist_ok=True)
    count = options.pairs or pairs_for(options)
    source = folder / "pairs.csv"
    write_pairs(source, count, options.words)
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"{describe()}; {os.cpu_count()} cores, load {load}; {count} pairs of {options.words} words", flush=True)
    print(f"{'workers':>7} {'pairs':>6} {'first commit':>13} {'between':>9} {'pairs/s':>8} {'after load':>11}", end="")
    print(f" {'busiest':>8} {'overhead':>9} {'driver MiB':>11} {'whole':>8}", flush=True)
    found: list[Measured] = []
    for repeat in range(options.repeats):
        # In turn, and the other way round the next time, so that a slow quarter of an hour hits both.
        for workers in options.workers if repeat % 2 == 0 else options.workers[::-1]:
            one = measure(folder / f"run-{workers}-{repeat}", source, workers, options)
            found.append(one)
            print(
                f"{one.workers:>7} {one.pairs:>6} {one.to_first_commit:>11.1f} s {one.between:>7.1f} s "
                f"{one.rate:>8.3f} {one.after_loading:>9.1f} s {one.busiest:>6.1f} s {one.overhead:>8.1%} "
                f"{one.driver_mebibytes:>11.0f} {one.whole:>6.1f} s",
                flush=True,
            )
    conclude(found)
    if options.folder is None:
        shutil.rmtree(folder)


def conclude(found: list[Measured]) -> None:
    """The ratios of the medians to the smallest number of workers, and whether the runs were long enough."""
    rates = {
        workers: statistics.median(one.rate for one in found if one.workers == workers)
        for workers in sorted({one.workers for one in found})
    }
    fewest = min(rates)
    for workers, rate in rates.items():
        if workers != fewest:
            print(f"{workers} workers: {rate / rates[fewest]:.2f} times the rate of {fewest}")
    shortest = min(one.between for one in found)
    if shortest < LEAST_SECONDS:
        print(f"too short to be quoted: {shortest:.0f} s between commits, {LEAST_SECONDS:.0f} s are wanted")


def pairs_for(options: argparse.Namespace) -> int:
    """As many pairs as two workers compute in ``seconds``, by the rate of some of them in one thread."""
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch
from attribution_core import Attributor
from scaling import texts
torch.set_num_threads(1)
attributor = Attributor({options.model!r}, device="cpu")
attributor.attribute_pairs([("a word", "another word")])
pairs = texts({TRIED}, {options.words!r})
began = time.perf_counter()
attributor.attribute_pairs(pairs)
print((time.perf_counter() - began) / len(pairs))
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    return int(2 * options.seconds / float(done.stdout)) + 1


def texts(count: int, words: list[int]) -> list[tuple[str, str]]:
    """Pairs of texts of so many words, the same every time."""
    chance = random.Random(0)

    def text() -> str:
        return " ".join(chance.choice(WORDS) for _ in range(chance.randint(*words)))

    return [(text(), text()) for _ in range(count)]


def write_pairs(path: Path, count: int, words: list[int]) -> None:
    """The input of the job."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence1", "sentence2"])
        writer.writerows(texts(count, words))


def environment() -> dict[str, str]:
    """That of a user, with no Ray of somebody else."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


def measure(run: Path, source: Path, workers: int, options: argparse.Namespace) -> Measured:
    """Run the job with so many workers of one thread."""
    shutil.rmtree(run, ignore_errors=True)
    words = ["run", "--model", options.model, "--input", source, "--output", run, "--workers", workers, "--cpus", 1]
    words += ["--gpus", 0, "--quiet", *(["--shards", options.shards] if options.shards else [])]
    began = time.time()
    process = subprocess.Popen([*PROGRAM, *map(str, words)], env=environment(), stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    ended = time.time()
    if status:
        raise SystemExit(f"the run with {workers} workers ended with {os.waitstatus_to_exitcode(status)}")
    driver = [one for path in run.glob("logs/driver-*.jsonl") for one in lines(path)]
    done = [one | {"worker": path.name} for path in run.glob("logs/worker-*.jsonl") for one in lines(path)]
    done = sorted((one for one in done if one["event"] == "committed"), key=lambda one: one["time"])
    first, last = when(done[0]), when(done[-1])
    busy: dict[str, float] = {}
    for one in done:
        busy[one["worker"]] = busy.get(one["worker"], 0.0) + one["compute_seconds"]
    pairs = sum(one["pairs"] for one in done)
    # The last worker may be ready when the first has computed already: the clock starts with the first.
    loaded = min(when(one) for one in driver if one["event"] == "worker_ready")
    return Measured(
        workers=workers,
        pairs=pairs,
        to_first_commit=first - began,
        between=last - first,
        rate=(pairs - done[0]["pairs"]) / (last - first),
        after_loading=ended - loaded,
        busiest=max(busy.values()),
        driver_mebibytes=used.ru_maxrss / 1024,
        whole=ended - began,
    )


def lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def when(line: dict[str, Any]) -> float:
    """The time of a line, in seconds since 1970."""
    return datetime.fromisoformat(line["time"]).timestamp()


if __name__ == "__main__":
    main()
