"""Completed contributions: what every group adds to its text's embedding, counted from zero, not from a reference.

On an ordinary model e(reference) is not zero, so Σ_i c_i = e(text) − e(reference) leaves a part of the score that no
word has. Each text token therefore inherits its share of the reference:

    ĉ_i = c_i + w_i v,    w_i = tokens of group i / all tokens of kind text,    Σ_i ĉ_i = e − e(reference) + v.

v is e(reference) where sums are to be the score; zero where they are to be the paper's difference of four scores
(Möller, Nikolaev, Padó 2023, equation 10); and e(reference) − o, with o the mean embedding of a sample of texts, where
they are to say what sets a pair apart from an average one. Special and prompt tokens are in the reference too, and
inherit nothing. Raw contributions c are computed, cached and checked; completing them needs no pass of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from attribution_core.errors import SettingError
from attribution_core.results import Contributions

SumsTo = Literal["score", "difference", "centred"]
SUMS_TO: tuple[str, ...] = get_args(SumsTo)
# A mean of fewer embeddings says more of the sample than of the model.
FEWEST_TEXTS = 50

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Completion:
    """What contributions are completed with; ``centres`` has o [D] by role where ``sums_to`` is centred."""

    sums_to: SumsTo = "score"
    centres: Mapping[str, Array] = field(default_factory=dict)

    def inherited(self, one: Contributions) -> Array | None:
        """v [D], what the text tokens of ``one`` inherit together; None where that is nothing."""
        if self.sums_to == "difference":
            return None
        if self.sums_to == "score":
            return one.reference_D
        return one.reference_D - self.centres[one.text.role].astype(one.reference_D.dtype)

    def target(self, one: Contributions) -> NDArray[np.float64]:
        """What the completed contributions of ``one`` sum to, [D]: e, e − e(reference) or e − o."""
        embedding_D = one.embedding_D.astype(np.float64)
        if self.sums_to == "score":
            return embedding_D
        if self.sums_to == "difference":
            return embedding_D - one.reference_D
        return embedding_D - self.centres[one.text.role]

    def completed(self, one: Contributions) -> Array:
        """ĉ [G, D]."""
        inherited_D = self.inherited(one)
        if inherited_D is None:
            return one.values_GD
        return one.values_GD + np.outer(one.text.shares_G, inherited_D).astype(one.values_GD.dtype)


def check_centre_size(role: str, texts: int) -> None:
    """SettingError where ``texts`` distinct texts of a role are too few for a mean embedding."""
    if texts < FEWEST_TEXTS:
        name = {"query": "distinct queries", "document": "distinct documents"}.get(role, "distinct texts")
        raise SettingError(
            f"sums_to 'centred' subtracts the mean embedding of a sample, which needs {FEWEST_TEXTS} {name} or more; "
            f"there are {texts}"
        )
