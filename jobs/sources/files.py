"""The input files of a job: one file, a folder or a glob, on disk or on S3, with the format its name says."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from jobs.errors import SourceError, StoreError
from jobs.sources.saved_datasets import data_files
from jobs.sources.unpacking import FAILURES, SUFFIXES, unpacked
from jobs.storage.s3 import StorageSettings, checked_url, describe, endpoint_of, failure_of, open_s3, store_failures

KINDS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".ipc": "arrow",
    ".feather": "arrow",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
}
PACKED = ", ".join(SUFFIXES)
TEXT_KINDS = ("jsonl", "csv", "tsv")
# Text whose name does not say what it is made of.
LINES = "lines"
FINGERPRINT_BYTES = 1 << 16


@dataclass(frozen=True)
class InputFile:
    """One input file. ``name`` is its place below the folder that all inputs share, with forward slashes."""

    url: str
    name: str
    kind: str
    compression: str | None
    size: int
    modified: str
    system: Any = None  # an fsspec file system, or None for this machine's own
    endpoint: str | None = None

    def open(self) -> BinaryIO:
        """The stored bytes as a seekable file."""
        if self.system is None:
            return open(self.url, "rb")
        return cast(BinaryIO, self.system.open(self.url, "rb", block_size=8 << 20))

    def open_text(self) -> BinaryIO:
        """The bytes of a text format: UTF-8 with line feeds, unpacked by what the file holds, not by its name."""
        raw = self.open()
        try:
            return unpacked(raw, self.compression)
        except BaseException:
            raw.close()
            raise

    def fingerprint(self) -> str:
        """20 hex digits of the size, the first and the last 64 KiB: cheap, and changes with almost any edit."""
        digest = hashlib.sha256(str(self.size).encode())
        with self.guard(), self.open() as file:
            digest.update(file.read(FINGERPRINT_BYTES))
            if self.size > FINGERPRINT_BYTES:
                file.seek(max(FINGERPRINT_BYTES, self.size - FINGERPRINT_BYTES))
                digest.update(file.read())
        return digest.hexdigest()[:20]

    @property
    def fingerprints_all(self) -> bool:
        """Whether the fingerprint covers the whole file; of a large one it leaves out the middle."""
        return self.size <= 2 * FINGERPRINT_BYTES

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Turn errors of reading this file into a SourceError, or into a StoreError where S3 caused them."""
        try:
            yield
        except SourceError as error:
            # What is found further in does not know which file it is in.
            if self.url in str(error):
                raise
            raise SourceError(f"{self.url}: {error}") from None
        except StoreError:
            raise
        except (zlib.error, pa.ArrowException, *FAILURES, *store_failures()) as error:
            failure = failure_of(error)
            if self.system is not None and failure.kind not in ("other", "exists"):
                raise StoreError(describe(failure, self.url, "read", self.endpoint)) from None
            if isinstance(error, PermissionError):
                raise SourceError(f"{self.url}: no permission to read it") from None
            if isinstance(error, FileNotFoundError):
                raise SourceError(f"{self.url}: there is no such file") from None
            how = f" ({self.compression})" if self.compression else ""
            raise SourceError(
                f"{self.url}: cannot be read as {self.kind}{how}: damaged, cut short, or another format"
            ) from None


def resolve_inputs(
    inputs: str | Sequence[str], options: StorageSettings | None = None, *, any_name: bool = False
) -> list[InputFile]:
    """The files of ``inputs`` (files, folders, globs; entries in the order given, files of each sorted, none twice).

    With ``any_name`` a file whose name says no known format is taken as ``lines`` of text. Raises SourceError when an
    entry matches no file or a format is not known, StoreError when S3 fails.
    """
    entries = [inputs] if isinstance(inputs, str) else list(inputs)
    by_url: dict[str, InputFile] = {}
    system: Any = None
    for entry in entries:
        if entry.startswith("s3://"):
            system = system or open_s3(options)
            files = _s3_files(entry, system, endpoint_of(options), any_name)
        elif "://" in entry and not entry.startswith("file://"):
            raise SourceError(f"{entry.split('://')[0]}:// is not supported; give a local path or s3://bucket/key")
        else:
            files = _local_files(entry.removeprefix("file://"), any_name)
        if not files:
            raise SourceError(
                f"{entry}: no input file there; known are {', '.join(sorted(KINDS))}, text also with {PACKED}"
            )
        for file in files:
            by_url.setdefault(file.url, file)
    return named_together(list(by_url.values()))


def kind_of(url: str) -> tuple[str, str | None] | None:
    """Format and compression by a file's name, or None."""
    stem, suffix = os.path.splitext(url.lower())
    compression = SUFFIXES.get(suffix)
    if compression:
        suffix = os.path.splitext(stem)[1]
    kind = KINDS.get(suffix)
    if kind is None or (compression and kind not in TEXT_KINDS):
        return None
    return kind, compression


