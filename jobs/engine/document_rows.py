"""The documents of one shard of an index: texts tokenised, contributions computed and rounded, bad ones rejected."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from attribution_core.pairs.columns import EMBEDS_TO_ZERO
from attribution_core.pairs.tiles import SHORTEST
from jobs.index.format import BATCH, document_batch, encoded_part, no_documents
from jobs.sources.rows import row_text

if TYPE_CHECKING:
    from attribution_core.attribution import Attributor
    from attribution_core.model.encoder import ReadText
    from attribution_core.results import Contributions
    from jobs.config.job import JobConfig
    from jobs.run.manifest import Shard

# The share of the memory budget for contributions that are computed at once; their rows are a quarter of it or less.
SHARE = 1 / 16
# A document that is tokenised takes up to 200 kB.
READ_AT_ONCE = 512


@dataclass
class ShardDocuments:
    """The documents of one shard: ``part`` is their file, ``count`` their number; ``waited`` and ``computed`` are
    seconds."""

    part: bytes
    count: int
    rejects: list[dict[str, Any]]
    waited: float
    computed: float


class DocumentComputer:
    """Computes the documents of shards. Several threads may call it: one reads while another computes."""

    def __init__(self, job: JobConfig, attributor: Attributor) -> None:
        self._job = job
        self._attributor = attributor
        self._computing = threading.Lock()

    def close(self) -> None:
        """Nothing is left open."""

    def compute(self, shard: Shard) -> ShardDocuments:
        """Return the documents of ``shard`` in the order of the corpus; raises what the attributor raises."""
        ids, texts = shard.texts["text_id"].to_pylist(), shard.texts["text"].to_pylist()
        problems: dict[int, str] = {}
        batches: list[pa.RecordBatch] = []
        waiting: list[tuple[str, Contributions]] = []
        asked = time.perf_counter()
        with self._computing:
            began = time.perf_counter()
            # The rows of a shard are the same to the last bit, whichever shards this process computed before.
            self._attributor.forget_references()
            for at, one in self._contributions(texts, problems):
                waiting.append((ids[at], one))
                if len(waiting) == BATCH:
                    batches.append(self._batch(waiting))
                    waiting.clear()
            if waiting:
                batches.append(self._batch(waiting))
            if not batches:
                batches.append(no_documents(self._attributor.encoder.embedding_width, self._job.values))
            part = encoded_part(batches)
        rejects = [_reject(shard, at, problems[at], texts[at]) for at in sorted(problems)]
        return ShardDocuments(part, sum(map(len, batches)), rejects, began - asked, time.perf_counter() - began)

    def _contributions(self, texts: list[str], problems: dict[int, str]) -> Iterator[tuple[int, Contributions]]:
        """Contributions of texts by their places; ``problems`` gets the reasons of those that have none."""
        for low in range(0, len(texts), READ_AT_ONCE):
            read = self._attributor.read(texts[low : low + READ_AT_ONCE], "document")
            problems |= {low + at: text.problem for at, text in enumerate(read) if text.problem is not None}
            for places in self._slices([at for at, text in enumerate(read) if text.problem is None], read):
                computed = self._attributor.contributions([read[at] for at in places])
                for at, one in zip(places, computed, strict=True):
                    if np.linalg.norm(one.embedding_D.astype(np.float64)) > SHORTEST:
                        yield low + at, one
                    else:
                        problems[low + at] = EMBEDS_TO_ZERO

    def _batch(self, documents: list[tuple[str, Contributions]]) -> pa.RecordBatch:
        ids, contributions = zip(*documents, strict=True)
        return document_batch(contributions, ids, precision=self._job.values, texts=self._job.texts)

    def _slices(self, places: list[int], read: list[ReadText]) -> Iterator[list[int]]:
        """Runs of documents whose contributions fit into a share of the memory together."""
        most = self._attributor.contributor.integrator.budget * SHARE
        width = self._attributor.encoder.embedding_width
        run: list[int] = []
        taken = 0
        for at in places:
            size = (8 * read[at].group_count + 48) * width
            if run and taken + size > most:
                yield run
                run, taken = [], 0
            run.append(at)
            taken += size
        if run:
            yield run


def _reject(shard: Shard, at: int, problem: str, text: str) -> dict[str, Any]:
    # A shard's pairs are its documents with themselves, in the same order as its texts.
    row = shard.pairs.slice(at, 1).to_pylist()[0]
    place = {name: row[name] for name in ("pair_id", "file", "row")}
    return place | {"reason": problem, "row_text": row_text({"text": text})}
