"""Metrics of a run on Ray's own Prometheus endpoint; their names begin with ``ray_tokenpair_``."""

from __future__ import annotations

import string
from typing import Any
from urllib.parse import quote

from jobs.engine.worker import ShardReport

TAGS = ("run", "worker")
PLAIN = string.punctuation + " "


def tag_value(text: str) -> str:
    """``text`` as Ray takes it for a tag: what is not printable ASCII is percent-encoded, the rest stays as it is."""
    return quote(text, safe=PLAIN, errors="surrogateescape")


class Metrics:
    """Counters and gauges of one run, kept by its driver while Ray is connected."""

    def __init__(self, run_url: str) -> None:
        from ray.util.metrics import Counter, Gauge

        def counter(name: str, what: str) -> Any:
            return Counter(f"tokenpair_{name}", description=what, tag_keys=TAGS)

        def gauge(name: str, what: str) -> Any:
            return Gauge(f"tokenpair_{name}", description=what, tag_keys=("run",))

        self._run = {"run": tag_value(run_url)}
        self._pairs = counter("pairs", "Pairs attributed and committed.")
        self._texts = counter("texts", "Distinct texts committed.")
        self._rejects = counter("rejects", "Rows that workers rejected.")
        self._busy = counter("busy_seconds", "Seconds that workers computed.")
        self._retries = counter("retries", "Shards that had to be run again.")
        self._workers = gauge("workers", "Workers that have their model.")
        self._left = gauge("shards_left", "Shards that are not committed yet.")

    def done(self, worker: int, report: ShardReport) -> None:
        """``worker`` committed a shard."""
        tags = self._run | {"worker": str(worker)}
        for metric, amount in (
            (self._pairs, report.pairs),
            (self._texts, report.texts),
            (self._rejects, sum(report.rejected.values())),
            (self._busy, report.compute_seconds),
        ):
            # A counter takes no zero.
            if amount > 0:
                metric.inc(amount, tags=tags)

    def retried(self, worker: int, shards: int) -> None:
        """So many shards of ``worker`` wait for another try."""
        if shards > 0:
            self._retries.inc(shards, tags=self._run | {"worker": str(worker)})

    def now(self, workers: int, shards_left: int) -> None:
        """How many workers there are now, and shards to do."""
        self._workers.set(workers, tags=self._run)
        self._left.set(shards_left, tags=self._run)
