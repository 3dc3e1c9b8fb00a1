"""The word pairs that add most in the whole corpus, by their sum and by their mean, and within groups of pairs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.analysis.quantiles import quantiles
from jobs.analysis.statistics.batches import Batch
from jobs.analysis.statistics.measure import Measure, Result, Scene, Table, columns_table, rows_table
from jobs.analysis.statistics.schema import Figure
from jobs.analysis.statistics.sums import Array, first_of_each, quantised
from jobs.analysis.statistics.texts import TEXT
from jobs.analysis.statistics.words_by_lift import LiftedWords

SHOWN, LOWEST, CANDIDATES, IN_GROUP, IN_QUERY = 100, 20, 300, 20, 5
BINS, FEW_VALUES = 5, 10
COLUMNS = (
    *("by", "group", "a", "b", "total", "mean", "occurrences", "kept", "exact", "at_least", "at_most"),
    *("mean_at_least", "mean_at_most", "largest", "pair_id"),
)


class Strongest(Measure):
    name = "strongest"
    title = "Strongest word pairs"
    meaning = (
        "The word pairs that add most over all pairs of texts, by sum and by mean, in units of the score; and the "
        "words by their lift: what they add beyond what their text's length lets every word add."
    )
    cells = True
    lifts = True

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self.base = len(scene.texts.names)
        self.labels, self.group = groups_of(scene)
        self.limit = scene.array()
        self.pair = np.zeros((scene.pairs.count, 2), np.int32)
        self.lifted = (
            LiftedWords(scene)
            if scene.lifts and "sentence" not in {scene.run.unit(role) for role in scene.run.roles}
            else None
        )
        self.by_query = scene.run.roles[0] == "query"
        for name, split in (("met", "grp"), ("met_by_query", "query")):
            scene.con.execute(
                f"CREATE OR REPLACE TABLE {name} "
                f"(key BIGINT, {split} INTEGER, n INTEGER, total DOUBLE, limits DOUBLE, best UBIGINT)"
            )

    def add(self, batch: Batch) -> None:
        if self.lifted is not None:
            self.lifted.add(batch)
        cells, rest = batch.cells, batch.rest
        if not self.scene.word_pairs:
            return
        assert cells is not None
        assert rest is not None
        self.limit[batch.rank] = rest.limit
        self.pair[batch.rank] = np.column_stack([batch.a, batch.b])
        word = self.scene.texts.word
        key = word[cells.a].astype(np.int64) * self.base + word[cells.b]
        limit = quantised(rest.limit, self.scene.quantum)[cells.pair]
        value = quantised(cells.value, self.scene.quantum)
        # A float's bits are in the order of the numbers, as long as none is negative.
        strength = np.abs(cells.value).astype(np.float32).view(np.uint32).astype(np.uint64) << np.uint64(32)
        best = strength | (np.uint64(2**32 - 1) - batch.rank.astype(np.uint64))[cells.pair]
        met = value, limit, best
        # Every group's sums apart: those of all pairs are the sums of these.
        group = self.group[batch.rank][cells.pair]
        groups = len(self.labels) + 1
        self._insert("met", key * groups + group + 1, *met, lambda joint: (joint // groups, joint % groups - 1))
        if self.by_query:
            # A word of a query is one place in the table of words, whichever document it meets.
            in_query = cells.a.astype(np.int64) * self.base + word[cells.b]
            self._insert("met_by_query", in_query, *met, lambda key: (key, self.scene.texts.of_word[key // self.base]))

    def _insert(
        self,
        table: str,
        joint: Array,
        value: Array,
        limit: Array,
        best: Array,
        split: Callable[[Array], tuple[Array, Array]],
    ) -> None:
        """Sums by ``joint`` key of one batch; of the strongest cell its pair too, the first in order of several equal
        ones. ``split`` gives the two columns that a joint key stands for."""
        if not len(joint):
            return
        # No sum here depends on the order of its terms, so the sort need not be stable.
        order = np.argsort(joint)
        joint = joint[order]
        begins = first_of_each(joint)
        key, kind = split(joint[begins])
        columns = {
            "key": key,
            "kind": kind.astype(np.int32),
            "n": np.diff(np.append(begins, len(joint))).astype(np.int32),
            "total": np.add.reduceat(value[order], begins),
            "limits": np.add.reduceat(limit[order], begins),
            "best": np.maximum.reduceat(best[order], begins),
        }
        self.scene.con.register("batch", pa.table(columns))
        self.scene.con.execute(f"INSERT INTO {table} SELECT * FROM batch")
        self.scene.con.unregister("batch")

    def result(self) -> Result:
        scene = self.scene
        support = max(3, math.ceil(scene.pairs.count / 2000))
        if not scene.word_pairs:
            lifted = [] if self.lifted is None else [self.lifted.table(support)]
            return Result([], lifted, scene.why_no_word_pairs)
        self.counter = _Counter(scene, self.pair, self.limit, self.group)
        tables = [self._table("strongest", [(None, "")], SHOWN, support)]
        if self.labels:
            tables.append(self._table("strongest_by_group", [*enumerate(self.labels)], IN_GROUP, support))
        if self.by_query:
            tables.append(self._queries())
        if self.lifted is not None:
            tables.append(self.lifted.table(support))
        notes = [f"By mean: word pairs that occur at least {support} times."]
        if not scene.whole:
            notes.append(
                "Sums are of the occurrences that were kept; at_least and at_most allow for every one that was not."
            )
        if scene.why_no_lifts is not None:
            notes.append(f"Words by their lift are left out: {scene.why_no_lifts}.")
        first = tables[0].data.slice(0, 1).to_pylist()
        figures = []
        if first:
            said = f"sum of the strongest word pair, {first[0]['a']} and {first[0]['b']}"
            row = {key: first[0][key] for key in ("at_least", "at_most")}
            figures.append(
                Figure(name="strongest", value=first[0]["total"], exact=scene.whole, unit="", meaning=said, **row)
            )
        return Result(figures, tables, notes)

    def _table(self, name: str, groups: Sequence[tuple[int | None, str]], shown: int, support: int) -> Table:
        chosen = [(one, label) for group, label in groups for one in self._chosen(group, shown, support)]
        ids = self.scene.pairs.ids([one.rank for one, _ in chosen])
        rows = []
        for (one, label), pair_id in zip(chosen, ids, strict=True):
            n, low, high = one.occurrences, one.total - one.unseen, one.total + one.unseen
            counted = (one.total, one.total / n, n, one.n, self.scene.whole, low, high, low / n, high / n, one.largest)
            rows.append((one.by, label, *self._words(one.key), *counted, pair_id))
        described = {
            "by": "why it is here: total (largest sums), lowest (smallest sums), mean (largest means)",
            "group": "which pairs of texts: all where it is empty",
            "a": "word of the first text, letter case aside",
            "b": "word of the second text",
            "total": "sum over its occurrences",
            "mean": "total / occurrences",
            "occurrences": "how often the two words met",
            "kept": "how many of these occurrences were kept",
            "mean_at_least": "the true mean is certainly not below this",
            "mean_at_most": "the true mean is certainly not above this",
            "largest": "its largest occurrence, by absolute value, in the pair pair_id",
        }
        meaning = "Word pairs that add most over all pairs" + ("." if groups[0][0] is None else " of a group.")
        return Table(name, meaning, rows_table(COLUMNS, rows), described, exact=self.scene.whole)

    def _chosen(self, group: int | None, shown: int, support: int) -> list[_Found]:
        con = self.scene.con
        own = "" if group is None else f"WHERE grp = {group} "
        con.execute(
            "CREATE OR REPLACE TEMP TABLE sums AS SELECT key, sum(n)::BIGINT AS n, sum(total) AS total, "
            f"sum(limits) AS limits, max(best) AS best FROM met {own}GROUP BY key"
        )
        asked = {
            "total": f"SELECT * FROM sums ORDER BY total DESC, key LIMIT {shown}",
            "lowest": f"SELECT * FROM sums WHERE total < 0 ORDER BY total, key LIMIT {min(shown, LOWEST)}",
            "mean": f"SELECT * FROM sums WHERE n >= {support} ORDER BY total / n DESC, key LIMIT {3 * shown}",
        }
        chosen = []
        for by, query in asked.items():
            rows = [self._found(by, row, group) for row in con.execute(query).fetchall()]
            if by == "mean":
                # The means so far are of kept cells; what counts is the mean of all.
                rows = sorted(rows, key=lambda row: (-row.total / row.occurrences, self._words(row.key)))
            else:
                rows = sorted(rows, key=lambda row: (-row.total if by == "total" else row.total, self._words(row.key)))
            chosen += rows[:shown]
        return chosen

    def _words(self, key: int) -> tuple[str, str]:
        a, b = divmod(key, self.base)
        return self.scene.texts.names[a], self.scene.texts.names[b]

    def _found(self, by: str, row: tuple[Any, ...], group: int | None) -> _Found:
        key, n, total, limits, best = row
        a, b = divmod(key, self.base)
        occurrences, limit = self.counter.count(a, b, group)
        largest = float(np.array(best >> 32, np.uint32).view(np.float32))
        return _Found(
            by, key, n, total, occurrences, max(limit - limits, 0.0), largest, 2**32 - 1 - (best & (2**32 - 1))
        )

    def _queries(self) -> Table:
        texts, base = self.scene.texts, self.base
        rows = self.scene.con.sql(
            "SELECT query, key, total, n, best, place FROM (SELECT *, row_number() OVER (PARTITION BY query ORDER BY "
            "total DESC, key) AS place FROM (SELECT query, key, sum(total) AS total, sum(n)::BIGINT AS n, "
            f"max(best) AS best FROM met_by_query GROUP BY query, key)) WHERE place <= {IN_QUERY} ORDER BY query, place"
        ).fetchnumpy()
        words, others = np.divmod(rows["key"].astype(np.int64), base)
        pairs = 2**32 - 1 - (rows["best"].astype(np.uint64) & np.uint64(2**32 - 1)).astype(np.int64)
        names = pa.array(texts.names)
        data = columns_table(
            query_id=texts.text_ids.take(pa.array(rows["query"])),
            place=rows["place"],
            word=texts.place[words],
            a=names.take(pa.array(texts.word[words])),
            b=names.take(pa.array(others)),
            total=rows["total"],
            kept=rows["n"],
            exact=pa.array([self.scene.whole]).take(pa.array(np.zeros(len(words), np.int64))),
            pair_id=self.scene.pairs.ids(pairs.tolist()),
        )
        described = {
            "query_id": "the query",
            "place": "from 1, by total",
            "word": "which word of the query, from 0",
            "a": "that word, letter case aside",
            "b": "word of the documents",
            "total": "sum over the query's documents of the occurrences that were kept",
            "kept": "how many occurrences that are",
            "pair_id": "the pair with the largest of them",
        }
        meaning = f"The {IN_QUERY} strongest word pairs of every query over its documents."
        return Table("strongest_by_query", meaning, data, described, exact=self.scene.whole)


@dataclass(frozen=True)
class _Found:
    """A word pair: ``n`` stored cells, ``unseen`` the most that the others can add, the pair of its strongest cell."""

    by: str
    key: int
    n: int
    total: float
    occurrences: int
    unseen: float
    largest: float
    rank: int


class _Counter:
    """Counts how often two words meet over all pairs, from the texts that have them."""

    def __init__(self, scene: Scene, pair: Array, limit: Array, group: Array) -> None:
        texts = scene.texts
        own = np.flatnonzero(texts.kind == TEXT)
        self._order = own[np.argsort(texts.word[own], kind="stable")]
        self._words = texts.word[self._order]
        self._text = texts.of_word
        self._texts, self._pair, self._limit, self._group = len(texts), pair, limit, group
        self._quantum = scene.quantum
        self._having: dict[int, tuple[Array, Array]] = {}
        self._met: dict[tuple[int, int], tuple[Array, Array]] = {}

    def count(self, a: int, b: int, group: int | None) -> tuple[int, float]:
        """How often word ``a`` meets word ``b`` in the pairs of a group, and the sum of the limits of these cells."""
        if (a, b) not in self._met:
            there, times = self._pairs_with(a)
            times = times * self._times(b)[self._pair[there, 1]]
            there, times = there[times > 0], times[times > 0]
            limits = quantised(times * self._limit[there], self._quantum)
            of_group = self._group[there] + 1
            self._met[a, b] = np.bincount(of_group, times), np.bincount(of_group, limits)
        counts = (values.sum() if group is None else values[group + 1 : group + 2].sum() for values in self._met[a, b])
        times, limits = counts
        return int(times), float(limits)

    def _times(self, word: int) -> Array:
        """How often each text has the word, [T]."""
        first, last = np.searchsorted(self._words, [word, word + 1])
        return np.bincount(self._text[self._order[first:last]], minlength=self._texts)

    def _pairs_with(self, word: int) -> tuple[Array, Array]:
        """The pairs whose first text has the word, and how often; the last ones asked for are kept."""
        if word not in self._having:
            if len(self._having) > 32:
                self._having.clear()
            times = self._times(word)[self._pair[:, 0]]
            there = np.flatnonzero(times)
            self._having[word] = there, times[there]
        return self._having[word]


def groups_of(scene: Scene) -> tuple[list[str], Array]:
    """Labels of groups of pairs, and each pair's group (-1: none): each relevance or label where there are few, else
    fifths by the gold column."""
    nobody = np.full(scene.pairs.count, -1, np.int8)
    if scene.gold is None or not np.isfinite(scene.gold).any():
        return [], nobody
    gold, there = scene.gold, np.isfinite(scene.gold)
    values = np.unique(gold[there])
    if len(values) <= FEW_VALUES:
        labels = [f"{scene.gold_name} {value:g}" for value in values]
        return labels, np.where(there, np.searchsorted(values, np.where(there, gold, values[0])), -1).astype(np.int8)
    edges = np.unique(quantiles(gold[there], [at / BINS for at in range(1, BINS)]))
    group = np.where(there, np.searchsorted(edges, np.where(there, gold, 0), "right"), -1).astype(np.int8)
    ends = [values[0], *edges, values[-1]]
    labels = [f"{scene.gold_name} {low:g} to {high:g}" for low, high in itertools.pairwise(ends)]
    return labels, group
