"""The rows of an index's documents in its files, and what an update changes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.index.format import id_hash
from jobs.index.hashes import part_hashes
from jobs.index.snapshot import IDS_SCHEMA, Part
from jobs.run.tables import RESULT_OF
from jobs.storage.store import Store


@dataclass(frozen=True)
class Changes:
    """What a build changed: documents added, changed and removed, and how many stayed as they were."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0

    def line(self) -> str:
        """The changes as a line of the summary."""
        words = [
            f"{count:,} {what}"
            for count, what in (
                (self.added, "added"),
                (self.changed, "changed"),
                (self.removed, "removed"),
                (self.unchanged, "unchanged"),
            )
            if count
        ]
        return f"changes  {', '.join(words) or 'none'}"


@dataclass(frozen=True)
class Rows:
    """The rows of documents in parts, as arrays of one entry each; ``file`` is a place in ``files``."""

    files: tuple[Part, ...]
    hash: NDArray[np.uint64]
    text_hash: NDArray[np.uint64]
    file: NDArray[np.uint32]
    row: NDArray[np.uint32]

    @staticmethod
    def of(files: Sequence[Part], ids: pa.Table) -> Rows:
        """The rows of an ids table."""
        return Rows(tuple(files), *(ids[name].to_numpy() for name in IDS_SCHEMA.names))

    def select(self, chosen: NDArray[np.bool_]) -> Rows:
        """Those rows that are ``chosen``."""
        return Rows(self.files, self.hash[chosen], self.text_hash[chosen], self.file[chosen], self.row[chosen])

    def then(self, more: Rows) -> tuple[tuple[Part, ...], pa.Table]:
        """These rows and ``more`` as parts and the ids table of a snapshot; parts without a row are left out."""
        files = (*self.files, *more.files)
        file = np.concatenate([self.file, more.file + np.uint32(len(self.files))])
        used, part = np.unique(file, return_inverse=True)
        columns = (
            np.concatenate([self.hash, more.hash]),
            np.concatenate([self.text_hash, more.text_hash]),
            part.astype(np.uint32),
            np.concatenate([self.row, more.row]),
        )
        return tuple(files[at] for at in used.tolist()), pa.table(dict(zip(IDS_SCHEMA.names, columns, strict=True)))


NO_ROWS = Rows.of((), IDS_SCHEMA.empty_table())


def computed_rows(root: Store, generation: str) -> Rows:
    """The documents that a generation computed."""
    names = root.list(f"{generation}/{RESULT_OF['index']}")
    hashes = [part_hashes(root, name) for name in names]
    files = [Part(name, len(table)) for name, table in zip(names, hashes, strict=True)]
    empty = pa.table({"hash": pa.array([], pa.uint64()), "text_hash": pa.array([], pa.uint64())})
    together = pa.concat_tables([empty, *hashes])
    sizes = [part.documents for part in files]
    return Rows(
        tuple(files),
        together["hash"].to_numpy(),
        together["text_hash"].to_numpy(),
        np.repeat(np.arange(len(files), dtype=np.uint32), sizes),
        np.concatenate([np.zeros(0, np.uint32), *(np.arange(size, dtype=np.uint32) for size in sizes)]),
    )


def merged(
    before: Rows, corpus: pa.Table, fresh: Rows, *, partial: bool, remove: Sequence[str]
) -> tuple[Rows, Rows, Changes]:
    """The rows of ``before`` that stay, those of ``fresh`` that are taken, and what that changes.

    ``corpus`` has the hashes of the documents that the corpus holds now, sorted by ``hash``.
    """
    hashes, texts = corpus["hash"].to_numpy(), corpus["text_hash"].to_numpy()
    place = np.minimum(np.searchsorted(hashes, before.hash), max(len(hashes) - 1, 0))
    named = hashes[place] == before.hash if len(hashes) else np.zeros(len(before.hash), bool)
    same = named & (texts[place] == before.text_hash) if len(hashes) else named
    removed = np.array([id_hash(one) for one in remove], np.uint64)
    stays = (same | ~named if partial else same) & ~np.isin(before.hash, removed)
    taken = fresh.select(~np.isin(fresh.hash, removed))
    new = ~np.isin(taken.hash, before.hash)
    changes = Changes(
        added=int(new.sum()),
        changed=int((~new).sum()),
        removed=len(before.hash) - int(stays.sum()) - int((~new).sum()),
        unchanged=int(stays.sum()),
    )
    return before.select(stays), taken, changes
