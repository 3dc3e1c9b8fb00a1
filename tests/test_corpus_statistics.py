"""Statistics over a corpus: what was planted in indexes of hand-made rows is returned, and nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_index import WIDTH, Written, directions, index_of, turned
from index_files import attributor, contributions_of, facts_of, write_index
from numpy.typing import NDArray
from tiny_models import TinyModels, random_text
from typer.testing import CliRunner

from attribution_core.errors import SettingError
from jobs.analysis.corpus import collect as scan
from jobs.analysis.corpus.collect import Nearest
from jobs.analysis.corpus.compute import corpus_statistics, read_queries
from jobs.analysis.corpus.near import bucket_groups, near_groups, unit_rows
from jobs.analysis.corpus.result import Repeated
from jobs.cli.main import app
from jobs.errors import RunError, SourceError
from jobs.index.queries import ModelEncoder
from jobs.index.reader import Index, open_index
from jobs.progress import Progress
from jobs.storage.store import Store
from jobs.views.corpus.page import corpus_html
from jobs.views.corpus.terminal import corpus_text


def plain(count: int, seed: int = 0, sentences: int = 3) -> dict[str, Written]:
    """Documents of different sentences and of rows in all directions, each about as long as its sentence."""
    rows = directions(count * sentences, seed).reshape(count, sentences, WIDTH)
    return {
        f"d{number}": [(f"Sentence {at} is only in {number}.", row) for at, row in enumerate(rows[number])]
        for number in range(count)
    }


def members(found: Repeated) -> list[set[str]]:
    return [{one.document for one in group.examples} for group in found.largest]


def test_what_is_not_repeated_is_not_returned(tmp_path: Path) -> None:
    """Would catch every false alarm of all parts, and sentences of one document that are compared with each other."""
    documents = plain(40)
    row = documents["d1"][0][1]
    # Twice in one document, in text and row, is no repetition.
    documents["d1"] = [*documents["d1"], documents["d1"][0], ("Another text of nearly this row.", turned(row, 0.999))]
    found = corpus_statistics(index_of(tmp_path, documents))
    assert found.documents == 40
    assert found.sentences == 122
    assert found.same_text is not None
    assert found.near_sentences is not None
    assert found.boilerplate is not None
    assert (found.same_text.groups, found.near_sentences.groups, found.near_documents.groups) == (0, 0, 0)
    assert (found.boilerplate.sentences, found.boilerplate.documents) == (0, 0)
    assert found.hubs is None
    assert found.notes == ()


def test_repeated_sentences_and_documents(tmp_path: Path) -> None:
    """Would catch texts that are compared letter by letter, a threshold that is not met, and a chain cut in two."""
    documents = plain(30)
    rows = directions(4, seed=9)
    for at, name in enumerate(("d3", "d7", "d20")):
        # The same text in other contexts: rows in other directions.
        written = "It  SAYS the same." if at else "it says the same."
        documents[name] = [*documents[name], (written, rows[at])]
    near = documents["d5"][1][1]
    documents["d6"] = [*documents["d6"], ("In other words.", turned(near, 0.985, 1))]
    documents["d8"] = [*documents["d8"], ("Not quite.", turned(near, 0.97, 2))]
    documents["copy"] = [(f"{words} Again.", row) for words, row in documents["d10"]]
    found = corpus_statistics(index_of(tmp_path, documents))
    assert found.same_text is not None
    assert found.near_sentences is not None
    assert found.same_text.groups == 1
    assert found.same_text.documents == 3
    assert members(found.same_text) == [{"d3", "d7", "d20"}]
    assert found.same_text.largest[0].examples[0].text == "it says the same."
    assert found.same_text.largest[0].examples[0].number == 4
    assert members(found.near_documents) == [{"d10", "copy"}]
    # Three sentences of the copy, and the one in other words.
    assert found.near_sentences.groups == 4
    assert {"d5", "d6"} in members(found.near_sentences)
    group = next(one for one in found.near_sentences.largest if one.examples[0].document == "d5")
    assert group.cosines == (pytest.approx(0.985, abs=1e-3),)
    assert [one.text for one in group.examples] == ["Sentence 1 is only in 5.", "In other words."]


def test_buckets_return_what_every_pair_returns() -> None:
    """Would catch vectors in wrong buckets, pairs that are not compared, and a recall that promises too much."""
    units = directions(3000, width=64)
    # 300 pairs exactly at the threshold, and 200 just below it.
    for at in range(500):
        units[2 * at + 1] = turned(units[2 * at], 0.981 if at < 300 else 0.972, at)
    values = np.rint(127 * units / np.abs(units).max(1, keepdims=True)).astype(np.int8)
    owners = np.arange(len(units))
    exact = near_groups(values, owners, owners, 0.98)
    assert exact.recall == 1
    pairs = exact.labels[0:1000:2] == exact.labels[1:1000:2]
    assert pairs[:300].all()
    assert not pairs[300:].any()
    by_bucket = bucket_groups(values, owners, owners, 0.98)
    found = by_bucket.labels[0:1000:2] == by_bucket.labels[1:1000:2]
    assert by_bucket.recall >= 0.95
    assert found[:300].mean() >= by_bucket.recall - 0.04
    assert not found[300:].any()
    assert len(np.unique(by_bucket.labels)) >= len(np.unique(exact.labels))
    # Chosen vectors alone: no pair has both of its vectors.
    some = near_groups(values, owners[1::2], owners[1::2], 0.98)
    assert len(np.unique(some.labels)) == len(units) // 2
    # One owner: nothing to compare.
    assert len(np.unique(near_groups(values, owners, np.zeros(len(units)), 0.98).labels)) == len(units)
    assert len(np.unique(bucket_groups(values, owners, np.zeros(len(units)), 0.98).labels)) == len(units)


def test_a_crowded_bucket_is_one_group_and_lowers_the_recall(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch copies of one vector that fall apart, and a recall that hides pairs that were not compared."""
    row = directions(1, width=32)[0]
    same = np.stack([turned(row, 0.9995, seed) for seed in range(600)])
    others = directions(600, 3, width=32)
    labels = bucket_groups(np.concatenate([same, others]), np.arange(1200), np.arange(1200), 0.98).labels
    assert len(np.unique(labels[:600])) == 1
    assert len(np.unique(labels)) == 601
    # Rows of one cone that are not near each other: they share buckets, whatever the number of bits.
    cone = unit_rows(others + 6 * row)
    monkeypatch.setattr("jobs.analysis.corpus.near.MOST_BITS", 8)
    whole = bucket_groups(cone, np.arange(600), np.arange(600), 0.9999)
    monkeypatch.setattr("jobs.analysis.corpus.near.NEIGHBOURS", 2)
    assert bucket_groups(cone, np.arange(600), np.arange(600), 0.9999).recall < whole.recall


