"""The margin of two documents: every list sums to what the model itself says, inversions are those of the judgments."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pair_runs import Row, attributed, words, write_pairs
from query_runs import QUERIES, Ranked, small_log, write_run
from tiny_models import TinyModels, random_text

from attribution_core import Attributor
from attribution_core.errors import SettingError
from jobs.analysis.margin.compute import margin_of_texts
from jobs.analysis.margin.inversions import inversions, worst_inversion
from jobs.analysis.margin.result import ERROR, OTHER_PAIRS, REFERENCES, Margin
from jobs.analysis.margin.split import margin_of_pairs
from jobs.analysis.query.nearest import nearest_ids
from jobs.errors import RunError
from jobs.run.reader import Run
from jobs.views.margin.page import margin_html
from jobs.views.margin.wording import document_lines, pair_lines, query_lines

LOG = pa.schema([("rank", pa.int32()), ("relevance", pa.int32())])


def sums(margin: Margin) -> dict[str, float]:
    return {
        "query_words": sum(part.value for part in margin.query_words),
        "documents": sum(part.value for part in (*margin.a_words, *margin.b_words)),
        "pairs": sum(part.value for part in margin.pairs),
    }


def judged_run(place: Path, queries: Mapping[str, Sequence[tuple[str, float, int | None]]], **more: Any) -> Run:
    """Queries with documents: (document, score, relevance)."""
    rows = []
    for query, documents in queries.items():
        for at, (document, score, relevance) in enumerate(documents):
            cell = score / len(query.split()) / len(document.split())
            pair = attributed(words(query, "query"), words(document, "document"), cell, score)
            rows.append(Row(f"{query}:{document}", pair, {"rank": at + 1, "relevance": relevance}))
    return write_pairs(place, [rows], kept=LOG, mode="retrieval", sums_to="score", **more)


@pytest.mark.parametrize("sums_to", ["score", "difference"])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_every_list_sums_to_the_models_own_difference(
    similarity: str, sums_to: str, tiny: TinyModels, rng: random.Random
) -> None:
    """In float64, against scores that the model computes itself; the words alone miss it by the stated error."""
    model = tiny.load("bert", similarity=similarity, normalize=False)
    attributor = Attributor(model, layer=-2, mode="retrieval", dtype="float64", sums_to=sums_to, tolerance=1e-5)
    query, a, b = random_text(rng, 4), random_text(rng, 9, sentences=True), random_text(rng, 7)
    margin = margin_of_texts(attributor, query, a, b)
    embedded = model.double().encode([query, a, b])
    if similarity == "cosine":
        embedded = embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
    scale = float(np.linalg.norm(embedded[0]) * np.linalg.norm(embedded[1:], axis=1).max())
    own = float(embedded[0] @ embedded[1] - embedded[0] @ embedded[2])
    assert margin.difference == pytest.approx(own, abs=1e-5 * scale)
    for name, total in sums(margin).items():
        assert total == pytest.approx(margin.difference, abs=1e-5 * scale), name
    alone = sum(part.value for part in margin.query_words if part.label not in (ERROR, REFERENCES))
    left_out = sum(part.value for part in margin.query_words if part.label == REFERENCES)
    assert alone + left_out == pytest.approx(margin.difference + margin.error, abs=1e-5 * scale)
    assert abs(margin.error) < 1e-3 * scale
    assert bool(left_out) == (sums_to == "difference")


def test_words_and_pairs_are_those_of_the_two_attributions(tiny: TinyModels, rng: random.Random) -> None:
    attributor = Attributor(tiny.load("bert"), layer=-1, mode="retrieval")
    a, b = attributor.attribute_pairs([("red dog", "the red red ball"), ("red dog", "a good dog")])
    margin = margin_of_pairs(a, b, ids=("x", "y"))
    by_index = {part.index: part for part in margin.query_words if part.index is not None}
    assert [by_index[i].label for i in (1, 2)] == ["red", "dog"]
    for i in (1, 2):
        assert by_index[i].value == pytest.approx(float(a.row_sums[i] - b.row_sums[i]), abs=1e-6)
    assert [part.value for part in margin.b_words[:3]] == pytest.approx((-b.col_sums[1:-1]).tolist(), abs=1e-6)
    red = next(part for part in margin.pairs if (part.label, part.word) == ("red", "red"))
    assert red.a_indices == (2, 3)
    assert red.a == pytest.approx(float(a.matrix[1, 2] + a.matrix[1, 3]), abs=1e-6)
    assert red.b is None
    # All word pairs are known and have lines, so nothing is left for the others.
    rest = next(part for part in margin.pairs if part.label == OTHER_PAIRS)
    assert rest.value == pytest.approx(0.0, abs=1e-5)


def test_pairs_that_do_not_compare_are_refused(tiny: TinyModels) -> None:
    model = tiny.load("bert")
    one, other = (Attributor(model, layer=layer) for layer in (-1, -2))
    pair = one.attribute("red dog", "the red ball")
    with pytest.raises(SettingError, match="differ in layer: 3 and 2; a margin compares scores of one model"):
        margin_of_pairs(pair, other.attribute("red dog", "a good dog"))
    with pytest.raises(SettingError, match="different first texts"):
        margin_of_pairs(pair, one.attribute("good dog", "a good dog"))


def test_inversions_of_hand_made_judgments(tmp_path: Path) -> None:
    """The first document that is not relevant above the lowest relevant one; without a judgment it is not relevant."""
    run = judged_run(
        tmp_path / "run",
        {
            "worst": [("d1", 0.9, 1), ("d2", 0.5, None), ("d3", 0.7, 0), ("d4", 0.2, 2), ("d5", 0.1, None)],
            "tied": [("d1", 0.5, 0), ("d2", 0.5, 1)],
            "good": [("d1", 0.9, 1), ("d2", 0.8, 2), ("d3", 0.7, None)],
            "nothing relevant": [("d1", 0.9, 0), ("d2", 0.8, None)],
            "nothing else": [("d1", 0.9, 1), ("d2", 0.8, 1)],
        },
    )
    found = inversions(run)
    assert [(one.query_id, one.above, one.below, one.rank_above, one.rank_below) for one in found] == [
        ("worst", "d3", "d4", 2, 4),
        ("tied", "d1", "d2", 1, 2),
    ]
    assert found[0].margin == pytest.approx(0.5)
    assert worst_inversion(run, "worst") == found[0]
    assert worst_inversion(run, "good") is None
    margin = run.margin("worst")
    assert (margin.a, margin.b, margin.notes) == ("d3", "d4", ())
    assert "d3 is above d4 by 0.500" in str(margin)
    assert "It should be below: d4 is relevant (2), and d3 is not relevant." in " ".join(str(margin).split())
    assert run.margin("good").notes[0].startswith("No irrelevant document is above a relevant one")
    assert (run.margin("good").a, run.margin("good").b) == ("d1", "d2")


def test_a_run_without_judgments_or_ranks_takes_the_two_best_documents(tmp_path: Path) -> None:
    rows = [
        attributed(words("q", "query"), words(text, "document"), score, score)
        for text, score in (("x", 0.2), ("y", 0.6), ("z", 0.4))
    ]
    run = write_pairs(
        tmp_path / "run", [[Row(f"p{at}", one) for at, one in enumerate(rows)]], mode="retrieval", sums_to="score"
    )
    assert inversions(run) == []
    margin = run.margin("q")
    assert (margin.a, margin.b) == ("y", "z")
    assert margin.notes == (
        "The run has no judgments, so no inversion is known: these are the query's two best documents.",
    )


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (("worst", "d33", "d4"), r"query 'worst' has no document 'd33'; the nearest ids are 'd3'"),
        (("wurst", None, None), r"there is no query 'wurst'; the nearest ids are 'worst'$"),
        (("worst", "d3", "d3"), "two different documents, not 'd3' twice"),
        (("worst", "d3", None), "a margin needs two documents, or none"),
        (("single", None, None), "query 'single' has one document in the run, 'd1', and a margin needs two$"),
    ],
)
def test_bad_ids_are_reported_with_the_nearest(
    tmp_path: Path, ids: tuple[str, str | None, str | None], said: str
) -> None:
    queries = {"worst": [("d3", 0.9, 0), ("d4", 0.5, 1)], "single": [("d1", 0.9, 1)]}
    with pytest.raises(RunError, match=said):
        judged_run(tmp_path / "run", queries).margin(*ids)


def test_nearest_ids_ignore_case_and_leave_out_what_is_not_like() -> None:
    assert nearest_ids("DOC-17", ["doc-17", "doc-18", "query"]) == ["doc-17", "doc-18"]
    assert nearest_ids("zzz", ["doc-17"]) == []


def test_a_margin_of_an_unfinished_run_with_unequal_texts(tmp_path: Path) -> None:
    """Rows of which a text is not written yet are named, and the other rows are explained."""
    run = Run(write_run(tmp_path / "run", QUERIES, small_log(), finished=False))
    margin = run.margin("q1", "d2", "d1")
    assert "not finished" in margin.notes[0]
    for name, total in sums(margin).items():
        assert total == pytest.approx(margin.difference, abs=1e-6), name
    absent = Run(write_run(tmp_path / "absent", QUERIES, small_log(), finished=False, texts_of=["q2"]))
    with pytest.raises(RunError, match="has not written the texts of query 'q1' and 'd2' yet"):
        absent.margin("q1", "d2", "d1")


def test_what_is_printed_drawn_and_written_is_safe_and_sums(tmp_path: Path) -> None:
    hostile = '<b onmouseover="x()">\x1b[31mq</b>'
    rows = [
        Ranked("q1", document, f"{hostile} wing", score, {}, {("wing", "wing"): score}, {"wing": 0.2})
        for document, score in ((hostile, 0.6), ("d", 0.4))
    ]
    run = Run(write_run(tmp_path / "run", {"q1": f"hot wing {hostile}"}, [rows], schema=pa.schema([]), sums_to="score"))
    margin = run.margin("q1")
    for drawn in (str(margin), margin_html(margin)):
        assert "\x1b" not in drawn
    page = margin_html(margin)
    assert "<b onmouseover" not in page
    assert "<script" not in page
    assert "<style>" not in margin_html(margin, styled=False)
    assert margin._repr_html_() == page
    plain = json.loads(json.dumps(margin.to_dict()))
    assert sum(part["value"] for part in plain["pairs"]) == pytest.approx(plain["difference"], abs=1e-6)


def test_long_lists_are_cut_and_still_sum(tmp_path: Path) -> None:
    """Would catch a rest that is not what the hidden lines add up to."""
    random = np.random.default_rng(5)
    query = " ".join(f"q{at}" for at in range(30))
    rows = []
    for document in ("a", "b"):
        text = " ".join(f"{document if at % 2 else 'w'}{at}" for at in range(40))
        inner = random.normal(0, 0.1, (30, 40)).astype(np.float32)
        pair = attributed(words(query, "query"), words(text, "document"), inner, float(inner.sum()))
        rows.append(Row(document, pair))
    run = write_pairs(tmp_path / "run", [rows], mode="retrieval", sums_to="score")
    margin = run.margin(query)
    for lines in (query_lines(margin), document_lines(margin), pair_lines(margin)):
        assert len(lines) < 16
        for side, total in (("value", margin.difference), ("a", margin.score_a), ("b", margin.score_b)):
            assert sum(getattr(line, side) or 0.0 for line in lines) == pytest.approx(total, abs=2e-3), side
