"""Kubernetes manifests of a job: a ConfigMap with its job file, and a RayJob that runs it on its own cluster."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from jobs.cluster.shipment import job_file, local_inputs, runtime_env, version
from jobs.cluster.submit import job_name
from jobs.errors import JobError

if TYPE_CHECKING:
    from jobs.config.job import JobConfig

FOLDER = "/etc/tokenpair"
# How often KubeRay may start again with new machines; each start resumes the run.
STARTS = 3
MOST_WORKERS = 8
HEAD_SIZE = {"cpu": "4", "memory": "16Gi"}
WORKER_SIZE = {"cpu": "4", "memory": "16Gi"}

_HEADER = """\
# A run of tokenpair for KubeRay 1.5.1 or newer:
#   tokenpair submit job.yaml --print-rayjob --image REGISTRY/tokenpair:{version} | kubectl apply -f -
# The image has Ray {ray} and tokenpair (three lines in jobs/cluster/README.md). Create the service account "tokenpair":
# its role may read the input and write the run directory. Delete the RayJob and apply it again to go on with a run
# that did not finish.
"""


def manifest(job: JobConfig, *, image: str | None = None, restart: bool = False) -> str:
    """Return the manifests as YAML; raises JobError, with a line for each, for local paths that no pod can read."""
    import ray  # heavy, needed for its version alone

    _check_places(job)
    # The cluster starts without workers, so GPUs and the number of workers cannot be detected there.
    asked = job.workers
    gpus = 1.0 if asked.gpus is None else asked.gpus
    least = {"count": None, "gpus": gpus, "max": asked.max or asked.count or MOST_WORKERS}
    job = job.model_copy(update={"workers": asked.model_copy(update=least)})
    name = job_name(job.output)
    documents = [
        _config_map(name, job),
        _ray_job(name, job, image or f"tokenpair:{version()}", restart, ray.__version__),
    ]
    header = _HEADER.format(version=version(), ray=ray.__version__)
    return header + "---\n".join(_yaml(document) for document in documents)


def _check_places(job: JobConfig) -> None:
    places = [("input", place) for place in local_inputs(job)]
    places += [] if job.output.startswith("s3://") else [("output", job.output)]
    wrong = [f"{setting}: {place} is on this machine; a pod sees only s3://bucket/…" for setting, place in places]
    if Path(job.model).is_dir():
        wrong.append(f"model: {job.model} is on this machine; give a name on the hub, or its path in the image")
    if wrong:
        raise JobError("\n".join(wrong))


def _config_map(name: str, job: JobConfig) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"job.yaml": job_file(job).decode()},
    }


def _ray_job(name: str, job: JobConfig, image: str, restart: bool, ray_version: str) -> dict[str, Any]:
    gpus = math.ceil(job.workers.gpus or 0)
    worker = WORKER_SIZE | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    group = {
        "groupName": "gpu" if gpus else "cpu",
        "replicas": 0,
        "minReplicas": 0,
        "maxReplicas": job.workers.max,
        "rayStartParams": {},
        "template": _pod("ray-worker", image, worker, name),
    }
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name},
        "spec": {
            "entrypoint": f"tokenpair run {FOLDER}/job.yaml" + (" --restart" if restart else ""),
            "runtimeEnvYAML": _yaml(runtime_env(None, install=False)),
            # If KubeRay repeated --restart, it would delete the results of the first start.
            "backoffLimit": 0 if restart else STARTS,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 60,
            "rayClusterSpec": {
                "rayVersion": ray_version,
                "authOptions": {"mode": "token"},
                "enableInTreeAutoscaling": True,
                "autoscalerOptions": {"version": "v2", "idleTimeoutSeconds": 300},
                "headGroupSpec": {
                    # The head plans and assigns shards; it computes nothing itself.
                    "rayStartParams": {"num-cpus": "0"},
                    "template": _pod("ray-head", image, HEAD_SIZE, name),
                },
                "workerGroupSpecs": [group],
            },
        },
    }


def _pod(container: str, image: str, size: dict[str, str], config_map: str) -> dict[str, Any]:
    return {
        "spec": {
            "serviceAccountName": "tokenpair",
            "containers": [
                {
                    "name": container,
                    "image": image,
                    "resources": {"requests": dict(size), "limits": dict(size)},
                    "securityContext": {"allowPrivilegeEscalation": False},
                    "volumeMounts": [{"name": "job", "mountPath": FOLDER, "readOnly": True}],
                }
            ],
            "volumes": [{"name": "job", "configMap": {"name": config_map}}],
        }
    }


def _yaml(document: dict[str, Any]) -> str:
    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    return str(yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120))
