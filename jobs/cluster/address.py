"""Addresses of Ray clusters: what RAY_ADDRESS means on this machine, and a cheap check whether a head answers."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

from jobs.cluster.ray_internals import dashboard_address
from jobs.cluster.token import refusal
from jobs.errors import ClusterError
from jobs.storage.s3 import without_login

ANSWER_SECONDS = 5


class TokenRefusedError(ClusterError):
    """A cluster requires an authentication token, or does not accept ours."""


def host_and_port(address: str) -> tuple[str, int] | None:
    """Return host and port of an address HOST:PORT, or None if it has another form."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        return None
    return host.strip("[]"), int(port)


def redacted(address: str) -> str:
    """Return ``address`` for a message: without user name, password and query."""
    scheme, place = _parts(address)
    try:
        # A password may contain a slash, and `without_login` does not look for one after a slash.
        safe = without_login(f"{scheme}//{place.rpartition('@')[2]}")
    except ValueError:
        return "something that is no address"
    return safe if scheme else safe.removeprefix("//")


def redacted_text(text: str, address: str) -> str:
    """Return ``text``, a message of Ray's that may contain ``address``, without user name and password."""
    login, at, _ = _parts(address)[1].rpartition("@")
    text = text.replace(address, redacted(address)) if address else text
    return text.replace(login + at, "") if login else text


def _parts(address: str) -> tuple[str, str]:
    """Return the scheme with its colon ("" if there is none) and the rest of the address."""
    scheme, _, place = address.partition("//")
    return (scheme, place) if scheme.endswith(":") else ("", address)


def listens(host: str, port: int) -> bool:
    """Return whether a TCP server accepts connections at this host and port."""
    try:
        socket.create_connection((host, port), ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


def only_on_loopback(address: str) -> bool:
    """Return whether a cluster listens on the loopback address only.

    Ray takes 127.0.0.1 to mean this machine's address on the network, where such a cluster does not answer.
    """
    place = host_and_port(address)
    if place is None or place[0] not in ("127.0.0.1", "localhost"):
        return False
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
        outward.connect(("192.0.2.1", 9))  # UDP sends nothing here; this only selects the local address
        return not listens(outward.getsockname()[0], place[1])
    return True


def dashboard_of(address: str) -> str | None:
    """Return HOST:PORT of the dashboard of the cluster whose head is at ``address``; None if it has no dashboard.

    Raises ClusterError if no Ray answers there, and TokenRefusedError if it does not accept our token. Ray itself
    would retry for half a minute and print a line each time.
    """
    place = host_and_port(address)
    no_answer = ClusterError(f"no Ray cluster answers at {redacted(address)}")
    if place is None or not listens(*place):
        raise no_answer
    try:
        return dashboard_address(address, ANSWER_SECONDS, _without_stderr)
    except Exception as error:
        if "uthenti" in f"{type(error).__name__} {error}":
            raise TokenRefusedError(refusal(f"the cluster at {redacted(address)}")) from None
        raise no_answer from None


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Discard what Ray's native code writes to standard error; no setting of Ray's turns that off."""
    stderr = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)
