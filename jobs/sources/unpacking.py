"""Reads text files as UTF-8 with line feeds, decompressed by their first bytes and not by their names."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import zipfile
from typing import Any, BinaryIO, cast

import pyarrow as pa

from jobs.errors import SourceError

HEAD_BYTES = 256 << 10
SHOWN_MEMBERS = 5
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")
LINE_END = re.compile(r"\r\n|\r|\n")
GZIP, ZSTD, BZIP2, XZ, ZIP = "gzip", "zstd", "bzip2", "xz", "zip"
SUFFIXES = {".gz": GZIP, ".zst": ZSTD, ".zstd": ZSTD, ".bz2": BZIP2, ".xz": XZ, ".zip": ZIP}
_PACKED = {
    GZIP: rb"\x1f\x8b\x08",
    ZSTD: rb"\x28\xb5\x2f\xfd",
    BZIP2: rb"BZh[1-9](1AY&SY|\x17rE8P\x90)",
    XZ: rb"\xfd7zXZ\x00",
    ZIP: rb"PK(\x03\x04|\x05\x06)",
}
# What is no text of rows, by its first bytes, and what to do about it.
_NO_TEXT = {
    rb"PAR1": "is Parquet; name it .parquet",
    rb"ARROW1|FEA1": "is Arrow or Feather; name it .arrow",
    rb"version https://git-lfs": "is a pointer of git-lfs, not the file itself; run git lfs pull",
    rb"7z\xbc\xaf\x27\x1c": "is a 7z archive; unpack it first",
    rb"Rar!\x1a\x07": "is a rar archive; unpack it first",
    rb"\x04\x22\x4d\x18": "is packed with lz4; unpack it first",
    rb"\x1f\x9d": "is packed with compress (.Z); unpack it first",
    rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "is an Office file, such as an old Excel workbook; save it as CSV",
    rb"Obj\x01": "is Avro; write it as Parquet or JSONL",
    rb"ORC": "is ORC; write it as Parquet or JSONL",
    rb"SQLite format 3\x00": "is an SQLite database; export the table as CSV",
    rb"%PDF-": "is a PDF file; rows of text are needed",
    rb"(?i)\s*(<!doctype html|<html)": "is a web page (HTML), perhaps of a failed download; download the file itself",
}
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
FAILURES: tuple[type[BaseException], ...] = (zipfile.BadZipFile, lzma.LZMAError, EOFError)


class PlainText(io.RawIOBase):
    """Text that is read from its beginning to its end only. ``encoding`` is what its bytes were before, in words."""

    def __init__(self, raw: BinaryIO, head: bytes, source: Any, encoding: str | None, returns: bool) -> None:
        super().__init__()
        self._raw = raw
        self.encoding = None if encoding is None else encoding.upper().removesuffix("-LE").removesuffix("-BE")
        self._head = head
        self._source = source
        # Half a surrogate pair stays what it is, so that its line is the one that is not valid.
        self._decoder = None if encoding is None else codecs.getincrementaldecoder(encoding)("surrogatepass")
        self._returns = returns

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        """At most about ``size`` bytes, all there is where it is negative; none at the end alone."""
        parts: list[bytes] = []
        while True:
            data, self._head = self._head or self._source.read(-1 if size is None else size), b""
            if size is not None and 0 <= size < len(data):
                data, self._head = data[:size], data[size:]
            parts.append(self._plain(data))
            if not data or (parts[-1] and size is not None and size >= 0):
                return b"".join(parts)

    def _plain(self, data: bytes) -> bytes:
        if self._decoder is not None:
            try:
                text = self._decoder.decode(data, final=not data)
            except UnicodeDecodeError:
                raise SourceError(f"is {self.encoding} that is damaged or cut short; save it as UTF-8") from None
            data = text.encode("utf-8", "surrogatepass")
        return data.replace(b"\r", b"\n") if self._returns else data

    def close(self) -> None:
        if not self.closed:
            self._source.close()
            self._raw.close()
        super().close()


def unpacked(raw: BinaryIO, named: str | None) -> BinaryIO:
    """The text in ``raw``, a seekable file at its beginning; what is no plain text comes as :class:`PlainText`.

    ``named`` is the compression that the file's name says. Raises SourceError, without the file's name, where the
    content is no text, and what the unpacking raises where it is damaged.
    """
    packed = _packing(raw.read(64))
    raw.seek(0)
    stream = _opened(raw, packed) if packed is not None else raw
    head = read_fully(stream, HEAD_BYTES)
    _refuse_other(head, packed, named)
    encoding = encoding_of(head)
    text = head.decode(encoding, "replace").encode() if encoding is not None else head
    returns = b"\r" in text and b"\n" not in text
    if packed is None and encoding is None and not returns:
        raw.seek(0)
        return raw
    return cast(BinaryIO, PlainText(raw, head, stream, encoding, returns))


def _packing(head: bytes) -> str | None:
    return next((name for name, begin in _PACKED.items() if re.match(begin, head)), None)


def _opened(raw: BinaryIO, packed: str) -> Any:
    if packed == GZIP:
        return gzip.GzipFile(fileobj=raw)
    if packed == BZIP2:
        return bz2.BZ2File(raw)
    if packed == XZ:
        return lzma.LZMAFile(raw)
    if packed == ZIP:
        return _only_member(raw)
    return pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")


def _only_member(raw: BinaryIO) -> Any:
    archive = zipfile.ZipFile(raw)
    names = [one.filename for one in archive.infolist() if not one.is_dir()]
    if "[Content_Types].xml" in names or "mimetype" in names:
        raise SourceError("is an Office file, such as an Excel workbook (.xlsx); save it as CSV")
    # A Mac puts its own notes beside the files.
    names = [name for name in names if not name.startswith("__MACOSX/") and not name.split("/")[-1].startswith(".")]
    if len(names) != 1:
        shown = ", ".join(names[:SHOWN_MEMBERS]) + (", …" if len(names) > SHOWN_MEMBERS else "")
        raise SourceError(
            f"is a zip archive of {len(names)} files ({shown or 'none'}); unpack it and name the one to read"
        )
    if archive.getinfo(names[0]).flag_bits & 1:
        raise SourceError("is a zip archive with a password; unpack it first")
    try:
        return archive.open(names[0])
    except NotImplementedError:
        raise SourceError("is a zip archive of a kind that is not supported; unpack it first") from None


def _refuse_other(head: bytes, packed: str | None, named: str | None) -> None:
    """SourceError where the bytes, unpacked, are no text of rows."""
    inside = f"{packed}: its content " if packed is not None else ""
    for begin, what in _NO_TEXT.items():
        if re.match(begin, head):
            raise SourceError(f"is {inside}{what}" if inside else what)
    if packed is not None and _packing(head) is not None:
        raise SourceError(f"is {packed} of {_packing(head)}: packed twice; unpack it first")
    if head[257:262] == b"ustar":
        raise SourceError("is a tar archive; unpack it first")
    if packed is None and named is not None and not _is_utf8(head) and encoding_of(head) is None:
        raise SourceError(f"is named as {named} and is neither that nor text: damaged or not that")


def encoding_of(head: bytes) -> str | None:
    """The encoding of text by how it begins, where it is UTF-16 or UTF-32, marked as such or not; else None."""
    marked = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
    if marked is not None or b"\0" not in head:
        return marked
    # Latin letters, and the line feeds and delimiters of any script, have a zero byte always on the same side.
    places = [head[at::4].count(0) for at in range(4)]
    zeros, nearly_all = sum(places), 0.95 * max(1, len(head) // 4)
    for name, empty, full in (("utf-32-le", places[2:], places[0]), ("utf-32-be", places[:2], places[3])):
        if len(head) >= 8 and min(empty) >= nearly_all and full < 0.1 * len(head):
            return name
    even, odd = places[0] + places[2], places[1] + places[3]
    if zeros >= 0.3 * len(head) and min(even, odd) <= 0.1 * max(even, odd):
        return "utf-16-le" if odd > even else "utf-16-be"
    # Scripts other than the Latin have few zeros, on either side, and are no UTF-8; their lines end as all lines do.
    if _is_utf8(head):
        return None
    ends = {name: _line_ends(head, name) for name in ("utf-16-le", "utf-16-be")}
    likely = max(ends, key=lambda name: ends[name])
    return likely if ends[likely] > 0 and min(ends.values()) <= 0.1 * ends[likely] else None


def _is_utf8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _line_ends(head: bytes, encoding: str) -> int:
    """How many line ends text has in an encoding; 0 where it is none."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return 0
    return 0 if CONTROL.search(text) else len(LINE_END.findall(text))


def read_fully(stream: Any, size: int) -> bytes:
    """The next ``size`` bytes, fewer at the end alone."""
    parts: list[bytes] = []
    while size > 0 and (part := stream.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
