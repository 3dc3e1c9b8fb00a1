"""The sentences of the report: true whatever the numbers are, and none where a number would say nothing."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.analysis.statistics.schema import Figure, RunFacts
from jobs.run.totals import Totals
from jobs.views.kit.numbers import worded
from jobs.views.report import charts, plots
from jobs.views.report.overview import Overview, Scores
from jobs.views.report.trust import meaning
from jobs.views.statistics.advice import Advice, advice_of

RATIOS = ("nouns_lift", "verbs_lift", "exact_lift", "lead_b")
FACTS: dict[str, Any] = {
    "pairs": 10,
    "pairs_in_run": 10,
    "texts": 20,
    "mode": "retrieval",
    "groups": "word",
    "store": "full",
    "finished": True,
    "model": "m",
    "layer": 1,
    "similarity": "cosine",
    "sums_to": "score",
    "sample": None,
    "seed": 0,
    "resamples": 100,
    "gold": None,
    "pipeline": None,
}


class Given:
    """A summary with the figures that a test gives, as (value, low, high), and tables; everything else is not there."""

    def __init__(self, tables: dict[str, list[dict[str, Any]]] | None = None, **figures: tuple[Any, Any, Any]) -> None:
        self.given = figures
        self.tables = {name: pa.Table.from_pylist(rows) for name, rows in (tables or {}).items()}
        self.run, self.statistics = RunFacts(**FACTS), dict[str, Any]()

    def figure(self, statistic: str, name: str) -> Figure | None:
        if name not in self.given:
            return None
        value, low, high = self.given[name]
        return Figure(name=name, value=value, low=low, high=high, unit="ratio" if name in RATIOS else "share")


def overview(**terms: Any) -> Overview:
    means = {"score": 0.5, "total": 0.5, "special": 0.04, "reference_a": 0.0, "reference_b": 0.0, "reference_ab": 0.0}
    scores = Scores.of(np.linspace(0, 1, 2000))
    kept = terms.pop("kept", "special tokens")
    return Overview(Totals(pairs=10, texts=20), scores, terms.pop("sums_to", "score"), kept, **(means | terms))


def advised(given: Given) -> dict[str, Advice]:
    """What is made of the figures, by what it is about."""
    return {one.about: one for one in advice_of(given, given.tables)}  # type: ignore[arg-type]


def said(given: Given) -> str:
    """All sentences."""
    return " ".join(f"{one.finding} {one.act}".strip() for one in advised(given).values())


def test_shares_above_all_of_it_are_explained() -> None:
    """Would catch "the rest comes from words that differ" where these take away."""
    text = said(
        Given(
            largest_5=(1.09, 1.06, 1.12),
            largest_50=(0.95, 0.9, 1.0),
            exact=(1.2, 1.1, 1.3),
            exact_lift=(12.0, 11.0, 13.0),
            nouns_share=(1.01, 0.9, 1.1),
        )
    )
    assert (
        "give 109.0\u00a0% of the score (106.0 to 112.0\u00a0%), more than all of it, because the others add up" in text
    )
    assert "the strongest half gives 95.0\u00a0%." in text
    assert "words that differ add up to less than zero" in text
    assert "the rest comes from" not in text
    assert "because the other words add up to less than zero" in text


def test_ordinary_shares_have_no_excuse() -> None:
    text = said(Given(largest_5=(0.7, 0.6, 0.8), largest_50=(1.003, 1.0, 1.1), exact=(0.3, 0.2, 0.4)))
    assert (
        "give 70.0\u00a0% of the score (60.0 to 80.0\u00a0%); the strongest half gives 100.3\u00a0%, more than all"
        in text
    )
    assert "Identical words give 30.0\u00a0% of what all word pairs add (20.0 to 40.0\u00a0%)." in text


@pytest.mark.parametrize("value", [-0.4, 0.0])
def test_a_number_that_would_say_nothing_has_no_sentence(value: float) -> None:
    """Would catch "a verb adds -0.4 times as much", and a share of a sum that is below zero."""
    names = ("largest_5", "largest_50", "nouns_lift", "verbs_lift", "nouns_share", "exact_lift", "lead_b")
    given = dict.fromkeys(names, (value, value - 0.1, value + 0.1))
    strongest = [{"by": "total", "group": "", "a": "x", "b": "y", "total": value}]
    assert said(Given({"strongest": strongest}, **given)) == ""
    assert said(Given(exact=(-0.1, -0.2, 0.1))) == ""
    one = said(Given(nouns_lift=(1.5, 1.0, 2.0), verbs_lift=(value, 0.0, 0.1), nouns_share=(0.4, 0.3, 0.5)))
    assert one == "Nouns and names make 40.0\u00a0% of what all words add (30.0 to 50.0\u00a0%)."


def test_words_without_effect_are_not_called_unanswered() -> None:
    """What the model gained nothing from may still be answered, by a synonym."""
    words = [{"word": word, "query_id": query} for word, query in (("fin", "118"), ("tail", "7"))]
    text = said(Given({"words_without_effect": words}, without_effect=(0.04, 0.03, 0.05)))
    assert "From 4.0\u00a0% of the queries' words (3.0 to 5.0\u00a0%)" in text
    assert "the model gained nothing: “fin” (query 118), “tail” (7)." in text
    assert "synonym" in text
    assert "answered" not in text
    assert said(Given(without_effect=(0.0, 0.0, 0.0))) == ""


def by_relevance(*groups: tuple[str, int, float, float | None, float | None]) -> Given:
    rows = [
        {"group": group, "measure": "score", "pairs": pairs, "value": value, "low": low, "high": high}
        for group, pairs, value, low, high in groups
    ]
    return Given({"retrieval_relevance": rows})


def test_relevance_is_compared_only_where_enough_is_judged() -> None:
    """Would catch advice from four judged pairs, and documents without a judgment that are called not relevant."""
    apart = advised(by_relevance(("relevant", 40, 0.6, 0.58, 0.62), ("not relevant", 40, 0.4, 0.38, 0.42)))["relevance"]
    assert apart.finding.startswith("Relevant documents score 0.60 on average (0.58 to 0.62) and documents judged not")
    assert apart.act == ""
    close = advised(by_relevance(("relevant", 40, 0.6, 0.55, 0.65), ("not judged", 40, 0.58, 0.5, 0.6)))["relevance"]
    assert "documents without a judgment 0.58" in close.finding
    assert "fine-tune" in close.act
    for few in (
        (("relevant", 3, 0.6, 0.5, 0.7), ("not relevant", 1, 0.4, 0.4, 0.4)),
        (("relevant", 4, 0.6, None, None), ("not judged", 40, 0.4, 0.3, 0.5)),
    ):
        (one,) = advised(by_relevance(*few)).values()
        assert one.finding.endswith("is open: too few judged pairs (4).")
        assert one.act == ""


def test_a_number_whose_interval_says_nothing_has_no_sentence() -> None:
    assert said(Given(exact=(0.4, 0.05, 0.9))) == ""
    assert said(Given(lead_b=(2.0, 0.5, 3.5))) == ""
    assert "Identical words" in said(Given(exact=(0.4, 0.3, 0.5)))


def test_what_asks_for_something_says_what_to_do() -> None:
    """Would catch advice where nothing is wrong."""
    cut = {"truncated_b": (0.31, 0.28, 0.34), "unread_b": (0.1, 0.09, 0.11)}
    assert advised(Given(**cut))["cut texts"].act == "Split long documents into chunks."
    assert "cut texts" not in advised(Given(truncated_b=(0.001, 0.0, 0.002)))
    errors = {"error_median": (4e-4, None, None), "error_max": (2e-3, None, None)}
    assert advised(Given(**errors, unconverged=(0.0, None, None)))["exactness"].act == ""
    assert "max_nodes" in advised(Given(**errors, unconverged=(0.2, None, None)))["exactness"].act
    assert "BM25" in advised(Given(exact=(0.7, 0.6, 0.8)))["identical words"].act
    assert advised(Given(exact=(0.3, 0.2, 0.4)))["identical words"].act == ""


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ({}, "score 0.50 = word pairs 0.46 + special tokens 0.04."),
        ({"special": -0.04}, "score 0.50 = word pairs 0.54 − special tokens 0.04."),
        ({"special": -0.001}, "score 0.50 = word pairs 0.50 + special tokens 0.00."),
        ({"special": 0.0}, "score 0.50 = word pairs 0.50."),
        ({"kept": "special and prompt tokens"}, "= word pairs 0.46 + special and prompt tokens 0.04."),
        (
            {"score": -0.031, "total": -0.031, "special": 0.01},
            "score −0.031 = word pairs −0.041 + special tokens 0.010.",
        ),
        ({"score": 0.0, "total": 0.0, "special": 0.0}, "score 0.000 = word pairs 0.000."),
    ],
)
def test_what_the_sum_is_adds_up(terms: dict[str, Any], words: str) -> None:
    """Would catch a lost minus, and digits that a score near zero does not have."""
    assert meaning(overview(**terms), "word").words.endswith(words)


def test_differences_say_what_is_missing_to_the_score() -> None:
    """The sum and what the reference texts make are the score again."""
    one = overview(sums_to="difference", total=2.29, special=0.13, reference_ab=1.79)
    trust = meaning(one, "word")
    assert trust.about == "The sum is not the score."
    assert "sum 2.29 = word pairs 2.16 + special tokens 0.13, and score 0.50 = sum −\u00a01.79" in trust.words
    exact = meaning(overview(sums_to="difference", total=0.49), "word")
    assert exact.about == "The sum is the score, nearly."
    assert "reference" not in exact.words
    centred = meaning(overview(sums_to="centred", total=0.2), "word")
    assert "sum 0.20 = word pairs 0.16 + special tokens 0.04; the average score is 0.50." in centred.words


def test_what_takes_away_most_is_drawn_too() -> None:
    """Would catch a chart of the largest shares, which leaves out the largest below zero."""
    tags = list(charts.WORDS)
    rows = [
        {"side": "both", "pos": tag, "share": 0.3 / (at + 1), "low": None, "high": None, "frequency": None}
        for at, tag in enumerate(tags[:-1])
    ]
    rows.append({**rows[0], "pos": "X", "share": -0.25})
    (chart,) = charts.DRAWN["parts_of_speech"](rows, RunFacts(**FACTS))
    labels = re.findall(r'text-anchor="end">([^<]+)<', str(chart["svg"]))
    assert len(labels) == charts.MOST_BARS
    assert labels[-1] == "other"


def test_words_without_effect_and_lifts_are_drawn() -> None:
    """Would catch a table whose chart is asked for by a name that it does not have any more."""
    rows: list[dict[str, Any]] = [{"word": "fin", "query_id": "118", "mean_lift": -0.06, "mean": 0.0, "documents": 9}]
    (chart,) = charts.DRAWN["words_without_effect"](rows, RunFacts(**FACTS))
    assert "fin (query 118)" in chart["svg"]
    assert "gained nothing" in chart["note"]
    rows = [
        {"by": by, "side": side, "word": f"{by}-{side}", "total": total}
        for side in "ab"
        for by, total in (("total", 2.0), ("lowest", -1.0))
    ]
    drawn = charts.DRAWN["words_by_lift"](rows, RunFacts(**FACTS))
    assert [one["title"] for one in drawn] == [
        "Query words that lift scores most",
        "Query words that pull scores down most",
        "Document words that lift scores most",
        "Document words that pull scores down most",
    ]
    assert all(f"{by}-{side}" in one["svg"] for one, (side, by) in zip(
        drawn, [(side, by) for side in "ab" for by in ("total", "lowest")], strict=True
    ))  # fmt: skip


def test_nothing_is_minus_zero() -> None:
    assert worded(-1e-5, "share") == "0.0\u00a0%"
    assert worded(-0.1, "share") == "-10.0\u00a0%"
    assert ">0.0 %</text>" in plots.bars("b", [plots.Bar("x", -1e-5)], percent=True)
