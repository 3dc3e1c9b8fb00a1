"""What the check asks of a cluster, on the cluster: GPUs, the store, and files that every machine must see."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.cluster.ray_internals import gpus_of_node_groups
from jobs.cluster.shipment import folder_here, local_inputs
from jobs.config.job import JobConfig, load_job, parse_job
from jobs.errors import SourceError, StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_MACHINES = 32
MACHINE_SECONDS = 300.0
MODEL_SECONDS = 300.0
INPUTS_SHOWN = 3


def check_cluster(expected: Mapping[str, Any], errors: list[str], notes: list[str]) -> None:
    """Add what the job in ``job.yaml`` would fail for to ``errors``, and what its user should know to ``notes``."""
    job = load_job("job.yaml")
    import ray

    ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    errors += _gpus(job, ray.cluster_resources(), gpus_to_come(), notes)
    errors += check_inputs(job, expected["inputs"])
    wrong = _on_every_machine(job, expected, notes)
    # Where a machine lacks the model's folder, that has been said.
    errors += wrong or _on_one_machine(job)


def _gpus(job: JobConfig, resources: Mapping[str, float], to_come: float | None, notes: list[str]) -> list[str]:
    """``to_come``: the GPUs that machines not started yet may have; None where that is not known."""
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
    """The GPUs of all machines that the cluster's autoscaler may start; None where there is one that does not tell."""
    gpus = gpus_of_node_groups()
    if gpus is not None:
        return gpus
    import yaml

    # `ray up` leaves what it was given on the head, where this runs.
    written = Path("~/ray_bootstrap_config.yaml").expanduser()
    with contextlib.suppress(OSError, yaml.YAMLError, AttributeError, TypeError, ValueError):
        types = yaml.safe_load(written.read_text("utf-8"))["available_node_types"]
        return float(sum(one.get("resources", {}).get("GPU", 0) * one.get("max_workers", 0) for one in types.values()))
    return None if "KUBERAY_GEN_RAY_START_CMD" in os.environ else 0.0


def check_inputs(job: JobConfig, here: Mapping[str, list[Any]] | None) -> list[str]:
    """The input as the planner sees it, which runs on the head; ``here`` is what the submitter saw of local files."""
    from jobs.sources import input_files

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
    """What a worker on this machine could not reach: the run directory, a model that is a folder."""
    from jobs.storage.store import PENDING, Store

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

    machines = [one for one in ray.nodes() if one["Alive"]]
    if len(machines) > MOST_MACHINES:
        notes.append(f"{MOST_MACHINES} of the cluster's {len(machines)} machines were asked")
        machines = machines[:MOST_MACHINES]
    check = ray.remote(check_machine)
    settings = job.model_dump(mode="json")
    asked: dict[Any, str] = {}
    for one in machines:
        there = NodeAffinitySchedulingStrategy(one["NodeID"], soft=False)
        asked_one = check.options(num_cpus=0, max_retries=1, scheduling_strategy=there).remote(settings, dict(expected))
        asked[asked_one] = str(one["NodeManagerAddress"])
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=MACHINE_SECONDS)
    errors = [f"machine {asked[one]} did not answer within {MACHINE_SECONDS:.0f} s" for one in late]
    for one in ready:
        try:
            found = ray.get(one)
        except ray.exceptions.RayError as error:
            found = [f"cannot start a worker: {str(error).strip().splitlines()[-1][:200]}"]
        errors += [f"on machine {asked[one]}: {wrong}" for wrong in found]
    return errors


def check_model(settings: Mapping[str, Any]) -> list[str]:
    """What a worker could not load of the model: a checkpoint that is damaged, incomplete, or of another class."""
    from attribution_core.errors import ModelError
    from attribution_core.model.loading import load_model
    from jobs.cluster.environment import quiet_libraries

    quiet_libraries()
    job = parse_job(settings)
    try:
        load_model(
            job.model, device="cpu", trust_remote_code=job.trust_remote_code, pickled_weights=job.pickled_weights
        )
    except ModelError as error:
        return [str(error)]
    return []


def _on_one_machine(job: JobConfig) -> list[str]:
    """The model is the same file for all, so one machine loads it; its process ends with that."""
    import ray

    check = ray.remote(num_cpus=0, max_calls=1, max_retries=1)(check_model)
    asked = check.remote(job.model_dump(mode="json"))
    try:
        found: list[str] = ray.get(asked, timeout=MODEL_SECONDS)
    except ray.exceptions.GetTimeoutError:
        return []  # a large model over a slow line: its workers wait for it
    except ray.exceptions.RayError as error:
        return [f"model: cannot be loaded on the cluster: {str(error).strip().splitlines()[-1][:200]}"]
    return found


def _put_into_a_bucket(who: str) -> str:
    return f"; files of this machine are not sent along: put them where {who} sees them too, such as s3://bucket/…"
