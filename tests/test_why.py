"""`tokenpair why`: what it prints and writes, and one clear line for each wrong way to ask."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from chromium import browser, program
from pair_runs import Row, attributed, words, write_pairs
from test_cli import assert_users_error
from test_flips import LOG, attributed_run
from tiny_models import TinyModels
from typer.testing import CliRunner, Result

from jobs.cli import main as cli
from jobs.run.reader import Run
from jobs.views.margin.page import margin_html


def why(*words: str | Path) -> Result:
    return CliRunner().invoke(cli.app, ["why", *map(str, words)])


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Query q1 with an inversion, q2 without, q3 with one document."""
    rows = []
    for query, document, score, relevance in (
        ("q1", "d1 wing", 0.9, 0),
        ("q1", "d2 jet", 0.4, 1),
        ("q2", "d1 wing", 0.9, 1),
        ("q2", "d3", 0.4, None),
        ("q3", "d3", 0.4, 1),
    ):
        cell = score / len(document.split())
        pair = attributed(words(query, "query"), words(document, "document"), cell, score)
        rows.append(Row(f"{query}:{document}", pair, {"rank": 1, "relevance": relevance}))
    return write_pairs(tmp_path / "run", [rows], kept=LOG, mode="retrieval", sums_to="score")


def test_without_a_query_the_inversions_are_listed(run: Run, tmp_path: Path) -> None:
    result = why(run.url)
    assert result.exit_code == 0, result.stderr
    assert "1 query with a document that is not relevant (or not judged) above" in " ".join(result.stdout.split())
    assert f"tokenpair why {run.url} q1" in result.stdout
    listed = json.loads(why(run.url, "--json").stdout)["inversions"]
    assert [(one["query_id"], one["above"], one["below"]) for one in listed] == [("q1", "d1 wing", "d2 jet")]
    pair = attributed(words("q", "query"), words("d", "document"), 0.5)
    plain = write_pairs(tmp_path / "plain", [[Row("p", pair)]], mode="retrieval")
    assert "The run has no judgments." in why(plain.url).stdout


def test_the_worst_inversion_is_explained_printed_and_written(run: Run, tmp_path: Path) -> None:
    page = tmp_path / "why.html"
    result = why(run.url, "q1", "--html", page)
    assert result.exit_code == 0, result.stderr
    assert "d1 wing is above d2 jet by 0.500 (score 0.900 against 0.400)." in result.stdout
    assert result.stdout.rstrip("\n") == str(run.margin("q1")).replace("\xa0", " ") or "Model" in result.stdout
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert why(run.url, "q1", "d2 jet", "d1 wing").stdout.startswith("query  q1")
    plain = json.loads(why(run.url, "q1", "--json").stdout)
    assert (plain["a"], plain["b"]) == ("d1 wing", "d2 jet")
    assert "proof" not in plain


def test_two_texts_that_no_run_holds_are_explained(tiny: TinyModels) -> None:
    model = tiny.folder("bert", normalize=True)
    texts = ("--query", "red dog", "--a", "the red ball", "--b", "a good dog")
    result = why("--model", model, *texts)
    assert result.exit_code == 0, result.stderr
    plain = json.loads(why("--model", model, *texts, "--json").stdout)
    total = sum(part["value"] for part in plain["query_words"])
    assert total == pytest.approx(plain["difference"], abs=1e-5)
    empty = why("--model", model, "--query", "red dog", "--a", "the red ball", "--b", " ")
    assert_users_error(empty.exit_code, empty.stderr, "document B has no token to attribute: ' '")


