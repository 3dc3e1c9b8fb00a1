"""A model for tests whose scores are known: an embedding counts words, so a cosine is that of two bags of words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jobs.analysis.failures.near_duplicates import words_of
from jobs.analysis.faithfulness.scores import Texts

DIMENSIONS = 4096


class CountingModel:
    """What probes and the search for failures use of a Judge; ``asked`` are the texts that were encoded."""

    name, similarity, own = "counts/words", "cosine", True

    def __init__(self, prompts: Mapping[str, str] | None = None) -> None:
        self.prompts = dict(prompts or {})
        self.numbers: dict[str, int] = {}
        self.asked: list[str] = []

    def embed(self, texts: Iterable[tuple[str, str]]) -> Texts:
        """Counts of words by (role, text)."""
        embeddings: Texts = {}
        for role, text in texts:
            self.asked.append(text)
            counts = np.zeros(DIMENSIONS)
            for word in words_of(f"{self.prompts.get(role, '')} {text}"):
                counts[self.numbers.setdefault(word, len(self.numbers))] += 1
            embeddings[role, text] = counts
        return embeddings

    def score(self, a: str, b: str) -> float:
        """The cosine of two texts without prompts."""
        first, other = CountingModel().embed([("query", a), ("document", b)]).values()
        return float(first @ other / np.linalg.norm(first) / np.linalg.norm(other))

    def prompt(self, role: str) -> str:
        """The prompt of a role."""
        return self.prompts.get(role, "")

    def with_prompts(self, prompts: Mapping[str, str]) -> Any:
        """The same with other prompts."""
        other = CountingModel(prompts)
        other.numbers = self.numbers
        return other
