"""Integrated-Jacobian attributions of Siamese encoders (Möller, Nikolaev, Padó, EMNLP 2023).

Tensor names end in the letters of their axes:

====  ==========================================================
B     texts of one batch
N     integration nodes on the path from the reference to a text
S     tokens, padded
G     groups (tokens, words or sentences attributed as one)
K     cotangent directions
M     pooled vectors of one text (one for each pooling mode)
H     attention heads
d     hidden width at the cut
D     embedding width
I, J  groups of the first and of the second text of a pair
P     pairs
====  ==========================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attribution_core.errors import ModelError, SettingError, TextError, TokenpairError
from attribution_core.hooks import register

if TYPE_CHECKING:
    from attribution_core.attribution import Attributor
    from attribution_core.results import Cell, Contributions, ExplainedText, PairAttribution

__all__ = [
    "Attributor",
    "Cell",
    "Contributions",
    "ExplainedText",
    "ModelError",
    "PairAttribution",
    "SettingError",
    "TextError",
    "TokenpairError",
]

register(
    pair_text="attribution_core.display.pair:pair_text",
    pair_html="attribution_core.display.pair:pair_html",
    plot_pair="attribution_core.display.pair:plot_pair",
)


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; a program that only reads results or catches errors should not wait for it.
    if name == "Attributor":
        from attribution_core.attribution import Attributor

        return Attributor
    if name in ("Cell", "Contributions", "ExplainedText", "PairAttribution"):
        from attribution_core import results

        return getattr(results, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
