"""A job submitted to a real head with a token: once while it runs, stopped, resumed, with its own exit code."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import holding
from ray_head import PROGRAM, Head, running_head
from s3_server import S3Server
from safetensors.torch import load_file, save_file
from tiny_models import TinyModels, random_text

from jobs.cluster.submit import job_name
from jobs.config.job import load_job
from jobs.run.reader import open_run
from jobs.run.tables import finished_shards
from jobs.storage.store import Store

SECRET = "markersecretmarkersecretmarkersecretmark"


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with running_head({"AWS_SECRET_ACCESS_KEY": SECRET}) as one:
        yield one


def a_job(room: Path, tiny: TinyModels, pairs: int, **settings: object) -> Path:
    """The file of a job over so many pairs, on this machine."""
    chance = random.Random(11)
    rows = [f'"{random_text(chance, 5)}","{random_text(chance, 6)}",{i}' for i in range(pairs)]
    (room / "pairs.csv").write_text("\n".join(["sentence1,sentence2,label", *rows]) + "\n")
    job = {
        "model": str(tiny.folder("bert")),
        "input": str(room / "pairs.csv"),
        "output": str(room / "run"),
        "shards": 10,
        "workers": {"count": 1},
        **settings,
    }
    (room / "job.yaml").write_text(json.dumps(job))
    return room / "job.yaml"


def test_a_submitted_job_starts_once_stops_and_goes_on(head: Head, tiny: TinyModels, tmp_path: Path) -> None:
    job = a_job(tmp_path, tiny, 40, quadrature={"rule": "riemann", "nodes": 600})
    name = job_name(str(tmp_path / "run"))

    # Without a token, with a wrong one, with a file that is not there: one line each, and nothing is started.
    env = head.environment
    bare = {key: value for key, value in env.items() if not key.startswith("RAY_AUTH")}
    for given, said in (
        (bare, "wants a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"),
        (env | {"RAY_AUTH_TOKEN": "wrong"}, "does not accept the token of RAY_AUTH_TOKEN"),
        (bare | {"RAY_AUTH_TOKEN_PATH": "/nowhere"}, "RAY_AUTH_TOKEN_PATH names /nowhere, which cannot be read"),
    ):
        refused = head.tokenpair("submit", job, env=given)
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1, refused.stderr
        assert said in refused.stderr
        assert "wrong" not in refused.stderr
    assert not (tmp_path / "run").exists()

    first = head.tokenpair("submit", job)
    assert first.returncode == 0, first.stderr
    assert first.stdout == f"started {name}-1\n"
    # First what depends on it running still: on a busy machine each command takes long.
    other = head.tokenpair("submit", job, "--nodes", "599")
    assert other.returncode == 2
    assert f"another job writes to this run directory, {name}-1" in other.stderr
    again = head.tokenpair("submit", job)
    assert again.stdout == f"already running: {name}-1\n"

    following = subprocess.Popen(
        [*PROGRAM, "logs", str(tmp_path / "run"), "--follow"], env=env, stdout=subprocess.PIPE, text=True
    )
    store = Store.open(tmp_path / "run")
    end = time.monotonic() + 120
    while not finished_shards(store) and time.monotonic() < end:
        time.sleep(0.05)
    stopped = head.tokenpair("stop", job)
    assert stopped.returncode == 0, stopped.stderr
    assert stopped.stdout.startswith(f"{name}-1 stopped; submitting the same job again goes on")
    followed, _ = following.communicate(timeout=60)
    assert "40 pairs of" in followed
    assert "the same command goes on where it stopped" in followed, "the job was given no time to leave"
    assert following.returncode == 143
    there = finished_shards(store)
    assert 0 < len(there) < 10
    assert head.tokenpair("stop", f"{name}-1").stdout == f"{name}-1 had ended already (stopped)\n"

    resumed = head.tokenpair("submit", job, "--follow")
    assert resumed.returncode == 0, resumed.stderr + resumed.stdout
    assert resumed.stdout.startswith(f"started {name}-2\n")
    assert f"going on with {tmp_path / 'run'}: " in resumed.stdout
    assert "40 attributed" in resumed.stdout
    assert store.exists("_SUCCESS")
    assert sorted(open_run(tmp_path / "run").to_table(["label"])["label"].to_pylist()) == list(range(40))
    assert "already finished" in head.tokenpair("submit", job, "--follow").stdout

    # The store's credentials are the cluster's own, and nobody tells them; nor the token.
    for secret in (SECRET, head.token):
        assert holding(tmp_path, secret) == []
        assert [one for one in holding(head.folder / "r", secret) if "job-driver" in one.name] == []


@pytest.mark.long
def test_a_jobs_own_exit_code_comes_back(head: Head, tiny: TinyModels, tmp_path: Path) -> None:
    """The check cannot see everything: here the run directory is another job's."""
    job = a_job(tmp_path, tiny, 3, shards=1)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    done = head.tokenpair("submit", job, "--follow", "--address", head.url)
    assert done.returncode == 2
    assert "is not empty and not a run of tokenpair" in done.stdout
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    # The address of Ray itself, with a token in Ray's own place.
    (head.home / ".ray").mkdir()
    (head.home / ".ray" / "auth_token").write_text(head.token)
    plain = {key: value for key, value in head.environment.items() if not key.startswith("RAY_")}
    shown = head.tokenpair("logs", tmp_path / "run", env=plain | {"RAY_ADDRESS": head.gcs})
    (head.home / ".ray" / "auth_token").unlink()
    assert shown.returncode == 0, shown.stderr
    assert "is not empty and not a run of tokenpair" in shown.stdout


@pytest.mark.long
def test_what_the_cluster_lacks_is_told_before_anything_starts(
    head: Head, tiny: TinyModels, tmp_path: Path, s3: S3Server
) -> None:
    job = a_job(tmp_path, tiny, 3)
    bucket = f"s3://{s3.bucket}/submitted"
    broken = Path(shutil.copytree(tiny.folder("bert"), tmp_path / "broken"))
    weights = load_file(broken / "model.safetensors")
    kept = {name: one for name, one in weights.items() if "layer.2." not in name}
    save_file(kept, broken / "model.safetensors", metadata={"format": "pt"})
    for words, said in (
        (["--model", str(broken)], "its checkpoint lacks encoder.layer.2.*"),
        (["--gpus", "1"], "the cluster has no GPU, and a worker of this job asks for 1"),
        (
            ["--output", bucket, "--endpoint-url", s3.endpoint],
            "on machine 127.0.0.1: cannot open",
        ),
        # The cluster has no keys: botocore says so before it connects, unless it finds some.
        (
            ["--output", bucket, "--endpoint-url", "http://127.0.0.1:1"],
            ("no answer from the S3 endpoint", "no S3 cred"),
        ),
        (["--python", "no-such-python"], "have no `no-such-python`"),
        (["--python", "true; touch HACKED"], "allowed: a program's name or path"),
    ):
        refused = head.tokenpair("submit", job, *words)
        assert refused.returncode == 2, (words, refused.stderr, refused.stdout)
        errors = [line for line in refused.stderr.splitlines() if line.startswith("tokenpair: error: ")]
        told = "\n".join(errors)
        assert any(one in told for one in ((said,) if isinstance(said, str) else said)), refused.stderr
        assert "Traceback" not in refused.stderr
        assert refused.stdout == ""
    assert not (tmp_path / "run").exists()
    # The checks that ran are no jobs of this run.
    listed = head.tokenpair("logs", load_job(job).output)
    assert listed.returncode == 2
    assert "no job of tokenpair" in listed.stderr
