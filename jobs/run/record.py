"""Writes and reads ``job.yaml`` in a run directory, and checks that a run directory belongs to the current job.

``job.yaml`` is a job file that can be run again. Its additional section ``run`` records what the run resolved:
versions, the model's fingerprint, the layer and similarity used, the input files.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import yaml

from jobs.config.job import JobConfig
from jobs.config.model_folder import model_folder
from jobs.config.yaml import read_yaml
from jobs.errors import RunError
from jobs.run.event_log import OWN_LOGS
from jobs.run.facts import WorkerFacts
from jobs.run.tables import JOB_FILE, JOB_FILE_MOST_BYTES, MANIFEST, RESULTS, SUCCESS, finished_shards
from jobs.storage.store import PENDING, LocalStore, Store

RESOLVED = "run"
# In the order in which a run is removed: the parts that mark shards as done go before what they depend on.
FOLDERS = (*RESULTS, "plan", "rejects", "texts", "statistics", "logs")
OWN_FILES = {
    "plan": r"(pairs|texts|centre|judgments|corpus)-[0-9a-f]+\.parquet|mean-[0-9a-f]+\.json|(manifest|settings)\.json",
    "attributions": r"part-\d+\.(parquet|arrow)",
    "documents": r"part-\d+\.arrow",
    "texts": r"part-\d+\.(parquet|arrow)",
    "rejects": r"part-(\d+|plan)\.(parquet|arrow)",
    "logs": OWN_LOGS,
}
OWN_AT_TOP = ("report.html",)
# Suffixes of the files that decide a model's scores.
DECIDING = (".safetensors", ".bin", ".json", ".txt", ".model", ".py")


class InputFacts(Protocol):
    """The properties of an input file that a run records, and compares when it is resumed.

    ``fingerprints_all`` is whether the fingerprint covers the whole file.
    """

    @property
    def url(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def modified(self) -> str: ...
    @property
    def system(self) -> Any: ...
    @property
    def fingerprints_all(self) -> bool: ...

    def fingerprint(self) -> str:
        """Return a hash of the file's content, or of parts of it if the file is large."""


def read_record(run: Store) -> dict[str, Any] | None:
    """Return the content of ``job.yaml``, or None if there is none; raises RunError if tokenpair did not write it."""
    if not run.exists(JOB_FILE):
        return None
    try:
        record = read_yaml(run.read(JOB_FILE, most=JOB_FILE_MOST_BYTES))
    except ValueError:
        record = None
    if (
        not isinstance(record, dict)
        or not isinstance(record.get(RESOLVED), dict)
        or not _plain_inputs(record[RESOLVED])
    ):
        raise RunError(f"{run.url}/{JOB_FILE}: was not written by a run of tokenpair; choose another output directory")
    return record


def checkpoint_of(run: Store) -> dict[str, Any] | None:
    """Return what a run recorded about a half-precision checkpoint; None for a model with float32 weights."""
    record = None
    with contextlib.suppress(RunError):  # the summary is computed without a readable job.yaml too
        record = read_record(run)
    entry = record[RESOLVED].get("checkpoint") if record is not None else None
    valid = isinstance(entry, dict) and isinstance(entry.get("dtype"), str) and isinstance(entry.get("largest"), float)
    return entry if valid else None


def _plain_inputs(resolved: Mapping[str, Any]) -> bool:
    inputs = resolved.get("inputs") or []
    return isinstance(inputs, list) and all(isinstance(file, dict) for file in inputs)


