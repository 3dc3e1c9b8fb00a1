"""Ray Jobs of a cluster over HTTP, with failures as one line that says what to set."""

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

from jobs.cluster.address import dashboard_of, host_and_port, scrubbed, shown
from jobs.cluster.session import RAY_ENVIRONMENT
from jobs.cluster.token import refusal, use_given_token
from jobs.errors import ClusterError

ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
CONNECT_SECONDS, READ_SECONDS = 10, 120
LOOK_SECONDS = 5
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
TERMINATED = 143
POLL_SECONDS = 0.5
# A log that is silent for so long may be one whose machine is gone: it is asked for anew.
SILENCE_SECONDS = 120.0
# How long a cluster that does not answer is asked again, and the longest pause between.
OUTAGE_SECONDS, LONGEST_PAUSE_SECONDS = 600.0, 15.0

Answer = TypeVar("Answer")


class NoAnswerError(ClusterError):
    """A cluster did not answer, or not sensibly; another try may help."""


@dataclass(frozen=True)
class ClusterJob:
    """A job as the cluster knows it. ``code`` is its own exit code, None while it runs or where it has none."""

    id: str
    status: str
    code: int | None
    message: str
    metadata: dict[str, str]

    @property
    def ended(self) -> bool:
        """Whether it will not run any more."""
        return self.status in ENDED

    @property
    def exit_code(self) -> int:
        """The job's own exit code; a shell's for SIGTERM when it was stopped, 1 when it never came to run."""
        if self.code is not None:
            # A process that a signal ended has a negative code.
            return self.code if self.code >= 0 else 128 - self.code
        return {"SUCCEEDED": 0, "STOPPED": TERMINATED}.get(self.status, 1)


class Cluster:
    """A cluster that answers and accepts our token. Every method raises ClusterError in one line."""

    def __init__(self, address: str | None = None) -> None:
        for name, value in RAY_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self.url = _http_address(address)
        self.place = shown(self.url)
        use_given_token()
        with self._told("reach"), _only_address(self.url):
            self._client = _client(self.url)
            self.ray_version = str(self._client._server_ray_version)

    def jobs(self, name: str = "") -> list[ClusterJob]:
        """The jobs whose id is ``name`` or an attempt of it, ``name-1`` and so on, the oldest first.

        A check of the cluster has an id below the name too; a cluster keeps it for a while, and it is no attempt.
        """
        with self._told("list the jobs of"):
            found = [one for one in self._client.list_jobs() if one.submission_id]
        found.sort(key=lambda one: one.start_time or 0)
        mine = [one for one in found if re.fullmatch(rf"{re.escape(name)}(-\d+)?", one.submission_id, re.ASCII)]
        return [_job(one) for one in (mine if name else found)]

    def job(self, id: str) -> ClusterJob:
        """One job; ClusterError where there is none."""
        with self._told(f"ask for job {id} of"):
            return _job(self._client.get_job_info(id))

    def submit(self, id: str, entrypoint: str, runtime_env: dict[str, Any], metadata: dict[str, str]) -> bool:
        """Start a job; False where the id is taken already."""
        with self._told("start a job on"):
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
        """Ask a job to end and wait until it has; it gets time to leave cleanly."""
        with self._told(f"stop job {id} of"):
            self._client.stop_job(id)
        return self.wait(id, seconds)

    def wait(self, id: str, seconds: float) -> ClusterJob:
        """The job when it has ended, or as it is after so many seconds."""
        end = time.monotonic() + seconds
        while not (job := self.job(id)).ended and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
        return job

    def forget(self, id: str) -> None:
        """Take a job that has ended off the cluster's list."""
        with contextlib.suppress(ClusterError), self._told(f"remove job {id} of"):
            self._client.delete_job(id)

    def logs(self, id: str) -> str:
        """What the job has printed so far."""
        with self._told(f"read the log of job {id} of"):
            return str(self._client.get_job_logs(id))

    def follow(self, id: str, say: Callable[[str], None]) -> Iterator[str]:
        """The lines of a job's log as they come, until it ends; ``say`` gets a notice when the cluster does not answer.

        A broken connection is taken up again; ClusterError when the cluster is not back within OUTAGE_SECONDS.
        """
        seen = 0
        rest = ""
        while not patiently(lambda: self.job(id), say).ended:
            with contextlib.suppress(ClusterError):
                for text in self._tail(id, seen):
                    seen += len(text)
                    *whole, rest = (rest + text).split("\n")
                    yield from whole
            time.sleep(POLL_SECONDS)
        # What was printed between the last look and the end.
        *whole, rest = (rest + patiently(lambda: self.logs(id), say)[seen:]).split("\n")
        yield from whole
        if rest:
            yield rest

    def _tail(self, id: str, skip: int) -> Iterator[str]:
        """Pieces of the log after its first ``skip`` characters, until the connection ends or is silent for long."""
        pieces = self._client.tail_job_logs(id)
        with self._told(f"follow the log of job {id} of"), asyncio.Runner() as loop:
            while True:
                try:
                    piece = loop.run(asyncio.wait_for(anext(pieces), SILENCE_SECONDS))
                except (StopAsyncIteration, TimeoutError):
                    return
                new, skip = piece[skip:], max(0, skip - len(piece))
                if new:
                    yield new

    @contextlib.contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        import ray
        import requests

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


