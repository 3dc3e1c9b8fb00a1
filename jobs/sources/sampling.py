"""A sample of a whole text file: a small file entirely, of a large one its beginning and pieces up to its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from jobs.sources.files import InputFile
from jobs.sources.lines import MARK
from jobs.sources.unpacking import PlainText, read_fully

HEAD_BYTES = 4 << 20
PIECE_BYTES = 256 << 10
PIECES = 16
# What is packed has to be unpacked up to a piece, so beyond this much text nothing more is looked at.
MOST_UNPACKED = 1 << 30


@dataclass(frozen=True)
class Piece:
    """Whole lines that stand together in a file, without their ends; ``last`` where the file ends with them."""

    lines: list[str]
    last: bool


@dataclass(frozen=True)
class Sample:
    """Pieces of a file in their order, the first of them its beginning. ``encoding``: what it is if not UTF-8."""

    pieces: list[Piece]
    encoding: str | None


def sample_of(file: InputFile) -> Sample:
    """The sample of a text file, the same every time; SourceError or StoreError where it cannot be read."""
    with file.guard(), file.open_text() as stream:
        head = read_fully(stream, HEAD_BYTES + PIECES * PIECE_BYTES)
        whole = len(head) < HEAD_BYTES + PIECES * PIECE_BYTES
        pieces = [_piece(head.removeprefix(MARK), first=True, last=whole)]
        if not whole and stream.seekable():
            pieces += _sought(stream, len(head), file.size)
        elif not whole:
            pieces += _met(stream)
        return Sample(pieces, stream.encoding if isinstance(stream, PlainText) else None)


def _sought(stream: BinaryIO, start: int, end: int) -> list[Piece]:
    """Pieces at even distances, the last of them at the end."""
    found = []
    last = max(start, end - PIECE_BYTES)
    for at in range(1, PIECES + 1):
        stream.seek(start + (last - start) * at // PIECES)
        found.append(_piece(read_fully(stream, PIECE_BYTES), first=False, last=at == PIECES))
    return found


def _met(stream: BinaryIO) -> list[Piece]:
    """Pieces at even distances of what can be read only once, and the last one met."""
    kept: list[tuple[int, bytes]] = []
    step, at, last = 1, 0, b""
    while at * PIECE_BYTES < MOST_UNPACKED and (data := read_fully(stream, PIECE_BYTES)):
        if at % step == 0:
            kept.append((at, data))
        last, at = data, at + 1
        if len(kept) > PIECES:
            step *= 2
            kept = [one for one in kept if one[0] % step == 0]
    ended = not stream.read(1)
    found = [_piece(data, first=False, last=False) for number, data in kept if number != at - 1]
    return [*found, _piece(last, first=False, last=ended)] if last else found


def _piece(data: bytes, *, first: bool, last: bool) -> Piece:
    lines = data.decode("utf-8", "replace").split("\n")
    if not last or not lines[-1]:
        lines.pop()  # cut somewhere, or what stands behind the last line feed
    return Piece([line.removesuffix("\r") for line in (lines if first else lines[1:])], last)
