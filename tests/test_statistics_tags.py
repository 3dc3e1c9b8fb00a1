"""Tags: each distinct text once, kept in the run, aligned by characters; and what happens without a pipeline."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import spacy
from statistics_oracle import PIPELINE
from statistics_runs import made_pairs, write_made

from jobs.analysis.statistics import texts as texts_room
from jobs.analysis.statistics.compute import compute_statistics
from jobs.analysis.statistics.tagging import UNIVERSAL, Tagged, aligned, chosen_pipeline, load_pipeline, tag_texts
from jobs.analysis.statistics.texts import read_texts
from jobs.errors import JobError
from jobs.storage.duckdb import temporary_database


def test_each_distinct_text_is_tagged_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    # Would catch a rerun that tags again, and a text that grew into the run later and is never tagged.
    pairs = made_pairs(seed, 30)
    run = write_made(tmp_path / "run", pairs, [range(10)], finished=False)
    done: list[Tagged] = []

    def watched(*arguments):  # type: ignore[no-untyped-def]
        found = tag_texts(*arguments)
        done.append(found[1])
        return found

    monkeypatch.setattr(texts_room, "tag_texts", watched)
    compute_statistics(run, pipeline=PIPELINE, only=["position"], resamples=10)
    first = len({text.text for one in pairs[:10] for text in (one.pair.a, one.pair.b)})
    compute_statistics(run, pipeline=PIPELINE, only=["position"], resamples=10)
    write_made(tmp_path / "run", pairs, [range(10), range(10, 30)])
    compute_statistics(run, pipeline=PIPELINE, only=["position"], resamples=10)
    read = {text.text[: text.cut_at] for one in pairs for text in (one.pair.a, one.pair.b)}
    assert [one.texts for one in done] == [first, 0, len(read) - first]


def test_words_take_the_tag_they_share_most_characters_with() -> None:
    # Groups: U . S . | don't | x - ray | (nothing); words: U.S. | do n't | x-ray.
    words = {
        "tag_starts": [[0, 5, 7, 11]],
        "tag_ends": [[4, 7, 10, 16]],
        "tag_pos": [[UNIVERSAL.index(name) for name in ("PROPN", "AUX", "PART", "NOUN")]],
        "tag_lemmas": [["u.s.", "do", "not", "x-ray"]],
        "tag_flags": [[0, 0, 4, 0]],
    }
    types = {name: pa.list_(pa.int32()) for name in words} | {"tag_lemmas": pa.list_(pa.string())}
    batch = pa.RecordBatch.from_arrays([pa.array(words[name], types[name]) for name in words], names=list(words))
    starts = np.array([0, 0, 1, 2, 3, 5, 11, 12, 13, 0])
    ends = np.array([0, 1, 2, 3, 4, 10, 12, 13, 16, 0])
    pos, lemmas, flags = aligned(batch, starts, ends, np.array([0, len(starts)]))
    names = [UNIVERSAL[code] for code in pos]
    assert names == ["X", *["PROPN"] * 4, "PART", *["NOUN"] * 3, "X"]
    assert lemmas.to_pylist() == [None, *["u.s."] * 4, "not", *["x-ray"] * 3, None]
    assert list(flags) == [0] * 5 + [4] + [0] * 4


def test_tokens_and_words_of_a_long_run_get_the_tags_of_their_own_text(tmp_path: Path, seed: int) -> None:
    # Would catch one text's tags on its neighbour's words.
    pairs = made_pairs(seed, 40)
    run = write_made(tmp_path / "run", pairs)
    nlp = spacy.load(PIPELINE, exclude=["ner", "parser"])
    with temporary_database() as con:
        texts = read_texts(run, con, PIPELINE)
        known = {one.a_id: one.pair.a for one in pairs} | {one.b_id: one.pair.b for one in pairs}
        for at, text_id in enumerate(texts.text_ids.to_pylist()):
            text = known[text_id]
            tags = {w.idx: w.pos_ for w in nlp(text.text[: text.cut_at])}
            words = range(texts.offsets[at], texts.offsets[at + 1])
            for word, start, kind in zip(words, text.groups.starts, text.groups.kinds, strict=True):
                if kind == "text" and start in tags:
                    assert UNIVERSAL[texts.pos[word]] == tags[start]


def test_a_run_without_a_pipeline_has_every_other_statistic(tmp_path: Path, seed: int) -> None:
    run = write_made(tmp_path / "run", made_pairs(seed, 20))
    summary = compute_statistics(run, pipeline=None, resamples=10)
    assert summary.run.pipeline is None
    assert "No spaCy pipeline" in summary.notes[0]
    assert not summary.statistics["parts_of_speech"].tables
    assert "need a spaCy pipeline" in summary.statistics["parts_of_speech"].notes[0]
    assert {info.name for info in summary.statistics["matches"].tables} == {"matches", "meetings", "word_kinds"}
    assert summary.statistics["concentration"].figure("largest_5").value is not None


def test_sentences_have_no_part_of_speech(tmp_path: Path, seed: int) -> None:
    run = write_made(tmp_path / "run", made_pairs(seed, 10), groups="sentence")
    said: list[str] = []
    summary = compute_statistics(run, pipeline=PIPELINE, resamples=10, echo=said.append)
    assert summary.run.pipeline is None
    assert any("sentences" in line for line in said)


def test_the_only_pipeline_is_taken_and_several_must_be_chosen_from(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen_pipeline(None) == PIPELINE
    assert chosen_pipeline("none") is None
    assert chosen_pipeline("xx_other") == "xx_other"
    monkeypatch.setattr("jobs.analysis.statistics.tagging.installed_pipelines", lambda: ["de_one", "en_two"])
    with pytest.raises(JobError, match="de_one, en_two"):
        chosen_pipeline(None)


def test_without_spacy_nothing_is_tagged_and_nothing_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    monkeypatch.setitem(sys.modules, "spacy.util", None)
    assert chosen_pipeline(None) is None


def test_a_pipeline_that_is_missing_or_gives_no_tags_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=f"--pipeline no_such.*installed are: {PIPELINE}"):
        load_pipeline("no_such")
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(JobError, match="gives no parts of speech"):
        load_pipeline(str(tmp_path / "blank"))
