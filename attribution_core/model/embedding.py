"""Embeddings of texts that have been read, in batches of like length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray

from attribution_core.model.encoder import Encoder, ReadText

TEXTS_AT_ONCE = 64


@torch.no_grad()
def embeddings_of(encoder: Encoder, texts: Sequence[ReadText]) -> list[NDArray[Any]]:
    """Return the embedding of each text, [D], as it is attributed: for cosine without a trailing Normalize.

    The texts are of one role. Of late interaction an embedding is all outputs, concatenated, [S · D].
    """
    embeddings: dict[int, NDArray[Any]] = {}
    # A prompt's length is one for a role, and texts of like length waste no padding.
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    for low in range(0, len(order), TEXTS_AT_ONCE):
        some = order[low : low + TEXTS_AT_ONCE]
        batch = encoder.batch([texts[at] for at in some], length=1)
        values = encoder.g(batch.x_BSd, batch).cpu().numpy()
        for at, value in zip(some, values, strict=True):
            embeddings[at] = value[: encoder.embedding_size(texts[at])]
    return [embeddings[at] for at in range(len(texts))]
