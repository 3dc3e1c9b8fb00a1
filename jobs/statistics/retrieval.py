"""A retrieval log: relevant documents against others, ranks, and what each word of a query brought."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from attribution_core.sparse import SHARES
from jobs.statistics.measure import Measure, Result, Scene, Table, columns_table, figure, numbers
from jobs.statistics.reading import Batch
from jobs.statistics.schema import Figure
from jobs.statistics.sums import Array, BucketSums, divided, first_of_each, quantised
from jobs.statistics.tagging import UNIVERSAL
from jobs.statistics.texts import PUNCTUATION, TEXT

RELEVANCE = ("relevant", "not relevant", "not judged")
RANKS = (*range(1, 21), 21, 51, 101, 1 << 30)
CONTENT = ("NOUN", "PROPN", "VERB", "ADJ", "ADV", "NUM", "X")
# A word is answered by a document where it brings at least this much of an even share of the words' sum.
ANSWERED = 0.5
WORDS_SHOWN = 200

MEASURES = {
    "score": "mean score",
    "total": "mean sum of all cells",
    "largest_5": "share of the total that the largest 5 % of cells give",
    "exact": "share of the sum between words that identical words give",
    "negative_mass": "share of negative cells in the sum of absolute values",
    "special": "share of the total that cells of special and prompt tokens give",
    "answered": f"share of the query's content words that bring at least {ANSWERED:g} of an even share",
}
# Above and below of each measure, in the order of what _Retrieval sums up.
SUMMED = (
    "count",
    "score",
    "total",
    "largest_5",
    "exact",
    "text_total",
    "negative",
    "mass",
    "special",
    "answered",
    "content",
)
RATIOS = {
    "score": ("score", "count"),
    "total": ("total", "count"),
    "largest_5": ("largest_5", "total"),
    "exact": ("exact", "text_total"),
    "negative_mass": ("negative", "mass"),
    "special": ("special", "total"),
    "answered": ("answered", "content"),
}


class Retrieval(Measure):
    name = "retrieval"
    title = "Retrieval"
    meaning = "Relevant documents against others, documents by rank, and what each word of the queries brought."

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        texts = scene.texts
        first, last = texts.role_start if scene.run.roles[0] == "query" else (0, len(texts))
        self.texts = (first, last)
        self.begin, self.end = int(texts.offsets[first]), int(texts.offsets[last])
        query = slice(self.begin, self.end)
        content = (texts.kind[query] == TEXT) & ((texts.flags[query] & PUNCTUATION) == 0)
        if texts.pipeline is not None:
            content &= np.isin(texts.pos[query], [UNIVERSAL.index(tag) for tag in CONTENT])
        self.content = content
        n = self.end - self.begin
        self.documents, self.sum, self.below = (np.zeros(n) for _ in range(3))
        self.best, self.best_lift = np.zeros(n), np.full(n, -np.inf)
        self.best_rank = np.full(n, np.iinfo(np.int32).max, np.int32)
        self.groups: dict[str, list[BucketSums]] = {}
        if "relevance" in scene.kept:
            self.groups["relevance"] = [scene.sums(len(SUMMED)) for _ in RELEVANCE]
        if "rank" in scene.kept:
            self.groups["rank"] = [scene.sums(len(SUMMED)) for _ in RANKS[:-1]]

    @staticmethod
    def missing(scene: Scene) -> str | None:
        if scene.run.roles[0] == "query" or {"rank", "relevance"} & set(scene.kept):
            return None
        return "The run is no retrieval log: it has no queries, and no ranks or relevance in numbers."

    def add(self, batch: Batch) -> None:
        answered, content = self._words(batch)
        one = batch.scalars
        five = batch.largest[:, SHARES.index(0.05)]
        summed = np.column_stack(
            [
                *(np.ones(len(batch)), one["score"], one["total"], five, one["exact"], batch.text_total),
                *(-one["negative"], one["positive"] - one["negative"], one["special"], answered, content),
            ]
        )
        for name, sums in self.groups.items():
            values = numbers(batch.kept[name])
            if name == "relevance":
                group = np.where(np.isfinite(values), np.where(values > 0, 0, 1), 2)
            else:
                group = np.where(np.isfinite(values), np.searchsorted(RANKS, np.nan_to_num(values), "right") - 1, -1)
            for at in np.unique(group[group >= 0]):
                own = group == at
                sums[int(at)].add_rows(batch.bucket[own], summed[own])

    def _words(self, batch: Batch) -> tuple[Array, Array]:
        """Add what the words of the queries brought; of each pair, its answered and all its content words, [n]."""
        pair, word = batch.rows
        texts, n = batch.texts, len(batch)
        own = texts.kind[word] == TEXT
        pair, place, value = pair[own], word[own] - self.begin, batch.row_values[own]
        whole = np.bincount(pair, value, n)
        lift = divided(value * texts.words[batch.a][pair], np.where(whole > 0, whole, 0)[pair])
        content = self.content[place]
        answers = np.bincount(pair, content & (np.nan_to_num(lift) >= ANSWERED), n)
        size, quantum = len(self.sum), self.scene.quantum
        self.documents += np.bincount(place, minlength=size)
        self.sum += np.bincount(place, quantised(value, quantum), size)
        self.below += np.bincount(place, quantised(whole, quantum)[pair], size)
        there = np.isfinite(lift)
        top = np.full(size, -np.inf)
        np.maximum.at(top, place[there], lift[there])
        there &= lift == top[place]
        place, lift, value, rank = place[there], lift[there], value[there], batch.rank[pair[there]]
        # Of several documents that answer a word equally well, the first in order.
        order = np.lexsort((rank, place))
        place, lift, value, rank = place[order], lift[order], value[order], rank[order]
        first = first_of_each(place)
        place, lift, value, rank = place[first], lift[first], value[first], rank[first]
        better = (lift > self.best_lift[place]) | ((lift == self.best_lift[place]) & (rank < self.best_rank[place]))
        at = place[better]
        self.best_lift[at], self.best[at], self.best_rank[at] = lift[better], value[better], rank[better]
        return answers, np.bincount(pair, content, n)

    def result(self) -> Result:
        tables, figures = [], []
        for name, labels in (("relevance", list(RELEVANCE)), ("rank", _rank_labels())):
            if name in self.groups:
                tables.append(self._by_group(name, labels))
        if "relevance" in self.groups:
            figures = self._relevance_figures()
        terms, unanswered = self._terms()
        tables += [terms, unanswered]
        asked = (self.documents > 0) & self.content
        open_words = asked & (self.best_lift < ANSWERED)
        share = open_words.sum() / asked.sum() if asked.any() else None
        said = "share of the queries' content words that no retrieved document answered"
        figures.append(Figure(name="unanswered", value=share, meaning=said))
        notes = [
            f"A document answers a word where the word's row sum is at least {ANSWERED:g} of what an even spread over "
            "the query's words would give."
        ]
        return Result(figures, tables, notes)

    def _by_group(self, name: str, labels: list[str]) -> Table:
        columns: dict[str, list[Any]] = {"group": [], "order": [], "measure": [], "pairs": []}
        floats: dict[str, list[float]] = {"value": [], "low": [], "high": []}
        for order, (label, sums) in enumerate(zip(labels, self.groups[name], strict=True)):
            pairs = int(sums.total[0])
            for measure, (above, below) in RATIOS.items() if pairs else ():
                found = self.scene.resampling.ratio(
                    sums.values[:, SUMMED.index(above)], sums.values[:, SUMMED.index(below)]
                )
                for key, value in zip(columns, (label, order, measure, pairs), strict=True):
                    columns[key].append(value)
                for key, values in zip(floats, found, strict=True):
                    floats[key].append(float(values[0]))
        data = columns_table(**columns, **{key: np.array(values, np.float64) for key, values in floats.items()})
        described = {
            "group": "relevant: a judged relevance above 0" if name == "relevance" else "rank in the log, from 1",
            "order": "number of the group",
            "measure": "; ".join(f"{key}: {text}" for key, text in MEASURES.items()),
            "value": "the measure over the pairs of the group",
        }
        meaning = f"Pairs of a log by {name}."
        return Table(f"retrieval_{name}", meaning, data, described)

    def _relevance_figures(self) -> list[Figure]:
        relevant, other = (self.groups["relevance"][at].values for at in (0, 1))
        figures = []
        draw = self.scene.resampling
        for measure in ("score", "exact", "largest_5"):
            above, below = (SUMMED.index(name) for name in RATIOS[measure])
            for name, values in (("relevant", relevant), ("not_relevant", other)):
                if values[:, 0].sum():
                    said = f"{MEASURES[measure]}, {name.replace('_', ' ')} documents"
                    unit = "" if measure == "score" else "share"
                    found = draw.ratio(values[:, above], values[:, below])
                    figures.append(figure(f"{measure}_{name}", said, found, unit))
        return figures

    def _terms(self) -> tuple[Table, Table]:
        import pyarrow as pa

        texts = self.scene.texts
        own = texts.kind[self.begin : self.end] == TEXT
        at = np.flatnonzero((self.documents > 0) & own)
        word = at + self.begin
        of_text = np.searchsorted(texts.offsets, word, "right") - 1
        names = pa.array(texts.names)
        lift = self.best_lift[at]
        known = np.isfinite(lift)
        ids = np.full(len(at), None, object)
        ids[known] = self.scene.pairs.ids(self.best_rank[at][known].tolist())
        data = columns_table(
            query_id=texts.text_ids.take(pa.array(of_text)),
            place=texts.place[word],
            word=names.take(pa.array(texts.word[word])),
            pos=pa.array(UNIVERSAL).take(pa.array(texts.pos[word].astype(np.int64))),
            content=self.content[at],
            documents=self.documents[at].astype(np.int64),
            mean=self.sum[at] / self.documents[at],
            share=divided(self.sum[at], self.below[at]),
            best=np.where(known, self.best[at], np.nan),
            best_lift=np.where(known, lift, np.nan),
            answered=lift >= ANSWERED,
            pair_id=pa.array(ids.tolist(), pa.string()),
        )
        described = {
            "query_id": "the query",
            "place": "which word of the query, from 0",
            "word": "that word, letter case aside",
            "pos": "its part of speech (X without a pipeline)",
            "content": "whether it is a noun, verb, adjective, adverb or number (any word without a pipeline)",
            "documents": "retrieved documents",
            "mean": "mean of its row sum over them",
            "share": "its row sums over those of all the query's words",
            "best": "its row sum in the document where its lift is largest",
            "best_lift": "row sum against an even spread over the query's words, in that document",
            "answered": f"whether best_lift is at least {ANSWERED:g}",
            "pair_id": "the pair with that document",
        }
        terms = Table("query_terms", "What each word of each query brought, from row sums. Exact.", data, described)
        return terms, self._unanswered(at)

    def _unanswered(self, at: Array) -> Table:
        texts = self.scene.texts
        at = at[self.content[at]]
        word = texts.word[at + self.begin]
        asked = np.bincount(word, minlength=len(texts.names))
        missed = np.bincount(word, self.best_lift[at] < ANSWERED, len(texts.names)).astype(np.int64)
        shown = np.flatnonzero(missed)
        order = sorted(shown.tolist(), key=lambda w: (-missed[w], asked[w], texts.names[w]))[:WORDS_SHOWN]
        data = columns_table(word=[texts.names[w] for w in order], asked=asked[order], unanswered=missed[order])
        described = {
            "word": "content word of queries, letter case aside",
            "asked": "how often queries have it",
            "unanswered": "how often no retrieved document answered it",
        }
        return Table("unanswered_words", "Words that no retrieved document answered.", data, described)


def _rank_labels() -> list[str]:
    pairs = itertools.pairwise(RANKS)
    return [str(a) if b == a + 1 else (f"{a} and more" if b == 1 << 30 else f"{a}-{b - 1}") for a, b in pairs]
