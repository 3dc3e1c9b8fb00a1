"""The builds of an index: runs in its folder ``generations``, numbered as the snapshots that they end in."""

from __future__ import annotations

from jobs.index.snapshot import snapshot_numbers
from jobs.storage.s3 import StorageSettings
from jobs.storage.store import Store

FOLDER = "generations"
# Where a build writes first.
_LOGS = "logs"


def generation_name(number: int) -> str:
    """Return the folder of a build below the index's."""
    return f"{FOLDER}/{number:05d}"


def open_build(url: str, storage: StorageSettings | None = None) -> Store:
    """Return the run directory ``url``, or of an index that of its last build."""
    store = Store.open(url, storage)
    numbers = snapshot_numbers(store)
    # A build that has not ended is the one behind the last snapshot; a snapshot that only removes has none.
    for number in range((numbers or [0])[-1] + 1, 0, -1):
        if store.list(f"{generation_name(number)}/{_LOGS}"):
            return Store.open(f"{store.url}/{generation_name(number)}", storage)
    return store