def _known(url: str, any_name: bool) -> tuple[str, str | None]:
    """:func:`kind_of`; SourceError where a name that says no format is not allowed."""
    known = kind_of(url)
    if known is None and any_name:
        known = LINES, SUFFIXES.get(os.path.splitext(url.lower())[1])
    if known is None:
        raise SourceError(
            f"{url}: its name has no known format; known are {', '.join(sorted(KINDS))}, text also with {PACKED}"
        )
    return known


def _local_files(entry: str, any_name: bool) -> list[InputFile]:
    path = Path(entry).expanduser().absolute()
    if path.is_dir():
        return _local_folder(path)
    if path.exists():
        return [_local_file(path, any_name)]
    if not glob.has_magic(entry):
        raise SourceError(f"{entry}: there is no such file or folder")
    matched = sorted(Path(p) for p in glob.glob(str(path), recursive=True))
    chosen = data_files([p.as_posix() for p in matched if p.is_file()], _local_bytes, None)
    files = [_local_file(Path(p), any_name) for p in chosen]
    return files or [file for p in matched if p.is_dir() for file in _local_folder(p)]


def _local_folder(folder: Path) -> list[InputFile]:
    paths = []
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if _is_data(name))
        paths += [Path(where, name) for name in names if _is_data(name) and _in_folder(name)]
    chosen = data_files([path.as_posix() for path in sorted(paths)], _local_bytes, folder.as_posix())
    return [_local_file(Path(path)) for path in chosen]


def _local_bytes(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except OSError:
        return None


def _local_file(path: Path, any_name: bool = False) -> InputFile:
    known = _known(str(path), any_name)
    try:
        stat = path.stat()
    except OSError:
        raise SourceError(f"{path}: no permission to read it") from None
    modified = datetime.fromtimestamp(stat.st_mtime, UTC).isoformat(timespec="microseconds")
    return InputFile(str(path), path.name, *known, stat.st_size, modified)


def _s3_files(entry: str, system: Any, endpoint: str | None, any_name: bool) -> list[InputFile]:
    url = checked_url(entry)
    key = url.removeprefix("s3://")
    try:
        listed = _s3_list(key, system)
    except Exception as error:
        failure = failure_of(error)
        if failure.kind == "missing":
            raise SourceError(f"{entry}: there is no such file or folder") from None
        if failure.kind == "other" and not isinstance(error, OSError):
            raise
        raise StoreError(describe(failure, url, "read", endpoint)) from None
    files = []
    for path in sorted(listed):
        known = _known(f"s3://{path}", any_name)
        info = listed[path]
        when = info.get("LastModified")
        modified = when.isoformat() if isinstance(when, datetime) else str(when)
        files.append(InputFile(f"s3://{path}", path, *known, int(info["size"]), modified, system, endpoint))
    return files


def _s3_list(key: str, system: Any) -> dict[str, dict[str, Any]]:
    """Size and time of the objects that ``bucket/key`` matches, by path."""
    try:
        info = system.info(key)
    except FileNotFoundError as error:
        if failure_of(error).kind == "bucket" or not glob.has_magic(key):
            raise
        matched = cast("dict[str, dict[str, Any]]", system.glob(key, detail=True))
        paths = sorted(path for path, info in matched.items() if info["type"] == "file")
        return {path: matched[path] for path in data_files(paths, lambda path: _s3_bytes(path, system), None)}
    if info["type"] == "file":
        return {key: info}
    below = cast("dict[str, dict[str, Any]]", system.find(key, detail=True))
    inside = {path: path[len(key) :].strip("/").split("/") for path in below}
    paths = sorted(p for p, parts in inside.items() if all(map(_is_data, parts)) and _in_folder(parts[-1]))
    # The listing says what is there, so that only what is there is asked for.
    chosen = data_files(paths, lambda path: _s3_bytes(path, system) if path in below else None, key.rstrip("/"))
    return {path: below[path] for path in chosen}


def _s3_bytes(path: str, system: Any) -> bytes | None:
    try:
        return cast(bytes, system.cat_file(path))
    except FileNotFoundError:
        return None


def _is_data(name: str) -> bool:
    return bool(name) and not name.startswith((".", "_"))


def _in_folder(name: str) -> bool:
    # A .json beside data files is nearly always their description; it is read only when asked for by name.
    known = kind_of(name)
    return known is not None and ".json" not in (Path(name).suffix, Path(Path(name).stem).suffix)


def named_together(files: list[InputFile]) -> list[InputFile]:
    """Files with names relative to the deepest folder that holds them all; the whole address where none does."""
    folders = {file.url.rpartition("/")[0] if file.system is not None else os.path.dirname(file.url) for file in files}
    if len({folder.startswith("s3://") for folder in folders}) > 1:
        return [replace(file, name=file.url) for file in files]
    parts = [folder.replace(os.sep, "/").split("/") for folder in sorted(folders)]
    depth = 0
    while all(len(one) > depth and one[depth] == parts[0][depth] for one in parts):
        depth += 1
    skip = len("/".join(parts[0][:depth])) + 1
    return [replace(file, name=file.url.replace(os.sep, "/")[skip:]) for file in files]
