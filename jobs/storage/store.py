"""A run directory, local or on S3, in which a file is whole or absent and the first writer of a name wins."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sys
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from jobs.errors import StoreError
from jobs.storage.durable import publish, remove_abandoned, sync_folder, write_through
from jobs.storage.s3 import (
    Failure,
    StorageSettings,
    bucket_of,
    checked_url,
    describe,
    endpoint_of,
    failure_of,
    open_s3,
    retried,
    store_failures,
)

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset

T = TypeVar("T")

# A store that is away for a while must not cost a finished computation.
PATIENCE_SECONDS = 300.0
PENDING = ".pending"
PENDING_SECONDS = 3600.0


class Store(ABC):
    """A run directory. Names are relative to it, with forward slashes.

    Every method raises StoreError in one line that holds no secret. After :meth:`open`, which answers within
    seconds, transient failures (no answer, server busy) are retried for ``patience`` seconds.
    """

    url: str
    patience: float = PATIENCE_SECONDS

    @staticmethod
    def open(url: str | os.PathLike[str], options: StorageSettings | None = None, *, patient: bool = False) -> Store:
        """The store at a local path or ``s3://bucket/folder``; StoreError when it cannot be reached or listed.

        With ``patient`` opening is retried on transient failures: for a store that another process opened already.
        """
        text = os.fspath(url)
        if text.startswith("s3://"):
            return S3Store(text, options, patient=patient)
        if "://" in text and not text.startswith("file://"):
            raise StoreError(f"{text.split('://')[0]}:// is not supported; give a local path or s3://bucket/folder")
        return LocalStore(text.removeprefix("file://"))

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether the file ``name`` exists; a file that exists is complete."""

    @abstractmethod
    def mark(self, name: str) -> str | None:
        """Return a value that changes when ``name`` is replaced, read without its content; None where it is absent."""

    @abstractmethod
    def read(self, name: str, most: int | None = None) -> bytes:
        """All bytes of ``name``; StoreError where there are more than ``most``, which are then not read."""

    @abstractmethod
    def read_ranges(self, ranges: Sequence[tuple[str, int, int | None]]) -> Sequence[bytes | StoreError]:
        """Bytes ``start`` to ``end`` of files, ``(name, start, end)`` each, all at once; errors stand in their places.

        A negative ``start`` with no ``end`` is that many bytes from the file's end.
        """

    @abstractmethod
    def list(self, folder: str) -> list[str]:
        """Names of the files right below ``folder``, sorted; empty where there is no such folder."""

    @abstractmethod
    def commit(self, name: str, data: bytes) -> bool:
        """Write ``name`` unless it exists already; return False where it did, and do not change it."""

    @abstractmethod
    def commit_file(self, name: str, path: Path) -> bool:
        """:meth:`commit` of a local file that need not fit into memory."""

    @abstractmethod
    def replace(self, name: str, data: bytes) -> None:
        """Write ``name``, replacing an existing file in one step."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove ``name`` if it is there."""

    @abstractmethod
    def open_input(self, name: str) -> BinaryIO:
        """``name`` as a seekable binary file."""

    @abstractmethod
    def check_writable(self) -> None:
        """Write and remove a small file; StoreError when that is not permitted."""

    @abstractmethod
    def guard(self, doing: str, name: str) -> contextlib.AbstractContextManager[None]:
        """Turn failures of the store inside the block into StoreError."""

    @abstractmethod
    def attempt(self, doing: str, name: str, act: Callable[[], T]) -> T:
        """Return what ``act`` returns, retried with growing pauses for ``patience`` seconds on transient failures."""

    @abstractmethod
    def _arrow(self) -> tuple[Any, str]:
        """A pyarrow file system and the run directory's path in it."""

    def dataset(self, folder: str, format: str, schema: pa.Schema | None = None) -> pyarrow.dataset.Dataset:
        """The parts of ``folder`` as one dataset; without any part an empty one of ``schema``."""
        import pyarrow.dataset as ds  # tokenpair status starts sooner without

        suffix = ".arrow" if format == "arrow" else ".parquet"
        names = [name for name in self.list(folder) if name.endswith(suffix)]
        file_format = ds.IpcFileFormat() if format == "arrow" else ds.ParquetFileFormat()
        if not names:
            if schema is None:
                raise StoreError(f"there is no part in {self.url}/{folder}")
            return ds.dataset(schema.empty_table())
        system, root = self._arrow()
        paths = [f"{root}/{n}" for n in names]
        return self.attempt("read", folder, lambda: ds.dataset(paths, format=file_format, filesystem=system))

    def _at_most(self, data: bytes, name: str, most: int | None) -> bytes:
        if most is not None and len(data) > most:
            raise StoreError(f"{self.describe_name(name)}: is larger than {most >> 20} MiB; no run writes such a file")
        return data

    def describe_name(self, name: str) -> str:
        """Where ``name`` is, for a message."""
        return f"{self.url}/{name}" if name else self.url