def test_boilerplate(tmp_path: Path) -> None:
    """Would catch a share that is not of the document, a count of sentences for documents, and a pull of all alike."""
    documents = plain(50, sentences=1)
    shared = directions(1, seed=5)[0]
    for number in range(20):
        # Half of the embedding's length, in one direction; twice in one document.
        row = np.linalg.norm(documents[f"d{number}"][0][1]) * shared
        documents[f"d{number}"] = [*documents[f"d{number}"], ("All rights reserved.", row)]
    documents["d0"] = [*documents["d0"], ("All rights reserved.", shared)]
    for number in range(4):
        documents[f"d{number}"] = [*documents[f"d{number}"], ("In four documents.", directions(1, seed=90 + number)[0])]
    found = corpus_statistics(index_of(tmp_path, documents))
    assert found.boilerplate is not None
    assert found.boilerplate.least == 5
    assert (found.boilerplate.sentences, found.boilerplate.documents) == (1, 20)
    (one,) = found.boilerplate.most
    assert one.documents == 20
    assert one.sentence.text == "All rights reserved."
    expected, towards, whole = [], 0.0, 0.0
    embeddings = {name: sum(row for _, row in written) for name, written in documents.items()}
    mean = np.mean([one / np.linalg.norm(one) for one in embeddings.values()], axis=0)
    for number in range(20):
        written, embedding = documents[f"d{number}"], embeddings[f"d{number}"]
        added = sum(row for words, row in written if words == "All rights reserved.")
        expected.append(added @ embedding / (embedding @ embedding))
        towards += added @ mean / np.linalg.norm(embedding)
        whole += embedding @ mean / np.linalg.norm(embedding)
    assert one.own_share == pytest.approx(np.mean(expected), abs=1e-4)
    assert one.pull == pytest.approx(towards / whole, abs=0.01)
    assert one.pull > one.own_share
    # It is not called a repetition too; what four documents have is one.
    assert found.same_text is not None
    assert found.same_text.groups == 1
    assert found.same_text.largest[0].documents == 4


