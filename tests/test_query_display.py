"""A query on a terminal and on a page: exact bars, marked words, harmless whatever the texts hold, within the width."""

from __future__ import annotations

import io
import os
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from display_pairs import HOSTILE, HOSTILE_TOO, SEQUENCE, Page, explained
from query_runs import QUERIES, Ranked, small_log, summing, write_run
from rich.cells import cell_len
from rich.console import Console

from jobs.analysis.query.result import QueryDocument, QueryResult
from jobs.run.reader import open_run
from jobs.views.query.page import BAR_EM, query_html
from jobs.views.query.terminal import BAR, query_text, terminal_query

EIGHTHS = " ▏▎▍▌▋▊▉█"


@pytest.fixture
def result(tmp_path: Path) -> QueryResult:
    return open_run(write_run(tmp_path / "run", QUERIES, small_log()).url).query("q1")


def made(query: str, texts: Sequence[str], seed: int = 0) -> QueryResult:
    """A result with random sums."""
    chance = np.random.default_rng(seed)
    asked = explained(query, role="query")
    documents = []
    for place, text in enumerate(texts, start=1):
        shown = explained(text, role="document")
        rows, cols = (chance.normal(0.1, 0.1, len(one.groups)).astype(np.float32) for one in (asked, shown))
        documents.append(
            QueryDocument(text[:20], f"p{place}", place, 0.5, 0.4, place % 3, "tag", shown, rows, cols, ())
        )
    return QueryResult("q", asked, tuple(documents), model="some/model")


def printed(
    result: QueryResult, *, width: int = 80, colour: bool | str = False, encoding: str = "utf-8", **options: object
) -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    console = Console(
        file=file,
        width=width,
        force_terminal=bool(colour),
        color_system=("truecolor" if colour is True else colour) if colour else None,  # type: ignore[arg-type]
        _environ={},
    )
    terminal_query(result, console, **options)  # type: ignore[arg-type]
    file.flush()
    return raw.getvalue().decode(encoding)


def bars(text: str) -> dict[str, list[float]]:
    """Word of the query → the bar in each row, in characters, negative where a minus stands before it."""
    found: dict[str, list[float]] = {}
    lines = text.splitlines()
    for at, head in enumerate(lines):
        if not head.startswith("rank"):
            continue
        words = [(m.start(), m[0]) for m in re.finditer(r"\S+", head) if m[0] not in ("rank", "score", "rel")]
        places = [place for place, _ in words] + [200]
        for line in lines[at + 1 : lines.index("", at)]:
            if not re.match(r" *\d", line):
                break
            for number, (place, word) in enumerate(words):
                cell = line[place : places[number + 1]].strip()
                length = sum(EIGHTHS.index(part) / 8 for part in cell.lstrip("-"))
                found.setdefault(word, []).append(-length if cell.startswith("-") else length)
    return found


def test_bars_in_a_terminal_are_the_row_sums(result: QueryResult) -> None:
    """Would catch bars under the wrong word, of the wrong document, on scales that differ, or without their sign."""
    shown = bars(printed(result))
    assert list(shown) == ["hot", "wing", "design"]
    values = np.array([one.row_sums[1:-1] for one in result])
    unit = BAR / np.abs(values).max()
    for column, word in enumerate(shown):
        assert shown[word] == pytest.approx(values[:, column] * unit, abs=1 / 16 + 1e-6)
    assert min(shown["design"]) < 0
    assert f"█████ is {np.abs(values).max():.2f}".replace(" 0.", " .") in printed(result)


