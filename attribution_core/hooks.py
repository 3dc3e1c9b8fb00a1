"""How results print and what a run computes of itself, for classes that must not know of what draws or computes.

``attribution_core`` and ``jobs`` name a function for each, by its place; it is imported when it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

_PLACES: dict[str, str] = {}


def register(**places: str) -> None:
    """Name the function of each hook as ``module:function``."""
    _PLACES.update(places)


def hook(name: str) -> Callable[..., Any]:
    """The function of a hook; KeyError where none was named."""
    module, _, function = _PLACES[name].partition(":")
    named: Callable[..., Any] = getattr(import_module(module), function)
    return named
