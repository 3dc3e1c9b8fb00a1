"""Scores of texts that were encoded: products of one vector a text, or MaxSim of one vector a token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sentence_transformers.util.similarity import maxsim, maxsim_pairwise

from attribution_core.model.inspection import LATE_SIMILARITIES
from attribution_core.pairs.tiles import SHORTEST
from jobs.analysis.faithfulness.orders import Values
from jobs.analysis.faithfulness.shapley import Key

Texts = dict[Key, Values]


@dataclass(frozen=True)
class Scores:
    """The scores of texts by the model's ``similarity``.

    ``embeddings`` has of each text one vector [D], not divided by its length, or of late interaction the embeddings of
    its scored output tokens [T, D]. Matches are then searched anew for every pair of texts.
    """

    embeddings: Texts
    similarity: str

    @property
    def late(self) -> bool:
        """Whether a text has an embedding for each token."""
        return self.similarity in LATE_SIMILARITIES

    def table(self, keys_a: Sequence[Key], keys_b: Sequence[Key]) -> Values:
        """The score of each of the first texts with each of the second, [A, B]."""
        if self.late:
            one, other = self._outputs(keys_a), self._outputs(keys_b)
            return maxsim(one, other, length_normalize=self._mean).double().numpy()
        return self._rows(keys_a) @ self._rows(keys_b).T

    def paired(self, keys_a: Sequence[Key], keys_b: Sequence[Key]) -> Values:
        """The score of each of the first texts with the second text of the same place, [N]."""
        if self.late:
            one, other = self._outputs(keys_a), self._outputs(keys_b)
            return maxsim_pairwise(one, other, length_normalize=self._mean).double().numpy()
        return np.asarray((self._rows(keys_a) * self._rows(keys_b)).sum(1))

    @property
    def _mean(self) -> bool:
        return self.similarity == "meanmaxsim"

    def _outputs(self, keys: Sequence[Key]) -> list[Values]:
        return [self.embeddings[key] for key in keys]

    def _rows(self, keys: Sequence[Key]) -> Values:
        embeddings_ND = np.stack([self.embeddings[key] for key in keys])
        return units(embeddings_ND) if self.similarity == "cosine" else embeddings_ND


def units(embeddings_ND: Values) -> Values:
    """Embeddings divided by their length, the products of which are cosines; zero stays zero, [N, D]."""
    return embeddings_ND / np.maximum(np.linalg.norm(embeddings_ND, axis=1, keepdims=True), SHORTEST)
