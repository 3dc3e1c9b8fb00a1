"""What is given to Ray's launcher, to Kubernetes and to a cluster, checked as far as it can be without them."""

from __future__ import annotations

import copy
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from typer.testing import CliRunner

from jobs.cli import main as cli
from jobs.cluster.client import ClusterJob
from jobs.cluster.probe import wrong_versions
from jobs.cluster.resources import worker_resources
from jobs.cluster.shipment import EXPECTED_FILE, JOB_FILE, expected, marked_output, pack, runtime_env
from jobs.cluster.submit import job_name
from jobs.config.job import Workers, load_job
from jobs.engine import ray_crew

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
S3_JOB = {"model": "sentence-transformers/all-MiniLM-L6-v2", "input": "s3://b/x.parquet", "output": "s3://b/Run_1/"}


# --- cluster.yaml ---


@pytest.fixture
def launcher() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "cluster.yaml").read_text()))


def validated(config: dict[str, Any]) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def launch_errors(node_config: dict[str, Any]) -> str:
    """What botocore would say of a request to start such a machine, which Ray does not look at."""
    import botocore.session
    from botocore.validate import ParamValidator

    shape = botocore.session.Session().get_service_model("ec2").operation_model("RunInstances").input_shape
    # Ray takes one of the subnets itself.
    request = {key: value for key, value in node_config.items() if key != "SubnetIds"}
    return str(ParamValidator().validate({**request, "MinCount": 1, "MaxCount": 1}, shape).generate_report())


def test_cluster_yaml_is_one_that_ray_and_aws_take(launcher: dict[str, Any]) -> None:
    types = validated(launcher)["available_node_types"]
    assert {name: launch_errors(one["node_config"]) for name, one in types.items()} == dict.fromkeys(types, "")


def test_the_check_of_cluster_yaml_sees_mistakes(launcher: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="idle_timeout"):
        validated(launcher | {"idle_timeout": 5})
    machine = launcher["available_node_types"]["gpu_spot"]["node_config"]
    assert "InstanceTyp" in launch_errors({**machine, "InstanceTyp": "g6.xlarge"})


