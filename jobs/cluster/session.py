"""Connects to Ray for the time of a run: starts a private Ray on this machine, or joins an existing cluster.

Ray is imported inside, after the environment that it reads is set.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from typing import Any

from jobs.cluster.address import (
    TokenRefusedError,
    dashboard_of,
    host_and_port,
    only_on_loopback,
    redacted,
    redacted_text,
)
from jobs.cluster.environment import ENVIRONMENT
from jobs.cluster.token import MODE, own_token, refusal, reload_token, restore_mode, use_given_token
from jobs.errors import ClusterError

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# With this, Ray uses 127.0.0.1 as this machine's address, so none of its ports is open to the network.
ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
# Only a few numbers go through Ray; data goes to the store.
OBJECT_STORE_BYTES = 100 << 20
FOLDER_PREFIX = "tokenpair-ray-"
# Ray puts sockets below the folder for temporary files, and a socket's path has at most 107 bytes. This is what is left
# for the folder without the prefix and eight random characters.
LONGEST_PLACE = 40 - len(FOLDER_PREFIX) - len("/12345678")
# Tried if Ray cannot use the folder in TMPDIR.
COMMON_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
# Ray allows its own processes half a minute to start, which is too short on a busy machine.
STARTS = 2


@contextlib.contextmanager
def ray_session() -> Iterator[bool]:
    """Connect to Ray inside the block; yields whether other machines may join.

    It joins the cluster at RAY_ADDRESS, or else starts a Ray that listens on loopback only, requires a new token and
    has its files in a folder that only this user can enter. A Ray that is connected in this process already is used
    and left running. Raises ClusterError if Ray cannot be started or reached.
    """
    address = os.environ.get("RAY_ADDRESS")
    loopback = ON_LOOPBACK if not address or only_on_loopback(address) else {}
    for name, value in {**RAY_ENVIRONMENT, **ENVIRONMENT, **loopback}.items():
        os.environ.setdefault(name, value)
    import ray  # it reads the environment when it is imported

    if ray.is_initialized():
        yield True
        return
    with contextlib.ExitStack() as stack:
        if address:
            stack.enter_context(_token_if_required(address))
            _join(address)
        else:
            stack.enter_context(own_token())
            _start(stack.enter_context(_private_folder()))
        try:
            yield address is not None
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _token_if_required(address: str) -> Iterator[None]:
    """Authenticate with the user's token inside the block if the cluster requires one, and without a token if not.

    A cluster without authentication cannot connect to a driver that requires a token: it would count the driver as
    dead and end its workers before they start. Raises ClusterError if no Ray answers or it does not accept the token.
    """
    before = os.environ.get(MODE)
    if host_and_port(address) is None:
        use_given_token()
    else:
        os.environ[MODE] = "disabled"
        reload_token()
        try:
            dashboard_of(address)
        except TokenRefusedError:
            restore_mode(before)
            use_given_token()
            dashboard_of(address)
    try:
        yield
    finally:
        restore_mode(before)


def _join(address: str) -> None:
    import ray

    where = f"the cluster at RAY_ADDRESS={redacted(address)}"
    if address.lower().startswith(("http://", "https://")):
        raise ClusterError(
            f"cannot join {where}: that is a dashboard's address, which tokenpair submit takes; here it is HOST:6379"
        )
    try:
        ray.init(address=address, **QUIET)
    except ray.exceptions.AuthenticationError:
        raise ClusterError(refusal(where)) from None
    except Exception as error:  # Ray raises a plain Exception on a timeout
        raise ClusterError(f"cannot reach {where}: {_first_line(error, address)}") from None


def _start(folder: str) -> None:
    import ray

    for start in range(STARTS):
        try:
            ray.init(
                address="local",
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                _node_ip_address="127.0.0.1",
                _temp_dir=folder,
                **QUIET,
            )
            return
        except Exception as error:  # Ray raises a plain Exception on a timeout
            ray.shutdown()
            if start == STARTS - 1:
                raise ClusterError(f"cannot start Ray on this machine: {_first_line(error)}") from None


@contextlib.contextmanager
def _private_folder() -> Iterator[str]:
    """Create a folder for Ray's sockets and logs that only this user can enter; yields its path.

    Ray's default folder is readable by every user. Raises ClusterError if Ray can use no folder for temporary files.
    """
    parent = next((path for path in (tempfile.gettempdir(), *COMMON_FOLDERS) if _usable_by_ray(path)), None)
    if parent is None:
        raise ClusterError(
            f"cannot start Ray on this machine: it needs a writable folder for temporary files whose name has at most "
            f"{LONGEST_PLACE} characters, all of them letters, digits or one of _ . - / without accents: set TMPDIR to "
            f"one (it is {tempfile.gettempdir()})"
        )
    with tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX, dir=parent, ignore_cleanup_errors=True) as name:
        # Ray makes its folder accessible to every user, so it gets a subfolder of the private one.
        yield f"{name}/r"


def _usable_by_ray(folder: str) -> bool:
    """Return whether Ray can use ``folder``: it encodes paths as ASCII, and the path of a socket must be short."""
    plain = re.fullmatch(r"[\w./-]+", folder, re.ASCII) is not None
    return plain and len(folder) <= LONGEST_PLACE and os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


def _first_line(error: BaseException, address: str = "") -> str:
    lines = redacted_text(str(error), address).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
