"""Building an index: every document once, the same rows after a stop, and updates that readers see whole."""

from __future__ import annotations

import json
import random
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from s3_server import S3Server
from tiny_models import TinyModels, random_text

from attribution_core import Attributor
from attribution_core.pairs.completion import Completion
from jobs.cli.id_files import read_ids_file
from jobs.config.job import JobConfig, index_job, load_job
from jobs.engine.driver import run_job
from jobs.engine.indexing import IndexOutcome, build_index, remove_documents
from jobs.engine.worker import ShardReport, Worker
from jobs.errors import JobError, RunError, SourceError
from jobs.index.format import id_hash
from jobs.index.generations import open_build
from jobs.index.reader import open_index
from jobs.index.snapshot import Snapshot, load_snapshot, read_ids
from jobs.run.reader import Run, open_run
from jobs.run.record import read_record
from jobs.run.status import read_status
from jobs.storage.store import Store

SETTINGS: dict[str, Any] = {"layer": 1, "workers": {"ray": False}, "shards": 4}


@pytest.fixture(scope="module")
def model(tiny: TinyModels) -> str:
    return str(tiny.folder("bert"))


def corpus(rng: random.Random, count: int) -> dict[str, str]:
    return {f"d{i}": f"{random_text(rng, words=4)}. {random_text(rng, words=rng.randint(1, 9))}." for i in range(count)}


def job_of(folder: Path, model: str, texts: Mapping[str, str], **settings: Any) -> JobConfig:
    lines = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
    (folder / "corpus.jsonl").write_text("".join(f"{line}\n" for line in lines))
    places = {"model": model, "corpus": str(folder / "corpus.jsonl"), "output": str(folder / "index")}
    return index_job(None, places | SETTINGS | settings)


def build(folder: Path, model: str, texts: Mapping[str, str], **arguments: Any) -> IndexOutcome:
    settings = arguments.pop("settings", {})
    return build_index(job_of(folder, model, texts, **settings), quiet=True, **arguments)


def state_of(folder: Path) -> tuple[Store, Snapshot]:
    store = Store.open(str(folder / "index"))
    return store, load_snapshot(store)


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Every live document's row, by the ids file."""
    store, snapshot = state_of(folder)
    rows: dict[str, dict[str, Any]] = {}
    for entry in read_ids(store, snapshot).to_pylist():
        with pa.OSFile(str(folder / "index" / snapshot.parts[entry["part"]].file)) as raw:
            row = pa.ipc.open_file(raw).read_all().slice(entry["row"], 1).to_pylist()[0]
        assert id_hash(row["id"]) == entry["hash"]
        assert row["id"] not in rows
        rows[row["id"]] = row
    return rows


def test_rows_are_the_documents_completed_contributions(model: str, rng: random.Random, tmp_path: Path) -> None:
    """Would catch a document under another's id, groups or layer of a run, and contributions that are not completed."""
    texts = corpus(rng, 9)
    outcome = build(tmp_path, model, texts)
    assert (outcome.exit_code, outcome.changes.added) == (0, 9)
    rows = rows_of(tmp_path)
    assert {key: row["text"] for key, row in rows.items()} == texts
    attributor = Attributor(model, layer=1, groups="sentence", mode="retrieval", tolerance=2e-2)
    read = attributor.read(list(texts.values()), "document")
    for key, one in zip(texts, attributor.contributions(read), strict=True):
        row = rows[key]
        restored = np.array(row["rows"], np.float64) * np.array(row["scales"], np.float64)[:, None]
        expected = Completion("score").completed(one)
        largest = np.abs(expected).max(1)
        assert (np.abs(restored[:-1] - expected).max(1) <= largest / 127).all()
        np.testing.assert_allclose(restored.sum(0), one.embedding_D, atol=2e-3 * np.abs(one.embedding_D).max())
    _, snapshot = state_of(tmp_path)
    assert snapshot.facts.groups == "sentence"
    assert snapshot.facts.fingerprint == attributor.fingerprint()
    probe = attributor.routes.of("query").embeddings(attributor.read([snapshot.facts.probe.text], "query"))[0]
    np.testing.assert_allclose(snapshot.facts.probe.embedding, probe, rtol=1e-5)