def test_bars_stay_right_in_several_blocks_and_when_words_are_left_out() -> None:
    """Would catch columns that lose their words when a long query does not fit the width."""
    query = " ".join(f"word{n}" for n in range(14))
    for documents in (3, 30):
        result = made(query, [f"text {n}" for n in range(documents)])
        text = printed(result, top=documents)
        shown = bars(text)
        values = np.array([one.row_sums[1:-1] for one in result])
        for word, lengths in shown.items():
            column = values[:, int(word.removeprefix("word"))]
            assert lengths == pytest.approx(column * BAR / np.abs(values).max(), abs=1 / 16 + 1e-6)
        left_out = 14 - len(shown)
        assert (f"Not shown: {left_out} words" in text) == (left_out > 0)
        sizes = dict(zip(query.split(), np.abs(values).sum(0), strict=True))
        assert set(shown) == set(sorted(sizes, key=lambda word: -sizes[word])[: len(shown)])
    assert left_out > 0


def test_bars_on_a_page_are_the_row_sums(result: QueryResult) -> None:
    """Would catch a number or a bar that is not its word's, and bars that are as wide as their column allows."""
    source = query_html(result)
    cells = re.findall(r'<td class="value">(-?[\d.]+)<span class="([pn])6" style="width:([\d.]+)em">', source)
    values = np.array([one.row_sums[1:-1] for one in result])
    limit = np.abs(values).max()
    assert len(cells) == values.size
    for (number, sign, width), value in zip(cells, values.ravel(), strict=True):
        assert float(number) == pytest.approx(value, abs=0.0051)
        assert float(width) == pytest.approx(BAR_EM * abs(value) / limit, abs=0.0051)
        assert sign == ("p" if value >= 0 else "n")


def test_a_snippet_marks_the_strong_words(result: QueryResult) -> None:
    """Would catch marks on the wrong words, and a lowering word that looks like a raising one."""
    text = printed(result)
    assert "A layer [-on-] the [wing]" in text
    assert "[such] words add most to the sum; [-such-] ones lower it" in " ".join(text.split())
    coloured = printed(result, colour=True)
    assert "[wing]" not in coloured
    assert re.search("\x1b\\[[0-9;]+mwing\x1b\\[0m", coloured)
    marks = re.findall(r'<mark class="(p|n)\d" title="([^"]+)">([^<]+)</mark>', query_html(result))
    assert ("p", "wing") in {(sign, word) for sign, _, word in marks}
    assert ("n", "on") in {(sign, word) for sign, _, word in marks}
    assert any(word == "wing" and title.endswith("strongest pair with “wing”") for _, title, word in marks)


LIFTED = [
    Ranked(
        "q1",
        "d1",
        "the wing of a heated body",
        cells={("wing", "wing"): 0.5, ("hot", "heated"): 0.3, ("[CLS]", "of"): -0.1},
        lifts={"heated": 0.09, "body": -0.06},
    ),
    Ranked("q1", "d2", "a layer", cells={("design", "layer"): -0.2, ("[SEP]", "layer"): 0.15}, lifts={"layer": 0.03}),
]


@pytest.fixture
def summed(tmp_path: Path) -> QueryResult:
    """Two documents whose scores are what their cells sum to, with lifts."""
    rows = [summing(QUERIES, row, at) for at, row in enumerate(LIFTED)]
    run = write_run(tmp_path / "summed", QUERIES, [rows], schema=pa.schema([]), sums_to="score")
    return open_run(run.url).query("q1")


def test_a_row_of_the_page_sums_to_the_score_beside_it(summed: QueryResult) -> None:
    """Would catch numbers that leave out a part of the score, or that are said to sum to what they do not."""
    source = query_html(summed)
    rows = re.findall(r"<tr><th scope=\"row\">(\d+)</th><td>([^<]+)</td>(.*?)</tr>", source, re.DOTALL)
    assert len(rows) == 2
    for (_, score, cells), document in zip(rows, summed, strict=True):
        numbers = [float(one) for one in re.findall(r"<td[^>]*>(-?[\d.]+)", cells)]
        assert len(numbers) == 4  # hot, wing, design and the special tokens
        assert sum(numbers) == pytest.approx(float(score), abs=0.021)
        assert float(score) == pytest.approx(document.row_sums.sum(), abs=5.1e-4)
    assert ">special tokens</th>" in source
    assert ">special tokens</th>" not in query_html(summed, special=True)
    for text in (source, printed(summed)):
        flat = " ".join(text.split())
        assert "How much each word of the query adds to the score" in flat
        assert "A row sums to the document&#39;s score, with special tokens." in flat.replace("'", "&#39;")
        assert not re.search("blank|brought|reference", flat)
    assert "A row sums to the document's score." in " ".join(printed(summed, special=True).split())


