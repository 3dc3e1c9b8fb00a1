"""How often the rules of jobs/analysis/failures recognise failures planted on real documents, as a table.

A COLLECTION is a folder in BEIR's layout (corpus.jsonl, queries.jsonl, qrels/test.tsv). MiniLM ranks its documents: all
of them, or the judged ones and others up to --documents. Then each kind of failure is planted in up to --cases queries,
beside controls that have everything but the cause:

- near-duplicates: a copy of a relevant document stands in place of the tenth one, either with few edits (a negation, a
  number, an antonym) or with half its words replaced by words of other documents, in stretches of up to seven words or
  one by one. Controls: the tenth document itself against the relevant one (pairs), and all nine (any of ten).
- behind the cut: a relevant document behind so much of irrelevant ones that the model does not read it. Controls: an
  unrelated document there, and an irrelevant one of the query's top 50.
- a sentence would win: a relevant document's best sentence among sentences of an unrelated document. Controls: one of
  its other sentences, at random, there.
- a word without effect: a word of the other collection, its stem in no document, put into a query. Controls: the
  query's own content words.

Baselines judge the same cases: a lexical one (bags of words, by Jaccard or by idf of the query's words), and one by
embeddings (cosine of documents; MaxSim of the last layer's token embeddings for sentences; those token embeddings in
place of contributions for words). Each is cut where it has as many false alarms as the rule.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import Stemmer
from machine import describe, minilm
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from attribution_core import Attributor
from attribution_core.pairs.completion import Completion
from attribution_core.text.words import sentence_spans
from jobs.analysis.failures import near_duplicates as duplicates
from jobs.analysis.failures.behind_the_cut import better_unread
from jobs.analysis.failures.sentence_would_win import winning_sentence
from jobs.analysis.probes.edits import EDITS, source
from jobs.analysis.statistics.query_words import CONTENT, without_effect
from jobs.analysis.statistics.tagging import installed_pipelines, load_pipeline

Array = NDArray[Any]
TOP, NEAR = 10, 50
COPIES = ("few edits", "half the words replaced in stretches", "half the words replaced one by one")
PAIRS, LISTS = "pairs", "any of ten"
LONGEST = 7
STEMMER = Stemmer.Stemmer("english")


@dataclass
class Collection:
    """Texts and the model's ranking of them; ``relevant`` has the judged documents of grade 1 or more by query."""

    name: str
    ids: list[str]
    texts: list[str]
    embeddings: Array
    queries: dict[str, str]
    relevant: dict[str, set[int]]
    ranked: dict[str, Array]
    scores: dict[str, Array]
    stems: list[frozenset[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stems = [frozenset(stems_of(text)) for text in self.texts]
        counts = Counter(stem for one in self.stems for stem in one)
        self.idf = {stem: float(np.log(len(self.texts) / count)) for stem, count in counts.items()}

    def wrong(self, query: str, most: int) -> list[int]:
        """The documents among the top ``most`` that are not judged relevant."""
        return [int(at) for at in self.ranked[query][:most] if at not in self.relevant[query]]

    def unrelated(self, query: str, rng: random.Random) -> int:
        """A document from the lower half of the ranking, not judged relevant."""
        half = self.ranked[query][len(self.texts) // 2 :]
        while True:
            at = int(half[rng.randrange(len(half))])
            if at not in self.relevant[query] and len(sentence_spans(self.texts[at])) > 2:
                return at


def stems_of(text: str) -> list[str]:
    """The stems of a text's words."""
    return [str(stem) for stem in STEMMER.stemWords(duplicates.words_of(text))]


def load(folder: Path, documents: int, model: SentenceTransformer, rng: random.Random) -> Collection:
    """A collection, ranked by the model."""
    with (folder / "qrels" / "test.tsv").open(encoding="utf-8") as lines:
        rows = [line.split("\t") for line in lines][1:]
    with (folder / "corpus.jsonl").open(encoding="utf-8") as lines:
        corpus = {row["_id"]: f"{row.get('title', '')} {row['text']}".strip() for row in map(json.loads, lines)}
    judged = {document for _, document, _ in rows}
    others = sorted(one for one in corpus if one not in judged)
    rng.shuffle(others)
    ids = [one for one in [*sorted(judged), *others][: max(documents, len(judged))] if corpus.get(one)]
    place = {one: at for at, one in enumerate(ids)}
    relevant: dict[str, set[int]] = {}
    for query, document, grade in rows:
        if int(grade) > 0 and document in place:
            relevant.setdefault(query, set()).add(place[document])
    with (folder / "queries.jsonl").open(encoding="utf-8") as lines:
        queries = {row["_id"]: row["text"] for row in map(json.loads, lines) if row["_id"] in relevant}
    texts = [corpus[one] for one in ids]
    embeddings, asked = encoded(model, texts), encoded(model, list(queries.values()))
    scores = dict(zip(queries, asked @ embeddings.T, strict=True))
    ranked = {query: np.argsort(-values, kind="stable") for query, values in scores.items()}
    return Collection(folder.name, ids, texts, embeddings, queries, relevant, ranked, scores)


def encoded(model: SentenceTransformer, texts: Sequence[str]) -> Array:
    """Unit embeddings, [n, d]."""
    values: Array = model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
    return values


@dataclass
class Measured:
    """One kind on one collection: what each judge's value is in planted cases and in controls, and what the rule says.

    ``values`` by judge; the first one is the rule's own value, ``rule`` its verdicts.
    """

    kind: str
    collection: str
    planted: dict[str, list[float]] = field(default_factory=dict)
    controls: dict[str, list[float]] = field(default_factory=dict)
    rule: tuple[list[bool], list[bool]] = field(default_factory=lambda: ([], []))

    def add(self, values: dict[str, float], verdict: bool, *, control: bool) -> None:
        """Add a case."""
        for judge, value in values.items():
            (self.controls if control else self.planted).setdefault(judge, []).append(value)
        self.rule[control].append(verdict)

    def row(self) -> str:
        """A row of the table: the rule, then the baselines at no more false alarms than the rule has."""
        alarms = float(np.mean(self.rule[1]))
        cells = []
        for number, judge in enumerate(self.planted):
            values, control = np.array(self.planted[judge]), np.array(self.controls[judge])
            found, false = float(np.mean(self.rule[0])), alarms
            if number > 0:
                cut = np.sort(control)[::-1][min(int(alarms * len(control) + 1e-9), len(control) - 1)]
                found, false = float((values > cut).mean()), float((control > cut).mean())
            cells.append(f"{found:.0%} at {false:.0%} ({area(values, control):.2f})")
        cases = f"{len(self.rule[0])}, {len(self.rule[1])}"
        return " | ".join(["", self.kind, self.collection, cases, *cells, ""]).strip()


def area(planted: Array, controls: Array) -> float:
    """AUC: how often a planted case has the larger value; ties count half."""
    higher = (planted[:, None] > controls[None]).mean()
    return float(higher + (planted[:, None] == controls[None]).mean() / 2)


def near_duplicates(c: Collection, model: SentenceTransformer, rng: random.Random, cases: int) -> list[Measured]:
    """Copies with few edits, and with half their words replaced, in stretches or one by one."""
    kinds = {
        (what, where): Measured(f"near-duplicates, {what}, {where}", c.name)
        for where in (PAIRS, LISTS)
        for what in COPIES
    }
    count = 0
    for query in sampled(c, rng):
        top = [int(at) for at in c.ranked[query][:TOP]]
        relevant = next((at for at in top[:-1] if at in c.relevant[query]), None)
        edited = None if relevant is None else few_edits(c.texts[relevant], rng)
        if relevant is None or edited is None:
            continue
        copies = [edited, *(replaced(c, relevant, rng, longest) for longest in (LONGEST, 1))]
        here = top.index(relevant)
        texts = [c.texts[at] for at in top]
        for what, copy in zip(COPIES, copies, strict=True):
            embeddings = np.concatenate([c.embeddings[top[:-1]], encoded(model, [copy])])
            for where, others in ((PAIRS, [TOP - 1]), (LISTS, [at for at in range(TOP) if at != here])):
                add_document(kinds[what, where], texts, c.embeddings[top], here, others, control=True)
                add_document(kinds[what, where], [*texts[:-1], copy], embeddings, here, others, control=False)
        count += 1
        if count == cases:
            break
    return list(kinds.values())


def add_document(
    measured: Measured, texts: list[str], embeddings: Array, here: int, others: Sequence[int], *, control: bool
) -> None:
    """A document and ``others`` of a query's top documents: what it has in common with the one most like it."""
    words = [duplicates.words_of(text) for text in texts]
    sequences, bags = [duplicates.sequences(one) for one in words], [frozenset(one) for one in words]
    values = {
        "rule": max(duplicates.shared(sequences[here], sequences[at]) for at in others),
        "lexical": max(len(bags[here] & bags[at]) / len(bags[here] | bags[at]) for at in others),
        "embeddings": max(float(embeddings[here] @ embeddings[at]) for at in others),
    }
    verdict = any({here, at} == {i, j} for i, j, _ in duplicates.near_duplicates(texts) for at in others)
    measured.add(values, verdict, control=control)


def few_edits(text: str, rng: random.Random) -> str | None:
    """A copy with a negation, another number and an antonym, as far as the text offers them; None where it has none."""
    copy = text
    for edit in EDITS[:3]:
        changed = edit.make(source(copy, [rng.random() for _ in sentence_spans(copy)], rng.randrange, None))
        copy = changed.text if changed is not None else copy
    return copy if copy != text else None


def replaced(c: Collection, at: int, rng: random.Random, longest: int) -> str:
    """A copy with half its words replaced by words of any document, in stretches of up to ``longest`` words."""
    words = c.texts[at].split()
    pool = " ".join(c.texts[rng.randrange(len(c.texts))] for _ in range(20)).split()
    copy: list[str] = []
    while len(copy) < len(words):
        stretch = words[len(copy) :][: rng.randint(1, longest)]
        copy += rng.choices(pool, k=len(stretch)) if rng.random() < 0.5 else stretch
    return " ".join(copy)


@dataclass
class Scored:
    """The sentences of a text against a query by each judge, [n] each."""

    model: Array
    lexical: Array
    tokens: Array


class Sentences:
    """Scores sentences: the model's embeddings, idf of shared stems, MaxSim of token embeddings."""

    def __init__(self, c: Collection, model: SentenceTransformer) -> None:
        self.c, self.model = c, model

    def scored(self, query: str, sentences: Sequence[str]) -> Scored:
        """The scores of ``sentences`` against the query of that id."""
        asked, *given = self.model.encode(
            [self.c.queries[query], *sentences], output_value=None, show_progress_bar=False
        )
        embedding, tokens = _unit(asked["sentence_embedding"]), _token_embeddings(asked)
        stems = set(stems_of(self.c.queries[query]))
        return Scored(
            np.array([float(embedding @ _unit(one["sentence_embedding"])) for one in given]),
            np.array([sum(self.c.idf.get(stem, 0.0) for stem in stems & set(stems_of(one))) for one in sentences]),
            np.array([float((tokens @ _token_embeddings(one).T).max(1).mean()) for one in given]),
        )


def _unit(value: Any) -> Array:
    array = np.asarray(value.cpu().numpy(), np.float64)
    return array / np.linalg.norm(array)


def _token_embeddings(one: dict[str, Any]) -> Array:
    tokens = one["token_embeddings"][one["attention_mask"].bool()].cpu().numpy().astype(np.float64)
    return np.asarray(tokens / np.linalg.norm(tokens, axis=1, keepdims=True))


def behind_the_cut(
    c: Collection, model: SentenceTransformer, attributor: Attributor, rng: random.Random, cases: int
) -> list[Measured]:
    """A relevant, an unrelated and an on-topic text behind what the model reads."""
    kinds = {what: Measured(f"behind the cut, {what}", c.name) for what in ("unrelated tails", "on-topic tails")}
    sentences = Sentences(c, model)
    for query in sampled(c, rng):
        wrong = c.wrong(query, NEAR)
        rng.shuffle(wrong)
        head, used = "", 0
        while used < len(wrong) - 1 and cut_of(attributor, head) is None:
            head, used = f"{head} {c.texts[wrong[used]]}".strip(), used + 1
        relevant = max(c.relevant[query], key=lambda at: c.scores[query][at])
        tails = {"planted": relevant, "unrelated tails": c.unrelated(query, rng), "on-topic tails": wrong[used]}
        head = head[: cut_of(attributor, head)]
        for what, tail in tails.items():
            text = f"{head} {c.texts[tail]}"
            spans = sentence_spans(text)
            scored = sentences.scored(query, [text[start:end] for start, end in spans])
            starts, cut_at = [start for start, _ in spans], cut_of(attributor, text)
            unread = np.array(starts) >= (cut_at or 0)
            if cut_at is None or unread.all() or not unread.any():
                break
            values = {
                judge: float(each[unread].max() - each[~unread].max())
                for judge, each in (("rule", scored.model), ("lexical", scored.lexical), ("tokens", scored.tokens))
            }
            verdict = better_unread(scored.model, starts, cut_at) is not None
            for kind, measured in kinds.items():
                if what in ("planted", kind):
                    measured.add(values, verdict, control=what != "planted")
        if len(kinds["unrelated tails"].rule[0]) == cases:
            break
    return list(kinds.values())


def cut_of(attributor: Attributor, text: str) -> int | None:
    """Where the model stops to read a text."""
    return attributor.read([text], "text")[0].cut_at if text else None


def sentence_would_win(c: Collection, model: SentenceTransformer, rng: random.Random, cases: int) -> Measured:
    """The best sentence of a relevant document, or another one, among those of an unrelated document."""
    measured = Measured("a sentence would win", c.name)
    judges = Sentences(c, model)
    for query in sampled(c, rng):
        relevant = max(c.relevant[query], key=lambda at: c.scores[query][at])
        own = [c.texts[relevant][start:end] for start, end in sentence_spans(c.texts[relevant])]
        if len(own) < 3:
            continue
        scored = judges.scored(query, own)
        best = int(scored.model.argmax())
        other = rng.choice([at for at in range(len(own)) if at != best])
        text = c.texts[c.unrelated(query, rng)]
        foreign = [text[start:end] for start, end in sentence_spans(text)]
        here = rng.randrange(len(foreign))
        texts = [[*foreign[:here], own[at], *foreign[here:]] for at in (best, other)]
        diluted = encoded(model, [" ".join(one) for one in texts]) @ encoded(model, [c.queries[query]])[0]
        # The wrong document that is next above the planted one; the control has the same.
        above = [at for at in c.wrong(query, len(c.texts)) if c.scores[query][at] > diluted.max()]
        if not above:
            continue
        wrong = above[-1] if len(above) < TOP else above[rng.randrange(TOP)]
        text = c.texts[wrong]
        winner = judges.scored(query, [text, *(text[start:end] for start, end in sentence_spans(text))])
        for control, one in enumerate(texts):
            values = judges.scored(query, one)
            measured.add(
                {
                    "rule": float(values.model.max() - winner.model[0]),
                    "lexical": float(values.lexical.max() - winner.lexical[1:].max()),
                    "tokens": float(values.tokens.max() - winner.tokens[1:].max()),
                },
                winning_sentence(values.model, float(winner.model[0])) is not None,
                control=bool(control),
            )
        if len(measured.rule[0]) == cases:
            break
    return measured


def words_without_effect(
    c: Collection, other: Collection, model: SentenceTransformer, attributor: Attributor, rng: random.Random, cases: int
) -> Measured:
    """Words of the other collection's queries among those of a query."""
    nlp, _ = load_pipeline(installed_pipelines()[0])
    known = frozenset().union(*c.stems)
    strangers = sorted({
        word.text
        for doc in nlp.pipe(other.queries.values())
        for word in doc
        if word.pos_ in CONTENT and word.text.isalpha() and not set(stems_of(word.text)) & known
    })  # fmt: skip
    measured = Measured("a word without effect", c.name)
    for query in sampled(c, rng)[:cases]:
        words = c.queries[query].split()
        place = rng.randrange(1, len(words))
        stranger = rng.choice(strangers)
        planted = " ".join([*words[:place], stranger, *words[place:]])
        for text, wanted in ((c.queries[query], None), (planted, stranger)):
            for label, values, verdict in lifts(c, model, attributor, nlp, text):
                if wanted is None or label == wanted:
                    measured.add(values, verdict, control=wanted is None)
    return measured


def lifts(
    c: Collection, model: SentenceTransformer, attributor: Attributor, nlp: Any, text: str
) -> Iterable[tuple[str, dict[str, float], bool]]:
    """The content words of a query with each judge's value (negative mean lifts) and the rule's verdict."""
    one = attributor.contributions(attributor.read([text], "text"))[0]
    length = float(np.linalg.norm(one.embedding_D))
    unit = one.embedding_D / length
    top = np.argsort(-(c.embeddings @ unit), kind="stable")[:TOP]
    documents = c.embeddings[top].astype(np.float64)
    scores = documents @ unit
    against = documents - scores[:, None] * unit  # what a group's lift is the product with, [documents, d]
    exact = (Completion().completed(one) @ against.T).mean(1) / length
    tokens = model.encode([text], output_value=None, show_progress_bar=False)[0]["token_embeddings"].cpu().numpy()
    groups = one.text.groups
    summed = np.zeros((len(groups), tokens.shape[1]))
    np.add.at(summed, list(groups.of_token), tokens[: len(groups.of_token)] / len(groups.of_token))
    plain = (summed @ against.T).mean(1) / np.linalg.norm(summed.sum(0))
    met = frozenset().union(*(c.stems[at] for at in top))
    tags = {word.idx: word.pos_ for word in nlp(text)}
    for at, (start, label) in enumerate(zip(groups.starts, groups.labels, strict=True)):
        if groups.kinds[at] != "text" or tags.get(start) not in CONTENT or not re.search(r"\w", label):
            continue
        stands = bool(set(stems_of(label)) & met)
        verdict = bool(without_effect(np.array([True]), np.array([stands]), exact[[at]])[0])
        values = (-9.0, -9.0, -9.0) if stands else (-exact[at], 1.0, -plain[at])
        yield label, dict(zip(("rule", "lexical", "tokens"), map(float, values), strict=True)), verdict


def sampled(c: Collection, rng: random.Random) -> list[str]:
    """The judged queries in a random order."""
    queries = sorted(query for query in c.queries if c.relevant[query])
    rng.shuffle(queries)
    return queries


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", nargs=2, type=Path, metavar="COLLECTION")
    parser.add_argument("--documents", type=int, default=1500)
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print(f"{describe()}, sentence-transformers {version('sentence-transformers')}\n", flush=True)
    model = SentenceTransformer(minilm())
    attributor = Attributor(model, layer=-1, tolerance=0.015)
    loaded = [load(folder, asked.documents, model, random.Random(asked.seed)) for folder in asked.collections]
    print("| kind | collection | planted, controls | rule | lexical | embeddings |")
    print("|---|---|---|---|---|---|")
    for c, other in zip(loaded, reversed(loaded), strict=True):
        # Each kind draws its own numbers: it is the same with and without the others.
        draws = [random.Random(asked.seed) for _ in range(4)]
        for measured in itertools.chain(
            near_duplicates(c, model, draws[0], asked.cases),
            behind_the_cut(c, model, attributor, draws[1], asked.cases),
            [sentence_would_win(c, model, draws[2], asked.cases)],
            [words_without_effect(c, other, model, attributor, draws[3], asked.cases)],
        ):
            print(measured.row(), flush=True)


if __name__ == "__main__":
    main()
