"""Which contributor computes texts of which role."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from attribution_core.contribution_cache import ContributionCache
from attribution_core.contributions import Contributor
from attribution_core.errors import ModelError
from attribution_core.model.encoder import Encoder, ReadText, Role
from attribution_core.model.factory import make_encoder
from attribution_core.model.modules import AnyModel, route_of
from attribution_core.results import Contributions, Floats


class Routes:
    """The contributors of a model by role, the ``usual`` one for all but a Router's. Results are in order."""

    def __init__(self, usual: Contributor, of_role: Mapping[str, Contributor]) -> None:
        self.usual = usual
        self._of_role = of_role

    def of(self, role: str) -> Contributor:
        """Return the contributor of texts of a role."""
        return self._of_role.get(role, self.usual)

    def contributions(self, texts: Sequence[ReadText], *, tolerance: float | None = None) -> list[Contributions]:
        """Return contributions of texts of any role."""
        return self._each(texts, lambda route, at: route.contributions([texts[i] for i in at], tolerance=tolerance))

    def computed_alone(self, texts: Sequence[ReadText], cache: ContributionCache | None) -> list[Contributions]:
        """Return contributions of distinct texts, of which those in ``cache`` are not computed again."""
        if cache is None:
            return self.contributions(texts)
        computed = {at: one for at, text in enumerate(texts) if (one := cache.get(text)) is not None}
        fresh = [at for at in range(len(texts)) if at not in computed]
        for at, one in zip(fresh, self.contributions([texts[at] for at in fresh]), strict=True):
            computed[at] = one
            cache.put(texts[at], one)
        return [computed[at] for at in range(len(texts))]

    def projections(
        self, texts: Sequence[ReadText], cotangents: Sequence[Floats], *, tolerance: float | None = None
    ) -> list[Contributions]:
        """Return products of texts' contributions with their cotangents [K, D]."""

        def compute(route: Contributor, at: list[int]) -> list[Contributions]:
            own = [cotangents[i] for i in at]
            return route.projections([texts[i] for i in at], own, tolerance=tolerance)

        return self._each(texts, compute)

    def ends(self, texts: Sequence[ReadText]) -> list[Contributions]:
        """Return embeddings of texts and of their references, without contributions."""
        return self._each(texts, lambda route, at: route.ends([texts[i] for i in at]))

    def _each(
        self, texts: Sequence[ReadText], compute: Callable[[Contributor, list[int]], list[Contributions]]
    ) -> list[Contributions]:
        results: dict[int, Contributions] = {}
        for route in dict.fromkeys(self.of(text.role) for text in texts):
            at = [place for place, text in enumerate(texts) if self.of(text.role) is route]
            results.update(zip(at, compute(route, at), strict=True))
        return [results[place] for place in range(len(texts))]


def routes_of(
    model: AnyModel,
    roles: tuple[Role, Role],
    contributor: Callable[[Encoder], Contributor],
    *,
    device: str | torch.device | None,
    private: bool,
    **settings: Any,
) -> Routes:
    """Return the routes of a model for two roles: one encoder for both where they take the same modules.

    ``settings`` are those of :class:`~attribution_core.model.encoder.Encoder`.

    Raises:
        ModelError: where the two embeddings have no product.
    """
    first, second = roles
    usual = contributor(make_encoder(model, device=device, role=first, private=private, **settings))
    own = usual.encoder
    of_role: dict[str, Contributor] = {first: usual, second: usual}
    if [id(one) for one in route_of(own.model, first)] != [id(one) for one in route_of(own.model, second)]:
        other = make_encoder(own.model, device=own.device, role=second, private=True, **settings)
        if other.embedding_width != own.embedding_width:
            raise ModelError(
                f"a {first}'s embedding has {own.embedding_width} values and a {second}'s {other.embedding_width}: "
                "they have no product"
            )
        of_role[second] = contributor(other)
    return Routes(usual, of_role)
