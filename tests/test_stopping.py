"""Signals at awkward moments: a command that is stopped says how to go on, whatever it was doing."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from jobs.cli.cluster import _followed
from jobs.cli.messages import errors_as_messages
from jobs.engine.signals import Interrupted, starting_ray, stoppable


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_the_run_has_begun_says_how_to_go_on(number: int, code: int) -> None:
    """SIGTERM while the job file was read ended the program without a word."""
    app = typer.Typer()

    @app.command()
    def run(context: typer.Context) -> None:
        with errors_as_messages(context, resume=True):
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    done = CliRunner().invoke(app)
    assert done.exit_code == code
    assert done.stderr == "tokenpair: stopped; the same command goes on where it stopped\n"
    assert signal.getsignal(number) is before


def test_rays_own_handler_leaves_as_an_interruption() -> None:
    """Ray's handler, which is there for some seconds while it starts, ended the run with exit code 1 and no word."""
    with pytest.raises(Interrupted) as stopped, starting_ray():
        sys.exit(1)
    assert stopped.value.exit_code == 143


def test_native_code_that_forgets_which_signal_it_was_is_reminded() -> None:
    """SIGTERM inside of Ray's native code came out as a plain KeyboardInterrupt: exit code 130 and not 143."""

    def native() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None

    with pytest.raises(Interrupted) as stopped, stoppable():
        native()
    assert stopped.value.exit_code == 143
    with pytest.raises(KeyboardInterrupt) as plain, stoppable():
        raise KeyboardInterrupt
    assert not isinstance(plain.value, Interrupted)


@contextlib.contextmanager
def signalled_at_the_end() -> Iterator[None]:
    """Another Ctrl-C when the block is left, however that is."""
    try:
        yield
    finally:
        os.kill(os.getpid(), signal.SIGINT)


def test_a_second_signal_does_not_break_the_cleaning_up_between_the_blocks() -> None:
    """The innermost block gave the signals back to the one around it, while Ray was still being shut down."""
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    cleaned = []

    def run() -> None:
        with stoppable():
            try:
                with stoppable():
                    os.kill(os.getpid(), signal.SIGTERM)
            finally:
                for one in (signal.SIGINT, signal.SIGTERM):
                    os.kill(os.getpid(), one)
                    cleaned.append(one)
                with stoppable():  # what cleans up may be stoppable by itself
                    os.kill(os.getpid(), signal.SIGINT)
                cleaned.append("all")

    with pytest.raises(Interrupted) as stopped, stoppable(), signalled_at_the_end():
        run()
    assert stopped.value.exit_code == 143
    assert cleaned == [signal.SIGINT, signal.SIGTERM, "all"]
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before
    # The next command of this process listens again.
    with pytest.raises(Interrupted), stoppable(), stoppable():
        os.kill(os.getpid(), signal.SIGINT)


def test_after_rays_own_handler_no_second_signal_gets_through() -> None:
    with pytest.raises(Interrupted) as stopped, stoppable(), signalled_at_the_end(), starting_ray():
        sys.exit(1)
    assert stopped.value.exit_code == 143


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_whoever_follows_a_job_leaves_by_the_code_of_the_signal(
    number: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM left with the code of Ctrl-C."""

    class Following:
        def follow(self, id: str, *_: object) -> Iterator[str]:
            yield "a line"
            os.kill(os.getpid(), number)

    following: Any = Following()
    with stoppable():
        assert _followed(following, "tokenpair-x-1") == code
    assert "the job goes on" in capsys.readouterr().err
