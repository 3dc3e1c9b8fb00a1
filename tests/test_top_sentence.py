"""Top-sentence deletion: what each sentence costs, which one each method chooses, and intervals over queries."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from counting_model import DIMENSIONS, CountingModel
from evaluation_runs import tiny_row, tiny_run
from pair_runs import Row, attributed, cut_text, words, write_pairs
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tiny_models import TOKENIZERS, WORDS, TinyModels

from attribution_core import Attributor
from attribution_core.results import PairAttribution
from jobs.analysis.faithfulness.evaluate import evaluate_run
from jobs.analysis.faithfulness.perturbation import Side
from jobs.analysis.faithfulness.sentences import (
    ALONE,
    CHANCE,
    LIFT,
    POOLED,
    DeletedSentences,
    delete_sentences,
    top_sentences,
)
from jobs.run.reader import Run
from jobs.views.report.faithfulness import read_faithfulness, sections

SENTENCES = ("A red ball.", "The dog walked fast.", "Stations are good.", "Reading is a river.")


class Counting(CountingModel):
    """The counting model with token embeddings: a sentence's are the mean of its words' axes."""

    def word_vectors(self, side: Side, role: str, *, mean: bool = False) -> Any:
        assert mean
        counts = [self.embed([(role, side.text[start:end])])[role, side.text[start:end]] for start, end in side.spans]
        return np.stack(counts) / np.array([[max(one.sum(), 1)] for one in counts])


class OtherWidth(Counting):
    """One whose embeddings are narrower than its tokens."""

    def word_vectors(self, side: Side, role: str, *, mean: bool = False) -> Any:
        return np.ones((len(side), DIMENSIONS + 1))


def by_sentence(
    query: str, pieces: Sequence[str], lift: Sequence[float] | None = None, sums: Sequence[float] | None = None
) -> PairAttribution:
    """A query by words with a document by sentences, whose sentences have that lift and these sums."""
    document = cut_text(" ".join(pieces), pieces, unit="sentence", role="document")
    inner = np.zeros((len(query.split()), len(pieces)))
    inner[0] = 0 if sums is None else sums
    pair = replace(attributed(words(query, "query"), document, inner), pair_id=query)
    if lift is None:
        return pair
    return replace(pair, col_lift=np.array([0, *lift, 0], np.float32), row_lift=pair.row_sums)


def deleted(pairs: Iterable[PairAttribution], judge: Any = None) -> list[DeletedSentences]:
    return delete_sentences([(pair, pair.a.text) for pair in pairs], judge or Counting())


def test_what_each_sentence_costs_is_the_score_of_the_rest() -> None:
    query = "the dog walked"
    (one,) = deleted([by_sentence(query, SENTENCES, lift=(0, 3, 1, 2), sums=(1, 2, 3, 4))])
    score = CountingModel().score
    whole = score(query, " ".join(SENTENCES))
    rest = [" ".join(s for s in SENTENCES if s != gone) for gone in SENTENCES]
    np.testing.assert_allclose(one.drops, [whole - score(query, text) for text in rest], atol=1e-12)
    np.testing.assert_allclose(one.values[ALONE], [score(query, text) for text in SENTENCES], atol=1e-12)
    np.testing.assert_allclose(one.values[POOLED], one.values[ALONE], atol=1e-12)
    assert (one.values[LIFT].tolist(), one.values["sums"].tolist()) == ([0, 3, 1, 2], [1, 2, 3, 4])
    assert one.score == pytest.approx(whole)
    assert one.drops.argmax() == 1
    assert one.chosen(LIFT) == one.chosen(ALONE) == one.drops[1] > 0
    assert one.chosen("sums") == one.drops[3]
    assert one.chosen(CHANCE) == pytest.approx(one.drops.mean())


def test_shares_are_of_the_best_possible_and_differences_are_paired() -> None:
    pairs = [by_sentence(f"{word} dog walked", SENTENCES, (0, 1, 0, 0), (1, 0, 0, 0)) for word in WORDS[:8]]
    measured = deleted(pairs)
    found = top_sentences(measured, seed=0)
    assert found is not None
    assert (found.pairs, found.draws, found.sentences) == (8, 8, 32)
    best = sum(one.drops.max() for one in measured)
    assert found.best == pytest.approx(best / 8)
    of = {one.method: one for one in found.methods}
    assert list(of) == [LIFT, "sums", ALONE, POOLED, CHANCE]
    for method, one in of.items():
        assert one.share.mean == pytest.approx(sum(pair.chosen(method) for pair in measured) / best)
        assert one.drop == pytest.approx(np.mean([pair.chosen(method) for pair in measured]))
        if one.ahead is not None:
            assert one.ahead.mean == pytest.approx(of[LIFT].share.mean - one.share.mean)
    assert of[LIFT].ahead is None
    assert of[LIFT].share.mean == pytest.approx(1, abs=0.2)
    # The same choice in every pair: no difference in any draw.
    assert of[ALONE].ahead is not None
    same = [pair.chosen(ALONE) == pair.chosen(LIFT) for pair in measured]
    assert (of[ALONE].ahead.low == of[ALONE].ahead.high == 0) == all(same)
    assert top_sentences(measured[::-1], seed=0) == found


def test_intervals_resample_queries() -> None:
    """Ten copies of a query's pairs are one draw, and leave the interval as it is; as queries of their own not."""
    chance = np.random.default_rng(2)
    pairs = [
        DeletedSentences(f"p{at}", f"q{at}", 0.5, chance.normal(0.1, 0.3, 4), {LIFT: chance.normal(0, 1, 4)})
        for at in range(30)
    ]
    copies = [replace(one, pair_id=f"{one.pair_id}-{n}") for one in pairs for n in range(10)]
    others = [
        replace(one, text_a_id=f"{one.text_a_id}-{n}", pair_id=f"{one.pair_id}-{n}") for one in pairs for n in range(10)
    ]
    alone, copied, many = (top_sentences(of, seed=1) for of in (pairs, copies, others))
    assert alone is not None
    assert copied is not None
    assert many is not None
    share, same, narrow = (of.methods[0].share for of in (alone, copied, many))
    assert (copied.draws, copied.pairs, many.draws) == (30, 300, 300)
    assert (same.mean, same.low, same.high) == pytest.approx((share.mean, share.low, share.high))
    assert narrow.high - narrow.low < (share.high - share.low) / 2
    assert share.low < share.mean < share.high


