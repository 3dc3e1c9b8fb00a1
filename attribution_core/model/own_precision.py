"""How far the scores of a half-precision checkpoint differ from those of the float32 copy that is attributed.

A checkpoint in float16 or bfloat16 is usually run in that type; attributions are of a copy in float32,
whose scores are the more exact ones, and a little different.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers.util.similarity import mean_maxsim_pairwise

from attribution_core.model.modules import is_late

if TYPE_CHECKING:
    from attribution_core.model.modules import AnyModel

# Alike, related and unrelated, short and long.
PAIRS = (
    ("How do I copy a file?", "Copy the contents of one file to another, with its permissions."),
    ("A man is playing a guitar.", "Someone plays music on a stringed instrument."),
    ("What makes a rocket stable in flight?", "The fins move the centre of pressure behind the centre of gravity."),
    ("The coffee here is not good.", "The coffee here is good."),
    ("Rain is expected in the north tomorrow.", "The library lends books for four weeks."),
    ("wing flutter at supersonic speed", "An experimental study of panels that vibrate in fast air."),
    ("Parse a date from a string.", "Return a datetime that corresponds to the text, read by a format."),
    ("Shares fell after the bank's report.", "The bank reported a loss, and its share price dropped by a tenth."),
)


@dataclass(frozen=True)
class OwnPrecision:
    """The type of a model's own weights, and the largest difference of its scores from the float32 copy's.

    ``largest`` is over ``pairs`` built-in pairs of English sentences, of cosines: in units of ‖e(a)‖‖e(b)‖.
    """

    dtype: str
    largest: float
    pairs: int


def own_precision(model: AnyModel, copy: AnyModel, roles: Sequence[str]) -> OwnPrecision | None:
    """What the scores of ``model`` and of its float32 ``copy`` differ by; None where it has float32 weights itself."""
    if model.dtype not in (torch.float16, torch.bfloat16):
        return None
    # Encoding leaves a model in evaluation mode; the caller's stays as it was.
    training = {module: module.training for module in model.modules()}
    scores = [_scores(one, roles) for one in (model, copy)]
    for module, was in training.items():
        module.training = was
    difference = (scores[0] - scores[1]).abs().max()
    return OwnPrecision(str(model.dtype).removeprefix("torch."), float(difference), len(PAIRS))


def _scores(model: AnyModel, roles: Sequence[str]) -> Any:
    """Scores of the built-in pairs in units of the norms: cosines, or mean maxima of cosines of late interaction."""
    sides: list[Any] = []
    for side, role in enumerate(roles):
        encode = {"query": model.encode_query, "document": model.encode_document}.get(role, model.encode)
        texts = [pair[side] for pair in PAIRS]
        if is_late(model):
            sides.append([one.float().cpu() for one in encode(texts, normalize_embeddings=True)])
            continue
        sides.append(encode(texts, convert_to_tensor=True, show_progress_bar=False).float().cpu())
    if is_late(model):
        return mean_maxsim_pairwise(*sides)
    return torch.nn.functional.cosine_similarity(sides[0], sides[1])