def test_a_score_is_given_with_its_parts(summed: QueryResult) -> None:
    """Would catch parts that do not add up, and a minus that is lost."""
    found = re.findall(r"score (-?[\d.]+) = words (-?[\d.]+) ([+-]) special tokens ([\d.]+)", printed(summed))
    assert len(found) == 2
    for (score, words, sign, special), document in zip(found, summed, strict=True):
        rest = float(special) if sign == "+" else -float(special)
        assert float(words) + rest == pytest.approx(float(score), abs=0.011)
        assert float(words) == pytest.approx(float(document.row_sums[1:-1].sum()), abs=0.0051)
    assert [sign for _, _, sign, _ in found] == ["-", "+"]
    bare = replace(summed, query=replace(summed.query, groups=replace(summed.query.groups, kinds=("text",) * 5)))
    for text in (printed(bare), query_html(bare)):
        assert f"score {bare[0].score:.3f}" in text
        assert "special tokens" not in text


def test_marked_words_follow_the_lift_and_the_legend_says_so(summed: QueryResult, tmp_path: Path) -> None:
    """Would catch marks by the share where the legend speaks of the lift."""
    text = " ".join(printed(summed).split())
    assert "the wing of a [heated] [-body-]" in text
    assert "[such] words lift the score most; [-such-] ones pull it down." in text
    marks = re.findall(r'<mark class="(p|n)\d" title="([^"]+)">([^<]+)</mark>', query_html(summed))
    assert [(sign, word) for sign, _, word in marks] == [("p", "heated"), ("n", "body"), ("p", "layer")]
    assert marks[0][1].startswith("lift +0.090, share +0.")
    assert "lift the score most; orange ones pull it down" in " ".join(query_html(summed).split())
    by_share = open_run(tmp_path / "summed").query("q1", by="share")
    text = " ".join(printed(by_share).split())
    assert "the [wing] of a [heated] body" in text
    assert "[such] words add most to the score" in text
    assert "lift" not in text
    shares = re.findall(r'<mark class="p\d" title="([^"]+)">wing</mark>', query_html(by_share))
    assert re.match(r"lift \+0.000, share \+0\.\d+, strongest pair with “wing”", shares[0])
    assert bars(printed(by_share)) == bars(printed(summed)), "bars are shares whatever is marked"


def test_sentences_are_called_sentences(summed: QueryResult) -> None:
    """Would catch a page that speaks of words where sentences were attributed."""
    query = replace(summed.query, groups=replace(summed.query.groups, unit="sentence"))
    documents = tuple(
        replace(one, explained=replace(one.explained, groups=replace(one.explained.groups, unit="sentence")))
        for one in summed
    )
    result = replace(summed, query=query, documents=documents)
    for text in (printed(result), re.sub("<[^>]+>", "", query_html(result).split("</style>")[1])):
        flat = " ".join(text.split())
        assert "each sentence of the query adds" in flat
        assert "strongest sentence pairs" in flat
        assert "sentences lift the score most" in flat
        assert not re.search(r"\bwords?\b", flat)