class LocalStore(Store):
    """A run directory on a file system of this machine."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.root = Path(path).expanduser().absolute()
        self.url = str(self.root)
        try:
            os.fsencode(self.root)
        except UnicodeEncodeError:
            encoding = sys.getfilesystemencoding()
            raise StoreError(
                f"{self.url}: this Python writes file names as {encoding}; start it with PYTHONUTF8=1"
            ) from None
        if self.root.exists() and not self.root.is_dir():
            raise StoreError(f"{self.url} is a file; a run needs a directory")
        with self.guard("open", ""):
            if self.root.is_dir():
                os.listdir(self.root)

    def exists(self, name: str) -> bool:
        with self.guard("look at", name):
            return self.path(name).is_file()

    def mark(self, name: str) -> str | None:
        with self.guard("look at", name):
            try:
                now = self.path(name).stat()
            except FileNotFoundError:
                return None
        return f"{now.st_ino}-{now.st_mtime_ns}-{now.st_size}"

    def read(self, name: str, most: int | None = None) -> bytes:
        with self.guard("read", name), open(self.path(name), "rb") as file:
            return self._at_most(file.read(-1 if most is None else most + 1), name, most)

    def read_ranges(self, ranges: Sequence[tuple[str, int, int | None]]) -> Sequence[bytes | StoreError]:
        return [_or_error(functools.partial(self._range, *one)) for one in ranges]

    def _range(self, name: str, start: int, end: int | None) -> bytes:
        with self.guard("read", name), open(self.path(name), "rb") as file:
            file.seek(max(start, -self.path(name).stat().st_size), os.SEEK_END if start < 0 else os.SEEK_SET)
            return file.read(-1 if end is None else end - start)

    def list(self, folder: str) -> list[str]:
        path = self.path(folder)
        with self.guard("list", folder):
            if not path.is_dir():
                return []
            # A link is no part: :meth:`path` refuses it, and a dataset would read what it names.
            there = (e for e in os.scandir(path) if e.is_file(follow_symlinks=False))
            names = sorted(e.name for e in there if not e.name.startswith("."))
        return [f"{folder}/{name}" if folder else name for name in names]

    def commit(self, name: str, data: bytes) -> bool:
        with self.guard("write", name), self._aside() as aside:
            write_through(aside, data)
            return publish(aside, self.path(name))

    def commit_file(self, name: str, path: Path) -> bool:
        with self.guard("write", name), self._aside() as aside:
            with open(path, "rb") as source, open(aside, "xb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
                target.flush()
                os.fsync(target.fileno())
            return publish(aside, self.path(name))

    def replace(self, name: str, data: bytes) -> None:
        target = self.path(name)
        with self.guard("write", name), self._aside() as aside:
            write_through(aside, data)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(aside, target)
            sync_folder(target.parent)

    def remove(self, name: str) -> None:
        with self.guard("remove", name):
            self.path(name).unlink(missing_ok=True)

    def open_input(self, name: str) -> BinaryIO:
        with self.guard("read", name):
            return open(self.path(name), "rb")

    def check_writable(self) -> None:
        with self.guard("write to", ""):
            with self._aside() as aside:
                write_through(aside, b"tokenpair")
            remove_abandoned(self.path(PENDING), PENDING_SECONDS)

    @contextlib.contextmanager
    def guard(self, doing: str, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = os.strerror(error.errno).lower() if error.errno else type(error).__name__
            raise StoreError(f"cannot {doing} {self.describe_name(name)}: {reason}") from None

    def attempt(self, doing: str, name: str, act: Callable[[], T]) -> T:
        with self.guard(doing, name):
            return act()

    def _arrow(self) -> tuple[Any, str]:
        from pyarrow.fs import LocalFileSystem

        return LocalFileSystem(), self.root.as_posix()

    def path(self, name: str) -> Path:
        """Where ``name`` is; StoreError where that would be outside of the run directory."""
        path = self.root / _checked_name(name)
        # Links would let a run directory from elsewhere have files outside of it written, replaced or removed.
        for part in (path, *path.parents):
            if part == self.root:
                break
            if part.is_symlink():
                raise StoreError(
                    f"{part}: is a link, which a run directory must not contain; replace it by the file itself"
                )
        return path

    @contextlib.contextmanager
    def _aside(self) -> Iterator[Path]:
        # One folder apart from the parts: what a killed process leaves behind is never listed as a part.
        folder = self.path(PENDING)
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / uuid.uuid4().hex
        try:
            yield aside
        finally:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)


class S3Store(Store):
    """A run directory below a prefix of an S3 bucket."""

    def __init__(self, url: str, options: StorageSettings | None, *, patient: bool = False) -> None:
        self.url = checked_url(url)
        self._bucket = bucket_of(self.url)
        self._prefix = self.url.removeprefix(f"s3://{self._bucket}").strip("/")
        self._endpoint = endpoint_of(options)
        self._fs = open_s3(options)
        with self.guard("open", ""):
            self.attempt("open", "", self._first) if patient else self._first()

    def exists(self, name: str) -> bool:
        return self.mark(name) is not None

    def mark(self, name: str) -> str | None:
        def head() -> dict[str, Any]:
            return cast("dict[str, Any]", self._fs.call_s3("head_object", Bucket=self._bucket, Key=self._key(name)))

        try:
            answer = self.attempt("look at", name, head)
        except _MissingError:
            return None
        return f"{answer.get('ETag')}-{answer.get('LastModified')}"

    def read(self, name: str, most: int | None = None) -> bytes:
        return self._at_most(self.attempt("read", name, lambda: self._bytes(name, most)), name, most)

    def _bytes(self, name: str, most: int | None) -> bytes:
        try:
            return cast(bytes, self._fs.cat_file(self._path(name), end=None if most is None else most + 1))
        except OSError as error:
            # The first bytes of a file without any, as _SUCCESS of a training, are a range that it does not have.
            if most is None or not failure_of(error).beyond_end:
                raise
            return b""

    def read_ranges(self, ranges: Sequence[tuple[str, int, int | None]]) -> Sequence[bytes | StoreError]:
        paths, starts, ends = (
            [self._path(name) for name, *_ in ranges],
            *zip(*[one[1:] for one in ranges], strict=True),
        )
        answers = self._fs.cat_ranges(paths, list(starts), list(ends), on_error="return")
        # What failed is read again by itself, with the pauses of :meth:`attempt`.
        return [
            answer if isinstance(answer, bytes) else _or_error(functools.partial(self._range, *one))
            for one, answer in zip(ranges, answers, strict=True)
        ]

    def _range(self, name: str, start: int, end: int | None) -> bytes:
        return self.attempt("read", name, lambda: cast(bytes, self._fs.cat_file(self._path(name), start, end)))

    def list(self, folder: str) -> list[str]:
        names: list[str] = []
        token: str | None = None
        prefix = self._key(folder) + "/" if folder else (self._prefix + "/" if self._prefix else "")
        start = len(self._prefix) + 1 if self._prefix else 0
        while True:
            page = self.attempt("list", folder, functools.partial(self._page, prefix, token, 1000))
            names += [item["Key"][start:] for item in page.get("Contents", []) if not item["Key"].endswith("/")]
            token = page.get("NextContinuationToken")
            if not page.get("IsTruncated") or not token:
                return sorted(names)

    def commit(self, name: str, data: bytes) -> bool:
        # One PUT, never a multipart upload: whole or absent, and cheap to lose.
        def put() -> None:
            self._fs.pipe_file(self._path(name), data, mode="create", chunksize=len(data) + 1)

        return self._create(name, put)

    def commit_file(self, name: str, path: Path) -> bool:
        return self._create(name, lambda: self._fs.put_file(str(path), self._path(name), mode="create"))

    def replace(self, name: str, data: bytes) -> None:
        self.attempt("write", name, lambda: self._fs.pipe_file(self._path(name), data, chunksize=len(data) + 1))

    def remove(self, name: str) -> None:
        self.attempt(
            "remove", name, lambda: self._fs.call_s3("delete_object", Bucket=self._bucket, Key=self._key(name))
        )

    def open_input(self, name: str) -> BinaryIO:
        return cast(BinaryIO, self.attempt("read", name, lambda: self._fs.open(self._path(name), "rb")))

    def check_writable(self) -> None:
        name = f"{PENDING}/{uuid.uuid4().hex}"
        with self.guard("write to", ""):
            self._fs.pipe_file(self._path(name), b"tokenpair")
        # Credentials that may write but not delete are enough for a run.
        with contextlib.suppress(Exception):
            self._fs.call_s3("delete_object", Bucket=self._bucket, Key=self._key(name))

    @contextlib.contextmanager
    def guard(self, doing: str, name: str) -> Iterator[None]:
        try:
            yield
        except store_failures() as error:
            raise self._error(failure_of(error), doing, name) from None

    def _create(self, name: str, put: Callable[[], None]) -> bool:
        try:
            self.attempt("write", name, put)
        except _ExistsError:
            return False
        return True

    def attempt(self, doing: str, name: str, act: Callable[[], T]) -> T:
        with self.guard(doing, name):
            return retried(act, self.patience)

    def _error(self, failure: Failure, doing: str, name: str) -> StoreError:
        kind = {"exists": _ExistsError, "missing": _MissingError}.get(failure.kind, StoreError)
        return kind(describe(failure, self.describe_name(name), doing, self._endpoint))

    def _first(self) -> object:
        return self._page("", None, 1)

    def _page(self, prefix: str, token: str | None, size: int) -> dict[str, Any]:
        more = {"ContinuationToken": token} if token else {}
        answer = self._fs.call_s3(
            "list_objects_v2", Bucket=self._bucket, Prefix=prefix, Delimiter="/", MaxKeys=size, **more
        )
        return cast("dict[str, Any]", answer)

    def _arrow(self) -> tuple[Any, str]:
        from pyarrow.fs import FSSpecHandler, PyFileSystem

        return PyFileSystem(FSSpecHandler(self._fs)), "/".join(p for p in (self._bucket, self._prefix) if p)

    def _key(self, name: str) -> str:
        name = _checked_name(name)
        return f"{self._prefix}/{name}" if self._prefix else name

    def _path(self, name: str) -> str:
        return f"{self._bucket}/{self._key(name)}"


def _or_error(act: Callable[[], bytes]) -> bytes | StoreError:
    try:
        return act()
    except StoreError as error:
        return error


class _ExistsError(StoreError):
    """The name is taken."""


class _MissingError(StoreError):
    """There is nothing of that name."""


def _checked_name(name: str) -> str:
    if name.startswith("/") or ".." in name.split("/"):
        raise StoreError(f"{name!r} is not a name inside a run directory")
    return name
