"""Small runs of known words with attributions by chance, for tests of the evaluation."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
from pair_runs import Row, attributed, words, write_pairs
from tiny_models import WORDS, TinyModels

from jobs.run.reader import Run


def tiny_row(rng: random.Random, name: str) -> Row:
    """A pair of known words with attributions by chance."""
    a, b = (words(" ".join(rng.sample([w for w in WORDS if "'" not in w], count))) for count in (5, 4))
    return Row(name, attributed(a, b, np.random.default_rng(rng.randrange(1 << 30)).normal(0, 1, (5, 4))))


def tiny_run(tiny: TinyModels, place: Path, shards: list[list[Row]], family: str = "bert", **settings: Any) -> Run:
    asked = {"sums_to": "score"} | settings
    return write_pairs(place, shards, model=str(tiny.folder(family, normalize=True)), **asked)
