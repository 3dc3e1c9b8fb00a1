"""Kinds of failure: each rule on failures planted in small texts, and what a run says with and without its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import query_runs
from counting_model import CountingModel
from display_pairs import explained
from query_runs import Ranked, write_run

from attribution_core.results import ExplainedText, PairAttribution
from jobs.analysis.failures import words_without_effect
from jobs.analysis.failures.behind_the_cut import better_unread
from jobs.analysis.failures.find import NOTHING_FAILS, find_failures, read_failures
from jobs.analysis.failures.near_duplicates import differences, near_duplicates
from jobs.analysis.failures.result import FILE, Failures, stored_failures, write_failures
from jobs.analysis.failures.sentence_would_win import winning_sentence
from jobs.analysis.faithfulness.judge import Judge
from jobs.analysis.statistics.compute import compute_statistics
from jobs.errors import RunError
from jobs.run.reader import Run
from jobs.views.failures.terminal import failures_text

WING = "the lift of a wing in a slipstream was measured at 20 degrees and it is larger near the tip than in theory"
COPY = "the lift of a wing in a slipstream was not measured at 30 degrees and it is larger near the tip than in theory"
SHELL = "buckling of thin cylindrical shells under axial compression follows from the equations of elastic stability"


def test_near_duplicates_share_sequences_and_tell_what_differs() -> None:
    words = WING.split()
    half = " ".join(word if at % 8 < 4 else f"other{at}" for at, word in enumerate(words))
    assert [(i, j) for i, j, _ in near_duplicates([WING, SHELL, COPY, half])] == [(0, 2), (0, 3), (2, 3)]
    assert near_duplicates([WING, SHELL]) == []
    # The same words in another order share no sequence.
    assert near_duplicates([WING, " ".join(sorted(words))]) == []
    told = differences(WING, COPY)
    assert (told.negations, told.numbers, told.others) == (("not",), ("20", "30"), ())
    assert told.sentence() == "they differ in a negation (not) and a number (20, 30)"
    assert differences(WING, WING.upper()).sentence() == "no word differs"
    assert differences(WING, SHELL).sentence().startswith("they share passages; ")


@pytest.mark.parametrize(
    ("scores", "cut_at", "best"),
    [
        ([0.3, 0.2, 0.4], 20, 2),  # the unread one is the best
        ([0.5, 0.2, 0.4], 20, None),
        ([0.4, 0.2, 0.4], 20, None),  # as good is not better
        ([0.3, 0.2, 0.4], None, None),  # nothing is cut
        ([0.3, 0.2, 0.4], 25, None),  # the last sentence was read in part
        ([0.3, 0.2, 0.4], 0, None),  # nothing was read
    ],
)
def test_an_unread_sentence_must_beat_all_that_were_read(
    scores: list[float], cut_at: int | None, best: int | None
) -> None:
    assert better_unread(np.array(scores), [0, 10, 24], cut_at) == best


def test_a_sentence_wins_only_above_the_winner_and_beside_others() -> None:
    assert winning_sentence(np.array([0.2, 0.6]), 0.5) == 1
    assert winning_sentence(np.array([0.2, 0.5]), 0.5) is None
    assert winning_sentence(np.array([0.9]), 0.5) is None


QUERIES = {"cut": "heat transfer", "copy": "lift of a wing", "sentence": "shell buckling", "good": "gas flow"}
CUT = "Nothing of that kind stands here. UNREAD heat transfer."
DILUTED = "Buckling of shells. This one speaks of many other things that nobody asked for and goes on for long."


def _row(query: str, document: str, text: str, score: float, relevance: int | None) -> Ranked:
    kept = {"rank": 1, "log_score": score, "tag": "mini", "relevance": relevance}
    return Ranked(query, document, text, score, kept, lifts={})


def _rows(*, judged: bool = True) -> list[Ranked]:
    rows = [
        ("cut", "c0", "heat in gases", 0.6, 0),
        ("cut", "c1", CUT, 0.5, 2),
        ("copy", "w0", COPY, 0.8, None),
        ("copy", "w1", WING, 0.7, 1),
        ("copy", "w2", SHELL, 0.1, None),
        ("sentence", "s0", "shell theory", 0.4, None),
        ("sentence", "s1", DILUTED, 0.3, 1),
        ("good", "g0", "gas flow", 0.9, 1),
        ("good", "g1", "nothing", 0.1, 0),
    ]
    return [_row(*row[:4], row[4] if judged else None) for row in rows]


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts are cut where UNREAD stands, and lifts of the words of queries are negative."""

    def cut(text: str, role: str = "text") -> ExplainedText:
        return explained(text, role, **({"cut_at": text.index("UNREAD")} if "UNREAD" in text else {}))

    plain = query_runs.attribution

    def negative(*given: Any) -> PairAttribution:
        pair = plain(*given)
        return PairAttribution(**{**vars(pair), "row_lift": np.full(len(pair.a.groups), -0.05, np.float32)})

    monkeypatch.setattr(query_runs, "explained", cut)
    monkeypatch.setattr(query_runs, "attribution", negative)


def _run(place: Path, rows: list[Ranked], **more: Any) -> Run:
    return Run(write_run(place, QUERIES, [rows], **more))


def _counting() -> Judge:
    return cast("Judge", CountingModel())


def _cases(failures: Failures, name: str) -> list[tuple[str, str | None, str | None]]:
    kind = failures.kind(name)
    assert kind is not None, failures.notes
    assert kind.count == len({case.query_id for case in kind.cases})
    return [(case.query_id, case.document_id, case.other_id) for case in kind.cases]


