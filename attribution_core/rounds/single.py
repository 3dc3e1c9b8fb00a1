"""The order in which the texts of some pairs are computed: those that need no other, then those pulled back along them.

A text gives either its contributions or their products with cotangents of its partners, which must be known first:
their contributions where word pairs are asked for, else their embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from attribution_core.contribution_cache import ContributionCache
from attribution_core.directions.cost import WORTH_A_CALL, TextLoad, choose_ways
from attribution_core.model.encoder import ReadText
from attribution_core.pairs.products import PairProducts
from attribution_core.pairs.tiles import Pulled
from attribution_core.results import Contributions
from attribution_core.rounds.routes import Routes


def known_for_cells(
    routes: Routes,
    products: PairProducts,
    texts: Sequence[ReadText],
    edges: NDArray[np.int64],
    cache: ContributionCache | None,
) -> tuple[list[Contributions], Pulled]:
    """Return contributions of distinct texts, or products with their partners', for the pairs ``edges`` [P, 2]."""
    loads = [TextLoad(len(text), text.group_count) for text in texts]
    encoder, asked = routes.usual.encoder, routes.usual.way
    # A direction of a linear model costs nothing.
    asked = "forward" if asked == "auto" and encoder.linear else asked
    ways = choose_ways(loads, edges.tolist(), encoder.embedding_width, asked)
    alone = [at for at in range(len(texts)) if ways[at] != "partner"]
    pulled = [at for at in range(len(texts)) if ways[at] == "partner"]
    known = dict(zip(alone, routes.computed_alone([texts[at] for at in alone], cache), strict=True))
    cotangents, columns = products.cotangents(known, pulled, edges)
    known.update(zip(pulled, routes.projections([texts[at] for at in pulled], cotangents), strict=True))
    return [known[at] for at in range(len(texts))], columns


def known_for_words(
    routes: Routes,
    products: PairProducts,
    texts: Sequence[ReadText],
    edges: NDArray[np.int64],
    cache: ContributionCache | None,
) -> tuple[list[Contributions], Pulled]:
    """Return the same without word pairs, so that any text can be pulled back along its partners' embeddings.

    A text that is computed gives its embedding too. So long texts are pulled back first, along short ones that are
    embedded beforehand (the queries of a log), and then the short ones along the long ones.
    """
    partners: list[dict[int, None]] = [{} for _ in texts]
    for i, j in edges.tolist():
        partners[i][j] = partners[j][i] = None
    each = 2 if products.needs_across else 1
    pulled = [at for at, text in enumerate(texts) if _pulls_words(routes, text, each * len(partners[at]))]
    rest = set(pulled)
    alone = [at for at in range(len(texts)) if at not in rest]
    known = dict(zip(alone, routes.computed_alone([texts[at] for at in alone], cache), strict=True))
    first: set[int] = set()
    for at in sorted(pulled, key=lambda at: (-len(texts[at]), at)):
        if not first & partners[at].keys():
            first.add(at)
    columns: dict[int, dict[int, slice]] = {}
    ends: dict[int, Contributions] = {}
    for group in ([at for at in pulled if at in first], [at for at in pulled if at not in first]):
        needed = dict.fromkeys(other for at in group for other in partners[at])
        fresh = [at for at in needed if at not in known and at not in ends]
        ends.update(zip(fresh, routes.ends([texts[at] for at in fresh]), strict=True))
        cotangents, places = products.cotangents_of_words(ends | known, {at: list(partners[at]) for at in group})
        known.update(zip(group, routes.projections([texts[at] for at in group], cotangents), strict=True))
        columns |= places.columns
    return [known[at] for at in range(len(texts))], Pulled(columns)


def _pulls_words(routes: Routes, text: ReadText, cotangents: int) -> bool:
    """Return whether a text is pulled back along so many cotangents and its own embedding, and not pushed forward."""
    way, encoder = routes.usual.way, routes.usual.encoder
    if not cotangents or way in ("forward", "reverse"):
        return False
    own = min(text.group_count, encoder.embedding_width)
    return way == "partner" or (not encoder.linear and cotangents + 1 < (1 - WORTH_A_CALL) * own)
