"""What the fuzz tests share: how many examples, and what a user may see of any of them.

``TOKENPAIR_FUZZ=10000`` makes so many examples in all; without it a few hundred are made. ``pytest --seed NUMBER``
chooses other ones.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, seed, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from jobs.cli import main as cli

DEFAULT_EXAMPLES = 100
EXAMPLES = int(os.environ.get("TOKENPAIR_FUZZ", DEFAULT_EXAMPLES))
FUZZ_SEED = int(os.environ.get("TOKENPAIR_TEST_SEED", 1))
LONGEST_LINE = 4000
# Nothing listens there: whatever an example says, no request leaves this machine.
NOBODY = "http://127.0.0.1:9"


def fuzzed(share: float) -> Callable[[Any], Any]:
    """Settings of a test that makes this share of all examples, the same ones for the same seed."""
    budget = settings(
        max_examples=max(int(EXAMPLES * share), 1),
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    return lambda test: seed(FUZZ_SEED)(budget(test))


@pytest.fixture(scope="module")
def nowhere() -> Iterator[None]:
    """Stores lead to a closed port of this machine, and the measurement of its speed takes no time."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AWS_", "RAY_"))]:
            patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL", NOBODY)
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-nobody")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", "/nonexistent")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
        patch.setattr("jobs.plan.estimate.MEASURED_SECONDS", 0.0)
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield


@dataclass(frozen=True)
class Told:
    """What a command said and its exit code."""

    code: int
    out: str
    errors: str


def tell(*words: str | Path) -> Told:
    """Run ``tokenpair`` in this process; AssertionError where a user would see anything but a result or an error.

    A result is exit code 0. An error is exit code 2 and lines that begin with ``tokenpair: error:``, one a mistake.
    """
    done = CliRunner().invoke(cli.app, [str(word) for word in words])
    told = Told(done.exit_code, done.stdout, done.stderr)
    event(f"exit {told.code}")
    if done.exit_code not in (0, 2) or "Traceback" in done.output or not isinstance(done.exception, SystemExit | None):
        raise AssertionError(f"{told}{_where(words)}") from done.exception
    for line in told.errors.splitlines():
        assert len(line) <= LONGEST_LINE, f"a line of {len(line)} characters: {line[:200]}…"
        assert line.isprintable(), f"not printable: {line!r}"
    complaints = [line for line in told.errors.splitlines() if line.startswith("tokenpair: error: ")]
    assert bool(complaints) == (told.code == 2), told
    assert "secret-of-nobody" not in done.output
    return told


def _where(words: tuple[str | Path, ...]) -> str:
    """The traceback that the user was spared, for whoever mends it."""
    import traceback

    again = CliRunner().invoke(cli.app, ["--debug", *(str(word) for word in words)])
    if again.exc_info is None or isinstance(again.exception, SystemExit):
        return ""
    return "\n" + "".join(traceback.format_exception(*again.exc_info)[-6:])


def harmless(text: str) -> str:
    """``text`` as a place that is neither the machine's root or home nor on another machine."""
    if re.match(r"\s*\w*://", text):
        return "s3://bucket/" + text.split("://")[1].replace("/", "_")
    return text.lstrip("/~").replace("..", "_")


odd_text = st.one_of(
    st.text(max_size=30),
    st.text(st.characters(codec=None, categories=["Cc", "Cf", "Zs", "Zl", "So", "Mn", "Lo"]), max_size=12),
    st.sampled_from(["", " ", "\x00", "\u200b", "\x1b[31mred", "null", "~", "é" * 3000]),
    st.sampled_from(
        [
            "s3://",
            "s3://b/k.csv",
            "s3:///",
            "*.csv",
            "[",
            "**",
            "a/b/c",
            "file://",
            "-",
            "--help",
            "%s",
            "{x}",
            "$HOME",
            "`id`",
            "10 %",
        ]
    ),
).map(harmless)

odd_value = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**30, 10**400]),
        st.floats(),
        odd_text,
        st.binary(max_size=20),
        st.dates(),
        st.datetimes(),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(odd_text | st.integers(), inner, max_size=4),
    max_leaves=8,
)