def test_a_run_of_an_earlier_version_is_shown_with_what_its_sums_are(tmp_path: Path) -> None:
    """Would catch an old run whose rows are said to sum to the score, or that is not shown at all."""
    result = open_run(write_run(tmp_path / "run", QUERIES, small_log(), old=True).url).query("q1")
    assert (result.sums_to, result.by) == ("difference", "share")
    document = result[0]
    for text in (printed(result), query_html(result)):
        flat = " ".join(text.split())
        assert "does not sum to the score but to what the score gains over reference texts" in flat
        assert "one token, such as padding, in place of every word" in flat
        assert f"score 0.500, sum {document.row_sums.sum():.3f} = words " in " ".join(
            re.sub("<[^>]+>", "", flat).split()
        )
        assert "add most to the sum" in flat
        assert not re.search("brought|lift the score", flat)
    centred = open_run(write_run(tmp_path / "centred", QUERIES, small_log(), sums_to="centred").url).query("q1")
    assert "what sets the pair apart from average texts" in " ".join(printed(centred).split())


def test_a_long_document_is_shown_where_it_answers(tmp_path: Path) -> None:
    """Would catch a snippet that is always the beginning, or that is not the document's own text."""
    filler = [f"word{n}" for n in range(300)]
    filler[200:203] = ["the", "ANSWER", "is"]
    row = Ranked("q1", "d", "  ".join(filler), cells={("hot", "ANSWER"): 5.0})
    result = open_run(write_run(tmp_path / "run", QUERIES, [[row]], schema=pa.schema([])).url).query("q1")
    text = printed(result)
    lines = [line.strip() for line in text.split("d  score")[1].splitlines()[1:-1]]
    assert lines[0].startswith("… word")
    assert lines[-1].endswith(" …")
    assert len(lines) <= 4
    words = " ".join(lines).strip("… ").replace("[ANSWER]", "ANSWER").split()
    assert words == filler[filler.index(words[0]) : filler.index(words[-1]) + 1]
    assert "ANSWER" in words
    folded, unfolded = query_html(result).split("<details>")
    assert " ".join(filler) in " ".join("".join(Page(query_html(result)).words).split())
    assert "ANSWER" in folded
    assert "word0 " not in folded
    assert "word299" in unfolded


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int, rng: random.Random) -> None:
    """Would catch tables and snippets that wrap: many or long words, wide characters, hostile texts."""
    words = ["file", "destination", "日本語", "a", "unbelievably-long-compound-word" * 4, "é", "שלום", ".", "👩‍💻"]
    query, *texts = (" ".join(rng.choices(words, k=count)) for count in (25, 3, 80, 200))
    for result in (made(query, texts), made("日本語日本語日本語 a", texts), made(HOSTILE, [HOSTILE_TOO, "x" * 500])):
        for colour in (False, True):
            for special in (False, True):
                lines = SEQUENCE.sub("", printed(result, width=width, colour=colour, special=special)).splitlines()
                assert max(map(cell_len, lines)) <= width


def test_hostile_texts_stay_text(tmp_path: Path) -> None:
    """Would catch escape sequences, overrides or page code that take effect, from a text, an id or a model's name."""
    hostile = replace(made(HOSTILE, [HOSTILE_TOO, HOSTILE]), model="<script>m</script>\x1b[2J")
    ids = (replace(hostile.documents[0], id="\x1b]0;x\x07<img src=x>"), *hostile.documents[1:])
    hostile = replace(hostile, documents=ids)
    for text in (printed(hostile), printed(hostile, special=True), str(hostile)):
        assert not [character for character in text if not character.isprintable() and character not in "\n\u200d"]
        assert "\\x1b" in text
        assert "\\u202e" in text
        assert "[red]boo" in text
    coloured = SEQUENCE.sub("", printed(hostile, colour=True))
    assert not [character for character in coloured if not character.isprintable() and character not in "\n\u200d"]
    source = query_html(hostile)
    page = Page(source)
    allowed = "section style p strong bdi table caption tbody thead tr th td div span article mark details summary"
    assert {tag for tag, _ in page.tags} <= set(allowed.split())
    names = {name for _, attributes in page.tags for name in attributes}
    assert names <= {"class", "style", "title", "scope", "role", "tabindex", "aria-label", "dir"}
    assert all(re.fullmatch(r"width:[\d.]+em", a["style"] or "") for _, a in page.tags if "style" in a)
    assert "<script>alert(1)</script>" in "".join(page.words)
    assert "{{7*7}}" in "".join(page.words)
    assert "\x1b" not in source
    assert "\u202e" not in source
    source.encode()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_an_encoding_that_lacks_a_character_is_no_error(encoding: str) -> None:
    """Would catch a UnicodeEncodeError where output is piped in a C locale."""
    text = printed(made("日本語 café coffee", [HOSTILE_TOO, "coffee " * 90]), encoding=encoding)
    assert "coffee" in text
    assert ("#" in text) == (encoding != "utf-8")


