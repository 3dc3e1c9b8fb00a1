"""Ray for the time of a run: a quiet one of our own that nobody else gets into, or a cluster that is there already."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from typing import Any

from jobs.cluster.address import TokenRefusedError, dashboard_of, host_and_port, only_on_loopback, scrubbed, shown
from jobs.cluster.environment import ENVIRONMENT
from jobs.cluster.token import MODE, own_token, read_again, refusal, restore, use_given_token
from jobs.errors import ClusterError

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# Ray then takes 127.0.0.1 for this machine's address, and nothing of it listens beyond loopback.
ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
# Shards and reports are a few numbers; data goes to the store and not through Ray.
OBJECT_STORE_BYTES = 100 << 20
FOLDER_PREFIX = "tokenpair-ray-"
# Ray puts sockets below it, and the system allows 107 bytes for the whole name of one: what is left for the folder for
# temporary files, without the prefix and eight characters by chance.
LONGEST_PLACE = 40 - len(FOLDER_PREFIX) - len("/12345678")
# Where TMPDIR's own folder does not serve Ray.
COMMON_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
# Ray gives its own processes half a minute to answer, which a machine busy with other work may need more than once.
STARTS = 2


@contextlib.contextmanager
def ray_session() -> Iterator[bool]:
    """Ray inside the block: the cluster of RAY_ADDRESS, or one of its own, which listens on loopback alone, wants a
    fresh token, and keeps its files in a folder that only this user can enter.

    What it gives is whether other machines may join. A Ray that runs in this process already is used and left running.
    ClusterError where none can be had.
    """
    address = os.environ.get("RAY_ADDRESS")
    loopback = ON_LOOPBACK if not address or only_on_loopback(address) else {}
    for name, value in {**RAY_ENVIRONMENT, **ENVIRONMENT, **loopback}.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield True
        return
    with contextlib.ExitStack() as stack:
        if address:
            stack.enter_context(_token_as_wanted(address))
            _join(address)
        else:
            stack.enter_context(own_token())
            _start(stack.enter_context(_private_folder()))
        try:
            yield address is not None
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _token_as_wanted(address: str) -> Iterator[None]:
    """The token of the environment, or of Ray's own place, where the cluster wants one, and none where it does not.

    A cluster without authentication would not be able to talk back to a driver that asks for a token: it would take
    the driver for gone and end its workers before they start. ClusterError, in a line, where no Ray answers or it does
    not let us in.
    """
    before = os.environ.get(MODE)
    if host_and_port(address) is None:
        use_given_token()
    else:
        os.environ[MODE] = "disabled"
        read_again()
        try:
            dashboard_of(address)
        except TokenRefusedError:
            restore(before)
            use_given_token()
            dashboard_of(address)
    try:
        yield
    finally:
        restore(before)


def _join(address: str) -> None:
    import ray

    where = f"the cluster at RAY_ADDRESS={shown(address)}"
    if address.lower().startswith(("http://", "https://")):
        raise ClusterError(
            f"cannot join {where}: that is a dashboard's address, which tokenpair submit takes; here it is HOST:6379"
        )
    try:
        ray.init(address=address, **QUIET)
    except ray.exceptions.AuthenticationError:
        raise ClusterError(refusal(where)) from None
    except Exception as error:  # a start that takes too long is a plain Exception of Ray's
        raise ClusterError(f"cannot reach {where}: {_first_line(error, address)}") from None


def _start(folder: str) -> None:
    import ray

    for attempt in range(STARTS):
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
        except Exception as error:  # a start that takes too long is a plain Exception of Ray's
            ray.shutdown()
            if attempt == STARTS - 1:
                raise ClusterError(f"cannot start Ray on this machine: {_first_line(error)}") from None


@contextlib.contextmanager
def _private_folder() -> Iterator[str]:
    """A folder for Ray's sockets and logs that only this user can enter: Ray's own stands open to everybody.

    ClusterError where no folder for temporary files has a name that Ray can use.
    """
    place = next((one for one in (tempfile.gettempdir(), *COMMON_FOLDERS) if _serves_ray(one)), None)
    if place is None:
        raise ClusterError(
            f"cannot start Ray on this machine: it needs a writable folder for temporary files whose name has at most "
            f"{LONGEST_PLACE} characters, all of them letters, digits or one of _ . - / without accents: set TMPDIR to "
            f"one (it is {tempfile.gettempdir()})"
        )
    with tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX, dir=place, ignore_cleanup_errors=True) as name:
        # Ray opens the folder that it is given to everybody, so it gets one further in.
        yield f"{name}/r"


def _serves_ray(folder: str) -> bool:
    """Whether Ray can have its files below ``folder``: it encodes names as ASCII, and a socket's name must be short."""
    plain = re.fullmatch(r"[\w./-]+", folder, re.ASCII) is not None
    return plain and len(folder) <= LONGEST_PLACE and os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


def _first_line(error: BaseException, address: str = "") -> str:
    lines = scrubbed(str(error), address).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
