"""The builds of an index: runs in its folder ``generations``, numbered as the snapshots that they end in."""

from __future__ import annotations

from jobs.index.snapshot import snapshot_numbers
from jobs.storage.s3 import StorageSettings
from jobs.storage.store import Store

FOLDER = "generations"
# Where a build, which is a run, writes first, and what it has once it is planned.
_LOGS, _PLAN = "logs", "plan/manifest.json"


def generation_name(number: int) -> str:
    """Return the folder of a build below the index's."""
    return f"{FOLDER}/{number:05d}"


def open_build(url: str, storage: StorageSettings | None = None) -> Store:
    """Return the run directory ``url``, or of an index that of its last build."""
    store = Store.open(url, storage)
    numbers = snapshot_numbers(store)
    # A build that has not ended is the one behind the last snapshot. One that found nothing to compute has no plan.
    for number in range((numbers or [0])[-1] + 1, 0, -1):
        folder = generation_name(number)
        if store.exists(f"{folder}/{_PLAN}") or (not numbers and store.list(f"{folder}/{_LOGS}")):
            return Store.open(f"{store.url}/{folder}", storage)
    return store
