"""Where a cluster is: what RAY_ADDRESS means on this machine, and a first question to its head that costs little."""

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
    """A cluster wants a token, or another one."""


def host_and_port(address: str) -> tuple[str, int] | None:
    """The parts of HOST:PORT, or None where it is none."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        return None
    return host.strip("[]"), int(port)


def shown(address: str) -> str:
    """``address`` without a login, which may stand before HOST:PORT too, and without a query: as it may be told."""
    scheme, place = _parts(address)
    try:
        # A password may hold a slash, and what comes after one is looked at for no login.
        told = without_login(f"{scheme}//{place.rpartition('@')[2]}")
    except ValueError:
        return "something that is no address"
    return told if scheme else told.removeprefix("//")


def scrubbed(text: str, address: str) -> str:
    """``text``, which is Ray's and may repeat ``address``, without the login in it."""
    login, at, _ = _parts(address)[1].rpartition("@")
    text = text.replace(address, shown(address)) if address else text
    return text.replace(login + at, "") if login else text


def _parts(address: str) -> tuple[str, str]:
    """The scheme with its colon, empty where there is none, and what comes after it."""
    scheme, _, place = address.partition("//")
    return (scheme, place) if scheme.endswith(":") else ("", address)


def listens(host: str, port: int) -> bool:
    """Whether anything listens there."""
    try:
        socket.create_connection((host, port), ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


def only_on_loopback(address: str) -> bool:
    """Whether a cluster is at a loopback address and not at this machine's own, which Ray would take it to mean."""
    place = host_and_port(address)
    if place is None or place[0] not in ("127.0.0.1", "localhost"):
        return False
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
        outward.connect(("192.0.2.1", 9))  # nothing is sent: this only asks which way it would go
        return not listens(outward.getsockname()[0], place[1])
    return True


def dashboard_of(address: str) -> str | None:
    """HOST:PORT of the dashboard of the cluster whose head is at ``address``, None where it has none.

    ClusterError where no Ray answers there, TokenRefusedError where it does not accept our token: Ray itself would go
    on asking for half a minute, with a line on the terminal each time.
    """
    place = host_and_port(address)
    silent = ClusterError(f"no Ray cluster answers at {shown(address)}")
    if place is None or not listens(*place):
        raise silent
    try:
        return dashboard_address(address, ANSWER_SECONDS, _without_stderr)
    except Exception as error:
        if "uthenti" in f"{type(error).__name__} {error}":
            raise TokenRefusedError(refusal(f"the cluster at {shown(address)}")) from None
        raise silent from None


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Ray's native code writes its complaints straight to the terminal, before any setting for that is read."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