def stopping(after: int) -> type[Worker]:
    """Workers that together commit so many shards and then fail for good."""
    done: list[int] = []

    class Stopping(Worker):
        def run_shard(self, index: int) -> ShardReport:
            if len(done) >= after:
                raise RuntimeError("stopped")
            done.append(index)
            return super().run_shard(index)

    return Stopping


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "index/generations/00001/documents").iterdir())}


def test_a_build_that_was_stopped_goes_on_and_has_the_same_rows(model: str, rng: random.Random, tmp_path: Path) -> None:
    """Would catch a snapshot of half a corpus, a shard computed twice, and rows that depend on where it stopped."""
    texts = corpus(rng, 12)
    folders = [tmp_path / name for name in ("whole", "stopped")]
    for folder in folders:
        folder.mkdir()
    build(folders[0], model, texts)
    first = build(folders[1], model, texts, worker_class=stopping(2))
    assert first.exit_code == 1
    assert "same command tries the missing shards again" in "\n".join(first.lines())
    with pytest.raises(RunError, match="first build is not finished"):
        state_of(folders[1])
    second = build(folders[1], model, texts)
    assert second.exit_code == 0
    assert second.run is not None
    assert 0 < second.run.pairs_now < 12
    assert bytes_of(folders[0]) == bytes_of(folders[1])


def test_an_update_computes_what_is_new_or_changed_alone(model: str, rng: random.Random, tmp_path: Path) -> None:
    """Would catch a stale row, a removed document that is still found, and a second computation of what stayed."""
    texts = corpus(rng, 8)
    build(tmp_path, model, texts)
    before = rows_of(tmp_path)
    kept = {key: text for key, text in texts.items() if key != "d3"}
    new = kept | {"d5": "Another text. It is new.", "added": "One more text."}
    outcome = build(tmp_path, model, new)
    assert vars(outcome.changes) == {"added": 1, "changed": 1, "removed": 1, "unchanged": 6}
    assert outcome.run is not None
    assert outcome.run.pairs_now == 2
    after = rows_of(tmp_path)
    assert {key: row["text"] for key, row in after.items()} == new
    assert all(after[key] == before[key] for key in kept if key != "d5")
    _, snapshot = state_of(tmp_path)
    assert (snapshot.number, snapshot.documents) == (2, 8)
    assert snapshot.dead == 2
    again = build(tmp_path, model, new)
    assert again.run is None
    assert again.changes.unchanged == 8
    assert state_of(tmp_path)[1].number == 2


def test_the_state_before_an_update_stays_readable(model: str, rng: random.Random, tmp_path: Path) -> None:
    """Would catch an update that writes into files of the last snapshot: its readers would see a mixture."""
    texts = corpus(rng, 5)
    build(tmp_path, model, texts)
    store, first = state_of(tmp_path)
    contents = {part.file: store.read(part.file) for part in first.parts} | {first.ids: store.read(first.ids)}
    new = {"d0": "All is new.", "other": "In this corpus."}
    with pytest.raises(SourceError, match="lacks 4 of the 5 documents of the index"):
        build(tmp_path, model, new)
    assert load_snapshot(store) == first
    build(tmp_path, model, new, settings={"max_removed": 1})
    assert load_snapshot(store, 1) == first
    assert all(store.read(name) == data for name, data in contents.items())


