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


# Columns of ``StoredBatch.facts``.
FACTOR, OWN, RANKED, START, END = range(5)


class StoredBatch:
    """A record batch of a part as views of its memory; row X of ``rows`` stands for ``scales[X] · rows[X]``.

    ``bounds`` [N + 1] says where each document's rows begin; its last row is the remainder. ``starts``, ``ends`` and
    ``kinds`` [X] are of the groups; a remainder has 0, 0 and no kind of ``KINDS``.
    """

    def __init__(self, batch: pa.RecordBatch, similarity: str, nbytes: int = 0) -> None:
        """Read a checked batch; ValueError where its columns do not fit together."""
        self.batch = batch
        self._cosine = similarity == "cosine"
        self._id_offsets, self._text_offsets = (string_offsets(batch[name]).tolist() for name in ("id", "text"))
        self._id_bytes, self._text_bytes = (string_bytes(batch[name]).data for name in ("id", "text"))
        self._has_texts = not batch["text"].null_count
        self.truncated: list[bool] = batch["truncated"].to_pylist()
        first = batch["kinds"].offsets.to_numpy()
        row_first = batch["rows"].offsets.to_numpy()
        if not np.array_equal(row_first, first + np.arange(len(first))):
            raise ValueError("a document does not have one row more than groups")
        for name, wanted in (("starts", first), ("ends", first), ("scales", row_first)):
            if not np.array_equal(batch[name].offsets.to_numpy(), wanted):
                raise ValueError(f"{name} are not one for each group or row")
        self.bounds: list[int] = row_first.tolist()
        width = batch.schema.field("rows").type.value_type.list_size
        self.rows: Array = batch["rows"].values.flatten().to_numpy().reshape(-1, width)
        self.scales: Array = batch["scales"].values.to_numpy()
        kinds = batch["kinds"].values.to_numpy()
        # How many groups of text each document has; every document has a group.
        self.text_groups: list[int] = np.add.reduceat(kinds == TEXT, first[:-1], dtype=np.int64).tolist()
        self._places = [batch[name].values.to_numpy() for name in ("starts", "ends", "kinds")]
        # A float of each column of facts, and about as much for offsets and Python's objects.
        self.nbytes = VIEW_BYTES + nbytes + 20 * self.bounds[-1]

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def is_id(self, row: int, encoded: bytes) -> bool:
        """Whether document ``row`` has the id of these UTF-8 bytes."""
        same: bool = self._id_bytes[self._id_offsets[row] : self._id_offsets[row + 1]] == encoded
        return same

    def text(self, row: int) -> str | None:
        """The text of a document; None in an index without texts."""
        if not self._has_texts:
            return None
        return str(self._text_bytes[self._text_offsets[row] : self._text_offsets[row + 1]], "utf-8")

    @cached_property
    def facts(self) -> Floats:
        """What shares and lifts need of each row beside its values, [X, 5] in the columns named above.

        FACTOR makes a product with the query's direction a share: the scale, for cosine over ‖e‖. OWN is the share of
        the document itself, ĉ·e / ‖e‖². RANKED is 0 for groups of text, −∞ for all others. START and END are exact up
        to 2 ** 24 characters.
        """
        values_XD, document_X = self.values(), self._document_X
        embeddings_ND = np.add.reduceat(values_XD, self.bounds[:-1], axis=0)
        squares_X = np.einsum("nd,nd->n", embeddings_ND, embeddings_ND)[document_X]
        starts, ends, kinds = self.groups()
        facts = np.empty((len(kinds), 5), np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            facts[:, FACTOR] = self.scales / np.sqrt(squares_X) if self._cosine else self.scales
            facts[:, OWN] = np.einsum("xd,xd->x", values_XD, embeddings_ND[document_X]) / squares_X
        facts[:, RANKED] = np.where(kinds == TEXT, 0, -np.inf)
        facts[:, START], facts[:, END] = starts, ends
        return facts

    @property
    def _document_X(self) -> NDArray[np.int64]:
        return np.repeat(np.arange(len(self)), np.diff(self.bounds))

    def groups(self) -> tuple[Array, Array, Array]:
        """Starts, ends and kinds [X]."""
        # A remainder is behind the groups of each document.
        behind = np.asarray(self.bounds[1:]) - np.arange(1, len(self) + 1)
        starts, ends, kinds = (
            np.insert(values, behind, last) for values, last in zip(self._places, (0, 0, len(KINDS)), strict=True)
        )
        return starts, ends, kinds

    def values(self) -> Floats:
        """The rows [X, D] in float32, with their scales."""
        return self.rows.astype(np.float32) * self.scales.astype(np.float32)[:, None]

    def document(self, row: int) -> Document:
        """Document ``row``, in arrays of its own."""
        low, high = self.bounds[row : row + 2]
        values = self.rows[low:high].astype(np.float32) * self.scales[low:high, None].astype(np.float32)
        plain = ("id", "text", "residual", "truncated", "cut_at", "nodes", "tokens")
        fields = {name: self.batch[name][row].as_py() for name in plain}
        starts, ends, kinds = (one[low - row : high - row - 1].copy() for one in self._places)
        sums = {"rows": values[:-1], "remainder": values[-1], "embedding": values.sum(0)}
        return Document(**fields, **sums, starts=starts, ends=ends, kinds=kinds)

    def live(self, rows: Sequence[int] | NDArray[np.int64]) -> LiveDocuments:
        """Some documents of the batch, in arrays of their own."""
        chosen = np.asarray(rows)
        document_X, values_XD = self._document_X, self.values()
        starts, ends, kinds = self.groups()
        remainder_X = kinds == len(KINDS)
        group_X = np.isin(document_X, chosen) & ~remainder_X
        taken = self.batch.take(pa.array(chosen))
        texts = taken["text"].to_pylist()
        return LiveDocuments(
            ids=taken["id"].to_pylist(),
            texts=None if None in texts else texts,
            rows=values_XD[group_X],
            documents=np.searchsorted(chosen, document_X[group_X]),
            starts=starts[group_X],
            ends=ends[group_X],
            kinds=kinds[group_X],
            remainders=values_XD[remainder_X][chosen],
            embeddings=np.add.reduceat(values_XD, self.bounds[:-1], axis=0)[chosen],
            residuals=taken["residual"].to_numpy().astype(np.float32),
            truncated=taken["truncated"].to_numpy(zero_copy_only=False),
        )


def stored_batch(batch: pa.RecordBatch, facts: Facts, nbytes: int = 0) -> StoredBatch:
    """A checked batch of an index with these facts; ValueError where it has other columns."""
    schemas = (part_schema(facts.width, facts.precision, small=small) for small in (True, False))
    if not any(batch.schema.equals(schema) for schema in schemas):
        raise ValueError("its columns are not those of this index")
    return StoredBatch(batch, facts.similarity, nbytes)