@pytest.mark.usefixtures("marked")
def test_each_kind_is_recognised_where_it_was_planted_and_nowhere_else(tmp_path: Path) -> None:
    """A rule that took another query's documents, or documents that rank well, would show here."""
    run = _run(tmp_path / "run", _rows())
    failures = find_failures(run, model=_counting())
    assert (failures.queries, failures.judged, failures.failing, failures.looked_at) == (4, 4, 3, 3)
    assert (failures.documents, failures.cut) == (9, 1)
    assert _cases(failures, "near_duplicates") == [("copy", "w1", "w0")]
    assert _cases(failures, "behind_the_cut") == [("cut", "c1", None)]
    assert sorted(_cases(failures, "sentence_would_win")) == [("cut", "c1", "c0"), ("sentence", "s1", "s0")]
    kind = failures.kind("behind_the_cut")
    assert kind is not None
    assert (kind.count, kind.of, kind.of_what) == (1, 3, "failing queries")
    assert kind.low is not None
    assert kind.high is not None
    assert kind.low <= 1 / 3 <= kind.high
    assert kind.cases[0].words == ("UNREAD heat transfer.",)
    assert any("words without effect are left out: tokenpair stats" in note for note in failures.notes)
    assert "the unread part may hold a better match" in failures_text(failures)


@pytest.mark.usefixtures("marked")
def test_without_the_model_what_needs_it_is_named(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", _rows())
    failures = find_failures(run)
    assert [kind.name for kind in failures.kinds] == ["near_duplicates"]
    assert any("need the model: tokenpair probe" in note for note in failures.notes)
    assert not failures.with_model


@pytest.mark.usefixtures("marked")
def test_a_log_without_a_failing_query_says_that(tmp_path: Path) -> None:
    """It said that no query has two documents, and that the model was missing."""
    failures = find_failures(_run(tmp_path / "run", _rows()[-2:]))
    assert failures.failing == 0
    assert failures.notes[0] == NOTHING_FAILS
    assert not any("tokenpair probe" in note or "two documents" in note for note in failures.notes)
    assert {kind.name for kind in failures.kinds} <= {words_without_effect.NAME}


@pytest.mark.usefixtures("marked")
def test_without_judgments_top_ranks_and_cuts_are_looked_at(tmp_path: Path) -> None:
    model = CountingModel()
    failures = find_failures(_run(tmp_path / "run", _rows(judged=False)), model=cast("Judge", model))
    assert (failures.judged, failures.failing, failures.looked_at) == (0, 0, 4)
    assert _cases(failures, "near_duplicates") == [("copy", "w1", "w0")]
    assert _cases(failures, "behind_the_cut") == [("cut", "c1", None)]
    assert failures.kind("sentence_would_win") is None
    assert any("without judgments" in note for note in failures.notes)
    assert DILUTED not in model.asked  # only documents that are cut are encoded


@pytest.mark.usefixtures("marked")
def test_one_document_a_query_and_no_pair(tmp_path: Path) -> None:
    failures = find_failures(_run(tmp_path / "one", [_rows(judged=False)[1]]), model=_counting())
    assert _cases(failures, "behind_the_cut") == [("cut", "c1", None)]
    assert any("no query that was looked at has two documents" in note for note in failures.notes)
    with pytest.raises(RunError, match="has no pair yet"):
        find_failures(_run(tmp_path / "none", [], finished=False))


@pytest.mark.usefixtures("marked")
def test_a_sample_is_named_and_repeats(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", _rows())
    few = find_failures(run, queries=2, seed=3)
    assert few.looked_at == 2
    assert "2 of 3 failing queries were looked at, drawn at random." in few.notes
    assert few == find_failures(run, queries=2, seed=3)


@pytest.mark.usefixtures("marked")
def test_words_without_effect_are_those_of_the_statistics(tmp_path: Path) -> None:
    """They are read anew: statistics that are computed after ``tokenpair probe`` count."""
    run = _run(tmp_path / "run", _rows())
    write_failures(run, find_failures(run, model=_counting()))
    assert read_failures(run).kind("words_without_effect") is None
    compute_statistics(run, only=["retrieval"])
    read = read_failures(run)
    assert _cases(read, "words_without_effect") == [("cut", None, None)]
    kind = read.kind("words_without_effect")
    assert kind is not None
    assert [case.words for case in kind.cases] == [("transfer",)]
    assert kind.of == 4
    assert not any("words without effect" in note for note in read.notes)
    assert [name for name, _ in ((kind.name, case) for kind, case in read.of_query("cut"))] == [
        *("behind_the_cut", "sentence_would_win", "words_without_effect"),
    ]


@pytest.mark.usefixtures("marked")
def test_identical_words_of_the_wrong_document_share_the_margin(tmp_path: Path) -> None:
    """What the description says is the difference of the two rows' own sums."""
    run = _run(tmp_path / "run", _rows())
    (described,) = (one for one in find_failures(run).only_in_wrong if one.query_id == "sentence")
    assert (described.above, described.below) == ("s0", "s1")
    (word,) = described.words
    rows = {row["text_b_id"]: row for row in run.to_table().to_pylist()}
    # [CLS] stands before the query's words.
    part = rows["s0"]["row_sums"][1] - rows["s1"]["row_sums"][1]
    assert word.word == "shell"
    assert word.documents == 1
    assert word.share == pytest.approx(part / (rows["s0"]["score"] - rows["s1"]["score"]))
    assert word.idf == pytest.approx(np.log(9))


@pytest.mark.usefixtures("marked")
def test_what_is_stored_is_read_back_and_damage_is_named(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", _rows())
    assert stored_failures(run) is None
    failures = find_failures(run, model=_counting())
    write_failures(run, failures)
    assert stored_failures(run) == failures
    run.store.replace(FILE, b'{"version": 1, "kinds": 3}')
    with pytest.raises(RunError, match="is damaged; write it again with: tokenpair probe"):
        stored_failures(run)
