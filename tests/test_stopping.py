"""Signals at awkward moments: whoever stops a command is told how to go on, whatever it was doing."""

from __future__ import annotations

import os
import signal
import sys

import pytest
import typer
from typer.testing import CliRunner

from jobs.commands import told
from jobs.stopping import Interrupted, starting_ray


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_the_run_has_begun_says_how_to_go_on(number: int, code: int) -> None:
    """SIGTERM while the job file was read ended the program without a word."""
    app = typer.Typer()

    @app.command()
    def run(context: typer.Context) -> None:
        with told(context, resume=True):
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