def test_a_partial_update_leaves_what_it_does_not_name(model: str, rng: random.Random, tmp_path: Path) -> None:
    texts = corpus(rng, 5)
    with pytest.raises(RunError, match="holds no index yet"):
        build(tmp_path, model, texts, partial=True)
    build(tmp_path, model, texts)
    change = {"d1": "Changed text.", "e": "Added text."}
    notes: list[str] = []
    outcome = build_index(job_of(tmp_path, model, change), echo=notes.append, partial=True, remove=["d2", "unknown"])
    assert any("1 id to remove, such as 'unknown'" in line for line in notes)
    assert vars(outcome.changes) == {"added": 1, "changed": 1, "removed": 1, "unchanged": 3}
    expected = {key: text for key, text in (texts | change).items() if key != "d2"}
    assert {key: row["text"] for key, row in rows_of(tmp_path).items()} == expected
    only_removed = build(tmp_path, model, change, partial=True, remove=["e"])
    assert only_removed.run is None
    assert set(rows_of(tmp_path)) == set(expected) - {"e"}


def test_documents_are_removed_without_corpus_and_model(model: str, rng: random.Random, tmp_path: Path) -> None:
    """Would catch a document that must go and stays because the corpus is elsewhere."""
    build(tmp_path, model, corpus(rng, 4))
    (tmp_path / "corpus.jsonl").unlink()
    outcome = remove_documents(str(tmp_path / "index"), None, ["d1", "d3"], lambda line: None)
    assert (outcome.changes.removed, outcome.changes.unchanged) == (2, 2)
    assert set(rows_of(tmp_path)) == {"d0", "d2"}
    assert state_of(tmp_path)[1].dead == 2
    assert remove_documents(str(tmp_path / "index"), None, ["d1"], lambda line: None).snapshot == state_of(tmp_path)[1]
    with pytest.raises(RunError, match="no document would be left"):
        remove_documents(str(tmp_path / "index"), None, ["d0", "d2"])
    with pytest.raises(JobError, match="--verify: needs the whole corpus"):
        build(tmp_path, model, corpus(rng, 4), partial=True, verify=True)


