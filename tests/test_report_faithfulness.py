"""What an evaluation found stands in the report, in the words of its own verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.analysis.faithfulness.agreement import AGREEMENTS, Agreement, Lead
from jobs.analysis.faithfulness.curves import DELETION, measures_of
from jobs.analysis.faithfulness.orders import ATTRIBUTIONS, METHODS, RANDOM, RULES
from jobs.analysis.faithfulness.result import Faithfulness
from jobs.analysis.faithfulness.summaries import Against, Curve
from jobs.analysis.faithfulness.verdict import judge_agreement
from jobs.analysis.resampling import Mean
from jobs.storage.store import Store
from jobs.views.report.faithfulness import FILE, agreement, curves, judged, read_faithfulness, section

SHARES = (0.0, 0.5, 1.0)


def evaluation(gain: float, sums_to: str = "score") -> Faithfulness:
    """One in which the attributions beat every other rule and order by ``gain`` everywhere."""

    def by(method: str) -> Mean:
        mean = gain if method == ATTRIBUTIONS else 0.0
        return Mean(mean, mean - 0.01, mean + 0.01)

    found = []
    for level, operation in measures_of(sums_to):
        for method in METHODS:
            ends = (0.8, 0.1) if operation == DELETION else (0.1, 0.8)
            values = (ends[0], 0.45, ends[1])
            low, high = (tuple(v + d for v in values) for d in (-0.05, 0.05))
            found.append(Curve(level, operation, method, SHARES, values, low, high, 0.4, by(method), 0.9))
    overall = [Against(method, RANDOM, by(method), 0.9) for method in METHODS if method != RANDOM]
    overall += [
        Against(ATTRIBUTIONS, method, by(ATTRIBUTIONS), 0.9)
        for method in METHODS
        if method not in (ATTRIBUTIONS, RANDOM)
    ]
    agreed = [
        Agreement(level, kind, rule, Mean(0.5 + by(rule).mean, 0.4, 0.8), 1234)
        for level, kind in AGREEMENTS
        for rule in RULES
    ]
    leads = [
        Lead(level, kind, rule, by(ATTRIBUTIONS), 0.9)
        for level, kind in AGREEMENTS
        for rule in RULES
        if rule != ATTRIBUTIONS
    ]
    names = {"run": "r", "model": "m", "similarity": "cosine", "groups": "word", "judge": "m", "judge_fingerprint": "f"}
    sizes = {
        "layer": 4,
        "seed": 0,
        "asked": 50,
        "of": 100,
        "pairs": 1234,
        "draws": 50,
        "orders": 3,
        "shapley_orders": 12,
    }
    verdict = judge_agreement(agreed, leads, found, overall, "")
    return Faithfulness(
        **names,  # type: ignore[arg-type]
        **sizes,  # type: ignore[arg-type]
        sums_to=sums_to,
        own_judge=True,
        agreement=tuple(agreed),
        leads=tuple(leads),
        curves=tuple(found),
        overall=tuple(overall),
        verdict=verdict,
        measured=(),
    )


def written(place: Path, found: Faithfulness) -> Store:
    store = Store.open(str(place))
    store.commit(FILE, json.dumps(found.to_dict()).encode())
    return store


@pytest.mark.parametrize(("gain", "state"), [(0.2, "good"), (0.0, "warn")])
def test_the_verdict_and_its_numbers_are_the_evaluation_s(tmp_path: Path, gain: float, state: str) -> None:
    """Would catch a report that calls attributions faithful which are no better than chance."""
    found = evaluation(gain)
    trust = judged(read_faithfulness(written(tmp_path, found)), "the/run")
    assert trust.state == state
    assert found.verdict.grade in trust.about
    assert found.verdict.text in trust.words
    assert "1,234 pairs" in trust.words
    assert f"{gain:+.3f} in units of the score ({gain - 0.01:+.3f} to {gain + 0.01:+.3f})" in trust.words


def test_every_level_is_drawn_both_ways(tmp_path: Path) -> None:
    read = read_faithfulness(written(tmp_path, evaluation(0.2)))
    assert read is not None
    drawn = curves(read)
    assert len(drawn) == len(measures_of("score")) == 6
    titles = {str(one["title"]) for one in drawn}
    assert "Faithfulness, words of a: the score as words are deleted" in titles
    assert "Faithfulness, both texts: the score as words are put back" in titles
    assert all(str(one["svg"]).count('class="line line') == 8 for one in drawn)  # four curves and their keys


def test_agreement_with_deletion_is_drawn_for_words_and_word_pairs(tmp_path: Path) -> None:
    read = read_faithfulness(written(tmp_path, evaluation(0.2)))
    assert read is not None
    words, pairs = agreement(read)
    assert (words["title"], pairs["title"]) == (
        "Agreement with deletion: words",
        "Agreement with deletion: word pairs",
    )
    assert all(str(one["svg"]).count("<rect") >= len(RULES) for one in (words, pairs))
    assert "token embeddings" in str(words["svg"])
    shown = section(read)
    assert shown["notes"] == [read["verdict"]["text"]]
    assert len(shown["plots"]) == 8


def test_a_run_of_differences_says_which_sums_were_judged(tmp_path: Path) -> None:
    read = read_faithfulness(written(tmp_path, evaluation(0.2, "difference")))
    assert read is not None
    assert "sums_to: difference" in " ".join(section(read)["notes"])
    assert "Faithfulness, pairs: what words contribute to the score together as words are put back" in {
        str(one["title"]) for one in curves(read)
    }


def test_without_an_evaluation_the_report_says_how_to_get_one(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    assert read_faithfulness(store) is None
    trust = judged(None, "the/run")
    assert trust.state == "open"
    assert trust.words.endswith("tokenpair evaluate the/run")
    store.commit(FILE, b"{}")
    assert read_faithfulness(store) is None, "a file of another format was taken for this one"