def test_nothing_behind_the_cut_is_read_when_a_sentence_is_deleted() -> None:
    pair = by_sentence("good river", SENTENCES[:3], lift=(0, 0, 1))
    document = replace(pair.b, text=f"{pair.b.text} good river good river.", truncated=True, cut_at=len(pair.b.text))
    model = Counting()
    (one,) = deleted([replace(pair, b=document)], model)
    assert not any("river" in text for text in model.asked if text != "good river")
    (whole,) = deleted([pair])
    np.testing.assert_array_equal(one.drops, whole.drops)


def test_short_documents_few_queries_and_useless_sentences_give_no_result() -> None:
    pairs = [by_sentence(f"{word} ball", SENTENCES) for word in WORDS[:6]]
    assert deleted([by_sentence("red ball", SENTENCES[:2])]) == []
    assert top_sentences([], seed=0) is None
    assert top_sentences(deleted(pairs[:5]), seed=0) is None
    assert top_sentences(deleted(pairs), seed=0) is not None
    assert top_sentences(deleted([by_sentence(f"{at} of nothing", ("x.", "y.", "z.")) for at in range(6)]), 0) is None


def test_without_a_lift_the_sums_are_the_attributions_and_other_widths_are_not_pooled() -> None:
    (one,) = deleted([by_sentence("the dog", SENTENCES)], OtherWidth())
    assert list(one.values) == ["sums", ALONE]
    (paper,) = deleted([replace(by_sentence("the dog", SENTENCES), sums_to="difference")])
    assert list(paper.values) == ["paper's sums", ALONE, POOLED]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Documents of a bag of words in which one sentence is the query, attributed by its model, by sentences."""
    place = tmp_path_factory.mktemp("planted")
    tokenizer = TOKENIZERS["bert"]()
    vectors = np.random.default_rng(3).normal(0, 1, (len(tokenizer), 64))
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=vectors)], device="cpu")
    model.save(str(place / "model"), create_model_card=False)
    rng = random.Random(1)
    names = [word for word in WORDS if word.isalpha() and word.islower()]
    texts = []
    for at in range(8):
        drawn = rng.sample(names, 15)
        sentences = [f"{' '.join(drawn[n : n + 3]).capitalize()}." for n in range(0, 15, 3)]
        texts.append((sentences[at % 5], " ".join(sentences)))
    attributor = Attributor(SentenceTransformer(str(place / "model"), device="cpu"), groups="sentence")
    rows = [Row(f"p{at}", pair) for at, pair in enumerate(attributor.attribute_pairs(texts))]
    return write_pairs(place / "run", [rows], model=str(place / "model"), groups="sentence", sums_to="score")


def test_every_method_finds_the_sentence_that_is_the_query(planted: Run) -> None:
    found = evaluate_run(planted, steps=2, orders=1, shapley=2)
    assert found.sentences is not None
    assert (found.groups, found.sentences.pairs, found.sentences.sentences) == ("sentence", 8, 40)
    for one in found.sentences.methods:
        if one.method == CHANCE:
            assert one.share.high < 0.5
            assert one.ahead is not None
            assert one.ahead.low > 0.5
        else:
            assert one.share.mean == pytest.approx(1), one.method
    for one in found.deleted:
        assert one.drops.argmax() == int(one.pair_id[1:]) % 5


def test_the_result_is_stored_printed_and_in_the_report(planted: Run) -> None:
    found = evaluate_run(planted, steps=2, orders=1, shapley=2)
    names = found.write(planted.store)
    assert "statistics/faithfulness-sentences.parquet" in names
    stored = json.loads(planted.store.read("statistics/faithfulness.json"))
    assert stored["sentences"]["pairs"] == 8
    assert stored["sentences"]["methods"][0] == {
        "method": LIFT,
        "drop": pytest.approx(stored["sentences"]["best"]),
        "share": {"mean": pytest.approx(1), "low": pytest.approx(1), "high": pytest.approx(1)},
        "ahead": None,
    }
    assert "deleted" not in stored
    rows = pq.read_table(Path(planted.url) / names[-1]).to_pylist()
    for row, one in zip(rows, found.deleted, strict=True):
        assert (row["pair_id"], row["score"]) == (one.pair_id, pytest.approx(one.score))
        np.testing.assert_allclose(row["drops"], one.drops, atol=1e-6)
        assert [name for name, _ in row["values"]] == list(one.values)
        np.testing.assert_allclose(dict(row["values"])[LIFT], one.values[LIFT], atol=1e-6)
    assert "choose (by lift), by 100% of that (8 documents" in " ".join(str(found).split())
    part, faithfulness = sections(read_faithfulness(planted.store) or {})
    assert (part["id"], faithfulness["id"]) == ("found-sentences", "found-faithfulness")
    assert "costs 100% of that (100% to 100%)" in part["meaning"]
    (plot,) = part["plots"]
    assert [name in plot["svg"] for name in ("lift (highlighted)", "sentence by itself", "chance")] == [True] * 3
    assert str(plot["svg"]).count("<rect") == 5


def test_sentences_of_documents_alone_and_runs_by_word(tiny: TinyModels, tmp_path: Path, rng: random.Random) -> None:
    """Where queries are grouped by word the documents' sentences are deleted; where documents are, none."""
    model = str(tiny.folder("bert", normalize=True))
    rows = [Row(f"p{at}", by_sentence(f"{word} ball", SENTENCES, (1, 0, 0, 0))) for at, word in enumerate(WORDS[:7])]
    by_role = {"query": "word", "document": "sentence"}
    settings = {"model": model, "mode": "retrieval", "sums_to": "score"}
    run = write_pairs(tmp_path / "roles", [rows], groups=by_role, **settings)  # type: ignore[arg-type]
    found = evaluate_run(run, steps=2, orders=1, shapley=2)
    assert found.sentences is not None
    assert (found.groups, found.sentences.pairs) == ("word or sentence", 7)
    by_word = tiny_run(tiny, tmp_path / "words", [[tiny_row(rng, f"p{at}") for at in range(6)]])
    plain = evaluate_run(by_word, steps=2, orders=1, shapley=2)
    assert (plain.sentences, plain.deleted, plain.groups) == (None, (), "word")
    assert not any("sentences" in name for name in plain.write(by_word.store))
    assert "Top sentence" not in str(plain)
    stored = read_faithfulness(by_word.store)
    assert stored is not None
    assert [part["id"] for part in sections(stored)] == ["found-faithfulness"]
    # Evaluations of earlier versions have no sentences.
    del stored["sentences"]
    assert [part["id"] for part in sections(stored)] == ["found-faithfulness"]
