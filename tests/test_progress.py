"""Progress: a line when a phase begins, one a minute with the time left, nothing when quiet."""

from __future__ import annotations

import pytest

from jobs.progress import Bar, Count, Lines, Progress, State, make_progress


def test_lines_come_with_a_phase_and_once_a_minute() -> None:
    said: list[str] = []
    now = [0.0]
    progress = Lines(said.append, lambda: now[0])
    progress.phase("loading the model")
    progress.phase("pairs to compare", 100)
    now[0] = 10
    progress.advance(10)
    assert said == ["loading the model", "100 pairs to compare"]
    now[0] = 70
    progress.advance(25)
    now[0] = 75
    progress.advance(5)
    assert said[2:] == ["35/100 pairs to compare, 2 min 10 s left"]


def test_a_run_has_its_own_line() -> None:
    said: list[str] = []
    now = [0.0]
    progress = Lines(said.append, lambda: now[0])
    now[0] = 61
    progress.update(State(2, 8, 50, 200, 50, 90, 1, 0, 10.0))
    assert said == ["2/8 shards, 50/200 pairs, 90 texts, 5.0 pairs/s, 1 worker, 30.0 s left"]


def test_quiet_shows_nothing_and_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with make_progress(said.append, quiet=True) as progress:
        progress.phase("loading the model")
        progress.advance(3)
    assert (said, type(progress)) == ([], Progress)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with make_progress(said.append, quiet=False) as bar:
        assert isinstance(bar, Bar)
        bar.phase("pairs to compare", 4)
        bar.advance(2)
        (task,) = bar._bar.tasks
        assert (task.completed, task.total) == (2, 4)
    assert said == []


def test_nothing_is_left_at_the_end() -> None:
    assert Count("pairs", 4, 4, 1.0).line() == "4/4 pairs"
