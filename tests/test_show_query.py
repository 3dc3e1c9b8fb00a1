"""`tokenpair show` of a query: what it prints and writes, and one clear line for each wrong way to ask."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest
from query_runs import QUERIES, Ranked, small_log, write_run
from test_cli import assert_users_error
from typer.testing import CliRunner, Result

from jobs.cli import main as cli


@pytest.fixture
def run(tmp_path: Path) -> str:
    return write_run(tmp_path / "run", QUERIES, small_log()).url


def show(*words: str | Path) -> Result:
    return CliRunner().invoke(cli.app, ["show", *map(str, words)])


def test_a_query_is_shown_with_its_documents(run: str) -> None:
    result = show(run, "--query", "q1")
    assert result.exit_code == 0, result.stderr
    assert "3 documents in rank order" in result.stdout
    assert [result.stdout.index(f"{rank}  {name}  ") for rank, name in ((1, "d3"), (2, "d1"), (3, "d2"))]
    facts = r"score 0.500, sum [\d.]+ = words [\d.]+ - special tokens [\d.]+, log score 0.501, relevance 2"
    assert re.search(facts, " ".join(result.stdout.split()))
    first = show(run, "--query", "q1", "--top", "1").stdout
    assert "The first 1 of 3 documents" in first
    assert "d2" not in first


def test_one_document_is_shown_as_its_pair_is(run: str) -> None:
    """Would catch --doc that shows another pair than the ranking has."""
    by_document = show(run, "--query", "q1", "--doc", "d3")
    by_pair = show(run, "log:3")
    assert by_document.exit_code == by_pair.exit_code == 0, by_document.stderr
    assert by_document.stdout == by_pair.stdout
    assert "Strongest word pairs" in by_pair.stdout


def test_a_page_of_the_query_is_written(run: str, tmp_path: Path) -> None:
    page = tmp_path / "query.html"
    result = show(run, "--query", "q1", "--html", page)
    assert result.exit_code == 0, result.stderr
    assert f"wrote {page}" in result.stderr
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "width=device-width" in text
    assert "A layer" in text


def test_words_are_marked_by_what_was_asked(run: str, tmp_path: Path) -> None:
    """Would catch an option that is read and not obeyed, and a dot run that is given lifts."""
    rows = [Ranked("q1", "d", "the wing of a jet", cells={("wing", "wing"): 0.5}, lifts={"jet": 0.1})]
    lifted = write_run(tmp_path / "lifted", QUERIES, [rows], schema=pa.schema([]), sums_to="score").url
    for more, marked in (([], "[jet]"), (["--by", "lift"], "[jet]"), (["--by", "share"], "[wing]")):
        result = show(lifted, "--query", "q1", *more)
        assert result.exit_code == 0, result.stderr
        assert re.findall(r"\[\w+\]", result.stdout.split("1  d  ")[1]) == [marked]
    assert show(run, "--query", "q1", "--by", "share").stdout == show(run, "--query", "q1").stdout
    rows = [Ranked("q1", "d", "the wing of a jet")]
    dot = write_run(tmp_path / "dot", QUERIES, [rows], schema=pa.schema([]), similarity="dot").url
    result = show(dot, "--query", "q1", "--by", "lift")
    said = "the run has no lifts: its similarity is dot, and the lift is defined for cosine only; use --by share"
    assert_users_error(result.exit_code, result.stderr, said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--html", "x.html"], "give a PAIR_ID, or --query QID"),
        (["log:0", "--query", "q1"], "two things to show, pair 'log:0' and query 'q1'"),
        (["--doc", "d1"], "--doc d1 needs the query that it answers: add --query QID"),
        (["log:0", "--doc", "d1"], "--doc d1 needs the query that it answers: add --query QID"),
        (["--query", "q9"], "there is no query 'q9'; ids look like 'q1', 'q2'"),
        (["--query", "q1", "--doc", "d9"], "query 'q1' has no document 'd9': it has 'd3', 'd1', 'd2'"),
        (["--query", "q1", "--png", "x.png"], "--png draws one pair: add --doc DOCID"),
        (["--query", "q1", "--html", "no/x.html"], "there is no folder no"),
        (["--query", "q1", "--by", "top"], "by must be lift or share, not 'top'"),
        (["--query", "q1", "--by", "lift"], "the run has no lifts: it was made by an earlier version"),
        (["log:0", "--by", "lift"], "give --query QID without --doc"),
        (["--query", "q1", "--doc", "d3", "--by", "share"], "give --query QID without --doc"),
    ],
)
def test_wrong_ways_to_ask_are_told_in_one_line(run: str, words: list[str], said: str) -> None:
    result = show(run, *words)
    assert_users_error(result.exit_code, result.stderr, said)
    assert result.stdout == ""