@pytest.mark.parametrize(
    ("factors", "favours"), [((3, 1, 1, 1), "beginnings"), ((1, 1, 1, 3), "ends"), ((1,) * 4, "neither")]
)
def test_position(tmp_path: Path, factors: tuple[int, ...], favours: str) -> None:
    """Would catch places that are mixed up, and a length that is not taken into account."""
    random = np.random.default_rng(0)
    documents: dict[str, Written] = {}
    for number, direction in enumerate(directions(200)):
        counts = random.integers(2, 12, 4)
        # Rows as long as the sentences, times a factor of the place.
        sentences = ["x" * 9 + "".join(f" word{one % 10}xxxx" for one in range(count)) for count in counts]
        documents[f"d{number}"] = [
            (words, factor * len(words) * direction) for words, factor in zip(sentences, factors, strict=True)
        ]
    whole = corpus_statistics(index_of(tmp_path, documents))
    found = whole.position
    assert found.favours == favours
    assert found.documents == 200
    assert [one.name for one in found.sentences] == ["1", "2", "3", "4"]
    ratios = np.array([one.ratio for one in found.sentences])
    np.testing.assert_allclose(ratios / ratios[1], np.array(factors) / factors[1], rtol=0.25)
    assert sum(one.share for one in found.tenths) == pytest.approx(1, abs=1e-3)
    assert [one.length for one in found.tenths] == pytest.approx([0.1] * 10, abs=5e-3)
    for one in found.tenths:
        assert one.low is not None
        assert one.high is not None
        assert one.low <= one.ratio <= one.high
    assert f"The model favours {favours}" in corpus_text(whole)


def test_nearest_documents_equal_a_sort() -> None:
    """Would catch blocks whose numbers are shifted, and documents that a later block pushes out."""
    queries, documents = directions(30, 1), directions(700, 2)
    expected = np.argsort(-(queries @ documents.T), axis=1)[:, :10]
    nearest = Nearest(5 * queries.astype(np.float32), 10, cosine=True)
    for at in range(0, 700, 64):
        nearest.add(documents[at : at + 64].astype(np.float32))
        if at % 192 == 0:
            nearest._multiply()
    found, scores = nearest.best()
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ documents.T, expected, 1), atol=1e-5)


def _hub_index(folder: Path) -> tuple[Index, list[str]]:
    """An index with a document near every query, because of one sentence, and queries by number."""
    queries = directions(60, seed=3) + 0.6 * np.ones(WIDTH) / np.sqrt(WIDTH)
    documents = plain(300)
    own = documents["d17"][0][1]
    everywhere = 4 * np.ones(WIDTH) / np.sqrt(WIDTH)
    documents["d17"] = [("Its own matter.", own), ("This says nothing in particular.", everywhere)]
    return index_of(folder, documents, encode=encoder(queries)), [f"query {number}" for number in range(60)]


def encoder(queries: NDArray[Any]) -> Callable[[str], NDArray[Any]]:
    """Maps "query 3" to row 3, and the probe to its embedding."""
    return lambda text: queries[int(text.split()[1])] if text.startswith("query") else np.ones(WIDTH)