def test_a_page_is_accessible_and_keeps_to_itself(result: QueryResult) -> None:
    """Would catch header cells without a scope, and a style that changes a notebook's other tables."""
    page = Page(query_html(result))
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in page.tags if tag == "th")
    assert [tag for tag, _ in page.tags].count("caption") == 1
    style = query_html(result).split("<style>")[1].split("</style>")[0]
    for selectors in re.findall(r"([^{}]+)\{", re.sub(r"@media [^{]*\{", "", style)):
        assert all(".tokenpair-query" in selector for selector in selectors.split(",")), selectors


def test_a_text_that_was_cut_or_is_approximate_is_told_of() -> None:
    """Would catch a document whose end was never read and that looks whole."""
    result = made("some words", ["a text that goes on"])
    cut = explained("a text that goes on", role="document", truncated=True, cut_at=11, converged=False)
    result = replace(result, documents=(replace(result.documents[0], explained=cut),))
    for text in (printed(result), query_html(result)):
        flat = " ".join(text.split())
        assert "characters 1 to 11 of 19 are explained" in flat
        assert "Approximate" in flat
    assert "Truncated" not in printed(made("some words", ["a text"]))


def test_only_the_first_documents_are_shown_and_counted() -> None:
    """Would catch a notebook that a query with a thousand documents brings down, or a cut nobody is told of."""
    result = made("some words", [f"document number{n}" for n in range(1000)])
    for text in (str(result), result._repr_html_()):
        assert "The first 10 of 1000 documents" in text
        assert "number9" in text
        assert "number10" not in text
    assert "number11" in printed(result, top=12)
    assert "number0" not in printed(result, top=0)
    Page(query_html(result, top=0))


def test_extreme_results_are_drawn() -> None:
    """Would catch a division by zero, a crash on no words at all, or on numbers that are huge or not numbers."""
    base = made("a b", ["x y", "z"])
    zeros = [replace(one, row_sums=np.zeros_like(one.row_sums), col_sums=np.zeros_like(one.col_sums)) for one in base]
    huge = [replace(one, row_sums=one.row_sums * np.float32(1e12), score=float("nan")) for one in base]
    for result in (
        made("", ["", "\u200b", "x"]),
        replace(base, documents=()),
        replace(base, documents=tuple(zeros)),
        replace(base, documents=tuple(huge)),
    ):
        assert "in rank order" in printed(result)
        assert "in rank order" in printed(result, colour=True, special=True)
        Page(query_html(result))


def test_text_is_the_same_everywhere(result: QueryResult, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch colours, or a width that depends on where a program runs."""
    plain = str(result)
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", "30"), ("TERM", "xterm-256color"), ("JPY_PARENT_PID", "1")):
        monkeypatch.setenv(name, value)
    assert str(result) == plain == query_text(result) == printed(result, width=100).rstrip("\n")


def test_piped_output_has_no_colour(tmp_path: Path) -> None:
    """Would catch escape sequences in a file, and lines wider than 80 where no terminal says its width."""
    run = write_run(tmp_path / "run", QUERIES, small_log()).url
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "FORCE_COLOR", "CLICOLOR_FORCE")}
    done = subprocess.run(
        [sys.executable, "-c", "from jobs.cli.main import main; main()", "show", run, "--query", "q1"],
        env=kept | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "A layer [-on-] the [wing]" in done.stdout
    assert max(map(cell_len, done.stdout.splitlines())) <= 80
