"""`tokenpair highlight`: terminal, page, JSON, the shape of Elasticsearch; one line for what cannot be answered."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from index_files import attributor, contributions_of, facts_of, write_index
from test_cli import assert_users_error
from tiny_models import TinyModels
from typer.testing import CliRunner, Result

from attribution_core import Attributor
from jobs.cli import main as cli
from jobs.index.fragments import fragments, search_response, tagged
from jobs.index.highlights import Highlight, Span
from jobs.index.reader import open_index
from jobs.storage.store import Store

TEXTS = {
    "a": "The coffee is <b>not</b> bad. It rains & pours. A station is far.",
    "b": "Rain and wind. \x1b[31mCoffee is good!",
    "c,d": "A station.",
}
QUERY = "is the coffee not bad"


@pytest.fixture(scope="module")
def model(tiny: TinyModels) -> Attributor:
    return attributor(str(tiny.folder("bert")), similarity="cosine")


@pytest.fixture(scope="module")
def index(model: Attributor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _written(model, tmp_path_factory.mktemp("highlight") / "index")


def _written(model: Attributor, folder: Path, **facts: Any) -> Path:
    write_index(Store.open(folder), contributions_of(model, TEXTS), list(TEXTS), facts_of(model, **facts))
    return folder


def highlight(*words: str | Path) -> Result:
    return CliRunner().invoke(cli.app, ["highlight", *map(str, words)])


def test_documents_are_shown_in_the_order_asked_for(index: Path) -> None:
    result = highlight(index, QUERY, "--ids", "b,a", "--k", "1")
    assert result.exit_code == 0, result.stderr
    text = result.stdout
    assert text.index("\nb  score") < text.index("\na  score")
    assert len(re.findall(r"   [+-]\d\.\d{3}  ", text)) == 2
    assert "\x1b" not in text
    best = open_index(index).highlight(QUERY, ["b"], 1)[0].spans[0].text
    assert best is not None
    assert f"[{best.replace(chr(27), chr(92) + 'x1b')}]" in " ".join(text.split())


def test_what_is_missing_is_one_line_and_the_others_are_answered(index: Path, tmp_path: Path) -> None:
    """An id with a comma comes from a file; a document that is asked for twice is shown once."""
    names = tmp_path / "ids"
    names.write_text("c,d\nnobody\na\n", encoding="utf-8")
    result = highlight(index, QUERY, "--ids", "a", "--ids-file", names)
    assert result.exit_code == 0
    assert result.stderr.splitlines()[-1] == "tokenpair: the index has no document 'nobody'"
    assert re.findall(r"\n(\S+)  score", result.stdout) == ["a", "c,d"]
    result = highlight(index, QUERY, "--ids", "nobody", "--ids", "x")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 2


def test_a_damaged_part_is_one_line_a_document(model: Attributor, tmp_path: Path) -> None:
    folder = _written(model, tmp_path / "index")
    part = folder / "generations/00001/documents/part-00000.arrow"
    part.write_bytes(part.read_bytes()[:-20])
    result = highlight(folder, QUERY, "--ids", "a,b", "--json")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 2
    assert [one["id"] for one in json.loads(result.stdout)["damaged"]] == ["a", "b"]


def test_json_has_what_the_index_answers(index: Path) -> None:
    result = highlight(index, QUERY, "--ids", "a,nobody", "--json", "--k", "2")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    (hit,) = open_index(index).highlight(QUERY, ["a"], 2)
    assert found["missing"] == ["nobody"]
    (one,) = found["documents"]
    assert (one["id"], one["truncated"]) == ("a", False)
    assert (one["score"], one["error"]) == pytest.approx((hit.score, hit.error), abs=1e-6)
    assert [(span["start"], span["end"], span["text"]) for span in one["spans"]] == [
        (span.start, span.end, span.text) for span in hit.spans
    ]
    assert (found["model"], found["layer"], found["groups"]) == (
        open_index(index).facts.model,
        open_index(index).facts.layer,
        "sentence",
    )


def test_the_shape_of_elasticsearch(index: Path) -> None:
    result = highlight(index, QUERY, "--ids", "a,b", "--elastic", "--k", "1")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)["hits"]
    assert found["total"] == {"value": 2, "relation": "eq"}
    assert [hit["_id"] for hit in found["hits"]] == ["a", "b"]
    assert found["max_score"] == max(hit["_score"] for hit in found["hits"])
    assert all(len(re.findall("<em>.*?</em>", hit["highlight"]["text"][0])) == 1 for hit in found["hits"])
    every = highlight(index, QUERY, "--ids", "a", "--elastic", "--pre-tag", "<b>", "--post-tag", "</b>")
    (words,) = json.loads(every.stdout)["hits"]["hits"][0]["highlight"]["text"][:1]
    assert "<em>" not in words
    assert "<b>" in words


def test_texts_are_escaped_unless_they_are_not_html() -> None:
    hit = _hit("x < y. Good.", (0, 6, 0.5))
    assert _passages(hit) == ["<em>x &lt; y.</em> Good."]
    assert _passages(hit, encoder="default") == ["<em>x < y.</em> Good."]


def test_passages_hold_highlights_in_whole_words() -> None:
    text = "First words here. " * 10 + "A needle stands. " + "Last words here. " * 10
    at = text.index("needle")
    (passage,) = fragments(_hit(text, (at, at + 6, 0.5)))
    shown = text[passage.start : passage.end]
    assert 60 < len(shown) <= 100
    assert "A needle stands." in shown
    assert set(re.findall(r"\w+", shown)) <= set(re.findall(r"\w+", text)), "no word is cut"
    assert tagged(passage, text, "[", "]").replace("[", "").replace("]", "") in text, "a search finds it in the text"
    assert "A [needle] stands." in tagged(passage, text, "[", "]")


def test_passages_are_strongest_first_and_touching_ones_are_one() -> None:
    sentences = [f"{name} sentence of more than fifty characters, which stands alone. " for name in "abcde"]
    text = "".join(sentences)
    size = len(sentences[0])
    spans = [(at * size, (at + 1) * size - 1, lift) for at, lift in ((3, 0.5), (0, 0.3), (1, 0.2))]
    passages = fragments(_hit(text, *spans))
    assert [(one.start, one.end) for one in passages] == [(3 * size, 4 * size - 1), (0, 2 * size - 1)]
    assert [(one.before, one.after) for one in passages] == [(True, True), (False, True)]
    for one in passages:
        assert "".join(piece for piece, _ in one.pieces(text)) == text[one.start : one.end]


def test_parts_that_lower_the_score_are_no_highlights() -> None:
    text = "Good sentence. Bad sentence."
    good, bad = (0, 14, 0.5), (15, 28, -0.5)
    assert _passages(_hit(text, good, bad)) == ["<em>Good sentence.</em> Bad sentence."]
    assert _passages(_hit(text, bad)) == ["Good sentence. <em>Bad sentence.</em>"], "it has no other"


def test_an_index_without_texts_gives_offsets(model: Attributor, tmp_path: Path) -> None:
    folder = _written(model, tmp_path / "index", texts=False)
    result = highlight(folder, QUERY, "--ids", "a", "--k", "1")
    assert result.exit_code == 0, result.stderr
    (span,) = open_index(folder).highlight(QUERY, ["a"], 1)[0].spans
    assert f"characters {span.start} to {span.end}" in result.stdout
    (hit,) = json.loads(highlight(folder, QUERY, "--ids", "a", "--k", "1", "--elastic").stdout)["hits"]["hits"]
    assert hit["offsets"] == {"text": [{"start": span.start, "end": span.end}]}
    assert "highlight" not in hit


def test_a_page_is_written_with_all_text_escaped(index: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = highlight(index, QUERY + " <script>", "--ids", "a,b", "--html", page)
    assert result.exit_code == 0, result.stderr
    assert f"wrote {page}" in result.stderr
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;b&gt;not&lt;/b&gt;" in text
    assert "\x1b" not in text
    assert re.search(r'<mark class="p\d" title="lift [+-]', text)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to highlight: give --ids or --ids-file"),
        (["--ids", ","], "nothing to highlight"),
        (["--ids", "a", "--pre-tag", "x"], "--pre-tag is only for --elastic: add --elastic, or leave it out"),
        (["--ids", "a", "--elastic", "--encoder", "xml"], "--encoder is 'xml'; give html or default"),
        (["--ids-file", "no/such/file"], "no/such/file: cannot be read"),
        (["--ids", "a", "--html", "no/such/page.html"], "there is no folder no/such"),
        (["--ids", "a", "--region", ""], "--region"),
    ],
)
def test_wrong_words_are_one_line(words: list[str], said: str, index: Path) -> None:
    result = highlight(index, QUERY, *words)
    assert_users_error(result.exit_code, result.stderr, said)


def test_no_index_and_an_empty_query_are_one_line(index: Path, tmp_path: Path) -> None:
    assert_users_error(*_ended(highlight(tmp_path, QUERY, "--ids", "a")), "holds no index")
    assert_users_error(*_ended(highlight(index, "", "--ids", "a")), "QUERY: is empty")


def _ended(result: Result) -> tuple[int, str]:
    return result.exit_code, result.stderr


def _hit(text: str, *spans: tuple[int, int, float]) -> Highlight:
    return Highlight(
        "x", 0.5, 0.0, False, tuple(Span(start, end, lift, lift, text[start:end]) for start, end, lift in spans), text
    )


def _passages(hit: Highlight, **settings: Any) -> list[str]:
    (found,) = search_response([hit], **settings)["hits"]["hits"]
    passages: list[str] = found["highlight"]["text"]
    return passages
