"""The share of rejected rows above which a job stops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jobs.errors import SourceError


def check_share(
    where: str, reasons: Mapping[str, int], rows: int, most: float, setting: str, what: str, first: Sequence[str] = ()
) -> None:
    """SourceError where more than the share ``most`` of ``rows`` was rejected.

    ``reasons`` counts them, ``first`` are the places of some.
    """
    bad = sum(reasons.values())
    if bad <= most * rows:
        return
    counts = "; ".join(f"{n:,} × {reason}" for reason, n in list(reasons.items())[:5])
    places = f" (first at {', '.join(first)})" if first else ""
    raise SourceError(
        f"{where}: {bad:,} of {rows:,} rows ({bad / rows:.1%}) {what}, more than {setting} {most:g} allows: {counts}"
        f"{places}; correct them, or set {setting} to a larger share to skip them"
    )
