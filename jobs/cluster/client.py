"""Client of a cluster's Ray Jobs over HTTP. Each failure is one line that says what to set.

Ray is imported inside functions: it is heavy, and it reads the environment that ``Cluster`` sets when it is imported.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests

from jobs.cluster.address import dashboard_of, host_and_port, redacted, redacted_text
from jobs.cluster.session import RAY_ENVIRONMENT
from jobs.cluster.token import refusal, use_given_token
from jobs.errors import ClusterError

ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
CONNECT_SECONDS, READ_SECONDS = 10, 120
LOOK_SECONDS = 5
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
TERMINATED = 143
POLL_SECONDS = 0.5
# After so long without a line, the connection to the log may be dead: it is opened again.
SILENCE_SECONDS = 120.0
# How long requests to a cluster that does not answer are repeated, and the longest pause between them.
OUTAGE_SECONDS, LONGEST_PAUSE_SECONDS = 600.0, 15.0

Answer = TypeVar("Answer")


class NoAnswerError(ClusterError):
    """A cluster did not answer, or not as Ray does; a retry may succeed."""


@dataclass(frozen=True)
class ClusterJob:
    """A job on the cluster. ``code`` is the exit code of its process; None while it runs or if it has none."""

    id: str
    status: str
    code: int | None
    message: str
    metadata: dict[str, str]

    @property
    def ended(self) -> bool:
        """Whether the job has ended."""
        return self.status in ENDED

    @property
    def exit_code(self) -> int:
        """The exit code of the job's process; 143 (SIGTERM) if it was stopped, 1 if it never started."""
        if self.code is not None:
            # A process that was ended by a signal has a negative code.
            return self.code if self.code >= 0 else 128 - self.code
        return {"SUCCEEDED": 0, "STOPPED": TERMINATED}.get(self.status, 1)


class Cluster:
    """A cluster that answers and accepts our token. Every method raises ClusterError, with a message of one line.

    ``address`` is the dashboard's http address or HOST:PORT of the head; None for that in the environment.
    """

    def __init__(self, address: str | None = None) -> None:
        for name, value in RAY_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self.url = _http_address(address)
        self.place = redacted(self.url)
        use_given_token()
        with self._errors_as_messages("reach"), _only_address(self.url):
            self._client = _client(self.url)
            self.ray_version = str(self._client._server_ray_version)

    def jobs(self, name: str = "") -> list[ClusterJob]:
        """Return the jobs whose id is ``name`` or ``name-1``, ``name-2`` and so on, the oldest first; all for "".

        A check of the cluster, whose id begins with the name too, is not among them.
        """
        with self._errors_as_messages("list the jobs of"):
            jobs = [job for job in self._client.list_jobs() if job.submission_id]
        jobs.sort(key=lambda job: job.start_time or 0)
        if name:
            jobs = [job for job in jobs if re.fullmatch(rf"{re.escape(name)}(-\d+)?", job.submission_id, re.ASCII)]
        return [_job(job) for job in jobs]

    def job(self, id: str) -> ClusterJob:
        """Return a job by its id; raises ClusterError if there is none."""
        with self._errors_as_messages(f"ask for job {id} of"):
            return _job(self._client.get_job_info(id))

    def submit(self, id: str, entrypoint: str, runtime_env: dict[str, Any], metadata: dict[str, str]) -> bool:
        """Start a job; returns False if a job with this id exists already."""
        with self._errors_as_messages("start a job on"):
            try:
                self._client.submit_job(
                    entrypoint=entrypoint, submission_id=id, runtime_env=runtime_env, metadata=metadata
                )
            except RuntimeError as error:
                if "already exists" in str(error):
                    return False
                raise
        return True

    def stop(self, id: str, seconds: float = 60.0) -> ClusterJob:
        """Send SIGTERM to a job and wait up to ``seconds`` until it has ended; returns the job."""
        with self._errors_as_messages(f"stop job {id} of"):
            self._client.stop_job(id)
        return self.wait(id, seconds)

    def wait(self, id: str, seconds: float) -> ClusterJob:
        """Wait up to ``seconds`` until a job has ended; returns the job."""
        end = time.monotonic() + seconds
        while not (job := self.job(id)).ended and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
        return job

    def forget(self, id: str) -> None:
        """Remove an ended job from the cluster's list of jobs; errors are ignored."""
        with contextlib.suppress(ClusterError), self._errors_as_messages(f"remove job {id} of"):
            self._client.delete_job(id)

    def logs(self, id: str) -> str:
        """Return what a job has printed so far."""
        with self._errors_as_messages(f"read the log of job {id} of"):
            return str(self._client.get_job_logs(id))

    def follow(self, id: str, say: Callable[[str], None]) -> Iterator[str]:
        """Yield the lines of a job's log as they are printed, until it ends; ``say`` gets a notice of an outage.

        Reconnects after a broken connection; raises ClusterError if an outage exceeds OUTAGE_SECONDS.
        """
        seen = 0
        rest = ""
        while not with_retries(lambda: self.job(id), say).ended:
            with contextlib.suppress(ClusterError):
                for text in self._tail(id, seen):
                    seen += len(text)
                    *whole, rest = (rest + text).split("\n")
                    yield from whole
            time.sleep(POLL_SECONDS)
        # The lines printed after the last read and before the end.
        *whole, rest = (rest + with_retries(lambda: self.logs(id), say)[seen:]).split("\n")
        yield from whole
        if rest:
            yield rest

    def _tail(self, id: str, skip: int) -> Iterator[str]:
        """Yield pieces of the log after its first ``skip`` characters, until the connection ends or times out."""
        pieces = self._client.tail_job_logs(id)
        with self._errors_as_messages(f"follow the log of job {id} of"), asyncio.Runner() as loop:
            while True:
                try:
                    piece = loop.run(asyncio.wait_for(anext(pieces), SILENCE_SECONDS))
                except (StopAsyncIteration, TimeoutError):
                    return
                new, skip = piece[skip:], max(0, skip - len(piece))
                if new:
                    yield new

    @contextlib.contextmanager
    def _errors_as_messages(self, doing: str) -> Iterator[None]:
        """Raise ClusterError, with a message of one line, for any error inside the block; ``doing`` is a verb."""
        import ray

        where = f"the cluster at {self.place}"
        try:
            yield
        except ray.exceptions.AuthenticationError:
            raise ClusterError(refusal(where)) from None
        except requests.exceptions.Timeout:
            raise NoAnswerError(f"cannot {doing} {where}: no answer in time") from None
        except (ConnectionError, requests.exceptions.RequestException):
            raise NoAnswerError(
                f"cannot {doing} {where}: nothing answers there as Ray's dashboard does; is the address right "
                "(http://HEAD:8265), and is the cluster up?"
            ) from None
        except Exception as error:
            kind = ClusterError if _is_unknown(error) else NoAnswerError
            raise kind(f"cannot {doing} {where}: {_reason(error, self.url)}") from None


