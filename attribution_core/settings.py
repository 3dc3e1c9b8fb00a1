"""Checks of an attributor's settings, and what they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attribution_core.directions import Products
from attribution_core.directions.generic import GenericProducts
from attribution_core.directions.linear import LinearProducts
from attribution_core.directions.structured import StructuredProducts, supports
from attribution_core.directions.structured_late import LateStructuredProducts
from attribution_core.errors import SettingError, TextError
from attribution_core.model.encoder import Encoder
from attribution_core.model.multi_vector import LateEncoder
from attribution_core.text.grouping import UNITS, encodable

MODES = ("symmetric", "retrieval")
LEVELS = ("pairs", "words")
PRODUCTS = ("auto", "generic", "structured")
WAYS = ("auto", "forward", "reverse", "partner")


def checked_text(text: str, at: int, side: int) -> str:
    """The first (side 0) or second text of pair ``at``; TextError where it is no text."""
    if not isinstance(text, str):
        raise TextError(f"pair {at}: the {('first', 'second')[side]} text is {type(text).__name__}, not text")
    if not encodable(text):
        raise TextError(
            f"pair {at}: the {('first', 'second')[side]} text has half a surrogate pair, which is no character"
        )
    return text


def one_of(name: str, value: str, allowed: Sequence[str]) -> Any:
    """``value``; SettingError where it is not allowed."""
    if value not in allowed:
        raise SettingError(f"{name} {value!r} is unknown; allowed are {', '.join(allowed)}")
    return value


def jacobian_products(encoder: Encoder, asked: str) -> Products:
    """The products of an encoder's Jacobian that were asked for; SettingError where it has none of the kind."""
    if asked == "auto" and encoder.linear:
        return LinearProducts(encoder)
    late = isinstance(encoder, LateEncoder)
    served = encoder.layer_parts() is not None if late else supports(encoder)
    if asked == "generic" or (asked == "auto" and not served):
        return GenericProducts(encoder)
    if not served:
        raise SettingError(
            "products 'structured' needs layers of BERT's kind and a single pooling mode other than max; use 'generic'"
        )
    return LateStructuredProducts(encoder) if isinstance(encoder, LateEncoder) else StructuredProducts(encoder)


def units_by_role(roles: Sequence[str], groups: str | Mapping[str, str]) -> dict[str, Any]:
    """What is attributed as one in texts of each role: one unit for all, or a mapping with a unit for each.

    Raises SettingError for an unknown unit, and for roles that the mode does not have.
    """
    if isinstance(groups, str):
        return dict.fromkeys(roles, one_of("groups", groups, UNITS))
    if set(groups) != set(roles) or len(set(roles)) == 1:
        raise SettingError(
            f"groups: found units of {', '.join(map(str, groups))}; give one unit, or in retrieval mode one for "
            "query and one for document"
        )
    return {role: one_of(f"groups of a {role}", groups[role], UNITS) for role in roles}


def prompts_by_role(mode: str, prompt_a: str | None, prompt_b: str | None) -> dict[str, str | None]:
    """The prompts of each role; SettingError for two prompts in symmetric mode."""
    if mode == "retrieval":
        return {"query": prompt_a, "document": prompt_b}
    if prompt_a != prompt_b:
        raise SettingError("in symmetric mode both texts have the same prompt; use mode 'retrieval' for two prompts")
    return {"text": prompt_a}
