"""Rows of one shard: its texts tokenised, its pairs attributed, and pairs that cannot be attributed rejected with a
reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attribution_core.pairs import EMBEDS_TO_ZERO, Undefined
from attribution_core.topk import summarise
from jobs.run.tables import attribution_row
from jobs.sources.rows import row_text

if TYPE_CHECKING:
    import pyarrow as pa

    from attribution_core.attribution import Attributor
    from attribution_core.model.encoder import ReadText
    from attribution_core.results import ExplainedText, PairAttribution
    from jobs.config.job import JobConfig
    from jobs.run.manifest import Shard

MOST_PAIRS_AT_ONCE = 8192
# Matrices wait as float32 and once more as float64 while they are summed up.
BYTES_A_CELL = 32
# Of the memory budget, for contributions of texts that other shards need too. Computing takes three quarters of it.
CACHE_SHARE = 1 / 16

TextKey = tuple[str, str]  # text id, role


@dataclass
class ShardRows:
    """Rows of one shard, in the order of its pairs. ``attributed`` are the places of their pairs in the shard."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    attributed: list[int] = field(default_factory=list)
    texts: dict[TextKey, ExplainedText] = field(default_factory=dict)
    rejects: list[dict[str, Any]] = field(default_factory=list)


class ShardComputer:
    """Attributes the pairs of shards; contributions that later shards need are cached, within bounded memory."""

    def __init__(self, job: JobConfig, attributor: Attributor) -> None:
        # torch is imported by now.
        from attribution_core.contribution_cache import ContributionCache

        self._job = job
        self._attributor = attributor
        self.cache = ContributionCache(int(attributor.contributor.integrator.budget * CACHE_SHARE))

    def compute(self, shard: Shard) -> ShardRows:
        """The rows of ``shard``; raises what the attributor raises, OutOfMemory among it."""
        role_a, role_b = self._attributor.roles
        read = self._read(shard)
        of_a: list[TextKey] = [(key, role_a) for key in shard.pairs["text_a_id"].to_pylist()]
        of_b: list[TextKey] = [(key, role_b) for key in shard.pairs["text_b_id"].to_pylist()]
        computed = ShardRows()

        def reject(at: int, problems: list[tuple[str, str]]) -> None:
            computed.rejects.append(_reject(shard.pairs, at, problems, read[of_a[at]].text, read[of_b[at]].text))

        readable: list[int] = []
        for at, (a, b) in enumerate(zip(of_a, of_b, strict=True)):
            problems = [(side, why) for side, key in (("a", a), ("b", b)) if (why := read[key].problem)]
            if problems:
                reject(at, problems)
            else:
                readable.append(at)
        self._choose_cached(shard)
        ids = shard.pairs["pair_id"].to_pylist()
        for part in _slices(readable, of_a, of_b, read, self._attributor.contributor.integrator.budget):
            pairs = self._attributor.pairs([(read[of_a[at]], read[of_b[at]]) for at in part], self.cache)
            for at, pair in zip(part, pairs, strict=True):
                if isinstance(pair, Undefined):
                    reject(at, [(side, EMBEDS_TO_ZERO) for side in pair.sides])
                    continue
                computed.attributed.append(at)
                computed.rows.append(self._row(pair, ids[at], of_a[at][0], of_b[at][0]))
                for key, text in ((of_a[at], pair.a), (of_b[at], pair.b)):
                    # A pair that was refined carries more nodes than the text has by itself.
                    present = computed.texts.setdefault(key, text)
                    if text.nodes < present.nodes:
                        computed.texts[key] = text
        computed.texts = self._owned(shard, computed.texts, read)
        return computed

    def _read(self, shard: Shard) -> dict[TextKey, ReadText]:
        """Every text of the shard, tokenised."""
        by_role: dict[str, list[tuple[str, str]]] = {}
        for text_id, role, text in zip(*(shard.texts[n].to_pylist() for n in ("text_id", "role", "text")), strict=True):
            by_role.setdefault(role, []).append((text_id, text))
        read: dict[TextKey, ReadText] = {}
        for role, own in by_role.items():
            texts = self._attributor.read([text for _, text in own], role)  # type: ignore[arg-type]
            read.update({(text_id, role): text for (text_id, _), text in zip(own, texts, strict=True)})
        return read

    def _choose_cached(self, shard: Shard) -> None:
        """Cache the contributions of the texts of ``shard`` that other shards need as well."""
        columns = zip(*(shard.texts[name].to_pylist() for name in ("role", "text", "shared")), strict=True)
        self.cache.admit((role, text) for role, text, shared in columns if shared)

    def _row(self, pair: PairAttribution, pair_id: str, text_a_id: str, text_b_id: str) -> dict[str, Any]:
        sums = summarise(pair, self._job.top_k)
        return attribution_row(
            pair, sums, pair_id=pair_id, text_a_id=text_a_id, text_b_id=text_b_id, store=self._job.store
        )

    def _owned(
        self, shard: Shard, explained: dict[TextKey, ExplainedText], read: dict[TextKey, ReadText]
    ) -> dict[TextKey, ExplainedText]:
        """The texts whose rows this shard writes, in the plan's order.

        A text may be owned here though each of its pairs here was rejected: pairs of another shard still need it.
        """
        names = ("text_id", "role", "owner")
        rows = zip(*(shard.texts[name].to_pylist() for name in names), strict=True)
        owned = [(text_id, role) for text_id, role, owner in rows if owner and not read[text_id, role].problem]
        lone = [key for key in owned if key not in explained]
        alone = self._attributor.contributions([read[key] for key in lone], self.cache) if lone else []
        explained = explained | {key: one.explained for key, one in zip(lone, alone, strict=True)}
        return {key: explained[key] for key in owned}


def _slices(
    pairs: list[int], of_a: list[TextKey], of_b: list[TextKey], read: dict[TextKey, ReadText], memory: int
) -> Iterator[list[int]]:
    """Runs of pairs whose matrices fit into ``memory`` bytes together."""
    part: list[int] = []
    size = 0
    for at in pairs:
        cells = len(read[of_a[at]].groups) * len(read[of_b[at]].groups) * BYTES_A_CELL
        if part and (len(part) >= MOST_PAIRS_AT_ONCE or size + cells > memory):
            yield part
            part, size = [], 0
        part.append(at)
        size += cells
    if part:
        yield part


def _reject(pairs: pa.Table, at: int, problems: list[tuple[str, str]], a: str, b: str) -> dict[str, Any]:
    row = pairs.slice(at, 1).to_pylist()[0]
    place = {name: row.pop(name) for name in ("pair_id", "file", "row")}
    for name in ("ordinal", "text_a_id", "text_b_id"):
        row.pop(name)
    reason = "; ".join(f"{side}: {problem}" for side, problem in problems)
    return place | {"reason": reason, "row_text": row_text({"a": a, "b": b, **row})}
