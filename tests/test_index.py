"""Highlights from an index equal the attributions of its model; bad input is one line and costs no other document."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
from index_files import PROBE, attributor, contributions_of, facts_of, write_index
from s3_server import S3Server
from tiny_models import TinyModels, random_text

from attribution_core import Attributor
from attribution_core.errors import SettingError
from attribution_core.results import Contributions
from attribution_core.text.grouping import KINDS
from jobs.errors import RunError, StoreError
from jobs.index.blocks import footer_blocks
from jobs.index.format import PRECISIONS, Precision
from jobs.index.highlights import Highlight
from jobs.index.reader import Index, open_index
from jobs.index.snapshot import Snapshot
from jobs.storage.store import Store

Similarity = Literal["cosine", "dot"]
QUERY = "is the coffee not bad"
# Of a share, with a tiny model whose rows are longer than its scores.
CLOSE = {"int8": 2e-2, "float16": 2e-3, "float32": 2e-5}


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    draw = random.Random(21)
    names = [f"doc{at}" for at in range(150)] + ["naïve ☕", "漢字", "a/b", " "]
    return {name: random_text(draw, draw.randint(5, 30), sentences=True) for name in names}


@pytest.fixture(scope="module")
def models(tiny: TinyModels) -> dict[str, Attributor]:
    return {
        name: attributor(
            tiny.load("bert", similarity=name, prompts={"query": "question: ", "document": ""}), way="forward"
        )
        for name in ("cosine", "dot")
    }


@pytest.fixture(scope="module")
def known(models: dict[str, Attributor], texts: dict[str, str]) -> dict[str, list[Contributions]]:
    return {name: contributions_of(model, texts) for name, model in models.items()}


@pytest.fixture
def folder(
    tmp_path: Path, models: dict[str, Attributor], known: dict[str, list[Contributions]], texts: dict[str, str]
) -> Path:
    """An index by cosine with int8 rows, of two parts."""
    write_index(Store.open(tmp_path / "index"), known["cosine"], list(texts), facts_of(models["cosine"]))
    return tmp_path / "index"


def embedding(model: Attributor, text: str) -> Any:
    return model.routes.of("query").embeddings(model.read([text], "query"))[0]


def as_tuples(index: Index, ids: Sequence[str], vector: Any) -> list[Any]:
    return [tuple(hit) for hit in index.highlight_vector(vector, ids, None)]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_shares_and_lifts_are_the_attributions(
    similarity: Similarity,
    precision: Precision,
    models: dict[str, Attributor],
    known: dict[str, list[Contributions]],
    texts: dict[str, str],
    tmp_path: Path,
) -> None:
    """Would catch rows of another document, a query's length left in, and special tokens among the spans."""
    model = models[similarity]
    write_index(Store.open(tmp_path), known[similarity], list(texts), facts_of(model, precision))
    index = open_index(tmp_path)
    ids = random.Random(1).sample(list(texts), 12)
    hits = index.highlight_vector(embedding(model, QUERY), ids, None)
    assert [hit.id for hit in hits] == ids
    for hit, pair in zip(hits, model.attribute_pairs([(QUERY, texts[one]) for one in ids]), strict=True):
        scale = 1.0 if similarity == "cosine" else float(np.abs(pair.col_sums).max())
        close = {"rtol": 0, "atol": CLOSE[precision] * scale}
        assert hit.score == pytest.approx(pair.score, abs=2e-4 * scale)
        assert hit.error == pytest.approx(pair.col_sums.sum() - pair.score, abs=3 * close["atol"])
        groups = pair.b.groups
        of_text = [at for at, kind in enumerate(groups.kinds) if kind == "text"]
        spans = sorted(hit.spans)
        assert [(span.start, span.end) for span in spans] == [(groups.starts[at], groups.ends[at]) for at in of_text]
        assert [span.text for span in spans] == [groups.labels[at] for at in of_text]
        np.testing.assert_allclose([span.share for span in spans], pair.col_sums[of_text], **close)
        if similarity == "cosine":
            assert pair.col_lift is not None
            np.testing.assert_allclose([span.lift for span in spans], pair.col_lift[of_text], **close)
        else:
            assert {span.lift for span in spans} == {None}
        strength = [span.share if span.lift is None else span.lift for span in hit.spans]
        assert strength == sorted(strength, reverse=True)
        assert hit.text == texts[hit.id]


