"""Which kind of encoder serves a model."""

from __future__ import annotations

from typing import Any

from attribution_core.model.encoder import Encoder
from attribution_core.model.modules import AnyModel, Role, is_late, is_static, route_of
from attribution_core.model.multi_vector import LateEncoder
from attribution_core.model.static import StaticEncoder


def make_encoder(model: AnyModel, *, role: Role, **settings: Any) -> Encoder:
    """The encoder of the route that a text of ``role`` takes; settings are those of :class:`Encoder`."""
    kind = LateEncoder if is_late(model) else StaticEncoder if is_static(route_of(model, role)) else Encoder
    return kind(model, role=role, **settings)
