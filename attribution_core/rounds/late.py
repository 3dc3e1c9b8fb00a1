"""What the texts of some late-interaction pairs are asked for, once their matches are known, and in which order.

A text gives products of its contributions with its partners: pushed forward once for all of them, or pulled back along
each. Word pairs need the contributions of the first texts, which are short as a rule (queries), and pull the second
texts back along them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attribution_core.contribution_cache import ContributionCache
from attribution_core.directions.cost import WORTH_A_CALL
from attribution_core.model.encoder import ReadText
from attribution_core.pairs.late import Edge, LatePair, LatePairs, Outputs
from attribution_core.results import Contributions
from attribution_core.rounds.routes import Routes

Array = NDArray[Any]
# What texts are pulled back along is as long as they are: so many bytes of it at a time.
COTANGENT_BYTES = 128 << 20


@dataclass(frozen=True, eq=False)
class _Request:
    """``count`` products of a text's contributions, with ``cotangents()`` [K, S · D]; ``give`` takes them, [G, K]."""

    count: int
    cotangents: Callable[[], Array]
    give: Callable[[Array], None]


def known_for_late(
    routes: Routes,
    texts: Sequence[ReadText],
    edges: NDArray[np.int64],
    cache: ContributionCache | None = None,
    *,
    words: bool,
    sums_to: str,
    tolerance: float | None = None,
) -> tuple[list[Contributions], LatePairs]:
    """Return how distinct texts were computed, and the products for the distinct pairs among ``edges`` [P, 2].

    With ``words`` these are what rows and columns sum to, else those of word pairs.
    """
    distinct = list(dict.fromkeys((i, j) for i, j in edges.tolist()))
    firsts = {i for i, _ in distinct}
    asked = [0] * len(texts)
    for i, j in distinct:
        asked[j] += 1 if words else texts[i].group_count + 1
        asked[i] += 1 if words else 0
    forward = [
        at
        for at, text in enumerate(texts)
        if (not words and at in firsts) or not _pulls(routes.usual.way, text, asked[at])
    ]
    if tolerance is None:
        computed = routes.computed_alone([texts[at] for at in forward], cache)
    else:
        computed = routes.contributions([texts[at] for at in forward], tolerance=tolerance)
    known = dict(zip(forward, computed, strict=True))
    pulled = [at for at in range(len(texts)) if at not in known]
    ends = dict(zip(pulled, routes.ends([texts[at] for at in pulled]), strict=True))
    outputs = {at: Outputs.of(one) for at, one in (known | ends).items()}
    pairs = {(i, j): LatePair.of(outputs[i], outputs[j]) for i, j in distinct}
    requests: dict[int, list[_Request]] = defaultdict(list)
    for edge, pair in pairs.items():
        for at, request in _of_words(edge, pair, sums_to) if words else _of_cells(edge, pair, known):
            requests[at].append(request)
    for at in forward:
        for request in requests[at]:
            request.give(known[at].values_GD @ request.cotangents().T)
        known[at] = known[at].without_values()
    for batch in _batches(pulled, texts, asked, outputs):
        stacks = [np.concatenate([request.cotangents() for request in requests[at]]) for at in batch]
        found = routes.projections([texts[at] for at in batch], stacks, tolerance=tolerance)
        for at, one in zip(batch, found, strict=True):
            known[at] = one
            low = 0
            for request in requests[at]:
                request.give(one.values_GD[:, low : low + request.count])
                low += request.count
    return [known[at] for at in range(len(texts))], LatePairs(pairs)


def _pulls(way: str, text: ReadText, asked: int) -> bool:
    """Whether a text is pulled back along what it is asked for, and not pushed forward."""
    return way == "partner" or (way != "forward" and asked < (1 - WORTH_A_CALL) * text.group_count)


def _of_words(edge: Edge, pair: LatePair, sums_to: str) -> Iterator[tuple[int, _Request]]:
    """Products with all of the other text, for rows and columns: with what its contributions must sum to."""
    a, b = pair.a, pair.b
    own, other = (a.e_TD, b.e_TD) if sums_to == "score" else (a.e_TD - a.reference_TD, b.e_TD - b.reference_TD)

    def rows(values_G1: Array) -> None:
        pair.rows_G = values_G1[:, 0]

    def cols(values_G1: Array) -> None:
        pair.cols_G = values_G1[:, 0]

    yield edge[0], _Request(1, lambda: pair.of_a(other), rows)
    yield edge[1], _Request(1, lambda: pair.sum_over_matches(own[:, None]), cols)


def _of_cells(edge: Edge, pair: LatePair, known: dict[int, Contributions]) -> Iterator[tuple[int, _Request]]:
    """Products of b with each contribution of a, and with a's reference."""
    a, b = pair.a, pair.b
    values_GD = known[edge[0]].values_GD
    values_GTD = values_GD.reshape(len(values_GD), a.length, -1)[:, a.place_T]
    pair.along_G = np.einsum("gtd,td->g", values_GTD, b.reference_TD[pair.match_T])

    def cells(values_GK: Array) -> None:
        pair.cells_GG, pair.across_G = values_GK[:, :-1].T, values_GK[:, -1]

    def cotangents() -> Array:
        return pair.sum_over_matches(np.concatenate([values_GTD.transpose(1, 0, 2), a.reference_TD[:, None]], 1))

    yield edge[1], _Request(len(values_GD) + 1, cotangents, cells)


def _batches(
    pulled: Sequence[int], texts: Sequence[ReadText], asked: Sequence[int], outputs: dict[int, Outputs]
) -> Iterator[list[int]]:
    """Texts so many at a time that what they are pulled back along stays within bounds; like lengths together."""
    batch: list[int] = []
    held = 0
    for at in sorted(pulled, key=lambda at: (len(texts[at]), at)):
        own = asked[at] * len(texts[at]) * outputs[at].e_TD.shape[1] * outputs[at].e_TD.itemsize
        if batch and held + own > COTANGENT_BYTES:
            yield batch
            batch, held = [], 0
        batch.append(at)
        held += own
    if batch:
        yield batch
