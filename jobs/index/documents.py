"""Documents of an index as arrays: those of one record batch, and single ones.

Shapes: N documents of a record batch, X rows of all of them (those of groups and the remainders), G groups of one
document, D the embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attribution_core.results import Floats
from attribution_core.text.grouping import KINDS
from jobs.index.format import part_schema, string_bytes, string_offsets
from jobs.index.snapshot import Facts

Array = NDArray[Any]
TEXT = KINDS.index("text")
# About what the Python objects of a batch's views take.
VIEW_BYTES = 8 << 10


@dataclass(frozen=True, eq=False)
class Document:
    """One document of an index: what each of its G groups adds to its embedding.

    ``starts`` and ``ends`` [G] are character offsets in the text, ``kinds`` [G] places in ``KINDS``. ``rows`` [G, D]
    sum to ``embedding`` [D] less ``remainder`` [D], which is the error of the integral and of the rounding. ``text``
    is None in an index without texts. ``residual``, ``truncated`` and ``cut_at`` are those of ``ExplainedText``.
    """

    id: str
    text: str | None
    starts: Array
    ends: Array
    kinds: Array
    rows: Floats
    remainder: Floats
    embedding: Floats
    residual: float
    truncated: bool
    cut_at: int | None
    nodes: int
    tokens: int


@dataclass(frozen=True, eq=False)
class LiveDocuments:
    """Some live documents of an index, for scans: rows of groups [Y, D], and the document [Y] that each is of.

    ``starts``, ``ends`` and ``kinds`` [Y] are those of the groups, ``remainders`` and ``embeddings`` [N, D] those of
    documents, ``residuals`` and ``truncated`` [N] too. ``texts`` is None in an index without texts.
    """

    ids: list[str]
    texts: list[str] | None
    rows: Floats
    documents: NDArray[np.int64]
    starts: Array
    ends: Array
    kinds: Array
    remainders: Floats
    embeddings: Floats
    residuals: Floats
    truncated: NDArray[np.bool_]


class StoredBatch:
    """A record batch of a part as views of its memory; row X of ``rows`` stands for ``scales[X] · rows[X]``.

    ``bounds`` [N + 1] says where each document's rows begin; its last row is the remainder. ``starts``, ``ends`` and
    ``is_text`` [X] are of the groups, 0 for remainders. ``own`` [X] is ĉ·e / ‖e‖², a row's share of the document
    itself, ``lengths`` [N] is ‖e‖.
    """

    def __init__(self, batch: pa.RecordBatch, nbytes: int = 0) -> None:
        """Read a checked batch; ValueError where its columns do not fit together."""
        self.batch = batch
        self._id_offsets = string_offsets(batch["id"]).tolist()
        self._id_bytes = string_bytes(batch["id"]).data
        self._has_texts = not batch["text"].null_count
        self._text_offsets = string_offsets(batch["text"]).tolist()
        self._text_bytes = string_bytes(batch["text"]).data
        self.truncated: list[bool] = batch["truncated"].to_pylist()
        first = batch["kinds"].offsets.to_numpy()
        row_first = batch["rows"].offsets.to_numpy()
        if not (row_first == first + np.arange(len(first), dtype=np.int64)).all():
            raise ValueError("a document does not have one row more than groups")
        for name, wanted in (("starts", first), ("ends", first), ("scales", row_first)):
            if not np.array_equal(batch[name].offsets.to_numpy(), wanted):
                raise ValueError(f"{name} are not one for each group or row")
        self.bounds: list[int] = row_first.tolist()
        kind = batch.schema.field("rows").type.value_type
        values = batch["rows"].values.flatten().to_numpy(zero_copy_only=False)
        self.rows: Array = values.reshape(-1, kind.list_size)
        self.scales: Floats = batch["scales"].values.to_numpy(zero_copy_only=False).astype(np.float32)
        kinds = batch["kinds"].values.to_numpy()
        # A remainder is behind the groups of each document.
        self.kinds: Array = np.insert(kinds, first[1:], len(KINDS))
        self.is_text: NDArray[np.bool_] = self.kinds == TEXT
        self.starts, self.ends = (
            np.insert(batch[name].values.to_numpy().astype(np.int32), first[1:], 0) for name in ("starts", "ends")
        )
        self.nbytes = VIEW_BYTES + nbytes + 18 * self.bounds[-1]

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def is_id(self, row: int, encoded: bytes) -> bool:
        """Whether document ``row`` has the id of these UTF-8 bytes."""
        return self._id_bytes[self._id_offsets[row] : self._id_offsets[row + 1]] == encoded

    def text(self, row: int) -> str | None:
        """The text of a document; None in an index without texts."""
        if not self._has_texts:
            return None
        return str(self._text_bytes[self._text_offsets[row] : self._text_offsets[row + 1]], "utf-8")

    @cached_property
    def _measured(self) -> tuple[Floats, Floats]:
        values_XD = self.values()
        embeddings_ND = np.add.reduceat(values_XD, self.bounds[:-1], axis=0)
        squares_N = np.einsum("nd,nd->n", embeddings_ND, embeddings_ND)
        document_X = np.repeat(np.arange(len(self)), np.diff(self.bounds))
        products_X = np.einsum("xd,xd->x", values_XD, embeddings_ND[document_X])
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.sqrt(squares_N), products_X / squares_N[document_X]

    @property
    def lengths(self) -> Floats:
        return self._measured[0]

    @property
    def own(self) -> Floats:
        return self._measured[1]

    def values(self) -> Floats:
        """The rows [X, D] in float32, with their scales."""
        return self.rows.astype(np.float32) * self.scales[:, None]

    def document(self, row: int) -> Document:
        """Document ``row``, in arrays of its own."""
        low, high = self.bounds[row : row + 2]
        values = self.rows[low:high].astype(np.float32) * self.scales[low:high, None]
        fields = {name: self.batch[name][row].as_py() for name in ("id", "text", "residual", "truncated", "cut_at")}
        places = {name: getattr(self, name)[low : high - 1].copy() for name in ("starts", "ends", "kinds")}
        counts = {name: self.batch[name][row].as_py() for name in ("nodes", "tokens")}
        return Document(**fields, **places, **counts, rows=values[:-1], remainder=values[-1], embedding=values.sum(0))

    def live(self, rows: Sequence[int] | NDArray[np.int64]) -> LiveDocuments:
        """Some documents of the batch, in arrays of their own."""
        chosen = np.asarray(rows)
        bounds = np.asarray(self.bounds)
        kept_X = np.repeat(np.isin(np.arange(len(self)), chosen), np.diff(bounds))
        is_last_X = self.kinds == len(KINDS)
        values_XD = self.values()
        groups_X = kept_X & ~is_last_X
        document_X = np.repeat(np.arange(len(self)), np.diff(bounds))
        taken = self.batch.take(pa.array(chosen))
        texts = taken["text"].to_pylist()
        return LiveDocuments(
            ids=taken["id"].to_pylist(),
            texts=None if None in texts else texts,
            rows=values_XD[groups_X],
            documents=np.searchsorted(chosen, document_X[groups_X]),
            starts=self.starts[groups_X],
            ends=self.ends[groups_X],
            kinds=self.kinds[groups_X],
            remainders=values_XD[is_last_X][chosen],
            embeddings=np.add.reduceat(values_XD, bounds[:-1], axis=0)[chosen],
            residuals=taken["residual"].to_numpy(),
            truncated=taken["truncated"].to_numpy(zero_copy_only=False),
        )


def stored_batch(batch: pa.RecordBatch, facts: Facts, nbytes: int = 0) -> StoredBatch:
    """A checked batch of an index with these facts; ValueError where it has other columns."""
    schemas = (part_schema(facts.width, facts.precision, small=small) for small in (True, False))
    if not any(batch.schema.equals(schema) for schema in schemas):
        raise ValueError("its columns are not those of this index")
    return StoredBatch(batch, nbytes)
