"""The event log of a run: structured lines about what each process did, and a small file with the current state.

``logs/driver-<start>.jsonl`` has one JSON object a line for each event of a start of the run. Its workers write
``logs/worker-<start>-<n>.jsonl``. ``logs/state-<start>.json`` has the current progress. On a file system, lines are
appended at once. An object store cannot append: there the file is replaced as a whole every few seconds, and a full
one is continued in the next (``….1.jsonl``). A failure to write the event log never stops a run.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from jobs.errors import StoreError
from jobs.storage.store import LocalStore, Store

logger = logging.getLogger("tokenpair")

FOLDER = "logs"
OWN_LOGS = r"(driver|worker|state)-\d{8}T\d{6}Z-[0-9a-f]{4}(-\d+)?(\.\d+)?\.jsonl?"
LOCAL_SECONDS = 3.0
REMOTE_SECONDS = 10.0
FIRST_SECONDS = 0.2
SEGMENT_BYTES = 256 << 10
CLOSING_SECONDS = 10.0
LONGEST_TEXT = 2000
SECRETS = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "RAY_AUTH_TOKEN",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
)


def new_start() -> str:
    """Return a name for a start of a run: the time and four random hex digits, so that names sort by time."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ") + "-" + secrets.token_hex(2)


def driver_log(start: str) -> str:
    """Return the name of the driver's log file in the run directory."""
    return f"{FOLDER}/driver-{start}.jsonl"


def worker_log(start: str, worker: int) -> str:
    """Return the name of a worker's log file in the run directory."""
    return f"{FOLDER}/worker-{start}-{worker:03d}.jsonl"


def state_file(start: str) -> str:
    """Return the name of the file with the current state of a start."""
    return f"{FOLDER}/state-{start}.json"


def now() -> str:
    """Return the current time in UTC as ISO 8601 with milliseconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


class EventLog:
    """Writes this process's log file ``name`` and, if given, its state file ``state``.

    Nothing else may use the store ``run``: its retries are switched off, so that an outage of the store does not
    delay the process.
    """

    def __init__(self, run: Store, name: str, state: str | None = None) -> None:
        run.patience = 0.0
        self._run, self._name, self._state_name = run, name, state
        self._local = run if isinstance(run, LocalStore) else None
        self._seconds = LOCAL_SECONDS if self._local else REMOTE_SECONDS
        self._hidden = [value for key in SECRETS if len(value := os.environ.get(key, "")) >= 8]
        self._handle: int | None = None
        self._lines: list[bytes] = []
        self._segment, self._unsaved = 0, False
        self._state: dict[str, Any] | None = None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._keep_writing, name="event log", daemon=True)
        self._thread.start()

    def log(self, event: str, **fields: Any) -> None:
        """Append a line with the time, ``event`` and ``fields``; does nothing after :meth:`close`."""
        line = self._encoded({"time": now(), "event": event, **fields}) + b"\n"
        with self._lock:
            if self._closed:
                return
            if self._local is not None:
                self._append(line)
                return
            if sum(map(len, self._lines)) > SEGMENT_BYTES and not self._unsaved:
                self._segment, self._lines = self._segment + 1, []
            self._lines.append(line)
            self._unsaved = True

    def state(self, state: Mapping[str, Any]) -> None:
        """Replace the current state. A thread writes it every few seconds with the time, as a heartbeat."""
        assert self._state_name is not None
        with self._lock:
            self._state = dict(state)

    def close(self) -> None:
        """Write what is not written yet, and wait for that up to ``CLOSING_SECONDS``."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._wake.set()
        self._thread.join(CLOSING_SECONDS)
        if self._handle is not None:
            with contextlib.suppress(OSError):
                os.close(self._handle)
            self._handle = None

    def _encoded(self, line: Mapping[str, Any]) -> bytes:
        text = json.dumps(_short(line), ensure_ascii=False, default=str)
        for secret in self._hidden:
            text = text.replace(secret, "(hidden)")
        return text.encode("utf-8", "backslashreplace")

    def _append(self, line: bytes) -> None:
        assert self._local is not None
        with contextlib.suppress(OSError, StoreError):
            if self._handle is None:
                path = self._local.path(self._name)
                path.parent.mkdir(parents=True, exist_ok=True)
                # O_EXCL: a symbolic link that another user placed at this name is not followed.
                self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            os.write(self._handle, line)

    def _keep_writing(self) -> None:
        while True:
            with self._lock:
                closed, state = self._closed, self._state
                lines, segment = (b"".join(self._lines), self._segment) if self._unsaved else (None, 0)
                self._unsaved = False
            if lines is not None and not self._replace(self._segment_name(segment), lines):
                with self._lock:
                    self._unsaved = True
            if state is not None and self._state_name is not None:
                self._replace(self._state_name, self._encoded(state | {"updated": now()}))
            if closed:
                return
            # The first state is written at once, so it is looked for more often.
            self._wake.wait(self._seconds if state is not None or self._state_name is None else FIRST_SECONDS)
            self._wake.clear()

    def _segment_name(self, segment: int) -> str:
        return self._name if segment == 0 else self._name.removesuffix(".jsonl") + f".{segment}.jsonl"

    def _replace(self, name: str, data: bytes) -> bool:
        # Any exception: if this thread ended, a run that continues would look as if its driver had died.
        try:
            self._run.replace(name, data)
        except Exception as error:
            logger.debug("event log: %r", error)
            return False
        return True


def _short(value: Any) -> Any:
    """Return ``value`` with every text cut to ``LONGEST_TEXT`` characters."""
    if isinstance(value, str):
        return value if len(value) <= LONGEST_TEXT else value[:LONGEST_TEXT] + "…"
    if isinstance(value, Mapping):
        return {str(key): _short(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_short(item) for item in value]
    return value
