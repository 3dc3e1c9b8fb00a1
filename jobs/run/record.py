"""What a run directory says of its job (``job.yaml``), and whether it is the job at hand.

``job.yaml`` is a job file that can be run again. Its extra section ``run`` holds what was found out: versions, the
model's fingerprint, the layer and similarity in force, the input files.
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

from jobs.config.job import JobConfig
from jobs.config.model_folder import model_folder
from jobs.errors import RunError
from jobs.run.event_log import OWN_LOGS
from jobs.run.facts import WorkerFacts
from jobs.run.tables import JOB_FILE, MANIFEST, SUCCESS, finished_shards
from jobs.storage.store import PENDING, LocalStore, Store

FOUND = "run"
# Of a job.yaml; it grows with the number of input files.
MOST_BYTES = 64 << 20
# In the order in which a run is removed: what counts as done goes before what it stands on.
FOLDERS = ("attributions", "plan", "rejects", "texts", "statistics", "logs")
OWN_FILES = {
    "plan": r"(pairs|texts|centre)-[0-9a-f]+\.parquet|mean-[0-9a-f]+\.json|manifest\.json|settings\.json",
    "attributions": r"part-\d+\.(parquet|arrow)",
    "texts": r"part-\d+\.(parquet|arrow)",
    "rejects": r"part-(\d+|plan)\.(parquet|arrow)",
    "logs": OWN_LOGS,
}
OWN_AT_TOP = ("report.html",)
# Of a model's files, those that decide its numbers.
DECIDING = (".safetensors", ".bin", ".json", ".txt", ".model", ".py")


class InputFacts(Protocol):
    """What a run records of an input file, and compares when it goes on.

    ``fingerprints_all`` says whether the fingerprint covers the whole file.
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
        """Hex digits that change with almost any edit."""


def read_record(run: Store) -> dict[str, Any] | None:
    """What ``job.yaml`` says, or None where there is none; RunError when it is not tokenpair's."""
    from jobs.config.yaml import read_yaml

    if not run.exists(JOB_FILE):
        return None
    try:
        record = read_yaml(run.read(JOB_FILE, most=MOST_BYTES))
    except ValueError:
        record = None
    if not isinstance(record, dict) or not isinstance(record.get(FOUND), dict) or not _plain_inputs(record[FOUND]):
        raise RunError(f"{run.url}/{JOB_FILE}: was not written by a run of tokenpair; choose another output directory")
    return record


def checkpoint_of(run: Store) -> dict[str, Any] | None:
    """What a run recorded of a checkpoint in half precision; None where its model has float32 weights."""
    record = None
    with contextlib.suppress(RunError):  # a run is summed up whatever became of its job.yaml
        record = read_record(run)
    found = record[FOUND].get("checkpoint") if record is not None else None
    plain = isinstance(found, dict) and isinstance(found.get("dtype"), str) and isinstance(found.get("largest"), float)
    return found if plain else None


def _plain_inputs(found: Mapping[str, Any]) -> bool:
    inputs = found.get("inputs") or []
    return isinstance(inputs, list) and all(isinstance(one, dict) for one in inputs)


def make_record(
    job: JobConfig, facts: WorkerFacts, inputs: list[dict[str, Any]], files: list[dict[str, Any]]
) -> dict[str, Any]:
    """The record of ``job`` as it runs now."""
    found = {
        "versions": facts.versions,
        "fingerprint": facts.fingerprint,
        "layer": facts.layer,
        "similarity": facts.similarity,
        "reference": facts.reference,
        "checkpoint": None if facts.own_precision is None else asdict(facts.own_precision),
        "inputs": inputs,
        "model_files": files,
    }
    return job.model_dump(mode="json") | {FOUND: found}


def encoded_record(record: Mapping[str, Any]) -> bytes:
    """The record as the bytes of ``job.yaml``."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True  # what stands twice is written twice: aliases are not read

    text = yaml.dump(dict(record), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)
    return (
        "# Written by tokenpair. The settings can be run again; what stands under 'run' was found out and is ignored.\n"
        + text
    ).encode()


def check_same_job(run: Store, record: Mapping[str, Any], job: JobConfig) -> None:
    """RunError, naming every differing setting with both values, where the run directory is another job's."""
    if "sums_to" not in record:
        # Its rows have other sums than this version's, whatever the job says.
        before = "was begun by an earlier version, whose attributions sum to a difference from reference texts"
        _refuse(run, [f"sums_to: 'difference' there, {job.sums_to!r} now; that version can finish it"], before)
    wanted = dict(_flat(job.identity()))
    present = dict(_flat({name: record.get(name) for name in job.identity()}))
    differing = [
        f"{name}: {present.get(name)!r} there, {wanted.get(name)!r} now"
        for name in dict.fromkeys([*wanted, *present])
        if wanted.get(name) != present.get(name)
    ]
    _refuse(run, differing, "holds another job")


def check_same_inputs(run: Store, record: Mapping[str, Any], files: Sequence[InputFacts]) -> None:
    """RunError where the input files are not those that the run was planned from."""
    _refuse(run, differing_inputs(record[FOUND].get("inputs") or [], files), "was planned from other input")


