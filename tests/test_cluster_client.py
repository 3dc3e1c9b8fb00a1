"""A cluster from afar: its address, which may hold a login, and following a job while it comes and goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from jobs.cli.cluster import _followed
from jobs.cluster import client
from jobs.cluster.address import redacted, redacted_text
from jobs.cluster.client import Cluster, ClusterJob
from jobs.cluster.session import ray_session
from jobs.cluster.submit import find_job, submit
from jobs.config.job import load_job
from jobs.errors import ClusterError

S3_JOB = {"model": "sentence-transformers/all-MiniLM-L6-v2", "input": "s3://b/x.parquet", "output": "s3://b/Run_1/"}


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("", "no cluster given: --address http://HEAD:8265"),
        ("ray://host:10001", "allowed: the address of Ray's dashboard"),
        ("os://system", "allowed: the address of Ray's dashboard"),
        ("nonsense", "allowed: Ray's dashboard"),
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"),
        ("http://127.0.0.1:1", "is the address right"),
        ("http://KEY:SECRET@127.0.0.1:1", "is the address right"),
        ("KEY:SECRET@127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"),
        ("KEY:SECRET@nonsense", "found 'nonsense'; allowed: Ray's dashboard"),
        ("http://KEY:SECRET@[::1", "found http://[::1; allowed"),
    ],
)
def test_an_address_that_is_none_is_told_at_once(monkeypatch: pytest.MonkeyPatch, address: str, said: str) -> None:
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ClusterError) as caught:
        Cluster()
    assert said in str(caught.value)
    assert "SECRET" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:8265", "http://127.0.0.1:8265"),
        ("http://KEY:SECRET@127.0.0.1:8265/?token=SECRET", "http://127.0.0.1:8265/"),
        ("http://KEY:SEC/RET@host:1", "http://host:1"),
        ("KEY:SECRET@host:6379", "host:6379"),
        ("[::1]:6379", "[::1]:6379"),
        ("auto", "auto"),
    ],
)
def test_an_address_is_told_without_its_login(address: str, said: str) -> None:
    assert redacted(address) == said
    assert redacted_text(f"Ray says '{address}' is wrong", address) == f"Ray says '{said}' is wrong"


@pytest.mark.parametrize("scheme", ["http://", "bolt://", ""])
def test_a_run_that_joins_a_cluster_tells_no_login(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray repeats the address that it is given; what is told also goes into the run's log and state."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_ADDRESS", f"{scheme}KEY:SECRET@127.0.0.1:1")
    with pytest.raises(ClusterError) as caught, ray_session():
        pass
    assert "127.0.0.1:1" in str(caught.value)
    assert "SECRET" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_submission_tells_no_login_of_its_cluster(tmp_path: Path) -> None:
    said: list[str] = []
    cluster = Silent("http://KEY:SECRET@127.0.0.1:1")
    with pytest.raises(ClusterError, match="no job of tokenpair") as caught:
        find_job(cluster, str(tmp_path / "run"))
    with pytest.raises(ClusterError, match="it ends here"):
        submit(load_job(None, S3_JOB), cluster, said.append)
    assert said == ["checking the cluster at http://127.0.0.1:1 (Ray 2.60.0) …"]
    assert "http://127.0.0.1:1" in str(caught.value)
    assert "SECRET" not in str(caught.value)


class Silent(Cluster):
    """A cluster that has no jobs and takes none."""

    def __init__(self, url: str) -> None:
        self.url, self.place, self.ray_version = url, redacted(url), "2.60.0"

    def jobs(self, name: str = "") -> list[ClusterJob]:
        return []

    def submit(self, *_: Any) -> bool:
        raise ClusterError("it ends here")


# --- following a job ---


class Faulty:
    """Ray's client of a cluster that is away now and then; each answer is taken in turn, the last one for ever."""

    def __init__(self, statuses: list[str], logs: list[list[str]]) -> None:
        self.statuses, self.pieces, self.printed = statuses, logs, "".join(logs[-1])

    def get_job_info(self, id: str) -> Any:
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if status == "away":
            raise requests.exceptions.ConnectionError
        if status == "busy":
            raise RuntimeError("Request failed with status code 502: tokenpair-x-404 bad gateway")
        if status == "forgotten":
            raise RuntimeError(f"Request failed with status code 404: Job {id} does not exist")
        return SimpleNamespace(
            submission_id=id,
            status=status,
            driver_exit_code=0 if status == "SUCCEEDED" else None,
            message="",
            metadata={},
        )

    def get_job_logs(self, id: str) -> str:
        return self.printed

    async def tail_job_logs(self, id: str) -> AsyncIterator[str]:
        for piece in self.pieces.pop(0) if self.pieces else []:
            if piece == "silence":
                await asyncio.sleep(3600)
            if piece == "broken":
                raise RuntimeError("WebSocket connection closed unexpectedly")
            yield piece


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(client, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(client, "OUTAGE_SECONDS", 2.0)


def following(statuses: list[str], logs: list[list[str]]) -> Cluster:
    cluster = Silent("http://127.0.0.1:1")
    cluster._client = Faulty(statuses, logs)
    return cluster


@pytest.mark.usefixtures("short_waits")
def test_following_outlives_an_outage_and_a_machine_that_falls_silent(capsys: pytest.CaptureFixture[str]) -> None:
    """A tunnel that broke for a moment ended it with exit code 2, and one that fell silent was waited for for ever."""
    logs = [["one\ntw", "silence"], ["one\ntwo\n", "broken"], ["one\n", "two\nth", "ree\n", "four"]]
    cluster = following(
        ["RUNNING", "away", "busy", "RUNNING", "away", "RUNNING", "SUCCEEDED", "away", "SUCCEEDED"], logs
    )
    assert _followed(cluster, "x") == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == ["one", "two", "three", "four"]
    assert told.err.count("asking again") == 3, "one notice an outage"


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize(("status", "said"), [("away", "nothing answers there"), ("forgotten", "no such job")])
def test_following_ends_when_the_cluster_is_not_back(
    status: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    with pytest.raises(ClusterError, match=said):
        _followed(following(["RUNNING", status], [["one\n"]]), "x")
    assert (time.monotonic() - began > 2) == (status == "away"), "what is gone for good is not asked for again"
    told = capsys.readouterr()
    assert told.out == "one\n"
    assert "the job may go on" in told.err