def with_retries(ask: Callable[[], Answer], say: Callable[[str], None]) -> Answer:
    """Return the result of ``ask``, repeated while it raises NoAnswerError; ``say`` gets a notice of the outage.

    Raises NoAnswerError after OUTAGE_SECONDS.
    """
    end = time.monotonic() + OUTAGE_SECONDS
    pause = POLL_SECONDS
    while True:
        try:
            return ask()
        except NoAnswerError as error:
            if time.monotonic() >= end:
                raise
            if pause == POLL_SECONDS:
                say(f"{error}; asking again for {OUTAGE_SECONDS / 60:.0f} minutes")
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _http_address(given: str | None) -> str:
    """Return the http address of the dashboard, from the flag ``given`` or else the environment.

    The address may be HOST:PORT of a head: then Ray is asked for its dashboard. Raises ClusterError for an address of
    another form.
    """
    name, address = (
        ("--address", given)
        if given
        else next(((name, os.environ[name]) for name in ADDRESSES if os.environ.get(name)), ("", ""))
    )
    if not address:
        raise ClusterError(f"no cluster given: --address http://HEAD:8265, or set {' or '.join(ADDRESSES)}")
    if "://" not in address:
        return _dashboard_url(name, address)
    try:
        parts = urlsplit(address)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_url = False
    if not is_url:
        raise ClusterError(
            f"{name}: found {redacted(address)}; allowed: the address of Ray's dashboard, as http://HEAD:8265"
        )
    return address.rstrip("/")


def _dashboard_url(name: str, address: str) -> str:
    """Return the dashboard's http address of the cluster at HOST:PORT, which is the dashboard's or the head's."""
    if host_and_port(address) is None:
        raise ClusterError(
            f"{name}: found {redacted(address)!r}; allowed: Ray's dashboard, as http://HEAD:8265, or HEAD:6379"
        )
    with contextlib.suppress(requests.exceptions.RequestException):
        # Without a token the dashboard refuses the request, but its answer shows that it is a dashboard.
        requests.get(f"http://{address}/api/version", timeout=LOOK_SECONDS)
        return f"http://{address}"
    use_given_token()
    dashboard = dashboard_of(address)
    if dashboard is None:
        raise ClusterError(
            f"the cluster at {redacted(address)} has no dashboard: pip install 'ray[default]' on its head"
        )
    return f"http://{dashboard}"


def _client(url: str) -> Any:
    _quiet_ray()
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):
        def _do_request(self, method: str, endpoint: str, **given: Any) -> Any:
            # Without a timeout, Ray would wait for ever for a machine that does not answer.
            return super()._do_request(method, endpoint, timeout=(CONNECT_SECONDS, READ_SECONDS), **given)

    return Client(url)


def _quiet_ray() -> None:
    import ray.dashboard.modules.dashboard_sdk as sdk
    import ray.dashboard.modules.job.sdk as job_sdk

    for module in (sdk, job_sdk):
        module.logger.setLevel(logging.ERROR)
    logging.getLogger("ray").setLevel(logging.ERROR)


@contextlib.contextmanager
def _only_address(url: str) -> Iterator[None]:
    """Set the address in the environment inside the block, because Ray prefers it to the address passed to it."""
    before = os.environ.get(ADDRESSES[0])
    os.environ[ADDRESSES[0]] = url
    try:
        yield
    finally:
        if before is None:
            del os.environ[ADDRESSES[0]]
        else:
            os.environ[ADDRESSES[0]] = before


def _job(details: Any) -> ClusterJob:
    return ClusterJob(
        id=str(details.submission_id),
        status=str(details.status),
        code=details.driver_exit_code,
        message=str(details.message or ""),
        metadata=dict(details.metadata or {}),
    )


def _reason(error: Exception, url: str) -> str:
    """Return Ray's reason for an error, at most 300 characters: the last line of its message or traceback."""
    lines = [line.strip() for line in redacted_text(str(error), url).splitlines() if line.strip(" .")]
    if _is_unknown(error):
        return "there is no such job"
    return (lines[-1] if lines else type(error).__name__)[:300]


def _is_unknown(error: Exception) -> bool:
    return "does not exist" in str(error) or "status code 404" in str(error)
