"""Hooks for printing results and for computing on runs, so that result classes import no code that draws or computes.

``attribution_core`` and ``jobs`` register a function for each, by its module; it is imported when it is called.
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