def test_bad_documents_cost_themselves_alone(model: str, rng: random.Random, tmp_path: Path) -> None:
    texts = corpus(rng, 4)
    job = job_of(tmp_path, model, texts | {"blank": " \n"})
    with open(tmp_path / "corpus.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"_id": "d0", "text": "The same id again."}) + "\n")
        file.write(json.dumps({"_id": "signs", "text": "\u200b"}) + "\n")
    build_index(job, quiet=True)
    assert {key: row["text"] for key, row in rows_of(tmp_path).items()} == texts
    rejects = open_run(tmp_path / "index/generations/00001").rejects().to_pylist()
    reasons = {row["pair_id"]: (row["reason"], row["row"]) for row in rejects}
    assert reasons["blank"] == ("the document is empty", 5)
    assert reasons["d0"] == ("a second document with the same id", 6)
    assert "signs" in reasons


def test_a_shard_without_a_usable_document_is_done(model: str, tmp_path: Path) -> None:
    """Would catch a build that never ends because an empty part counts as missing."""
    texts = {"a": "\u200b", "b": "A good text. Of two sentences."}
    assert build(tmp_path, model, texts, settings={"shards": 2}).exit_code == 0
    assert set(rows_of(tmp_path)) == {"b"}


def test_an_index_of_other_settings_is_not_updated(model: str, rng: random.Random, tmp_path: Path) -> None:
    texts = corpus(rng, 3)
    build(tmp_path, model, texts)
    with pytest.raises(RunError, match="layer: 1 there, 0 now"):
        build(tmp_path, model, texts | {"e": "x"}, settings={"layer": 0})
    with pytest.raises(RunError, match="is a run"):
        build_index(job_of(tmp_path, model, texts, output=str(tmp_path / "index/generations/00001")), quiet=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="not an index"):
        build_index(job_of(tmp_path, model, texts, output=str(other)), quiet=True)


def test_a_model_that_moved_is_the_same_model(model: str, rng: random.Random, tmp_path: Path, tiny: TinyModels) -> None:
    """Would catch an index that can no longer be updated or asked once its model lies in another folder."""
    first = shutil.copytree(model, tmp_path / "first")
    texts = corpus(rng, 3)
    build(tmp_path, str(first), texts)
    second = first.rename(tmp_path / "second")
    assert build(tmp_path, str(second), texts | {"e": "One more."}).changes.added == 1
    index = open_index(str(tmp_path / "index"), model=str(second))
    assert len(index.highlight("what falls", ["e", "d0"])) == 2
    with pytest.raises(RunError, match="other files of model"):
        build(tmp_path, str(tiny.folder("bert", seed=3)), texts | {"f": "And one."})
    with pytest.raises(RunError, match="other weights"):
        open_index(str(tmp_path / "index"), model=str(tiny.folder("bert", seed=3))).highlight("what falls", ["e"])


def test_a_stopped_build_over_a_corpus_that_changed_starts_again(
    model: str, rng: random.Random, tmp_path: Path
) -> None:
    """Would catch rows of a text that the corpus no longer has."""
    texts = corpus(rng, 8)
    build(tmp_path, model, texts, worker_class=stopping(1))
    notes: list[str] = []
    job = job_of(tmp_path, model, texts | {"d0": "Changed since."})
    build_index(job, echo=notes.append)
    assert any("starts again" in line for line in notes)
    assert rows_of(tmp_path)["d0"]["text"] == "Changed since."


def test_texts_and_values_are_stored_as_asked(model: str, rng: random.Random, tmp_path: Path) -> None:
    texts = corpus(rng, 3)
    build_index(job_of(tmp_path, model, texts).model_copy(update={"texts": False, "values": "float32"}), quiet=True)
    rows = rows_of(tmp_path)
    assert all(row["text"] is None for row in rows.values())
    assert all(set(row["scales"]) == {1.0} for row in rows.values())


def test_damaged_documents_are_computed_again(model: str, rng: random.Random, tmp_path: Path) -> None:
    """Would catch an index that can never be repaired because its texts did not change."""
    texts = corpus(rng, 8)
    build(tmp_path, model, texts)
    before = rows_of(tmp_path)
    part = sorted((tmp_path / "index/generations/00001/documents").iterdir())[1]
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 0xFF
    part.write_bytes(bytes(data))
    assert build(tmp_path, model, texts).changes.unchanged == 8
    notes: list[str] = []
    outcome = build_index(job_of(tmp_path, model, texts), echo=notes.append, verify=True)
    assert outcome.run is not None
    assert outcome.run.pairs_now == outcome.changes.added == 2
    assert any("cannot be read and are computed again" in line for line in notes)
    assert rows_of(tmp_path) == before


def test_a_run_does_not_mix_with_an_index(model: str, rng: random.Random, tmp_path: Path) -> None:
    """Would catch a run whose job.yaml makes the index unusable."""
    build(tmp_path, model, corpus(rng, 3))
    (tmp_path / "pairs.csv").write_text("sentence1,sentence2\na b,c d\n")
    settings = {"model": model, "input": str(tmp_path / "pairs.csv"), "output": str(tmp_path / "index")}
    with pytest.raises(RunError, match="is an index; choose another output"):
        run_job(load_job(None, settings | {"workers": {"ray": False}}), quiet=True)


def refusals() -> Iterator[tuple[dict[str, Any], str]]:
    yield {"sums_to": "difference"}, "sums_to: found 'difference'; allowed for an index: score"
    yield {"mode": "symmetric"}, "mode: found 'symmetric'"
    yield {"values": "int4"}, "values: found 'int4'; allowed: int8"


@pytest.mark.parametrize(("changes", "line"), list(refusals()))
def test_wrong_settings_are_named(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(JobError, match=line.replace("(", r"\(")):
        index_job(None, {"model": "m", "corpus": "c", "output": "o"} | changes)


def test_settings_of_an_index_do_not_belong_to_pairs() -> None:
    with pytest.raises(JobError, match="values: found 'float16'; it belongs to an index"):
        load_job(None, {"model": "m", "input": "p.csv", "output": "o", "values": "float16"})
    with pytest.raises(JobError, match="corpus: is missing"):
        index_job(None, {"model": "m", "output": "o"})


def test_a_logs_job_file_serves_for_its_index(tmp_path: Path) -> None:
    """Would catch an index that insists on its own job file, and defaults of pairs."""
    (tmp_path / "job.yaml").write_text("model: m\nlog: r.trec\nqueries: q.jsonl\ncorpus: c.jsonl\noutput: o\n")
    job = index_job(tmp_path / "job.yaml")
    assert (job.task, job.log, job.layer, job.groups) == ("index", None, -1, "sentence")
    assert job.quadrature.tolerance == 2e-2


def test_plans_of_pairs_do_not_change(tmp_path: Path) -> None:
    """Would catch runs of earlier versions that no longer resume because of a setting of indexes."""
    job = load_job(None, {"model": "m", "input": "p.csv", "output": "o"})
    settings = job.model_dump(mode="json", exclude={"task", "values", "texts", "update_of"})
    assert load_job(None, settings).digest() == job.digest()
    store = Store.open(str(tmp_path / "o"))
    assert read_record(store) is None


def test_a_corpus_without_a_usable_document_is_an_error(model: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no document of the corpus can be used"):
        build(tmp_path, model, {"a": " "})


def test_ids_are_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("a\n\n b \n", encoding="utf-8")
    assert read_ids_file(tmp_path / "ids") == ["a", "b"]
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(JobError, match="has no id"):
        read_ids_file(tmp_path / "empty")
    with pytest.raises(JobError, match="cannot be read"):
        read_ids_file(tmp_path / "missing")


def test_status_and_rejects_are_those_of_the_last_build(model: str, rng: random.Random, tmp_path: Path) -> None:
    """Would catch an index whose progress nobody can see, and a traceback where a run's command gets an index."""
    texts = corpus(rng, 4) | {"blank": " "}
    build(tmp_path, model, texts, worker_class=stopping(1))
    index = str(tmp_path / "index")
    first = read_status(open_build(index))
    assert first.state == "incomplete"
    assert any(line.startswith("texts    1 of 4") for line in first.lines())
    build(tmp_path, model, texts)
    last = open_build(index)
    assert read_status(last).state == "finished"
    assert "texts    4 documents" in read_status(last).lines()
    assert Run(last).rejects().num_rows == 1
    with pytest.raises(RunError, match="is an index, not a run"):
        open_run(index)
    build(tmp_path, model, texts, partial=True, remove=["d0"])
    assert open_build(index).url == last.url
    with pytest.raises(RunError, match="is a build of an index and has no pairs"):
        Run(last).to_table()


def test_an_index_on_s3_is_built_and_updated(
    model: str, rng: random.Random, tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.admin.items():
        monkeypatch.setenv(name, value)
    url = f"s3://{s3.bucket}/{uuid.uuid4().hex}"
    where = {"output": url, "storage": {"endpoint_url": s3.endpoint}}
    texts = corpus(rng, 5)
    places = {"model": model, "corpus": str(tmp_path / "corpus.jsonl")}
    job_of(tmp_path, model, texts)
    job = index_job(None, places | SETTINGS | where)
    assert build_index(job, quiet=True).changes.added == 5
    job_of(tmp_path, model, texts | {"d1": "Changed. On the store."})
    outcome = build_index(job, quiet=True)
    assert (outcome.changes.changed, outcome.changes.unchanged) == (1, 4)
    index = open_index(url, job.storage)
    assert index.document("d1").text == "Changed. On the store."
    assert sorted(index.ids()) == sorted(texts)
    assert read_status(open_build(url, job.storage)).state == "finished"


@pytest.mark.slow
def test_workers_of_ray_build_an_index(model: str, rng: random.Random, tmp_path: Path) -> None:
    texts = corpus(rng, 8)
    alone, together = tmp_path / "alone", tmp_path / "together"
    for folder in (alone, together):
        folder.mkdir()
    build(alone, model, texts)
    ray = job_of(together, model, texts, workers={"count": 2, "ray": True})
    assert build_index(ray, quiet=True).exit_code == 0
    assert bytes_of(alone) == bytes_of(together)
