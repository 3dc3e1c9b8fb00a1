"""Ray's token authentication: the user's token for a cluster, and a new token for a Ray that tokenpair starts.

tokenpair keeps tokens in environment variables only: never on disk, on a command line or in a message.
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
# Ray's default file for a token.
DEFAULT_PATH = Path("~/.ray/auth_token")
HOW = f"set {MODE}=token and {TOKEN} or {TOKEN_PATH}"


@contextlib.contextmanager
def own_token() -> Iterator[None]:
    """Set a new random token for a Ray that is started inside the block, and restore the environment afterwards.

    Without it, Ray would create a token itself and leave it in the home folder for every later Ray of this user.
    """
    before = {name: os.environ.pop(name, None) for name in (MODE, TOKEN, TOKEN_PATH)}
    os.environ.update({MODE: "token", TOKEN: secrets.token_hex(32)})
    reload_token()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        reload_token()


def use_given_token() -> None:
    """Authenticate to an existing cluster with the token of the environment or of Ray's default file, if there is one.

    A token switches authentication on, without RAY_AUTH_MODE. Raises ClusterError if the token's file cannot be read
    or RAY_AUTH_MODE is invalid; Ray itself would end the process.
    """
    mode = os.environ.get(MODE)
    if mode is None and (os.environ.get(TOKEN) or os.environ.get(TOKEN_PATH) or DEFAULT_PATH.expanduser().is_file()):
        mode = os.environ[MODE] = "token"
    if mode is not None and mode.lower() not in ("token", "disabled"):
        raise ClusterError(f"{MODE} is neither token nor disabled")
    path = os.environ.get(TOKEN_PATH)
    if (mode or "").lower() == "token" and path and not os.environ.get(TOKEN):
        try:
            token = Path(path).expanduser().read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise ClusterError(f"{TOKEN_PATH} names {path}, which cannot be read as a token") from None
        if not token:
            raise ClusterError(f"{TOKEN_PATH} names {path}, which is empty")
    reload_token()


def refusal(where: str) -> str:
    """Return one line on what to do about a cluster, named by ``where``, that refused access; without the token."""
    mode = os.environ.get(MODE, "").lower()
    if mode == "disabled":
        return f"{where} wants a token, and {MODE} is disabled here: {HOW}"
    named = next((name for name in (TOKEN, TOKEN_PATH) if os.environ.get(name)), None)
    if named is None and not (mode == "token" and DEFAULT_PATH.expanduser().is_file()):
        return f"{where} wants a token: {HOW}"
    return f"{where} does not accept the token of {named or DEFAULT_PATH}: it must be the one that its head has"


def restore_mode(mode: str | None) -> None:
    """Set RAY_AUTH_MODE to an earlier value, None for unset."""
    os.environ.pop(MODE, None)
    if mode is not None:
        os.environ[MODE] = mode
    reload_token()


def reload_token() -> None:
    """Make Ray read the environment again if it is imported already, because it caches the token."""
    if "ray._raylet" in sys.modules:
        reload_settings()