def test_hubs(tmp_path: Path) -> None:
    """Would catch counts of hits for counts of queries, a hub that is missed, and chance that is called a hub."""
    index, queries = _hub_index(tmp_path)
    found = corpus_statistics(index, queries).hubs
    assert found is not None
    assert (found.queries, found.nearest) == (60, 10)
    assert found.documents[0].sentence.document == "d17"
    assert found.documents[0].sentence.text == "This says nothing in particular."
    assert found.documents[0].queries > 25
    assert found.documents[0].expected == pytest.approx(2)
    assert found.sentences[0].sentence == found.documents[0].sentence
    assert found.sentences[0].queries > 25
    assert found.skewness is not None
    assert found.skewness > found.chance_skewness + 2
    rows, ids = [], []
    for batch in index.batches():
        rows.append(batch.embeddings)
        ids += batch.ids
    units = unit_rows(np.concatenate(rows))
    near = np.argsort(-(np.stack([index.encoded(query) for query in queries]) @ units.T), axis=1)[:, :10]
    counts = np.bincount(near.ravel(), minlength=300)
    assert found.never == (counts == 0).sum()
    assert found.chance_never == pytest.approx(300 * (1 - 10 / 300) ** 60)
    # Of a binomial distribution, (1 - 2p) / sqrt(np (1 - p)).
    assert found.chance_skewness == pytest.approx((1 - 20 / 300) / np.sqrt(60 * (10 / 300) * (290 / 300)))
    assert found.documents[0].queries == counts[ids.index("d17")]


def test_without_a_hub_none_is_named(tmp_path: Path) -> None:
    """Would catch a rule that calls the largest of many counts a hub."""
    index = index_of(tmp_path, plain(300), encode=encoder(directions(60, seed=3)))
    whole = corpus_statistics(index, [f"query {number}" for number in range(60)])
    found = whole.hubs
    assert found is not None
    assert found.hub_documents == 0
    assert found.hub_sentences == 0
    said = " ".join(corpus_text(whole).split())
    assert "No document is in many more." in said
    assert "no small group of documents takes the results" in said


def test_damaged_documents_are_counted_and_the_rest_is_used(tmp_path: Path) -> None:
    documents = plain(200)
    index_of(tmp_path, documents)
    (part, _) = sorted((tmp_path / "generations/00001/documents").iterdir())
    data = bytearray(part.read_bytes())
    # In the rows of one record batch.
    at = bytes(data).index(np.float32(documents["d70"][0][1][0]).tobytes())
    data[at] ^= 0xFF
    part.write_bytes(data)
    found = corpus_statistics(open_index(tmp_path))
    assert found.documents == 200 - 64
    assert len(found.notes) == 1
    assert found.notes[0].startswith("64 documents left out, damaged: ")
    assert "64 documents left out" in corpus_text(found)
    for path in (tmp_path / "generations/00001/documents").iterdir():
        path.write_bytes(b"")
    with pytest.raises(RunError, match="part-00000"):
        corpus_statistics(open_index(tmp_path))


def test_an_index_without_texts_or_of_words_leaves_out_what_needs_them(tmp_path: Path) -> None:
    documents = plain(30)
    documents["copy"] = [("Other words.", 2 * row) for _, row in documents["d3"]]
    found = corpus_statistics(index_of(tmp_path / "bare", documents, texts=False))
    assert found.same_text is None
    assert found.boilerplate is None
    assert found.near_sentences is not None
    assert found.near_sentences.groups == 3
    assert found.near_sentences.largest[0].examples[0].text is None
    assert found.notes == ("The index has no texts: the same text and boilerplate are left out, and no text is shown.",)
    assert "Boilerplate" not in corpus_text(found)
    by_word = corpus_statistics(index_of(tmp_path / "words", documents, groups="word"))
    assert (by_word.same_text, by_word.near_sentences, by_word.boilerplate) == (None, None, None)
    assert by_word.near_documents.groups == 1
    assert by_word.notes[0].startswith("The index is by word: ")
    assert "By word" in corpus_text(by_word)


