"""Ray's token authentication: the token that tokenpair is given for a cluster, and its own for the Ray that it starts.

A token is only ever in an environment: never written to disk, never on a command line, never in a message.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

from jobs.cluster.ray_internals import reload_settings
from jobs.errors import ClusterError

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
# Where Ray itself looks for a token that was not named.
DEFAULT_PATH = Path("~/.ray/auth_token")
HOW = f"set {MODE}=token and {TOKEN} or {TOKEN_PATH}"


@contextlib.contextmanager
def own_token() -> Iterator[None]:
    """A fresh token for a Ray that is started inside the block; the environment is put back as it was afterwards.

    Without one Ray would make a token itself and leave it in the home folder for every later Ray of this user.
    """
    before = {name: os.environ.pop(name, None) for name in (MODE, TOKEN, TOKEN_PATH)}
    os.environ.update({MODE: "token", TOKEN: secrets.token_hex(32)})
    read_again()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        read_again()


def use_given_token() -> None:
    """Authenticate with the token of the environment, where there is one, to a cluster that is there already.

    A token that is named switches authentication on by itself, as one in Ray's own place does. ClusterError where the
    token's file cannot be read or the mode is not one of Ray's: Ray would end the process.
    """
    mode = os.environ.get(MODE)
    if mode is None and (os.environ.get(TOKEN) or os.environ.get(TOKEN_PATH) or DEFAULT_PATH.expanduser().is_file()):
        mode = os.environ[MODE] = "token"
    if mode is not None and mode.lower() not in ("token", "disabled"):
        raise ClusterError(f"{MODE} is neither token nor disabled")
    path = os.environ.get(TOKEN_PATH)
    if (mode or "").lower() == "token" and path and not os.environ.get(TOKEN):
        try:
            found = Path(path).expanduser().read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise ClusterError(f"{TOKEN_PATH} names {path}, which cannot be read as a token") from None
        if not found:
            raise ClusterError(f"{TOKEN_PATH} names {path}, which is empty")
    read_again()


def refusal(where: str) -> str:
    """What to do about a cluster that did not let us in, in one line; the token itself is not in it."""
    mode = os.environ.get(MODE, "").lower()
    if mode == "disabled":
        return f"{where} wants a token, and {MODE} is disabled here: {HOW}"
    named = next((name for name in (TOKEN, TOKEN_PATH) if os.environ.get(name)), None)
    if named is None and not (mode == "token" and DEFAULT_PATH.expanduser().is_file()):
        return f"{where} wants a token: {HOW}"
    return f"{where} does not accept the token of {named or DEFAULT_PATH}: it must be the one that its head has"


def restore(mode: str | None) -> None:
    """Ray's mode of authentication as it was in the environment."""
    os.environ.pop(MODE, None)
    if mode is not None:
        os.environ[MODE] = mode
    read_again()


def read_again() -> None:
    """Let a Ray that was imported before look at the environment again; it keeps what it has read."""
    if "ray._raylet" in sys.modules:
        reload_settings()
