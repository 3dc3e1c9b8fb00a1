"""The outcome of a run, as a value and as the summary that a user reads."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.progress import counted, duration
from jobs.run.totals import Totals

FAILED_SHOWN = 10


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run. ``failed`` names each missing shard with its reason; ``seconds`` is this start's time.

    ``pairs_now`` were attributed by this start, in ``computing_seconds`` from the first worker's readiness on, with
    ``worker_seconds`` of workers that were there, ``busy_seconds`` of them computing; ``totals`` are of the whole run.
    ``noun`` names the rows of the result. ``warnings`` are what the plan said of the input that a reader of the summary
    must know.
    """

    url: str
    totals: Totals
    planned_pairs: int
    shards: int
    failed: dict[int, str]
    pairs_now: int
    seconds: float
    computing_seconds: float = 0.0
    worker_seconds: float = 0.0
    busy_seconds: float = 0.0
    workers: int = 0
    retries: int = 0
    already_finished: bool = False
    warnings: tuple[str, ...] = ()
    noun: str = "pair"

    @property
    def complete(self) -> bool:
        """Whether every planned shard is there."""
        return not self.failed

    @property
    def exit_code(self) -> int:
        """0 when all is done, 1 while a planned shard is missing."""
        return 0 if self.complete else 1

    def lines(self) -> list[str]:
        """The summary that a user reads."""
        lines = [*self.totals.lines(), *(f"note     {line}" for line in self.warnings)]
        if self.already_finished:
            return [f"already finished: {self.url}", *lines]
        if self.pairs_now:
            rate = self.pairs_now / self.computing_seconds if self.computing_seconds else 0.0
            lines.append(
                f"time     {duration(self.seconds)}, of which {duration(self.computing_seconds)} computing: "
                f"{rate:,.1f} {self.noun}s/s by {counted(self.workers, 'worker')}"
            )
            # Tokenising, the device and tables of different shards overlap.
            busy = min(self.busy_seconds, self.worker_seconds)
            lines.append(
                f"cost     {_seconds(self.worker_seconds / self.pairs_now)} of worker time a {self.noun}, "
                f"{_seconds(busy / self.pairs_now)} of it computing"
            )
        if self.retries:
            lines.append(f"retries  {counted(self.retries, 'shard')} had to be tried again")
        for shard, reason in list(self.failed.items())[:FAILED_SHOWN]:
            lines.append(f"MISSING  shard {shard}: {reason}")
        if len(self.failed) > FAILED_SHOWN:
            lines.append(f"MISSING  and {counted(len(self.failed) - FAILED_SHOWN, 'further shard')}")
        if self.failed:
            lines.append(
                f"result   INCOMPLETE, {len(self.failed)} of {counted(self.shards, 'shard')} missing: {self.url}"
            )
            lines.append("         the same command tries the missing shards again")
        else:
            lines.append(f"result   {self.url}")
        return lines


def _seconds(seconds: float) -> str:
    """Two digits of a time, which may be short."""
    return f"{seconds * 1000:.2g} ms" if seconds < 0.1 else f"{seconds:.2f} s"
