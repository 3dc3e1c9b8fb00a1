"""Summaries of curves over pairs: one order of deletion or insertion, and one order against another."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.analysis.resampling import Mean


@dataclass(frozen=True)
class Curve:
    """The mean curve of one order: ``values`` after each step with bounds, and by how much it beats random order.

    ``shares`` are the shares of words that are deleted, or inserted, after each step. ``advantage`` is the area by
    which the curve lies on the right side of random order's, in units of the score: below it for deletion, above it for
    insertion. ``wins`` is the share of pairs where it does (ties count half).
    """

    level: str
    operation: str
    method: str
    shares: tuple[float, ...]
    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    area: float
    advantage: Mean
    wins: float


@dataclass(frozen=True)
class Against:
    """By how much an order beats another one, over all curves (a mean of them), in units of the score."""

    method: str
    against: str
    advantage: Mean
    wins: float