def make_record(
    job: JobConfig, facts: WorkerFacts, inputs: list[dict[str, Any]], files: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the content of ``job.yaml``: the settings of ``job`` and what its run resolved."""
    resolved = {
        "versions": facts.versions,
        "fingerprint": facts.fingerprint,
        "layer": facts.layer,
        "similarity": facts.similarity,
        "reference": facts.reference,
        "checkpoint": None if facts.own_precision is None else asdict(facts.own_precision),
        "inputs": inputs,
        "model_files": files,
    }
    if facts.probe is not None:
        resolved["probe"] = facts.probe
    return job.model_dump(mode="json") | {RESOLVED: resolved}


def encoded_record(record: Mapping[str, Any]) -> bytes:
    """Return the record as the bytes of ``job.yaml``."""

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True  # repeated values are written out, because aliases are not read

    text = yaml.dump(dict(record), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)
    return (
        "# Written by tokenpair. This file can be run again; the section 'run' records results and is then ignored.\n"
        + text
    ).encode()


def check_same_job(run: Store, record: Mapping[str, Any], job: JobConfig) -> None:
    """Raise RunError, with both values of each differing setting, if the run directory belongs to another job."""
    if "sums_to" not in record:
        # Its rows have other sums than those of this version, even for the same settings.
        before = "was begun by an earlier version, whose attributions sum to a difference from reference texts"
        _raise_if_differing(
            run, [f"sums_to: 'difference' there, {job.sums_to!r} now; that version can finish it"], before
        )
    wanted = dict(_flat(job.identity()))
    present = dict(_flat({name: record.get(name, _default(name)) for name in job.identity()}))
    differing = [
        f"{name}: {_value(present.get(name))} there, {_value(wanted.get(name))} now"
        for name in dict.fromkeys([*wanted, *present])
        if wanted.get(name) != present.get(name)
    ]
    _raise_if_differing(run, differing, "holds another job")


def _default(name: str) -> object:
    """The value of a setting in runs of versions that did not have it yet."""
    default = JobConfig.model_fields[name].default
    return default if isinstance(default, str | int) else None


def _value(value: object) -> str:
    return "not set" if value is None else repr(value)


def check_same_inputs(run: Store, record: Mapping[str, Any], files: Sequence[InputFacts]) -> None:
    """Raise RunError if the input files differ from those that the run was planned from."""
    _raise_if_differing(
        run, differing_inputs(record[RESOLVED].get("inputs") or [], files), "was planned from other input"
    )


def differing_inputs(planned: Sequence[Mapping[str, Any]], files: Sequence[InputFacts]) -> list[str]:
    """Return the differences between the current input files and the planned ones, one line for each file.

    A file whose modification time alone has changed is the same, if its fingerprint covers all of it.
    """
    before = {str(file.get("file")): file for file in planned}
    now = {file.url: file for file in files}
    differing: list[str] = []
    for name in dict.fromkeys([*before, *now]):
        if name not in now or name not in before:
            differing.append(f"{name}: {'no longer among the inputs' if name in before else 'not among its inputs'}")
            continue
        then, file = before[name], now[name]
        if then.get("size") != file.size:
            differing.append(f"{name}: size {then.get('size')!r} then, {file.size!r} now")
        # An object store sets the modification time itself; on a file system, programs can set it to any value.
        elif file.system is not None and then.get("modified") == file.modified:
            continue
        # The fingerprint leaves out the middle of a large file, so its modification time decides.
        elif then.get("fingerprint") != file.fingerprint() or (
            not file.fingerprints_all and then.get("modified") != file.modified
        ):
            differing.append(f"{name}: other content, modified {then.get('modified')} then, {file.modified} now")
    return differing


def check_same_model(run: Store, record: Mapping[str, Any], facts: WorkerFacts) -> None:
    """Raise RunError if the model has other weights than when the run began."""
    before = record[RESOLVED].get("fingerprint")
    differing = [f"fingerprint {before} then, {facts.fingerprint} now"] if before != facts.fingerprint else []
    _raise_if_differing(run, differing, "was begun with other model weights")


def model_files(model: str) -> list[dict[str, Any]]:
    """Return the files that decide the model's scores, each with size, modification time and SHA-256.

    Returns an empty list if the model is not on this machine; workers then compare the model's fingerprint.
    """
    folder = model_folder(model)
    return [] if folder is None else [_model_file(folder, path) for path in _deciding(folder)]


def check_same_model_files(run: Store, record: Mapping[str, Any], model: str) -> None:
    """Raise RunError if the model's files on this machine differ from those when the run began.

    Does nothing if the model is not on this machine. Raises ModelError if it should be and is not.
    """
    listed = record[RESOLVED].get("model_files")
    then = (
        {str(file.get("file")): file for file in listed if isinstance(file, dict)} if isinstance(listed, list) else {}
    )
    folder = model_folder(model) if then else None
    if folder is None:
        return
    now = {path.relative_to(folder).as_posix(): path for path in _deciding(folder)}
    differing: list[str] = []
    for name in dict.fromkeys([*then, *now]):
        if name not in now or name not in then:
            differing.append(f"{name}: {'no longer there' if name in then else 'not there then'}")
            continue
        was, stat = then[name], now[name].stat()
        if was.get("size") != stat.st_size:
            differing.append(f"{name}: size {was.get('size')} then, {stat.st_size} now")
        elif was.get("modified") != _modified(stat.st_mtime) and was.get("sha256") != _sha256(now[name]):
            differing.append(
                f"{name}: other content, modified {was.get('modified')} then, {_modified(stat.st_mtime)} now"
            )
    _raise_if_differing(run, differing, f"was begun with other files of model {model}")


def _deciding(folder: Path) -> list[Path]:
    """Return the weights, configuration and tokenizer files of a model, without exports for other runtimes."""
    files = [path for path in folder.rglob("*") if path.suffix in DECIDING and path.is_file()]
    return sorted(path for path in files if path.relative_to(folder).parts[0] not in ("onnx", "openvino", "eval"))


def _model_file(folder: Path, path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {
        "file": path.relative_to(folder).as_posix(),
        "size": stat.st_size,
        "modified": _modified(stat.st_mtime),
        "sha256": _sha256(path),
    }


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _modified(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def check_ours(run: Store) -> None:
    """Raise RunError if a directory without ``job.yaml`` has files that a new run must not mix with its own.

    These are files of other programs, and parts of a run whose job is unknown. ``_SUCCESS`` is one of them: it would
    mark the new run as finished.
    """
    if is_index(run):
        raise RunError(
            f"{run.url}: is an index; choose another output for a run (--index takes documents from an index)"
        )
    other_files = [name for name in run.list("") if name not in OWN_AT_TOP]
    other_files += [name for folder in FOLDERS for name in run.list(folder) if not is_own(name)]
    other_files += [name for folder in RESULTS for name in run.list(folder) if is_own(name)]
    if other_files:
        some = ", ".join(other_files[:3])
        raise RunError(f"{run.url}: is not empty and not a run of tokenpair (it holds {some}); choose another output")


def is_index(store: Store) -> bool:
    """Return whether a directory is an index, also one whose first build has not ended (``jobs.index``)."""
    return bool(store.list("snapshots") or store.list("generations/00001/logs"))


def is_own(name: str) -> bool:
    """Return whether ``name`` is the name of a file that a run writes into one of its folders."""
    folder, _, file = name.partition("/")
    pattern = OWN_FILES.get(folder)
    return folder == "statistics" or (pattern is not None and re.fullmatch(pattern, file) is not None)


def wipe(run: Store) -> int:
    """Remove the files that a run wrote, and no others; returns the number of removed files.

    ``job.yaml`` is removed last, so that the directory stays a run until then. If this is interrupted, no shard
    counts as done whose texts or rejects are removed.
    """
    names = [name for name in (SUCCESS, *OWN_AT_TOP) if run.exists(name)]
    for folder in FOLDERS:
        own = [name for name in run.list(folder) if is_own(name)]
        # The manifest first, because a plan without its pairs would count as a plan.
        names += sorted(own, key=lambda name: name != MANIFEST)
    names += [JOB_FILE] if run.exists(JOB_FILE) else []
    for name in names:
        run.remove(name)
    return len(names)


def half_removed(run: Store) -> bool:
    """Return whether :func:`wipe` was interrupted after it removed the plan and all finished shards."""
    return not (run.exists(SUCCESS) or run.exists(MANIFEST) or finished_shards(run))


def tidy(run: Store) -> None:
    """Remove the folder for temporary files of a local run, if it is empty."""
    if isinstance(run, LocalStore):
        with contextlib.suppress(OSError):
            (run.root / PENDING).rmdir()


def _raise_if_differing(run: Store, differing: list[str], why: str) -> None:
    if differing:
        advice = "choose another output, or --restart to delete that run"
        raise RunError(f"{run.url}: {why} ({advice}): {'; '.join(differing)}")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