def patiently(ask: Callable[[], Answer], say: Callable[[str], None]) -> Answer:
    """What ``ask`` finds, asked again while the cluster does not answer; its NoAnswerError after OUTAGE_SECONDS."""
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
    """The dashboard's http address from the flag, else the environment; Ray is asked for it where it is a head's."""
    name, address = (
        ("--address", given)
        if given
        else next(((name, os.environ[name]) for name in ADDRESSES if os.environ.get(name)), ("", ""))
    )
    if not address:
        raise ClusterError(f"no cluster given: --address http://HEAD:8265, or set {' or '.join(ADDRESSES)}")
    if "://" not in address:
        return _asked_for(name, address)
    try:
        parts = urlsplit(address)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_url = False
    if not is_url:
        raise ClusterError(
            f"{name}: found {shown(address)}; allowed: the address of Ray's dashboard, as http://HEAD:8265"
        )
    return address.rstrip("/")


def _asked_for(name: str, address: str) -> str:
    """The dashboard's address of the cluster at HOST:PORT, which may be the dashboard's own or Ray's."""
    import requests

    if host_and_port(address) is None:
        raise ClusterError(
            f"{name}: found {shown(address)!r}; allowed: Ray's dashboard, as http://HEAD:8265, or HEAD:6379"
        )
    with contextlib.suppress(requests.exceptions.RequestException):
        # Without a token it is refused, but by the dashboard.
        requests.get(f"http://{address}/api/version", timeout=LOOK_SECONDS)
        return f"http://{address}"
    use_given_token()
    found = dashboard_of(address)
    if found is None:
        raise ClusterError(f"the cluster at {shown(address)} has no dashboard: pip install 'ray[default]' on its head")
    return f"http://{found}"


def _client(url: str) -> Any:
    _quiet_ray()
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):
        def _do_request(self, method: str, endpoint: str, **given: Any) -> Any:
            # Ray waits for ever on a machine that does not answer.
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
    """Ray lets the environment win over the address it is given; here the flag does."""
    before = os.environ.get(ADDRESSES[0])
    os.environ[ADDRESSES[0]] = url
    try:
        yield
    finally:
        if before is None:
            del os.environ[ADDRESSES[0]]
        else:
            os.environ[ADDRESSES[0]] = before


def _job(found: Any) -> ClusterJob:
    return ClusterJob(
        id=str(found.submission_id),
        status=str(found.status.value if hasattr(found.status, "value") else found.status),
        code=found.driver_exit_code,
        message=str(found.message or ""),
        metadata=dict(found.metadata or {}),
    )


def _reason(error: Exception, url: str) -> str:
    """Ray's word for it: the last line of the traceback that it may have sent."""
    lines = [line.strip() for line in scrubbed(str(error), url).splitlines() if line.strip(" .")]
    if _is_unknown(error):
        return "there is no such job"
    return (lines[-1] if lines else type(error).__name__)[:300]


def _is_unknown(error: Exception) -> bool:
    return "does not exist" in str(error) or "status code 404" in str(error)
