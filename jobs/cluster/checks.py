"""Checks a cluster for a job, running on the cluster: GPUs, the store, and files that every machine must see."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from attribution_core.errors import ModelError
from jobs.cluster.environment import quiet_libraries
from jobs.cluster.ray_internals import gpus_of_node_groups
from jobs.cluster.shipment import folder_here, local_inputs
from jobs.config.job import JobConfig, load_job, parse_job
from jobs.errors import SourceError, StoreError
from jobs.sources import input_files
from jobs.storage.store import PENDING, Store

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_MACHINES = 32
MACHINE_SECONDS = 300.0
MODEL_SECONDS = 300.0
INPUTS_SHOWN = 3


def check_cluster(expected: Mapping[str, Any], errors: list[str], notes: list[str]) -> None:
    """Append the reasons why the job in ``job.yaml`` would fail to ``errors``, and notices for the user to ``notes``.

    ``expected`` has what the submitting machine saw, see :func:`jobs.cluster.shipment.expected`.
    """
    import ray  # heavy, and the run loop imports this file

    job = load_job("job.yaml")

    ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    errors += _gpus(job, ray.cluster_resources(), gpus_to_come(), notes)
    errors += check_inputs(job, expected["inputs"])
    wrong = _on_every_machine(job, expected, notes)
    # If a machine lacks the model's folder, loading the model would only report that again.
    errors += wrong or _on_one_machine(job)


def _gpus(job: JobConfig, resources: Mapping[str, float], to_come: float | None, notes: list[str]) -> list[str]:
    """Return errors about missing GPUs, and append notices to ``notes``.

    ``to_come`` is the number of GPUs of machines that the autoscaler may start; None if that is unknown.
    """
    now = resources.get("GPU", 0.0)
    wanted = job.workers.gpus
    if wanted == 0 or now >= (wanted or 1e-9):
        return []
    if to_come is None or to_come >= (wanted or 1e-9):
        notes.append("the cluster has no GPU yet; the job asks its autoscaler for one" if to_come else NO_GPU_NOTE)
        return []
    if wanted is None:
        notes.append(NO_GPU_NOTE)
        return []
    if job.workers.max is not None or job.workers.min is not None:
        notes.append("the cluster has no GPU yet; the run waits for machines that join (workers.max)")
        return []
    asks = f"a worker of this job asks for {wanted:g} (workers.gpus)"
    if now:
        return [f"the cluster has {now:g} GPU, and {asks}"]
    return [f"the cluster has no GPU, and {asks}; with workers.gpus: 0 it computes on CPUs"]


NO_GPU_NOTE = "the cluster has no GPU: the job computes on its CPUs, unless machines with GPUs join"


def gpus_to_come() -> float | None:
    """Return the GPUs of all machines that the cluster's autoscaler may start; None if they cannot be determined."""
    gpus = gpus_of_node_groups()
    if gpus is not None:
        return gpus
    # `ray up` leaves its configuration on the head, where this runs.
    written = Path("~/ray_bootstrap_config.yaml").expanduser()
    with contextlib.suppress(OSError, yaml.YAMLError, AttributeError, TypeError, ValueError):
        kinds = yaml.safe_load(written.read_text("utf-8"))["available_node_types"].values()
        return float(sum(kind.get("resources", {}).get("GPU", 0) * kind.get("max_workers", 0) for kind in kinds))
    return None if "KUBERAY_GEN_RAY_START_CMD" in os.environ else 0.0