def test_cluster_yaml_does_what_it_says(launcher: dict[str, Any]) -> None:
    types = launcher["available_node_types"]
    head, spot, fallback = types["head"], types["gpu_spot"], types["gpu_on_demand"]
    assert launcher["head_node_type"] == "head"
    assert head["resources"] == {"CPU": 0}
    # Alike but for the price, so that the autoscaler may take either; the cheaper is preferred.
    assert spot["resources"] == fallback["resources"]
    assert spot["resources"]["GPU"] == 1
    assert spot["priority"] > fallback["priority"]
    assert spot["min_workers"] == fallback["min_workers"] == 0
    assert spot["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert "InstanceMarketOptions" not in fallback["node_config"]
    assert launcher["provider"]["use_internal_ips"] is True
    assert launcher["idle_timeout_minutes"] <= 10
    for one in types.values():
        machine = one["node_config"]
        # Without these Ray makes a role that may do anything, and lets SSH in from everywhere.
        assert machine["IamInstanceProfile"]
        assert machine["SecurityGroupIds"]
        assert machine["MetadataOptions"]["HttpTokens"] == "required"
        assert "NetworkInterfaces" not in machine
    assert head["node_config"]["IamInstanceProfile"] != spot["node_config"]["IamInstanceProfile"]


def test_clusters_that_are_launched_want_a_token(launcher: dict[str, Any]) -> None:
    commands = launcher["head_start_ray_commands"] + launcher["worker_start_ray_commands"]
    assert all(line.startswith("RAY_AUTH_MODE=token ") for line in commands)
    assert any("--dashboard-host=127.0.0.1" in line for line in launcher["head_start_ray_commands"])
    assert launcher["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    assert "RAY_AUTH_TOKEN" not in (ROOT / "cluster.yaml").read_text()


def test_versions_in_cluster_yaml_are_those_that_tokenpair_needs(launcher: dict[str, Any]) -> None:
    words = " ".join(launcher["setup_commands"]).split()
    pinned = dict(word.split("==") for word in words if "==" in word)
    for line in PROJECT["project"]["dependencies"]:
        needed = Requirement(line)
        if needed.name == "ray":
            images = [launcher["docker"]["head_image"], launcher["docker"]["worker_image"]]
            assert all(needed.specifier.contains(image.split(":")[1].split("-")[0]) for image in images)
        else:
            assert needed.specifier.contains(pinned[needed.name]), needed.name


# --- KubeRay ---


def printed(*words: str) -> list[dict[str, Any]]:
    flags = ["--model", S3_JOB["model"], "--input", S3_JOB["input"], "--output", S3_JOB["output"]]
    result = CliRunner().invoke(cli.app, ["submit", *flags, "--print-rayjob", *words])
    assert result.exit_code == 0, result.stderr
    return list(yaml.safe_load_all(result.stdout))


def test_a_rayjob_is_whole(tmp_path: Path) -> None:
    config, job = printed("--image", "registry/tokenpair:1", "--workers", "5")
    assert (config["kind"], job["apiVersion"], job["kind"]) == ("ConfigMap", "ray.io/v1", "RayJob")
    name = job["metadata"]["name"]
    assert name == config["metadata"]["name"] == job_name("s3://b/Run_1")
    assert len(name) <= 47, "KubeRay makes longer names of it"
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"].startswith("2.60.")
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["backoffLimit"] > 0
    (workers,) = cluster["workerGroupSpecs"]
    assert (workers["minReplicas"], workers["maxReplicas"]) == (0, 5)
    for group, gpus in ((cluster["headGroupSpec"], None), (workers, "1")):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"] == "registry/tokenpair:1"
        assert container["resources"]["limits"].get("nvidia.com/gpu") == gpus
        assert container["resources"]["limits"] == container["resources"]["requests"]
        (volume,), (mount,) = pod["volumes"], container["volumeMounts"]
        assert volume["name"] == mount["name"]
        assert volume["configMap"]["name"] == name
        assert spec["entrypoint"] == f"tokenpair run {mount['mountPath']}/job.yaml"
    assert "AWS" not in spec["runtimeEnvYAML"]
    assert yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
    # The job file in it is one.
    (tmp_path / "job.yaml").write_text(config["data"]["job.yaml"])
    found = load_job(tmp_path / "job.yaml")
    assert found.identity() == load_job(None, S3_JOB).identity()
    # At the start there is no machine to see a GPU on.
    assert (found.workers.gpus, found.workers.max) == (1, 5)


def test_a_rayjob_on_cpus_asks_for_no_gpu() -> None:
    (workers,) = printed("--gpus", "0")[1]["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert "nvidia.com/gpu" not in str(workers)


def test_a_restart_is_not_repeated() -> None:
    """KubeRay would throw away, with every new start, what the start before had done."""
    spec = printed("--restart")[1]["spec"]
    assert spec["entrypoint"].endswith(" --restart")
    assert spec["backoffLimit"] == 0


def test_a_rayjob_of_files_on_this_machine_is_refused(tmp_path: Path) -> None:
    words = ["submit", "--model", str(tmp_path), "--input", "x.csv", "--output", "run", "--print-rayjob"]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert [line.split(": ")[2] for line in result.stderr.splitlines()] == ["--input", "--output", "--model"]


# --- what is sent ---


def test_only_the_code_and_the_job_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never what lies where the user stands, and no variable of the environment."""
    for name, value in (("AWS_SECRET_ACCESS_KEY", "marker"), ("RAY_AUTH_TOKEN", "marker"), ("HF_TOKEN", "marker")):
        monkeypatch.setenv(name, value)
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (here / "private.txt").write_text("marker")
    monkeypatch.chdir(here)
    job = load_job(None, S3_JOB)
    pack(there, job, expected(job, None))
    sent = {path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file()}
    listed = subprocess.run(["git", "ls-files", "attribution_core", "jobs"], cwd=ROOT, capture_output=True, text=True)
    if listed.stdout:
        kept = {
            name
            for name in listed.stdout.split()
            if not name.endswith(("py.typed", ".png", ".md")) and (ROOT / name).exists()
        }
        assert kept <= sent
    assert {name.split("/")[0] for name in sent} == {"attribution_core", "jobs", JOB_FILE, EXPECTED_FILE}
    assert not [name for name in sent if "__pycache__" in name or "/." in name]
    for path in (there / JOB_FILE, there / EXPECTED_FILE):
        assert "marker" not in path.read_text()
    assert "marker" not in str(runtime_env(there, install=True))
    assert load_job(there / JOB_FILE) == job
    assert sum(path.stat().st_size for path in there.rglob("*")) < 5 << 20


def test_every_kind_of_file_that_is_installed_is_sent() -> None:
    from jobs.cluster.shipment import SUFFIXES

    kinds = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    assert {Path(kind).suffix for kind in kinds} - {".typed"} <= set(SUFFIXES)


def test_the_mark_in_a_run_directory_goes_again(tmp_path: Path) -> None:
    job = load_job(None, S3_JOB | {"output": str(tmp_path / "a" / "run")})
    with marked_output(job) as mark:
        assert (tmp_path / "a" / "run" / ".pending" / str(mark)).is_file()
    assert not (tmp_path / "a").exists()
    (tmp_path / "a" / "run").mkdir(parents=True)
    with marked_output(job):
        (tmp_path / "a" / "run" / "there").touch()
    assert [one.name for one in (tmp_path / "a" / "run").iterdir()] == ["there"]


# --- the check ---


def test_versions_that_are_wrong_are_named() -> None:
    right = {"python": ">=3.11,<3.13", "requirements": ["pyyaml", "ray>=2.60,<2.61"]}
    assert wrong_versions(right) == []
    assert "tokenpair needs >=3.8,<3.9" in wrong_versions(right | {"python": ">=3.8,<3.9"})[0]
    (line,) = wrong_versions(right | {"requirements": ["ray<2.50", "no-such-thing>=1", "pyyaml"]})[-1:]
    assert line.startswith("the cluster's Python lacks no-such-thing: install tokenpair")
    assert wrong_versions(right | {"requirements": ["ray<2.50"]})[0].startswith("the cluster has ray 2.60")


@pytest.mark.parametrize(
    ("wanted", "now", "to_come", "error", "note"),
    [
        (None, 0.0, 0.0, "", "on its CPUs"),
        (None, 2.0, 0.0, "", ""),
        (0, 0.0, 0.0, "", ""),
        (1, 0.0, 0.0, "has no GPU, and a worker of this job asks for 1", ""),
        (2, 1.0, 0.0, "has 1 GPU, and a worker of this job asks for 2", ""),
        (1, 0.0, 8.0, "", "asks its autoscaler"),
        (1, 0.0, None, "", "on its CPUs"),
        (0.5, 1.0, 0.0, "", ""),
    ],
)
def test_gpus_are_asked_for_before_the_job(
    wanted: float | None, now: float, to_come: float | None, error: str, note: str
) -> None:
    from jobs.cluster.checks import _gpus

    notes: list[str] = []
    if error:
        awaiting: list[str] = []
        job = load_job(None, S3_JOB | {"workers": {"gpus": wanted, "max": 4}})
        assert _gpus(job, {"GPU": now} if now else {}, to_come, awaiting) == []
        assert "waits for machines that join" in awaiting[0]
    job = load_job(None, S3_JOB | {"workers": {"gpus": wanted}})
    errors = _gpus(job, {"GPU": now} if now else {}, to_come, notes)
    assert (error in "".join(errors)) if error else not errors
    assert (note in "".join(notes)) if note else not notes


def test_a_job_asks_the_shipped_cluster_for_gpus_that_are_to_come(
    launcher: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check promised GPUs of the autoscaler, and the job then took CPUs: only the check read what `ray up` left."""
    from ray._private.state import state

    for name in ("get_cluster_config", "get_max_resources_from_cluster_config"):
        monkeypatch.setattr(state, name, lambda: None)
    monkeypatch.setenv("HOME", str(tmp_path))
    head = [{"memory": 16.0 * (1 << 30)}]
    assert ray_crew.Cluster(grows=True).ceiling() is None
    (tmp_path / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump(validated(launcher)))
    ceiling = ray_crew.Cluster(grows=True).ceiling()
    assert ceiling == {"GPU": 10.0}
    resources = worker_resources(Workers(), head, 100, 0, grows=True, ceiling=ceiling)
    assert (resources.gpus, resources.cpus) == (1, 1)
    assert worker_resources(Workers(gpus=0), head, 100, 0, grows=True, ceiling=ceiling).gpus == 0
    assert ray_crew.Cluster(grows=False).ceiling() is None, "a Ray of our own gets no machines"


def test_files_that_differ_on_the_cluster_are_refused(tmp_path: Path) -> None:
    from jobs.cluster.checks import check_inputs, check_machine

    (tmp_path / "x.csv").write_text("sentence1,sentence2\na,b\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "modules.json").write_text("[]")
    settings = {"model": str(tmp_path / "model"), "input": str(tmp_path / "x.csv"), "output": str(tmp_path / "run")}
    job = load_job(None, settings)
    with marked_output(job) as mark:
        here = expected(job, mark)
        assert check_inputs(job, here["inputs"]) == []
        assert check_machine(job.model_dump(mode="json"), here) == []
        # Another machine: the same names, other files.
        (tmp_path / "x.csv").write_text("sentence1,sentence2\na,c\n")
        (tmp_path / "model" / "modules.json").write_text("[ ]")
        assert "not the same on the cluster's head" in check_inputs(job, here["inputs"])[0]
        wrong = check_machine(job.model_dump(mode="json"), here | {"mark": "seen-elsewhere"})
        assert [line.split(":")[0] for line in wrong] == ["output", "model"]
        (tmp_path / "x.csv").unlink()
        assert "s3://bucket" in check_inputs(job, here["inputs"])[0]


# --- the job's name and end ---


def test_a_name_is_the_run_directorys_alone() -> None:
    assert job_name("s3://b/run 1") == job_name("s3://b/run 1/")
    assert job_name("s3://b/run") != job_name("s3://c/run")
    for odd in ("/", "/x/$(touch HACKED)", "/ü", "/" + "x" * 300):
        name = job_name(odd)
        assert name.replace("-", "").isalnum()
        assert name.isascii()
        assert len(name) <= 47


@pytest.mark.parametrize(
    ("status", "code", "expected_code"),
    [("SUCCEEDED", 0, 0), ("FAILED", 2, 2), ("FAILED", -9, 137), ("FAILED", None, 1), ("STOPPED", None, 143)],
)
def test_the_exit_code_is_the_jobs_own(status: str, code: int | None, expected_code: int) -> None:
    assert ClusterJob("x", status, code, "", {}).exit_code == expected_code
