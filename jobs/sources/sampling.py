"""A sample of a whole text file: its beginning, and further pieces that show how it is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from jobs.sources.files import InputFile
from jobs.sources.lines import MARK
from jobs.sources.unpacking import PlainText, read_fully

HEAD_BYTES = 1 << 20
PIECE_BYTES = 128 << 10
# Pieces with a quote in them, which tell most, and others.
PIECES, OTHERS = 16, 4
LONGEST_LINE = 4 << 20
# So much is looked through from the beginning on; of a larger file that need not be unpacked a few pieces more.
LOOKED_THROUGH = 1 << 30


@dataclass(frozen=True)
class Piece:
    """Consecutive whole lines of a file, without their ends; ``last`` where the file ends with them."""

    lines: list[str]
    last: bool


@dataclass(frozen=True)
class Sample:
    """Pieces of a file in their order, the first of them its beginning. ``encoding``: what it is if not UTF-8."""

    pieces: list[Piece]
    encoding: str | None


@dataclass
class _Thinned:
    """At most ``most`` of the pieces that it was given, at even distances."""

    most: int
    kept: list[tuple[int, int, bytes]] = field(default_factory=list)
    step: int = 1
    met: int = 0

    def add(self, place: int, data: bytes) -> None:
        if self.met % self.step == 0:
            self.kept.append((self.met, place, data))
        self.met += 1
        if len(self.kept) > self.most:
            self.step *= 2
            self.kept = [one for one in self.kept if one[0] % self.step == 0]


def sample_of(file: InputFile) -> Sample:
    """The sample of a text file, the same every time; SourceError or StoreError where it cannot be read."""
    with file.guard(), file.open_text() as stream:
        head = read_fully(stream, HEAD_BYTES)
        encoding = stream.encoding if isinstance(stream, PlainText) else None
        while len(head) >= HEAD_BYTES and b"\n" not in head and len(head) < LONGEST_LINE:
            head += stream.read(PIECE_BYTES) or b"\n"
        if len(head) < HEAD_BYTES:
            return Sample([_piece(head.removeprefix(MARK), last=True)], encoding)
        cut = head.rfind(b"\n") + 1
        quoted, others = _Thinned(PIECES), _Thinned(OTHERS)
        last = b""
        for place, data in enumerate(_pieces(stream, head[cut:])):
            (quoted if b'"' in data else others).add(place, data)
            last = data
        pieces = [_piece(head[:cut].removeprefix(MARK), last=False)]
        ended = not stream.read(1)
        lines_of = sorted((place, data) for _, place, data in (*quoted.kept, *others.kept))
        pieces += [_piece(data, last=False) for _, data in lines_of if data is not last]
        pieces.append(_piece(last, last=ended))
        if not ended and stream.seekable():
            pieces += _sought(stream, LOOKED_THROUGH, file.size)
        return Sample(pieces, encoding)


def _pieces(stream: BinaryIO, rest: bytes) -> Iterator[bytes]:
    """What follows in pieces of whole lines, as far as it is looked through."""
    read = 0
    while read < LOOKED_THROUGH and (data := read_fully(stream, PIECE_BYTES)):
        read += len(data)
        rest += data
        cut = rest.rfind(b"\n") + 1
        if cut:
            yield rest[:cut]
            rest = rest[cut:]
        elif len(rest) > LONGEST_LINE:
            rest = b""  # the line is rejected later; what is left of it counts as one
    if rest and read < LOOKED_THROUGH:
        yield rest


def _sought(stream: BinaryIO, start: int, end: int) -> list[Piece]:
    """Pieces at even distances, the last of them at the end."""
    places = []
    last = max(start, end - PIECE_BYTES)
    for at in range(1, PIECES + 1):
        stream.seek(start + (last - start) * at // PIECES)
        data = read_fully(stream, PIECE_BYTES)
        whole = data[data.find(b"\n") + 1 :]
        places.append(_piece(whole if at == PIECES else whole[: whole.rfind(b"\n") + 1], last=at == PIECES))
    return places


def _piece(data: bytes, *, last: bool) -> Piece:
    lines = data.decode("utf-8", "replace").split("\n")
    if not lines[-1]:
        lines.pop()  # what stands behind the last line feed
    return Piece([line.removesuffix("\r") for line in lines], last)
