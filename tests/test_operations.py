"""How many tensor operations a worker needs for a pair: counted, not timed, because times vary from run to run."""

from __future__ import annotations

import csv
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoTokenizer

from jobs.config.job import parse_job
from jobs.engine.worker import Worker
from jobs.plan.plan import make_plan
from jobs.storage.store import Store

sys.path.append(str(Path(__file__).parent / "benchmarks"))
from worker import tiny_bert

PAIRS = 5_749
# Words of sentences as long as those of STS-b.
LENGTHS = (5, 6, 7, 7, 8, 8, 9, 9, 10, 11, 12, 14, 17, 22, 28, 34)
MOST_OPERATIONS = 40
MOST_OF_FEW_PAIRS = 80


class Counter(TorchDispatchMode):
    """Counts tensor operations, views included."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def operations(folder: Path, rng: random.Random, pairs: int) -> float:
    """Tensor operations a pair of a worker that attributes ``pairs`` sentence pairs in one shard."""
    model = tiny_bert(folder / "tiny")
    words = [one for one in AutoTokenizer.from_pretrained(model).get_vocab() if one.isalpha() and len(one) > 3]
    words = rng.sample(sorted(words), 2000)
    rows = [[" ".join(rng.choices(words, k=rng.choice(LENGTHS))) for _ in range(2)] for _ in range(pairs)]
    with open(folder / "pairs.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["sentence1", "sentence2"], *rows])
    settings = {"model": str(model), "input": str(folder / "pairs.csv"), "output": str(folder / "run")}
    job = parse_job(settings | {"shards": 1})
    plan = make_plan(job, Store.open(job.output))
    worker = Worker(job.model_dump(mode="json"), job.output, 1, "cpu", plan.pairs_file)
    worker.load()
    attributor = worker._attributor
    assert attributor is not None
    attributor.calibrate()
    known, counter = attributor.known, Counter()

    def counted(*arguments: Any) -> Any:
        # The mode is one thread's: the worker's device thread enters it here.
        with counter:
            return known(*arguments)

    attributor.known = counted  # type: ignore[method-assign]
    done = sum(worker.run_shard(shard.index).pairs for shard in plan.shards)
    worker.close()
    assert done == pairs
    return counter.count / pairs


@pytest.mark.slow
def test_a_pair_takes_few_tensor_operations(tmp_path: Path, rng: random.Random) -> None:
    """A loop over texts or pairs, however cheap each step, costs more than the arithmetic of a small model."""
    assert operations(tmp_path, rng, PAIRS) <= MOST_OPERATIONS


def test_few_pairs_take_few_tensor_operations_too(tmp_path: Path, rng: random.Random) -> None:
    """The small form of the count above."""
    assert operations(tmp_path, rng, 600) <= MOST_OF_FEW_PAIRS