def differing_inputs(planned: Sequence[Mapping[str, Any]], files: Sequence[InputFacts]) -> list[str]:
    """What tells ``files`` from those of a plan, a line a file. A small one that was only touched is the same."""
    present = {str(one.get("file")): one for one in planned}
    now = {file.url: file for file in files}
    differing: list[str] = []
    for name in dict.fromkeys([*present, *now]):
        if name not in now or name not in present:
            differing.append(f"{name}: {'no longer among the inputs' if name in present else 'not among its inputs'}")
            continue
        then, file = present[name], now[name]
        if then.get("size") != file.size:
            differing.append(f"{name}: size {then.get('size')!r} then, {file.size!r} now")
        # A store sets an object's time itself; on a file system it may be set to anything.
        elif file.system is not None and then.get("modified") == file.modified:
            continue
        # The fingerprint leaves out the middle of a large file, so there the time has to decide.
        elif then.get("fingerprint") != file.fingerprint() or (
            not file.fingerprints_all and then.get("modified") != file.modified
        ):
            differing.append(f"{name}: other content, modified {then.get('modified')} then, {file.modified} now")
    return differing


def check_same_model(run: Store, record: Mapping[str, Any], facts: WorkerFacts) -> None:
    """RunError where the model of that name has other weights than when the run began."""
    present = record[FOUND].get("fingerprint")
    if present != facts.fingerprint:
        _refuse(run, [f"fingerprint {present} then, {facts.fingerprint} now"], "was begun with other model weights")


def model_files(model: str) -> list[dict[str, Any]]:
    """The files that make the model what it is, each with size, modification and the hash of its content.

    Empty where the model is not on this machine; workers then tell by its fingerprint.
    """
    folder = model_folder(model)
    return [] if folder is None else [_model_file(folder, path) for path in _deciding(folder)]


def check_same_model_files(run: Store, record: Mapping[str, Any], model: str) -> None:
    """RunError where files of the model are other than when the run began, as far as they are on this machine."""
    listed = record[FOUND].get("model_files")
    then = {str(one.get("file")): one for one in listed if isinstance(one, dict)} if isinstance(listed, list) else {}
    folder = model_folder(model) if then else None
    if folder is None:
        return
    now = {path.relative_to(folder).as_posix(): path for path in _deciding(folder)}
    differing: list[str] = []
    for name in dict.fromkeys([*then, *now]):
        if name not in now or name not in then:
            differing.append(f"{name}: {'no longer there' if name in then else 'not there then'}")
            continue
        was, found = then[name], now[name].stat()
        if was.get("size") != found.st_size:
            differing.append(f"{name}: size {was.get('size')} then, {found.st_size} now")
        elif was.get("modified") != _modified(found.st_mtime) and was.get("sha256") != _content(now[name]):
            differing.append(
                f"{name}: other content, modified {was.get('modified')} then, {_modified(found.st_mtime)} now"
            )
    _refuse(run, differing, f"was begun with other files of model {model}")


def _deciding(folder: Path) -> list[Path]:
    """Weights, configuration and tokenizer below a model's folder; not its papers, nor exports for other runtimes."""
    found = [path for path in folder.rglob("*") if path.suffix in DECIDING and path.is_file()]
    return sorted(path for path in found if path.relative_to(folder).parts[0] not in ("onnx", "openvino", "eval"))


def _model_file(folder: Path, path: Path) -> dict[str, Any]:
    found = path.stat()
    return {
        "file": path.relative_to(folder).as_posix(),
        "size": found.st_size,
        "modified": _modified(found.st_mtime),
        "sha256": _content(path),
    }


def _content(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _modified(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def check_ours(run: Store) -> None:
    """RunError where a directory without ``job.yaml`` holds anything that a run would not have put there.

    A lone ``_SUCCESS`` is another program's: left there, it would call an unfinished run finished.
    """
    foreign = [name for name in run.list("") if name not in OWN_AT_TOP]
    foreign += [name for folder in FOLDERS for name in run.list(folder) if not is_own(name)]
    # Parts without a job.yaml are not taken for this job's.
    foreign += [name for name in run.list("attributions") if is_own(name)]
    if foreign:
        some = ", ".join(foreign[:3])
        raise RunError(f"{run.url}: is not empty and not a run of tokenpair (it holds {some}); choose another output")


def is_own(name: str) -> bool:
    """Whether ``name`` is one that a run writes below its folders."""
    folder, _, file = name.partition("/")
    pattern = OWN_FILES.get(folder)
    return folder == "statistics" or (pattern is not None and re.fullmatch(pattern, file) is not None)


def wipe(run: Store) -> int:
    """Remove a run's own files, and no others; the number removed.

    ``job.yaml`` goes last: until then it is a run. Wherever this is interrupted, no part is left that counts as done
    while its texts or rejects are gone.
    """
    names = [name for name in (SUCCESS, *OWN_AT_TOP) if run.exists(name)]
    for folder in FOLDERS:
        found = [name for name in run.list(folder) if is_own(name)]
        # The manifest first: a plan whose pairs are gone would still be taken for one.
        names += sorted(found, key=lambda name: name != MANIFEST)
    names += [JOB_FILE] if run.exists(JOB_FILE) else []
    for name in names:
        run.remove(name)
    return len(names)


def half_removed(run: Store) -> bool:
    """Whether ``wipe`` was interrupted so late that neither a plan nor a finished shard is left to go on from."""
    return not (run.exists(SUCCESS) or run.exists(MANIFEST) or finished_shards(run))


def tidy(run: Store) -> None:
    """Remove the folder that only helped to write the run, unless another process has something there."""
    if isinstance(run, LocalStore):
        with contextlib.suppress(OSError):
            (run.root / PENDING).rmdir()


def _refuse(run: Store, differing: list[str], why: str) -> None:
    if differing:
        ways = "choose another output, or --restart to throw that run away"
        raise RunError(f"{run.url}: {why} ({ways}): {'; '.join(differing)}")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