def test_rows_that_do_not_fit_into_memory_are_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch rows of the first documents alone, and a sample that is not said."""
    documents = plain(200)
    monkeypatch.setattr(scan, "ROW_BYTES", 300 * WIDTH)
    index = index_of(tmp_path, documents)
    found = corpus_statistics(index)
    assert found.near_sentences is not None
    assert 150 < found.near_sentences.of <= 300
    assert found.sentences == 600
    assert "documents drawn at random" in found.notes[0]
    corpus = scan.collect(index, np.zeros((0, WIDTH), np.float32), 0, progress=Progress())
    assert corpus.documents[corpus.held].max() > 150
    restored = unit_rows(corpus.rows) * corpus.row_lengths[:, None]
    expected = np.concatenate([[row for _, row in written] for written in documents.values()])[corpus.held]
    np.testing.assert_allclose(restored, expected, atol=6e-3)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch flags that are ignored, an index that is written into, and texts that a page runs."""
    documents = plain(30)
    documents["<b>x</b>"] = [("<script>alert(1)</script> Again.", row) for _, row in documents["d10"][:1]]
    documents["same"] = [*documents["<b>x</b>"]]
    index_of(tmp_path / "index", documents)
    before = sorted(str(path) for path in (tmp_path / "index").rglob("*"))
    page = tmp_path / "page.html"
    result = CliRunner().invoke(app, ["stats", str(tmp_path / "index"), "--json", "--html", str(page), "--quiet"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["same_text"]["groups"] == 1
    assert found["documents"] == 32
    assert sorted(str(path) for path in (tmp_path / "index").rglob("*")) == before
    html = page.read_text()
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)" in html
    printed = CliRunner().invoke(app, ["stats", str(tmp_path / "index")])
    assert "Documents with nearly the same embedding" in printed.stdout
    for flag in (["--all"], ["--only", "position"], ["--sample", "3"], ["--gold", "x"], ["--pipeline", "none"]):
        result = CliRunner().invoke(app, ["stats", str(tmp_path / "index"), *flag])
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1
        assert f"{flag[0]} is only for a run" in result.stderr
    result = CliRunner().invoke(app, ["stats", str(tmp_path), "--queries", "x.tsv"])
    assert result.exit_code == 2
    assert "--queries is only for an index" in result.stderr


def test_the_index_s_model_encodes_queries_together(tiny: TinyModels, tmp_path: Path) -> None:
    """Would catch embeddings under another query, and a query without a token that stops all others."""
    model = attributor(tiny.load("bert", similarity="cosine"))
    rng = random.Random(0)
    texts = {f"d{number}": f"{random_text(rng, words=5)}. {random_text(rng, words=4)}." for number in range(12)}
    write_index(Store.open(str(tmp_path)), contributions_of(model, texts), list(texts), facts_of(model))
    index = open_index(tmp_path)
    index._encode = ModelEncoder(model)
    queries = ["a coffee", "", "tea is not bad at all, and neither is coffee", "bad"]
    found = index.encoded_many(queries)
    assert found[1] is None
    for query, one in zip(queries, found, strict=True):
        if one is not None:
            np.testing.assert_allclose(one, index.encoded(query), rtol=1e-4, atol=1e-6)
    with pytest.raises(SettingError, match="the query has"):
        index.encoded("")
    statistics = corpus_statistics(index, queries)
    assert statistics.hubs is not None
    assert statistics.hubs.queries == 3
    assert statistics.notes == ("1 query left out: the model reads no token of it.",)


def test_queries_are_any_table(tmp_path: Path) -> None:
    (tmp_path / "queries.tsv").write_text("1\thow it works\n2\twhy not\n")
    (tmp_path / "queries.jsonl").write_text('{"_id": "1", "text": "how it works"}\n{"_id": "2", "text": " "}\n')
    assert read_queries(str(tmp_path / "queries.tsv")) == ["how it works", "why not"]
    assert read_queries(str(tmp_path / "queries.jsonl")) == ["how it works"]
    (tmp_path / "none.jsonl").write_text('{"_id": "2", "text": ""}\n')
    with pytest.raises(SourceError, match="has no queries"):
        read_queries(str(tmp_path / "none.jsonl"))


def test_the_page_has_every_part(tmp_path: Path) -> None:
    index, queries = _hub_index(tmp_path)
    html = corpus_html(corpus_statistics(index, queries))
    for title in ("same sentence", "Boilerplate", "Position", "By tenth of the text", "near many queries (hubs)"):
        assert title in html
    assert 'class="bar"' in html
