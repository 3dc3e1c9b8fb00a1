"""SIGINT and SIGTERM as an exception, so that the program cleans up before it ends."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A command was stopped by a signal; ``exit_code`` is the shell's for that signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@dataclass
class _Blocks:
    """The stoppable blocks that the main thread is in, and the signal that they received."""

    entered: int = 0
    stopped: int | None = None

    def stop(self, number: int) -> None:
        """A second Ctrl-C must not break the cleaning up after the first."""
        self.stopped = number
        for one in SIGNALS:
            signal.signal(one, signal.SIG_IGN)


_blocks = _Blocks()


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """SIGINT and SIGTERM raise Interrupted inside the block; only the main thread receives signals.

    Ray installs handlers of its own while it starts, so the block is entered again inside of it. The first signal is
    the last that is listened to until the outermost block is left: what the blocks between clean up is not broken.
    """
    if not _on_main_thread():
        yield
        return

    def stop(number: int, _: FrameType | None) -> None:
        _blocks.stop(number)
        raise Interrupted(number)

    before = {one: signal.getsignal(one) for one in SIGNALS}
    _blocks.entered += 1
    try:
        if _blocks.stopped is None:
            for one in SIGNALS:
                signal.signal(one, stop)
        yield
    except KeyboardInterrupt as error:
        # What the handler raises inside of Ray's native code comes out of it as a plain KeyboardInterrupt.
        if _blocks.stopped is None or isinstance(error, Interrupted):
            raise
        raise Interrupted(_blocks.stopped) from None
    finally:
        _blocks.entered -= 1
        if not _blocks.entered or _blocks.stopped is None:
            for one, handler in before.items():
                signal.signal(one, handler)
        if not _blocks.entered:
            _blocks.stopped = None


@contextlib.contextmanager
def starting_ray() -> Iterator[None]:
    """SIGTERM that meets Ray's own handler while Ray starts, which leaves by SystemExit, raises Interrupted as well."""
    try:
        yield
    except SystemExit:
        if _blocks.entered and _on_main_thread():
            _blocks.stop(signal.SIGTERM)
        raise Interrupted(signal.SIGTERM) from None


def _on_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
