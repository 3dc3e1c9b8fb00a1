"""Writes to a disk that are whole or absent, and survive a power cut."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path

NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


def write_through(path: Path, data: bytes) -> None:
    """Write a new file, down to the disk."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def publish(aside: Path, target: Path) -> bool:
    """Give the whole file ``aside`` the name ``target`` unless that is taken; return whether it was free."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(aside, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        # Without hard links a file is still whole or absent, and a writer that lost the race wrote an equal part.
        if target.exists():
            return False
        os.replace(aside, target)
    sync_folder(target.parent)
    return True


def remove_abandoned(folder: Path, seconds: float) -> None:
    """Remove the files of ``folder`` that are older than ``seconds``, as killed processes leave them."""
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):
            if time.time() - entry.stat().st_mtime > seconds:
                os.unlink(entry.path)


def sync_folder(path: Path) -> None:
    """Make a new name in a folder survive a power cut, where the file system can do that."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
