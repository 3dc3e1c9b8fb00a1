"""Writes that survive a power cut."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_through(path: Path, data: bytes) -> None:
    """Write a new file, down to the disk."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Make a new name in a folder survive a power cut; some file systems refuse, and then it is up to them."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
