"""Shows the progress of a command: a bar in a terminal, one line a minute elsewhere, nothing with ``--quiet``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

SECONDS_A_LINE = 60.0


class ProgressState(Protocol):
    """How much of some work is done, as numbers of pairs and as one line of text."""

    @property
    def pairs(self) -> int: ...

    @property
    def all_pairs(self) -> int: ...

    def line(self) -> str: ...


@dataclass(frozen=True)
class State:
    """The progress of a run. ``pairs`` and ``shards`` include what earlier starts of the same run finished.

    ``pairs_now``, ``texts`` and ``seconds`` count since this start. ``noun`` names what ``pairs`` counts.
    """

    shards: int
    all_shards: int
    pairs: int
    all_pairs: int
    pairs_now: int
    texts: int
    workers: int
    retries: int
    seconds: float
    noun: str = "pair"

    @property
    def rate(self) -> float:
        """Pairs per second since this start; 0 before the first one."""
        return self.pairs_now / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until the run ends, from :attr:`rate`; None while the rate is 0."""
        return (self.all_pairs - self.pairs) / self.rate if self.rate > 0 else None

    def line(self) -> str:
        """Return the progress as one line of text."""
        words = [
            f"{self.shards}/{counted(self.all_shards, 'shard')}",
            f"{self.pairs:,}/{counted(self.all_pairs, self.noun)}",
        ]
        if self.texts and self.noun == "pair":
            words.append(counted(self.texts, "text"))
        if self.rate:
            words.append(f"{self.rate:,.1f} {self.noun}s/s")
        words.append(counted(self.workers, "worker"))
        if self.retries:
            words.append(counted(self.retries, "retry"))
        if self.seconds_left is not None and self.shards < self.all_shards:
            words.append(f"{duration(self.seconds_left)} left")
        return ", ".join(words)


def counted(number: int, what: str) -> str:
    """Return a number with the noun that it counts, such as "1 row", "2 rows" or "12,000 rows"."""
    plural = what if number == 1 else f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{number:,} {plural}"


def duration(seconds: float) -> str:
    """Return ``seconds`` in a readable form, such as "4.2 s", "3 min 05 s" or "2 h 10 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


@dataclass(frozen=True)
class Count:
    """A phase of which ``pairs`` of ``all_pairs`` items, named by the plural ``what``, were done in ``seconds``."""

    what: str
    pairs: int
    all_pairs: int
    seconds: float

    def line(self) -> str:
        """Return the count as one line of text, with the estimated time left."""
        words = f"{self.pairs:,}/{self.all_pairs:,} {self.what}"
        if 0 < self.pairs < self.all_pairs:
            words += f", {duration((self.all_pairs - self.pairs) * self.seconds / self.pairs)} left"
        return words


class Progress(AbstractContextManager["Progress"]):
    """Receives the phases of some work and the progress of each. This base class shows nothing.

    A phase with a total advances by counts (:meth:`advance`); a run passes its own state (:meth:`update`).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._what, self._total, self._done, self._began = "", 0, 0, clock()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def phase(self, what: str, total: int | None = None) -> None:
        """Begin the phase ``what``, a plural noun with the ``total`` to count, or any text without one."""
        self._what, self._total, self._done, self._began = what, total or 0, 0, self._clock()

    def advance(self, count: int) -> None:
        """Add ``count`` finished items of this phase."""
        self._done += count
        self.update(Count(self._what, self._done, self._total, self._clock() - self._began))

    def update(self, state: ProgressState) -> None:
        """Show ``state``."""


class Lines(Progress):
    """Passes one line to ``echo`` when a phase begins, and then one line a minute."""

    def __init__(self, echo: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._echo = echo
        self._next = clock() + SECONDS_A_LINE

    def phase(self, what: str, total: int | None = None) -> None:
        super().phase(what, total)
        self._echo(what if total is None else f"{total:,} {what}")

    def update(self, state: ProgressState) -> None:
        if self._clock() >= self._next:
            self._next = self._clock() + SECONDS_A_LINE
            self._echo(state.line())


class Bar(Progress):
    """A progress bar on standard error, redrawn in place and removed at the end."""

    def __init__(self) -> None:
        super().__init__()
        # rich takes a tenth of a second to import, and is not needed without a terminal.
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._bar: Any = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[state]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=None, state="")

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def phase(self, what: str, total: int | None = None) -> None:
        super().phase(what, total)
        self._bar.reset(self._task, description=what, total=total, state="")

    def update(self, state: ProgressState) -> None:
        total = max(state.all_pairs, 1)
        self._bar.update(self._task, description="", total=total, completed=state.pairs, state=state.line())


def make_progress(echo: Callable[[str], None], *, quiet: bool) -> Progress:
    """Return a display that shows nothing if ``quiet``, a bar if standard error is a terminal, else lines."""
    if quiet:
        return Progress()
    return Bar() if sys.stderr.isatty() else Lines(echo)
