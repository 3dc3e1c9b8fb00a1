"""Labelled pairs whose label can be learned: the share of words that two texts have in common."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import numpy as np
from tiny_models import WORDS, random_text

from attribution_core.training.recipe import LabelledPairs


def labelled_pairs(rng: random.Random, count: int) -> LabelledPairs:
    a, b, labels = [], [], []
    for _ in range(count):
        text, share = random_text(rng, rng.randint(3, 10)), rng.random()
        words = text.split()
        kept = [rng.random() < share for _ in words]
        a.append(text)
        b.append(" ".join(word if keep else rng.choice(WORDS) for word, keep in zip(words, kept, strict=True)))
        labels.append(sum(kept) / len(kept))
    return LabelledPairs(a, b, np.array(labels))


def write_csv(path: Path, pairs: LabelledPairs, *, header: bool = True) -> Path:
    """The pairs with their labels as scores from 0 to 5."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        if header:
            writer.writerow(["sentence1", "sentence2", "score"])
        writer.writerows(
            [a, b, round(5 * float(s), 3)] for a, b, s in zip(pairs.a, pairs.b, pairs.similarity, strict=True)
        )
    return path
