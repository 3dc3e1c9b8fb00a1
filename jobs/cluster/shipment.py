"""What goes to a cluster with a job: tokenpair's own code, the job, and what is expected there. Nothing else."""

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

from jobs.cluster.environment import ENVIRONMENT
from jobs.errors import ClusterError
from jobs.storage.store import PENDING

if TYPE_CHECKING:
    from jobs.config.job import JobConfig

PACKAGES = ("attribution_core", "jobs")
# As in pyproject.toml's package data: what lies beside the code for other reasons stays here.
SUFFIXES = (".py", ".html", ".css", ".js", ".j2", ".json", ".yaml")
JOB_FILE, EXPECTED_FILE = "job.yaml", "expected.json"
# Compared by content; of more files only the sizes are.
MOST_FINGERPRINTS = 100
# Ray kills a job that was stopped after 3 s otherwise, before it could put its workers away.
STOP_SECONDS = 30


def packed(folder: Path, job: JobConfig, expected: dict[str, Any]) -> None:
    """Fill ``folder`` with the code, ``job.yaml`` and ``expected.json``; equal jobs give equal bytes."""
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
    """The job as it was understood, as a job file."""
    import yaml

    settings = job.model_dump(mode="json", exclude_defaults=True) | {"output": job.output}
    return str(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=120)).encode()


def runtime_env(folder: Path | None, *, install: bool) -> dict[str, Any]:
    """Ray's description of where the job runs; no variable of this machine's environment is in it."""
    # UTF-8 whatever the locale of the cluster's machines says: names of files are the same there as here.
    found: dict[str, Any] = {
        "env_vars": ENVIRONMENT | {"PYTHONUTF8": "1", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
    }
    if folder is not None:
        found["working_dir"] = str(folder)
    if install:
        # Ray is there already, and another one must not be put in its place.
        found["pip"] = [line for line in requirements() if not line.startswith("ray")]
    return found


def requirements() -> list[str]:
    """What tokenpair needs beside itself, as pip understands it; ClusterError where it was never installed."""
    try:
        lines = metadata.requires("tokenpair") or []
    except metadata.PackageNotFoundError:
        raise ClusterError("tokenpair is not installed here, so what it needs is not known: pip install it") from None
    return [line.split(";")[0].strip() for line in lines if "extra ==" not in line]


def version() -> str:
    """tokenpair's own version."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("tokenpair")
    return "0"


def python_range() -> str:
    """The versions of Python that tokenpair runs on, such as >=3.11,<3.13."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return str(metadata.metadata("tokenpair")["Requires-Python"] or "")
    return ""


def expected(job: JobConfig, mark: str | None) -> dict[str, Any]:
    """What the cluster must have, for its check: versions, packages, and the local places of the job as seen here."""
    return {
        "python": python_range(),
        "here": platform.python_version(),
        "requirements": requirements(),
        "inputs": _inputs_here(job) if local_inputs(job) else None,
        "model": folder_here(job.model) if Path(job.model).is_absolute() else None,
        "mark": mark,
    }


def local_inputs(job: JobConfig) -> list[str]:
    """The places the job reads that are not in a store."""
    named = (getattr(job, name) or [] for name in ("input", "log", "queries", "corpus", "qrels"))
    return [place for places in named for place in places if not place.startswith("s3://")]


def _inputs_here(job: JobConfig) -> dict[str, list[Any]]:
    """Size and fingerprint of each local file, as in :func:`seen_inputs`, where these are asked for on this machine."""
    from jobs.sources import resolve_inputs

    files = resolve_inputs(local_inputs(job), job.storage, any_name=True)
    return {
        file.url: [file.size, file.fingerprint() if at < MOST_FINGERPRINTS else ""] for at, file in enumerate(files)
    }


def folder_here(path: str) -> dict[str, int] | None:
    """Names and sizes of the files of a folder, or None where there is none."""
    folder = Path(path)
    if not folder.is_dir():
        return None
    files = (one for one in folder.rglob("*") if one.is_file())
    visible = {one.relative_to(folder).as_posix(): one.stat().st_size for one in files}
    return {name: size for name, size in sorted(visible.items()) if not name.startswith(".")}


@contextlib.contextmanager
def marked_output(job: JobConfig) -> Iterator[str | None]:
    """A small file in a local run directory, by which a machine of the cluster can tell that it sees the same one.

    None for a run directory in a store, which everybody sees by its address.
    """
    if job.output.startswith("s3://"):
        yield None
        return
    folder = Path(job.output) / PENDING
    mark = folder / f"seen-{uuid.uuid4().hex}"
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as error:
        raise ClusterError(f"output: cannot write to {job.output}: {(error.strerror or '').lower()}") from None
    try:
        yield mark.name
    finally:
        mark.unlink(missing_ok=True)
        for one in new:
            # Another process may have put something there.
            with contextlib.suppress(OSError):
                one.rmdir()
