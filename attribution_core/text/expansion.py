"""Queries that a late-interaction model fills up to a length with one token, [MASK] mostly, whose outputs it scores."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attribution_core.text.grouping import KINDS, Groups
from attribution_core.text.plain import SPECIAL
from attribution_core.text.tokenized import ReadText


def expanded(text: ReadText, token_id: int, name: str, length: int, *, attend: bool) -> ReadText:
    """Return ``text`` filled up to ``length`` tokens; itself where it has as many.

    The added tokens are one group of kind special: a reference keeps them. Without ``attend`` no token attends to them.
    """
    count = length - len(text)
    if count <= 0:
        return text
    group, groups = text.group_count, text._groups
    more: ReadText = copy.copy(text)
    more.ids_S = _longer(text.ids_S, count, token_id)
    more.types_S = None if text.types_S is None else _longer(text.types_S, count, 0)
    more.kept_S = _longer(text.kept_S, count, True)
    more.of_token_S = _longer(text.of_token_S, count, group)
    more.attended_S = None if attend else _longer(np.ones(len(text), np.bool_), count, False)
    more.kind_G = _longer(text.kind_G, 1, SPECIAL)
    more.text_G = _longer(text.text_G, 1, False)
    more.start_G, more.end_G = _longer(text.start_G, 1, 0), _longer(text.end_G, 1, 0)
    more.shares_G = _longer(text.shares_G, 1, 0.0)
    more._labels = None
    if text._tokens is not None:
        more._tokens = (*text._tokens, *[name] * count)
    if groups is not None:
        more._groups = Groups(
            unit=groups.unit,
            labels=(*groups.labels, name),
            starts=(*groups.starts, 0),
            ends=(*groups.ends, 0),
            kinds=(*groups.kinds, KINDS[SPECIAL]),
            of_token=(*groups.of_token, *[group] * count),
        )
    return more


def _longer(values: NDArray[Any], count: int, fill: object) -> NDArray[Any]:
    return np.concatenate([values, np.full(count, fill, values.dtype)])