def test_proofs_are_printed_and_stored(tiny: TinyModels, tmp_path: Path, rng: random.Random) -> None:
    run = attributed_run(tiny, tmp_path / "run", rng, 3)
    query = run.to_table()["text_a_id"][0].as_py()
    result = why(run.url, query, "--prove", "--json", "--quiet")
    assert result.exit_code == 0, result.stderr
    assert set(json.loads(result.stdout)["proof"]) == {"above", "below", "document", "query", "judge", "own_judge"}
    result = why(run.url, "--prove", "--sample", "2")
    assert result.exit_code == 0, result.stderr
    assert "2 of 3 inversions, one a query" in result.stdout
    assert "wrote statistics/flips.json, statistics/flips.parquet" in result.stderr
    assert run.store.exists("statistics/flips.json")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["RUN", "q9"], "there is no query 'q9'; ids look like 'q1', 'q2', 'q3'"),
        (["RUN", "q1", "d1 wings", "d2 jet"], "has no document 'd1 wings'; the nearest ids are 'd1 wing'"),
        (["RUN", "q1", "d1 wing"], "one document, 'd1 wing': give two, or none"),
        (["RUN", "q1", "d1 wing", "d1 wing"], "two different documents"),
        (["RUN", "q3"], "query 'q3' has one document in the run, 'd3', and a margin needs two"),
        (["RUN", "q1", "--html", "no/x.html"], "there is no folder no"),
        (["RUN", "--html", "x.html"], "--html draws one query"),
        (["RUN", "q1", "--model", "m"], "--model explains --query, or tests for --prove"),
        (["RUN", "--query", "x"], "two things to explain, the run"),
        (["--query", "x", "--model", "m", "--a", "y"], "need --query, --a, --b and --model: add --b"),
        (["--query", "x", "--a", "y", "--b", "z"], "need --query, --a, --b and --model: add --model"),
        (["--query", "x", "--a", "y", "--b", "z", "--model", "m", "--prove"], "--prove tests documents of a run"),
        ([], "nothing to explain: give RUN and QUERY, or --model, --query, --a and --b"),
    ],
)
def test_wrong_ways_to_ask_are_told_in_one_line(run: Run, words: list[str], said: str) -> None:
    result = why(*(run.url if word == "RUN" else word for word in words))
    assert_users_error(result.exit_code, result.stderr, said)
    assert result.stdout == ""


@pytest.mark.skipif(program() is None, reason="no Chromium here: apt-get install chromium")
def test_pointing_at_a_query_word_outlines_what_it_met(tmp_path: Path) -> None:
    """Would catch links to other words, and a page that the keyboard cannot reach or that is wider than a telephone."""
    documents = {"x": ("the red ball of the king", [[0, 0.5, 0, 0, 0, 0], [0, 0, 0.2, 0, 0, 0]])}
    documents["y"] = ("a dog and another dog", [[0, 0, 0, 0, 0], [0, 0.3, 0, 0, 0.3]])
    rows = []
    for name, (text, inner) in documents.items():
        score = float(sum(map(sum, inner)))
        rows.append(Row(name, attributed(words("red dog", "query"), words(text, "document"), inner, score)))
    margin = write_pairs(tmp_path / "run", [rows], mode="retrieval", sums_to="score").margin("red dog")
    page = tmp_path / "why.html"
    style = '<meta name="viewport" content="width=device-width">'
    page.write_text(f"<!doctype html><meta charset=utf-8>{style}{margin_html(margin)}", encoding="utf-8")
    outlined = (
        "[...document.querySelectorAll('.documents mark')]"
        ".filter(one => getComputedStyle(one).outlineStyle === 'solid').map(one => one.textContent)"
    )
    chromium = program()
    assert chromium is not None
    with browser(chromium) as tab:
        for width in (1200, 400):
            tab.size(width, 900)
            tab.open(page)
            assert tab.value("document.documentElement.scrollWidth") <= width
            assert tab.value(outlined) == []
            tab.point_at(".q1")
            assert tab.value(outlined) == ["red"]
            tab.point_at(".q2")
            assert tab.value(outlined) == ["ball", "dog", "dog"]
            lefts = "new Set([...document.querySelectorAll('article')].map(one => one.offsetLeft)).size"
            assert tab.value(lefts) == (2 if width > 500 else 1)
        tab.point_at(".answer")
        tab.press("Tab")
        assert tab.value(outlined) == ["red"]
        tab.press("Tab")
        assert tab.value(outlined) == ["ball", "dog", "dog"]
        tab.point_at(".documents .m1")
        query = "[...document.querySelectorAll('.word')].map(one => getComputedStyle(one).outlineStyle)"
        assert tab.value(query)[0] == "solid"
        assert tab.complaints() == []