def check_inputs(job: JobConfig, here: Mapping[str, list[Any]] | None) -> list[str]:
    """Return errors about input files that the cluster's head, which plans the run, cannot read or that differ there.

    ``here`` has size and fingerprint of the local files on the submitting machine; None if there is none.
    """
    try:
        files = {file.url: file for file in input_files(job)}
    except SourceError as error:
        hint = _put_into_a_bucket("the cluster's head") if local_inputs(job) else ""
        return [f"on the cluster: {error}{hint}"]
    except StoreError as error:
        return [f"on the cluster: {error}"]
    wrong = [
        url
        for url, (size, fingerprint) in (here or {}).items()
        if url not in files or files[url].size != size or (fingerprint and files[url].fingerprint() != fingerprint)
    ]
    if not wrong:
        return []
    more = f" and {len(wrong) - INPUTS_SHOWN} more" if len(wrong) > INPUTS_SHOWN else ""
    named = ", ".join(wrong[:INPUTS_SHOWN]) + more
    return [f"input: {named}: not the same on the cluster's head{_put_into_a_bucket('it')}"]


def check_machine(settings: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Return errors about what a worker on this machine cannot reach: the run directory, the model's folder."""
    job = parse_job(settings)
    wrong: list[str] = []
    if expected["mark"] is not None and not (Path(job.output) / PENDING / str(expected["mark"])).is_file():
        wrong.append(f"output: {job.output} is not the folder of that name here{_put_into_a_bucket('it')}")
    else:
        try:
            Store.open(job.output, job.storage).check_writable()
        except StoreError as error:
            wrong.append(str(error))
    model = expected["model"]
    if model is not None and folder_here(job.model) != model:
        wrong.append(
            f"model: {job.model} is not the folder of that name here; copy the model to the cluster's machines, "
            "or give a name on the hub"
        )
    return wrong


def _on_every_machine(job: JobConfig, expected: Mapping[str, Any], notes: list[str]) -> list[str]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    machines = [node for node in ray.nodes() if node["Alive"]]
    if len(machines) > MOST_MACHINES:
        notes.append(f"{MOST_MACHINES} of the cluster's {len(machines)} machines were asked")
        machines = machines[:MOST_MACHINES]
    check = ray.remote(check_machine)
    settings = job.model_dump(mode="json")
    addresses: dict[Any, str] = {}
    for node in machines:
        on_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = check.options(num_cpus=0, max_retries=1, scheduling_strategy=on_node).remote(settings, dict(expected))
        addresses[task] = str(node["NodeManagerAddress"])
    ready, late = ray.wait(list(addresses), num_returns=len(addresses), timeout=MACHINE_SECONDS)
    errors = [f"machine {addresses[task]} did not answer within {MACHINE_SECONDS:.0f} s" for task in late]
    for task in ready:
        try:
            wrong = ray.get(task)
        except ray.exceptions.RayError as error:
            wrong = [f"cannot start a worker: {str(error).strip().splitlines()[-1][:200]}"]
        errors += [f"on machine {addresses[task]}: {line}" for line in wrong]
    return errors


def check_model(settings: Mapping[str, Any]) -> list[str]:
    """Return errors about a model that cannot be loaded: a damaged, incomplete or unsupported checkpoint."""
    quiet_libraries()
    from attribution_core.model.loading import load_model  # torch, after the environment is set

    job = parse_job(settings)
    try:
        load_model(
            job.model, device="cpu", trust_remote_code=job.trust_remote_code, pickled_weights=job.pickled_weights
        )
    except ModelError as error:
        return [str(error)]
    return []


def _on_one_machine(job: JobConfig) -> list[str]:
    """Return errors from loading the model on one machine; the model is the same for all of them."""
    import ray

    # max_calls=1 ends the process afterwards, which frees the model's memory.
    check = ray.remote(num_cpus=0, max_calls=1, max_retries=1)(check_model)
    task = check.remote(job.model_dump(mode="json"))
    try:
        errors: list[str] = ray.get(task, timeout=MODEL_SECONDS)
    except ray.exceptions.GetTimeoutError:
        return []  # a large model over a slow network: the workers wait for it
    except ray.exceptions.RayError as error:
        return [f"model: cannot be loaded on the cluster: {str(error).strip().splitlines()[-1][:200]}"]
    return errors


def _put_into_a_bucket(who: str) -> str:
    return f"; files of this machine are not sent along: put them where {who} sees them too, such as s3://bucket/…"
