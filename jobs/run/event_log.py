"""What a process says of its work in the run directory: structured lines, and a small state that is replaced.

``logs/driver-<start>.jsonl`` has a JSON object a line for everything that a start of the run did, its workers write
``logs/worker-<start>-<n>.jsonl``, and ``logs/state-<start>.json`` says where the run stands. On a file system lines are
appended as they come; an object store knows no append, so there a file is replaced as a whole, at a bounded rate, and
a full one is followed by another (``….1.jsonl``). A journal never stops a run: what cannot be written is left out.
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
LONGEST_WORD = 2000
SECRETS = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "RAY_AUTH_TOKEN",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
)


def new_start() -> str:
    """A name for one start of a run: when, and four digits by chance; names sort by time."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ") + "-" + secrets.token_hex(2)


def driver_log(start: str) -> str:
    """The name of the driver's log."""
    return f"{FOLDER}/driver-{start}.jsonl"


def worker_log(start: str, worker: int) -> str:
    """The name of a worker's log."""
    return f"{FOLDER}/worker-{start}-{worker:03d}.jsonl"


def state_file(start: str) -> str:
    """The name of the state of a start."""
    return f"{FOLDER}/state-{start}.json"


def now() -> str:
    """The time as logs have it: UTC, to the millisecond."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


class EventLog:
    """The log ``name`` of this process, and its ``state`` where it has one.

    ``run`` is for this journal alone: it is asked without patience, so that a store that is away holds nobody up.
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
        self._thread = threading.Thread(target=self._keep_writing, name="journal", daemon=True)
        self._thread.start()

    def log(self, event: str, **fields: Any) -> None:
        """A line: the time, ``event``, and ``fields``."""
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
        """Where the run stands. It is written every few seconds with the time beside it, as a sign of life."""
        assert self._state_name is not None
        with self._lock:
            self._state = dict(state)

    def close(self) -> None:
        """Write what is left, and wait for that a little while."""
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
                # A name that nobody has had: a link that was put there instead is not followed.
                self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            os.write(self._handle, line)

    def _keep_writing(self) -> None:
        while True:
            # The first state is written at once.
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
            self._wake.wait(self._seconds if state is not None or self._state_name is None else FIRST_SECONDS)
            self._wake.clear()

    def _segment_name(self, segment: int) -> str:
        return self._name if segment == 0 else self._name.removesuffix(".jsonl") + f".{segment}.jsonl"

    def _replace(self, name: str, data: bytes) -> bool:
        # Whatever the reason: without its thread a run that goes on would look lost.
        try:
            self._run.replace(name, data)
        except Exception as error:
            logger.debug("journal: %r", error)
            return False
        return True


def _short(value: Any) -> Any:
    """``value`` with every text cut to a bearable length."""
    if isinstance(value, str):
        return value if len(value) <= LONGEST_WORD else value[:LONGEST_WORD] + "…"
    if isinstance(value, Mapping):
        return {str(key): _short(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_short(one) for one in value]
    return value
