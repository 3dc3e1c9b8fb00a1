"""What came of the runs: a line each while they go on, and a table."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """One run. ``problem`` is empty where it ended as it may; ``next_commit`` and ``seconds`` in seconds."""

    case: str
    seed: str
    how: str
    ended: str
    next_commit: float | None
    seconds: float
    problem: str = ""
    skipped: bool = False

    def line(self, number: int, of: int) -> str:
        """The run in one line."""
        verdict = "not possible here" if self.skipped else "FAILED" if self.problem else "ok"
        gap = "" if self.next_commit is None else f", next commit after {self.next_commit:.1f} s"
        what = f"{number}/{of} {verdict}: {self.case} ({self.how}): {self.ended}{gap}, {self.seconds:.0f} s in all"
        return what + (f"\n    repeat with --only {self.seed}\n    {self.problem}" if self.problem else "")


def table(results: Sequence[Result]) -> str:
    """A Markdown table, a line a case."""
    lines = [
        "| case | runs | output as undisturbed | how they ended | next commit after: median, longest | whole run |",
        "|---|---|---|---|---|---|",
    ]
    for case in dict.fromkeys(result.case for result in results):
        own = [result for result in results if result.case == case and not result.skipped]
        good = sum(not result.problem for result in own)
        endings = Counter(result.ended for result in own)
        told = "; ".join(f"{n} × {ending}" for ending, n in endings.most_common())
        lines.append(
            f"| {case} | {len(own)} | {good} | {told} | {_spread([r.next_commit for r in own])} "
            f"| {_spread([r.seconds for r in own])} |"
        )
    return "\n".join(lines)


def _spread(values: Sequence[float | None]) -> str:
    there = [value for value in values if value is not None]
    return f"{statistics.median(there):.1f} s, {max(there):.1f} s" if there else "–"
