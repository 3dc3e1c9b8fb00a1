"""SIGINT and SIGTERM as an exception, so that whatever was begun is put in order before the program ends."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A command was stopped by a signal; ``exit_code`` is the shell's for that signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """SIGINT and SIGTERM raise Interrupted inside the block; only the main thread can be told so.

    Ray installs handlers of its own while it starts, so the block is entered again inside of it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: FrameType | None) -> None:
        # A second Ctrl-C must not break the cleaning up after the first.
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.SIG_IGN)
        raise Interrupted(number)

    before = {one: signal.signal(one, stop) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextlib.contextmanager
def starting_ray() -> Iterator[None]:
    """SIGTERM that meets Ray's own handler while Ray starts, which leaves by SystemExit, raises Interrupted as well."""
    try:
        yield
    except SystemExit:
        raise Interrupted(signal.SIGTERM) from None
