"""What an evaluation found stands in the report, in the words of its own verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.evaluation.curves import DELETION, MEASURES
from jobs.evaluation.intervals import Mean
from jobs.evaluation.orders import ATTRIBUTIONS, METHODS, RANDOM
from jobs.evaluation.result import Against, Curve, Faithfulness
from jobs.evaluation.verdict import judge_advantages
from jobs.report.faithfulness import FILE, curves, judged, read_faithfulness
from jobs.stores import Store

SHARES = (0.0, 0.5, 1.0)


def evaluation(gain: float) -> Faithfulness:
    """One in which the attributions beat every other order by ``gain`` everywhere."""

    def by(method: str) -> Mean:
        mean = gain if method == ATTRIBUTIONS else 0.0
        return Mean(mean, mean - 0.01, mean + 0.01)

    found = []
    for level, operation in MEASURES:
        for method in METHODS:
            ends = (0.8, 0.1) if operation == DELETION else (0.1, 0.8)
            values = (ends[0], 0.45, ends[1])
            low, high = (tuple(v + d for v in values) for d in (-0.05, 0.05))
            found.append(Curve(level, operation, method, values, low, high, 0.4, by(method), 0.9))
    overall = [Against(method, RANDOM, by(method), 0.9) for method in METHODS if method != RANDOM]
    overall += [
        Against(ATTRIBUTIONS, method, by(ATTRIBUTIONS), 0.9)
        for method in METHODS
        if method not in (ATTRIBUTIONS, RANDOM)
    ]
    names = {"run": "r", "model": "m", "similarity": "cosine", "groups": "word", "judge": "m", "judge_fingerprint": "f"}
    sizes = {"layer": 4, "seed": 0, "asked": 50, "of": 100, "pairs": 1234, "draws": 50, "orders": 3}
    verdict = judge_advantages(found, overall, "", sizes["draws"])
    return Faithfulness(
        **names,  # type: ignore[arg-type]
        **sizes,  # type: ignore[arg-type]
        own_judge=True,
        shares=SHARES,
        curves=tuple(found),
        overall=tuple(overall),
        verdict=verdict,
        found=(),
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
    assert len(drawn) == len(MEASURES)
    titles = {str(one["title"]) for one in drawn}
    assert "Faithfulness, words of a: the score as words are taken away" in titles
    assert "Faithfulness, pairs: the score that words bring together as words are put back" in titles
    assert all(str(one["svg"]).count('class="line line') == 8 for one in drawn)  # four curves and their keys


def test_without_an_evaluation_the_report_says_how_to_get_one(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    assert read_faithfulness(store) is None
    trust = judged(None, "the/run")
    assert trust.state == "open"
    assert trust.words.endswith("tokenpair evaluate the/run")
    store.commit(FILE, b"{}")
    assert read_faithfulness(store) is None, "a file of another format was taken for this one"
