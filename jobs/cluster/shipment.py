"""Packs what a job needs on a cluster: tokenpair's own code, the job file, and the expectations for the check."""

from __future__ import annotations

import contextlib
import importlib
import json
import platform
import shutil
import uuid
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from jobs.cluster.environment import ENVIRONMENT
from jobs.errors import ClusterError
from jobs.sources import resolve_inputs
from jobs.storage.store import PENDING

if TYPE_CHECKING:
    from jobs.config.job import JobConfig

PACKAGES = ("attribution_core", "jobs")
# The suffixes of package data in pyproject.toml; other files beside the code are not sent.
SUFFIXES = (".py", ".html", ".css", ".js", ".j2", ".json", ".yaml")
JOB_FILE, EXPECTED_FILE = "job.yaml", "expected.json"
# Only the first so many input files are compared by content, the others by size.
MOST_FINGERPRINTS = 100
# By default Ray kills a stopped job after 3 s, before it can end its workers.
STOP_SECONDS = 30


def pack(folder: Path, job: JobConfig, expected: dict[str, Any]) -> None:
    """Write the code, ``job.yaml`` and ``expected.json`` into ``folder``; equal jobs give equal bytes."""
    for package in PACKAGES:
        root = Path(str(importlib.import_module(package).__file__)).parent
        for path in sorted(root.rglob("*")):
            inside = path.relative_to(root)
            hidden = any(part.startswith((".", "__pycache__")) for part in inside.parts)
            if hidden or path.is_symlink() or not path.is_file() or path.suffix not in SUFFIXES:
                continue
            target = folder / package / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    (folder / JOB_FILE).write_bytes(job_file(job))
    (folder / EXPECTED_FILE).write_text(json.dumps(expected, indent=1, sort_keys=True), "utf-8")


def job_file(job: JobConfig) -> bytes:
    """Return the job, with absolute paths, as the bytes of a job file."""
    settings = job.model_dump(mode="json", exclude_defaults=True) | {"output": job.output}
    return str(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=120)).encode()


def runtime_env(folder: Path | None, *, install: bool) -> dict[str, Any]:
    """Return Ray's runtime environment of the job; it has no environment variables of this machine."""
    # UTF-8 for any locale of the cluster's machines, so that file names are the same on all machines.
    environment: dict[str, Any] = {
        "env_vars": ENVIRONMENT | {"PYTHONUTF8": "1", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
    }
    if folder is not None:
        environment["working_dir"] = str(folder)
    if install:
        # The cluster has Ray, and another version must not replace it.
        environment["pip"] = [line for line in requirements() if not line.startswith("ray")]
    return environment


def requirements() -> list[str]:
    """Return tokenpair's requirements in pip's form; raises ClusterError if tokenpair is not installed."""
    try:
        lines = metadata.requires("tokenpair") or []
    except metadata.PackageNotFoundError:
        raise ClusterError("tokenpair is not installed here, so its requirements are unknown: pip install it") from None
    return [line.split(";")[0].strip() for line in lines if "extra ==" not in line]


def version() -> str:
    """Return tokenpair's version, "0" if it is not installed."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("tokenpair")
    return "0"


def python_range() -> str:
    """Return the Python versions that tokenpair supports, such as ">=3.11,<3.13"; "" if it is not installed."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return str(metadata.metadata("tokenpair")["Requires-Python"] or "")
    return ""


def expected(job: JobConfig, mark: str | None) -> dict[str, Any]:
    """Return what the check on the cluster compares: versions, requirements, and the job's local files on this machine.

    ``mark`` is the name of the file of :func:`marked_output`.
    """
    return {
        "python": python_range(),
        "here": platform.python_version(),
        "requirements": requirements(),
        "inputs": _inputs_here(job) if local_inputs(job) else None,
        "model": folder_here(job.model) if Path(job.model).is_absolute() else None,
        "mark": mark,
    }


def local_inputs(job: JobConfig) -> list[str]:
    """Return the job's inputs that are local paths rather than ``s3://`` addresses."""
    named = (getattr(job, name) or [] for name in ("input", "log", "queries", "corpus", "qrels"))
    return [place for places in named for place in places if not place.startswith("s3://")]


def _inputs_here(job: JobConfig) -> dict[str, list[Any]]:
    """Return [size in bytes, fingerprint] of each local input file, by its path."""
    files = resolve_inputs(local_inputs(job), job.storage, any_name=True)
    return {
        file.url: [file.size, file.fingerprint() if number < MOST_FINGERPRINTS else ""]
        for number, file in enumerate(files)
    }


def folder_here(path: str) -> dict[str, int] | None:
    """Return the sizes in bytes of a folder's files, without hidden ones, by name; None if it is no folder."""
    folder = Path(path)
    if not folder.is_dir():
        return None
    files = (path for path in folder.rglob("*") if path.is_file())
    visible = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    return {name: size for name, size in sorted(visible.items()) if not name.startswith(".")}


@contextlib.contextmanager
def marked_output(job: JobConfig) -> Iterator[str | None]:
    """Create an empty file in a local run directory, by which machines of the cluster check that they see the same.
    Yields its name, or None for a run directory in an object store, which has the same address everywhere.
    """
    if job.output.startswith("s3://"):
        yield None
        return
    folder = Path(job.output) / PENDING
    mark = folder / f"seen-{uuid.uuid4().hex}"
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as error:
        raise ClusterError(f"output: cannot write to {job.output}: {(error.strerror or '').lower()}") from None
    try:
        yield mark.name
    finally:
        mark.unlink(missing_ok=True)
        for path in new:
            # A folder that another process writes to is not empty and stays.
            with contextlib.suppress(OSError):
                path.rmdir()