def test_sums_are_the_score_and_lifts_sum_to_zero(
    folder: Path, models: dict[str, Attributor], texts: dict[str, str]
) -> None:
    """The formulas by hand, from a document's rows."""
    index = open_index(folder)
    vector = embedding(models["cosine"], QUERY)
    (hit,) = index.highlight_vector(vector, ["漢字"], None)
    document = index.document("漢字")
    rows = np.vstack([document.rows, document.remainder]).astype(np.float64)
    e = rows.sum(0)
    np.testing.assert_allclose(document.embedding, e, atol=1e-5)
    shares = rows @ vector / np.linalg.norm(e) / np.linalg.norm(vector)
    lifts = shares - shares.sum() * (rows @ e) / (e @ e)
    assert hit.score == pytest.approx(shares.sum(), abs=1e-6)
    assert hit.error == pytest.approx(-shares[-1], abs=1e-6)
    assert lifts.sum() == pytest.approx(0, abs=1e-9)
    of_span = {(span.start, span.end): span for span in hit.spans}
    for at, kind in enumerate(document.kinds):
        if KINDS[kind] == "text":
            span = of_span[int(document.starts[at]), int(document.ends[at])]
            assert (span.share, span.lift) == pytest.approx((shares[at], lifts[at]), abs=1e-6)
    assert document.text == texts["漢字"]


def test_the_k_strongest_come_first(folder: Path, models: dict[str, Attributor]) -> None:
    index = open_index(folder)
    vector = embedding(models["cosine"], QUERY)
    every = index.highlight_vector(vector, ["doc1", "doc2"], None)
    for k in (1, 2, 100):
        some = index.highlight_vector(vector, ["doc1", "doc2"], k)
        assert [hit.spans for hit in some] == [hit.spans[:k] for hit in every]
    with pytest.raises(SettingError, match="k is 0"):
        index.highlight_vector(vector, ["doc1"], 0)


