"""One reason to trust the numbers of a run, or not to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["good", "warn", "open", "note"]


@dataclass(frozen=True)
class Trust:
    """One reason to trust the numbers, or not: ``about`` is its headline."""

    state: State
    about: str
    words: str
