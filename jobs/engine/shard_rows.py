"""Tables of one shard: its texts tokenised, its pairs attributed, and pairs that cannot be attributed rejected with a
reason."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from attribution_core.pairs.columns import EMBEDS_TO_ZERO
from attribution_core.text.tokenized import distinct_texts
from jobs.engine.pipeline import Pipeline
from jobs.run.tables import attribution_schema, text_table
from jobs.sources.rows import row_text

if TYPE_CHECKING:
    from attribution_core.attribution import Attributor
    from attribution_core.model.encoder import ReadText
    from attribution_core.results import Contributions
    from jobs.config.job import JobConfig
    from jobs.engine.indexed_documents import IndexedDocuments
    from jobs.run.manifest import Shard

MOST_PAIRS_AT_ONCE = 32_768
# Offsets of lists and words in an Arrow table have 31 bits; three such slices may be in one table.
MOST_CELLS_AT_ONCE = 1 << 26
# A cell that is stored, or one of the strongest with its words, while its table is made.
BYTES_A_CELL = 48
# Shares of the memory budget: for cached contributions of texts that other shards need too, and for contributions of
# the pairs of one shard that are computed at once (of up to three shards). Computing takes three quarters of it.
CACHE_SHARE = 1 / 16
PAIRS_SHARE = 1 / 16

Ints = NDArray[np.int64]


@dataclass
class ShardTables:
    """The rows of one shard, in the order of its pairs.

    ``attributions`` lacks the columns passed through; ``attributed`` are the places of its pairs in the shard.
    ``texts`` are those whose rows this shard writes, None where it writes none. ``waited`` and ``computed`` are
    seconds: waiting for other shards, and tokenising plus this shard's part of what was computed together.
    """

    attributions: pa.Table
    attributed: Ints
    texts: pa.Table
    rejects: list[dict[str, Any]] = field(default_factory=list)
    waited: float = 0.0
    computed: float = 0.0


class ShardComputer:
    """Attributes the pairs of shards; contributions that later shards need are cached, within bounded memory.

    Several threads may call it: one tokenises while what another asked for is computed.
    """

    def __init__(self, job: JobConfig, attributor: Attributor, indexed: IndexedDocuments | None = None) -> None:
        # torch is imported by now.
        from attribution_core.contribution_cache import ContributionCache

        self._job = job
        self._attributor = attributor
        self._indexed = indexed
        self._budget = attributor.contributor.integrator.budget
        self.cache = ContributionCache(int(self._budget * CACHE_SHARE))
        self._pipeline = Pipeline(attributor, self.cache, job.top_k, job.store)
        self._reading = threading.Lock()
        self._shared: dict[int, set[tuple[str, str]]] = {}

    def close(self) -> None:
        """End its threads; no call may follow."""
        self._pipeline.close()

    def compute(self, shard: Shard) -> ShardTables:
        """The tables of ``shard``; raises what the attributor raises, OutOfMemory among it."""
        try:
            return self._compute(shard)
        finally:
            with self._reading:
                self._shared.pop(shard.index, None)

    def _compute(self, shard: Shard) -> ShardTables:
        asked = time.perf_counter()
        with self._reading:
            began = time.perf_counter()
            self._choose_cached(shard)
            texts = self._read(shard)
        waited, computed = began - asked, time.perf_counter() - began
        roles = zip("ab", self._attributor.roles, strict=True)
        edges = np.stack([_places(shard, side, role) for side, role in roles], 1)
        problem = np.fromiter((text.problem is not None for text in texts), bool, len(texts))
        rejected: dict[int, list[tuple[str, str]]] = {
            at: [(side, why) for side, text in zip("ab", edges[at], strict=True) if (why := texts[text].problem)]
            for at in np.flatnonzero(problem[edges].any(1)).tolist()
        }
        # Ids that a user gives may name one text twice: the first place of each stands for all.
        _, same = distinct_texts(texts)
        canonical = np.unique(same, return_index=True)[1][same]
        edges = canonical[edges]
        explained: dict[int, Contributions] = {}
        tables: list[pa.Table] = []
        attributed: list[Ints] = []
        ids = shard.pairs.select(["pair_id", "text_a_id", "text_b_id"])
        for part in self._slices(np.flatnonzero(~problem[edges].any(1)), edges, texts):
            part, given = self._from_index(part, edges, texts, shard, rejected)
            if not len(part):
                continue
            numbers, local = np.unique(edges[part], return_inverse=True)
            stored = {place: given[at] for place, at in enumerate(numbers.tolist()) if at in given}
            done = self._pipeline.attribute(
                [texts[at] for at in numbers.tolist()], local.reshape(-1, 2), ids.take(pa.array(part)), stored
            )
            for number, one in zip(numbers.tolist(), done.texts, strict=True):
                explained.setdefault(number, one)
            for at, sides in done.undefined.items():
                rejected[int(part[at])] = [(side, EMBEDS_TO_ZERO) for side in sides]
            attributed.append(part[done.defined])
            tables.append(done.table)
            waited, computed = waited + done.waited, computed + done.computed
        empty = attribution_schema(self._job.store, late=self._attributor.late).empty_table()
        return ShardTables(
            attributions=pa.concat_tables(tables) if tables else empty,
            attributed=np.concatenate(attributed) if attributed else np.zeros(0, np.int64),
            texts=self._owned(shard, texts, canonical, explained),
            rejects=[
                _reject(shard, at, rejected[at], *(texts[text].text for text in edges[at])) for at in sorted(rejected)
            ],
            waited=waited,
            computed=computed,
        )

    def _from_index(
        self,
        pairs: Ints,
        edges: Ints,
        texts: list[ReadText],
        shard: Shard,
        rejected: dict[int, list[tuple[str, str]]],
    ) -> tuple[Ints, dict[int, Contributions]]:
        """Return those of ``pairs`` whose documents the index has, and these documents' contributions by their places.

        The other pairs are added to ``rejected``. Without an index all pairs are returned.
        """
        if self._indexed is None:
            return pairs, {}
        documents = np.unique(edges[pairs, 1]).tolist()
        found = self._stored(documents, texts, shard)
        bad = {at: one for at, one in found.items() if isinstance(one, str)}
        stays = ~np.isin(edges[pairs, 1], list(bad))
        for at in pairs[~stays].tolist():
            rejected[at] = [("b", bad[int(edges[at, 1])])]
        return pairs[stays], {at: one for at, one in found.items() if not isinstance(one, str)}

    def _stored(self, places: list[int], texts: list[ReadText], shard: Shard) -> dict[int, Contributions | str]:
        assert self._indexed is not None, "the job names an index"
        names = shard.texts["text_id"].take(pa.array(places, pa.int64())).to_pylist()
        return dict(zip(places, self._indexed.contributions(names, [texts[at] for at in places]), strict=True))

    def _read(self, shard: Shard) -> list[ReadText]:
        """Every text of the shard, tokenised, in the order of its table."""
        roles, texts = shard.texts["role"].to_pylist(), shard.texts["text"].to_pylist()
        read: dict[int, ReadText] = {}
        for role in dict.fromkeys(roles):
            own = [at for at, one in enumerate(roles) if one == role]
            fresh: list[int] = []
            for at in own:
                cached = self.cache.read(role, texts[at])
                if cached is None:
                    fresh.append(at)
                else:
                    read[at] = cached
            read.update(zip(fresh, self._attributor.read([texts[at] for at in fresh], role), strict=True))
        return [read[at] for at in range(len(roles))]

    def _choose_cached(self, shard: Shard) -> None:
        """Cache the contributions of the texts of ``shard`` that other shards need as well."""
        shared = shard.texts.filter(shard.texts["shared"])
        self._shared[shard.index] = set(zip(shared["role"].to_pylist(), shared["text"].to_pylist(), strict=True))
        self.cache.admit(set().union(*self._shared.values()))

    def _slices(self, pairs: Ints, edges: Ints, texts: list[ReadText]) -> Iterator[Ints]:
        """Runs of pairs whose contributions, and matrices where they are stored, fit into memory together."""
        if not len(pairs):
            return
        groups = np.fromiter((text.group_count for text in texts), np.int64, len(texts))
        sizes = self._sizes(texts, groups, edges[pairs]).tolist()
        cells = groups[edges[pairs]].prod(1)
        if self._job.level == "words":
            cells[:] = 0
        elif self._job.store != "full":
            # The strongest ones alone; of late interaction every cell is a number until then.
            cells = np.maximum(np.minimum(cells, self._job.top_k), cells // 8 if self._attributor.late else 0)
        most = int(self._budget * PAIRS_SHARE)
        begin = taken = held = 0
        seen: set[int] = set()
        for at, (both, own) in enumerate(zip(edges[pairs].tolist(), cells.tolist(), strict=True)):
            more = sum(sizes[text] for text in both if text not in seen) + own * BYTES_A_CELL
            full = at - begin >= MOST_PAIRS_AT_ONCE or taken + more > most or held + own > MOST_CELLS_AT_ONCE
            if full and at > begin:
                yield pairs[begin:at]
                begin, taken, held = at, 0, 0
                seen.clear()
                more = sum(sizes[text] for text in set(both)) + own * BYTES_A_CELL
            taken, held = taken + more, held + own
            seen.update(both)
        yield pairs[begin:]

    def _sizes(self, texts: list[ReadText], groups: Ints, edges: Ints) -> Ints:
        """Bytes of each text's contributions, the same completed, and two embeddings in float64."""
        width = self._attributor.encoder.embedding_width
        if not self._attributor.late:
            return (8 * groups + 48) * width
        # An embedding has a vector for each token. A text keeps contributions where word pairs need them or where
        # its partners are no fewer than its groups; otherwise one number for each group and partner.
        tokens = np.fromiter((len(text) for text in texts), np.int64, len(texts))
        keeps = np.bincount(edges.ravel(), minlength=len(texts)) >= groups // 2
        if self._job.level == "pairs":
            keeps[edges[:, 0]] = True
        return (8 * groups * keeps + 48) * width * tokens

    def _owned(
        self, shard: Shard, texts: list[ReadText], canonical: Ints, explained: dict[int, Contributions]
    ) -> pa.Table:
        """The texts whose rows this shard writes, in the plan's order.

        A text may be owned here though each of its pairs here was rejected: pairs of another shard still need it.
        """
        owner = shard.texts["owner"].to_pylist()
        owned = [at for at, own in enumerate(owner) if own and texts[at].problem is None]
        lone = sorted({int(canonical[at]) for at in owned} - set(explained))
        if self._indexed is not None:
            # A document that the index cannot give has no row.
            documents = [at for at in lone if texts[at].role == "document"]
            stored = self._stored(documents, texts, shard)
            explained = explained | {at: one for at, one in stored.items() if not isinstance(one, str)}
            missing = {at for at, one in stored.items() if isinstance(one, str)}
            owned = [at for at in owned if int(canonical[at]) not in missing]
            lone = [at for at in lone if at not in stored]
        if lone:
            alone = self._attributor.contributions([texts[at] for at in lone], self.cache)
            explained = explained | dict(zip(lone, alone, strict=True))
        text_ids = shard.texts["text_id"].take(pa.array(owned, pa.int64()))
        return text_table([explained[int(canonical[at])] for at in owned], text_ids)


def _places(shard: Shard, side: str, role: str) -> Ints:
    """The row in the shard's texts of each pair's first or second text."""
    rows = np.flatnonzero(pc.equal(shard.texts["role"], role).to_numpy(zero_copy_only=False))
    ids = shard.texts["text_id"].combine_chunks().take(pa.array(rows))
    found = pc.index_in(shard.pairs[f"text_{side}_id"], value_set=ids)
    return np.asarray(rows[found.to_numpy()], np.int64)


def _reject(shard: Shard, at: int, problems: list[tuple[str, str]], a: str, b: str) -> dict[str, Any]:
    row = shard.pairs.slice(at, 1).to_pylist()[0]
    place = {name: row.pop(name) for name in ("pair_id", "file", "row")}
    for name in ("ordinal", "text_a_id", "text_b_id"):
        row.pop(name)
    reason = "; ".join(f"{side}: {problem}" for side, problem in problems)
    return place | {"reason": reason, "row_text": row_text({"a": a, "b": b, **row})}