def test_many_queries_are_what_each_is_alone(
    folder: Path, texts: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch hits of a neighbour's query where documents are looked up together."""
    monkeypatch.setattr("jobs.index.reader.LOOKED_UP_AT_ONCE", 7)
    index = open_index(folder)
    draw = random.Random(3)
    vectors = np.random.default_rng(3).normal(size=(9, index.facts.width))
    ids = [draw.choices([*texts, "none"], k=draw.randint(0, 12)) for _ in vectors]
    together = index.highlight_vectors(vectors, ids)
    for vector, names, found in zip(vectors, ids, together, strict=True):
        alone = index.highlight_vector(vector, names)
        assert [hit.id for hit in found] == [name for name in names if name != "none"] == [hit.id for hit in alone]
        for one, other in zip(found, alone, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-5)
            np.testing.assert_allclose([s.share for s in one.spans], [s.share for s in other.spans], atol=1e-5)
        assert [one.id for one in found.missing] == [name for name in names if name == "none"]
    with pytest.raises(SettingError, match="9 vectors have 1 lists of ids"):
        index.highlight_vectors(vectors, [["doc1"]])


def test_unknown_ids_are_reported_and_the_others_answered(folder: Path, models: dict[str, Attributor]) -> None:
    index = open_index(folder)
    vector = embedding(models["cosine"], QUERY)
    found = index.highlight_vector(vector, ["doc1", "nobody", "naïve ☕", "\ud800", "doc1"])
    assert [hit.id for hit in found] == ["doc1", "naïve ☕", "doc1"]
    assert tuple(found.missing[0]) == ("nobody", "the index has no document 'nobody'")
    assert [one.id for one in found.missing] == ["nobody", "\ud800"]
    assert found.damaged == []
    assert ("doc1" in index, " " in index, "nobody" in index, 7 in index) == (True, True, False, False)
    with pytest.raises(RunError, match="has no document 'nobody'"):
        index.document("nobody")
    for wrong in ("doc1", [7]):
        with pytest.raises(SettingError, match=r"give a list of ids|is a text; found 7"):
            index.highlight_vector(vector, wrong)  # type: ignore[arg-type]
    assert list(index.highlight_vector(vector, [])) == []


def test_ids_of_one_hash_are_told_apart(
    tmp_path: Path,
    models: dict[str, Attributor],
    known: dict[str, list[Contributions]],
    texts: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Would catch an index that believes the hash, and entries of one hash that reach into the next block."""
    for place in ("index_files", "jobs.index.places"):
        monkeypatch.setattr(f"{place}.id_hash", lambda text: len(text.encode() if isinstance(text, str) else text) % 2)
    monkeypatch.setattr("jobs.index.snapshot.ID_BLOCK", 7)
    write_index(Store.open(tmp_path), known["cosine"], list(texts), facts_of(models["cosine"]))
    index = open_index(tmp_path)
    assert {name: index.document(name).text for name in texts} == texts
    assert "doc7777" not in index


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


def _first_blocks(path: Path) -> Any:
    data = path.read_bytes()
    length = int.from_bytes(data[-10:-6], "little")
    return footer_blocks(data[-10 - length : -10])


def _damage(kind: str, path: Path) -> None:
    block = _first_blocks(path)[0].item()
    if kind == "values":
        _flip(path, block[0] + block[1] + block[3] // 2)
    elif kind == "metadata":
        data = path.read_bytes()
        place = block[0] + block[1] // 2
        path.write_bytes(data[:place] + b"\xff" * 64 + data[place + 64 :])
    elif kind == "footer":
        _flip(path, path.stat().st_size - 3)
    elif kind == "truncated":
        os.truncate(path, path.stat().st_size // 3)
    elif kind == "empty":
        os.truncate(path, 0)
    else:
        path.unlink()


def _read_by_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read local files by the code of S3."""
    for module in ("blocks", "cache"):
        monkeypatch.setattr(f"jobs.index.{module}.LocalStore", type("Nothing", (), {}))


@pytest.mark.parametrize("remote", [False, True], ids=["mapped", "ranges"])
@pytest.mark.parametrize("kind", ["values", "metadata", "footer", "truncated", "empty", "missing"])
def test_a_damaged_batch_costs_its_documents_alone(
    kind: str, remote: bool, folder: Path, models: dict[str, Attributor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ranges: the code of S3, on local files."""
    if remote:
        _read_by_ranges(monkeypatch)
    vector = embedding(models["cosine"], QUERY)
    ids = ["doc1", "doc100", "doc140"]
    before = as_tuples(open_index(folder), ids, vector)
    _damage(kind, folder / "generations/00001/documents/part-00000.arrow")
    index = open_index(folder)
    found = index.highlight_vector(vector, ids, None)
    (first, *_) = found.damaged
    assert first.id == "doc1"
    assert "doc1" in first.reason
    assert "part-00000.arrow" in first.reason
    assert "\n" not in first.reason
    # The second batch is whole where only the first was changed.
    lost = 1 if kind in ("values", "metadata") else 2
    assert [one.id for one in found.damaged] == ids[:lost]
    assert [tuple(hit) for hit in found] == before[lost:]
    assert found.missing == []
    with pytest.raises((RunError, StoreError), match=r"part-00000\.arrow"):
        index.document("doc1")
    lines: list[str] = []
    assert sum(len(batch.ids) for batch in index.batches(lines)) == {1: 90, 2: 26}[lost]
    assert len(lines) == lost


def _numbers(hit: Highlight) -> list[float | None]:
    return [hit.score, hit.error, *(value for span in hit.spans for value in (span.share, span.lift))]


@pytest.mark.parametrize("remote", [False, True], ids=["mapped", "ranges"])
def test_a_bit_that_changed_never_changes_an_answer(
    remote: bool, folder: Path, models: dict[str, Attributor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any bit of a part or of the ids: documents are answered as before, or with a line that names the file."""
    if remote:
        _read_by_ranges(monkeypatch)
    vector = embedding(models["cosine"], QUERY)
    ids = ["doc1", "doc100", "doc140"]
    before = {hit.id: hit for hit in open_index(folder).highlight_vector(vector, ids, None)}
    draw = random.Random(9)
    lines: list[tuple[str, str]] = []
    for path in [folder / "generations/00001/documents/part-00000.arrow", *(folder / "ids").iterdir()]:
        data = path.read_bytes()
        for _ in range(60):
            changed = bytearray(data)
            # Structure is a small part of a file; half of the bits are of it.
            at = draw.choice((draw.randrange(len(data)), draw.randrange(4096), len(data) - 1 - draw.randrange(1024)))
            changed[at % len(data)] ^= 1 << draw.randrange(8)
            path.write_bytes(changed)
            try:
                found = open_index(folder).highlight_vector(vector, ids, None)
            except RunError as error:
                lines.append((path.name, str(error)))
                continue
            for hit in found:
                one = before[hit.id]
                assert (hit.text, hit.truncated) == (one.text, one.truncated)
                assert [span[:2] for span in hit.spans] == [span[:2] for span in one.spans]
                # Products of other numbers of rows differ in the last digits.
                np.testing.assert_allclose(_numbers(hit), _numbers(one), atol=1e-6)
            lost = [*found.missing, *found.damaged]
            assert [hit.id for hit in found] == [one for one in ids if one not in {each.id for each in lost}]
            assert not found.missing
            lines += [(path.name, one.reason) for one in lost]
        path.write_bytes(data)
    assert len(lines) > 30
    assert all(name in line and "\n" not in line for name, line in lines)


def test_damaged_ids_are_one_line(folder: Path) -> None:
    (ids,) = (folder / "ids").iterdir()
    _flip(ids, _first_blocks(ids)[0].item()[0] + 400)
    found = open_index(folder).highlight_vector(np.ones(open_index(folder).facts.width), ["doc1"])
    assert [one.id for one in found.damaged] == ["doc1"]
    assert "ids/" in found.damaged[0].reason
    os.truncate(ids, 20)
    with pytest.raises(RunError, match="is damaged"):
        open_index(folder)


def test_vectors_that_are_not_of_the_model_are_one_line(
    folder: Path, models: dict[str, Attributor], tiny: TinyModels
) -> None:
    index = open_index(folder)
    width = index.facts.width
    for wrong, message in [
        (np.ones(width + 1), rf"shape \[{width + 1}\].*needs \[{width}\]"),
        (np.ones((2, width)), "shape"),
        (np.full(width, np.nan), "not finite"),
        (np.zeros(width), "is zero"),
        ("coffee", "not an array of numbers"),
    ]:
        with pytest.raises(SettingError, match=message) as caught:
            index.highlight_vector(wrong, ["doc1"])
        assert "\n" not in str(caught.value)
    own = embedding(models["cosine"], index.probe_text)
    other = attributor(tiny.load("bert", seed=5))
    assert len(index.highlight_vector(own, ["doc1"], probe=own / 7)) == 1
    assert len(open_index(folder, encode=lambda text: embedding(models["cosine"], text)).highlight("x", ["doc1"])) == 1
    with pytest.raises(SettingError, match=r"cosine.*not 1"):
        index.highlight_vector(own, ["doc1"], probe=embedding(other, index.probe_text))
    with pytest.raises(SettingError, match=r"encode is not the index's model"):
        open_index(folder, encode=lambda text: embedding(other, text))
    document = models["cosine"].routes.of("document")
    unprompted = document.embeddings(models["cosine"].read([index.probe_text], "document"))[0]
    with pytest.raises(SettingError, match="with its query prompt"):
        index.highlight_vector(own, ["doc1"], probe=unprompted)


def test_a_dot_index_wants_embeddings_of_the_same_length(
    tmp_path: Path, models: dict[str, Attributor], known: dict[str, list[Contributions]], texts: dict[str, str]
) -> None:
    write_index(Store.open(tmp_path), known["dot"], list(texts), facts_of(models["dot"]))
    index = open_index(tmp_path)
    own = embedding(models["dot"], PROBE)
    assert len(index.highlight_vector(own, ["doc1"], probe=own)) == 1
    with pytest.raises(SettingError, match="the similarity is dot"):
        index.highlight_vector(own, ["doc1"], probe=own / 2)


def test_a_text_is_encoded_by_the_indexs_model(
    tmp_path: Path, tiny: TinyModels, texts: dict[str, str], models: dict[str, Attributor]
) -> None:
    """With its prompt; the model of that name must be the one that built the index."""
    folder = tiny.folder("bert", prompts={"query": "question: ", "document": ""})
    model = attributor(str(folder), similarity="cosine")
    facts = facts_of(model)
    write_index(Store.open(tmp_path / "a"), contributions_of(model, {"a": texts["doc1"]}), ["a"], facts)
    index = open_index(tmp_path / "a")
    assert as_tuples(index, ["a"], index.encoded(QUERY)) == as_tuples(index, ["a"], embedding(model, QUERY))
    assert [hit.id for hit in index.highlight(QUERY, ["a"])] == ["a"]
    with pytest.raises(SettingError, match="the query has"):
        index.highlight("", ["a"])
    changed = replace(facts, fingerprint="0123")
    write_index(Store.open(tmp_path / "b"), contributions_of(model, {"a": "rain"}), ["a"], changed)
    with pytest.raises(RunError, match=f"0123.*{facts.fingerprint}"):
        open_index(tmp_path / "b").highlight(QUERY, ["a"])


def test_an_index_does_not_decide_whether_a_models_code_runs(
    tmp_path: Path, models: dict[str, Attributor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index may be somebody else's: only its reader may allow the model's code."""
    model = models["cosine"]
    facts = replace(facts_of(model), trust_remote_code=True, pickled_weights=True)
    write_index(Store.open(tmp_path), contributions_of(model, {"a": "rain"}), ["a"], facts)
    asked: list[dict[str, Any]] = []

    def load(name: str, **settings: Any) -> Attributor:
        asked.append(settings)
        return model

    monkeypatch.setattr("attribution_core.attribution.Attributor", load)
    open_index(tmp_path).highlight(QUERY, ["a"])
    open_index(tmp_path, trust_remote_code=True).highlight(QUERY, ["a"])
    both = [(one["trust_remote_code"], one["pickled_weights"]) for one in asked]
    assert both == [(False, False), (True, False)]


def test_an_update_does_not_change_what_is_open(
    folder: Path, models: dict[str, Attributor], known: dict[str, list[Contributions]], texts: dict[str, str]
) -> None:
    store = Store.open(folder)
    before: Snapshot = open_index(folder).snapshot
    old = open_index(folder)
    vector = embedding(models["cosine"], QUERY)
    was = as_tuples(old, ["doc1", "doc3"], vector)
    write_index(store, known["cosine"][2:4], ["doc1", "new"], before.facts, number=2, before=before)
    new = open_index(folder)
    assert (len(old), len(new)) == (len(texts), len(texts) + 1)
    assert as_tuples(old, ["doc1", "doc3"], vector) == was
    assert ("new" in old, "new" in new) == (False, True)
    assert new.document("doc1").text == texts["doc2"]
    assert sorted(new.ids()) == sorted([*texts, "new"])
    assert sorted(old.ids()) == sorted(texts)


def test_readers_during_updates_see_one_state(
    tmp_path: Path, models: dict[str, Attributor], known: dict[str, list[Contributions]]
) -> None:
    """Every update gives each document another text: would catch a reader that mixes two of them."""
    store, names = Store.open(tmp_path), [f"d{at}" for at in range(20)]
    facts = facts_of(models["cosine"])
    state = write_index(store, known["cosine"][:20], names, facts)
    texts = {at + 1: [one.text.text for one in known["cosine"][10 * at : 10 * at + 20]] for at in range(8)}
    vector = np.ones(facts.width)
    seen: list[tuple[int, list[str | None]]] = []
    done = threading.Event()

    def read() -> None:
        index = open_index(tmp_path)
        while True:
            last = done.is_set()
            for one in (index, index := open_index(tmp_path)):
                seen.append((one.snapshot.number, [hit.text for hit in one.highlight_vector(vector, names)]))
            if last:
                return

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(2, 9):
        first = 10 * (number - 1)
        state = write_index(store, known["cosine"][first : first + 20], names, facts, number=number, before=state)
    done.set()
    for reader in readers:
        reader.join()
    assert all(found == texts[number] for number, found in seen)
    assert max(number for number, _ in seen) == 8


def test_scans_have_every_live_document_once(
    folder: Path, known: dict[str, list[Contributions]], texts: dict[str, str]
) -> None:
    index = open_index(folder)
    seen: dict[str, str] = {}
    for batch in index.batches():
        assert batch.texts is not None
        for at, name in enumerate(batch.ids):
            seen[name] = batch.texts[at]
            one = index.document(name)
            here = batch.documents == at
            np.testing.assert_array_equal(batch.rows[here], one.rows)
            np.testing.assert_array_equal(batch.starts[here], one.starts)
            np.testing.assert_array_equal(batch.ends[here], one.ends)
            np.testing.assert_array_equal(batch.kinds[here], one.kinds)
            np.testing.assert_array_equal(batch.remainders[at], one.remainder)
            np.testing.assert_allclose(batch.embeddings[at], one.embedding, atol=1e-5)
            assert (batch.residuals[at], batch.truncated[at]) == pytest.approx((one.residual, one.truncated))
    assert seen == texts


def test_an_index_without_texts_has_offsets(
    tmp_path: Path, models: dict[str, Attributor], known: dict[str, list[Contributions]], texts: dict[str, str]
) -> None:
    write_index(Store.open(tmp_path), known["cosine"], list(texts), facts_of(models["cosine"], texts=False))
    index = open_index(tmp_path)
    (hit,) = index.highlight_vector(embedding(models["cosine"], QUERY), ["doc1"])
    assert hit.text is None
    assert {span.text for span in hit.spans} == {None}
    assert all(0 <= span.start < span.end <= len(texts["doc1"]) for span in hit.spans)
    assert next(index.batches()).texts is None


def test_a_small_cache_and_threads_change_nothing(folder: Path, texts: dict[str, str]) -> None:
    vectors = np.random.default_rng(0).normal(size=(40, open_index(folder).facts.width))
    draw = random.Random(0)
    ids = [draw.sample(list(texts), 5) for _ in vectors]
    plain = [as_tuples(open_index(folder), *one) for one in zip(ids, vectors, strict=True)]
    index = open_index(folder, cache_bytes=1)
    found: dict[int, Any] = {}

    def ask(numbers: range) -> None:
        for at in numbers:
            found[at] = as_tuples(index, ids[at], vectors[at])

    threads = [threading.Thread(target=ask, args=(range(first, 40, 4),)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[at] for at in range(40)] == plain


def test_reading_needs_no_torch(folder: Path) -> None:
    """A search service imports only numpy and pyarrow."""
    code = (
        "import sys; from jobs import open_index; index = open_index(sys.argv[1]); "
        "hits = index.highlight_vector([1.0] * index.facts.width, ['doc1', 'doc2']); assert len(hits) == 2; "
        "heavy = {'torch', 'transformers', 'ray', 'duckdb', 'matplotlib', 's3fs'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, cwd=Path(__file__).parents[1])


def test_no_index_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no index"):
        open_index(tmp_path)


@pytest.mark.parametrize("batches", [0, 1, 3, 5000])
def test_the_footer_says_where_batches_are(batches: int, tmp_path: Path) -> None:
    batch = pa.record_batch({"a": pa.array([1, 2, 3])})
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), batch.schema) as writer:
        for _ in range(batches):
            writer.write_batch(batch)
    data = (tmp_path / "a.arrow").read_bytes()
    blocks = _first_blocks(tmp_path / "a.arrow")
    assert len(blocks) == batches
    schema = pa.ipc.open_file(data).schema
    for start, metadata, _, body in blocks.tolist():
        message = pa.ipc.read_message(data[start : start + metadata + body])
        assert pa.ipc.read_record_batch(message, schema).equals(batch)


def test_an_index_on_s3_answers_what_a_local_one_does(
    s3: S3Server, folder: Path, texts: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the record batches that are asked for are read, within the cache's bytes, and damage costs its documents."""
    for name, value in s3.admin.items():
        monkeypatch.setenv(name, value)
    url = f"s3://{s3.bucket}/{uuid.uuid4().hex}"
    store = Store.open(url)
    for path in folder.rglob("*"):
        if path.is_file() and ".pending" not in path.parts:
            store.commit(path.relative_to(folder).as_posix(), path.read_bytes())
    local, remote = open_index(folder), open_index(url, cache_bytes=1 << 20)
    vector = np.ones(local.facts.width)
    asked: list[Any] = []
    read = remote._store.read_ranges
    monkeypatch.setattr(remote._store, "read_ranges", lambda ranges: asked.append(ranges) or read(ranges))
    ids = ["doc1", "none", "doc2", "doc140"]
    assert as_tuples(remote, ids, vector) == as_tuples(local, ids, vector)
    assert [len(ranges) for ranges in asked] == [1, 4, 2], "a block of ids, two files opened, two batches"
    as_tuples(remote, ids, vector)
    assert len(asked) == 3, "the second time from the cache"
    small = open_index(url, cache_bytes=30_000)
    for one in texts:
        assert as_tuples(small, [one], vector) == as_tuples(local, [one], vector)
        assert small._batches._values.held_bytes <= 30_000
    assert len(small._batches._values) > 0
    assert sorted(remote.ids()) == sorted(texts)
    part = "generations/00001/documents/part-00001.arrow"
    store.replace(part, store.read(part)[:-1000])
    again = open_index(url)
    assert [one.id for one in again.highlight_vector(vector, ids).damaged] == ["doc140"]
    store.remove(part)
    reasons = [one.reason for one in open_index(url).highlight_vector(vector, ids).damaged]
    assert len(reasons) == 1
    assert "does not exist" in reasons[0]
