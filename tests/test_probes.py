"""Probes: what edits and controls do to a text, and what a run says of a model whose scores are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from counting_model import CountingModel
from evaluation_runs import tiny_run
from pair_runs import Row, attributed, cut_text
from query_runs import Ranked, write_run
from tiny_models import TinyModels
from typer.testing import CliRunner

from attribution_core.text.words import sentence_spans
from jobs.analysis.failures.result import stored_failures
from jobs.analysis.faithfulness.judge import Judge
from jobs.analysis.probes.edits import EDITS, Edited, other_number, source
from jobs.analysis.probes.probe import probe
from jobs.analysis.probes.result import Probe, stored_probes, write_probes
from jobs.cli.main import app
from jobs.errors import JobError, RunError
from jobs.run.reader import Run
from jobs.views.probes.terminal import probes_text

TITLE = "Wing lift."
TEXT = f"{TITLE} The lift is 0.25 at high speed. Nothing else was said."


def _edited(name: str, text: str = TEXT, best: int = 1, appended: str | None = "Shells buckle.") -> Edited | None:
    scores = [1.0 if at == best else 0.5 - at / 10 for at in range(len(sentence_spans(text)))]
    made = next(edit for edit in EDITS if edit.name == name)
    return made.make(source(text, scores, lambda count: 0, appended))


@pytest.mark.parametrize(
    ("name", "edited", "control"),
    [
        ("negated", TEXT.replace("lift is", "lift is not"), TEXT.replace("lift is", "lift is indeed")),
        ("number", TEXT.replace("0.25", "5.25"), TEXT.replace("The lift", "This lift")),
        ("antonym", TEXT.replace("high", "low"), TEXT.replace("The lift", "This lift")),
        (
            "moved",
            f"{TITLE} Nothing else was said. The lift is 0.25 at high speed.",
            f"The lift is 0.25 at high speed. Nothing else was said. {TITLE}",
        ),
        ("title", f"{TITLE} {TITLE} {TITLE} {TEXT}", f"{' '.join(['The lift is 0.25 at high speed.'] * 3)} {TEXT}"),
        ("appended", f"{TEXT} Shells buckle.", f"{TEXT} {TITLE}"),
    ],
)
def test_an_edit_and_its_control_change_what_they_say(name: str, edited: str, control: str) -> None:
    assert _edited(name) == Edited(edited, control)


@pytest.mark.parametrize(
    ("name", "text", "best"),
    [
        ("negated", "No lift was seen. It did not rise.", 0),  # each sentence with an auxiliary is negated already
        ("negated", "Lift and drag.", 0),
        ("number", "The B-12 and CO2 of the wing.", 0),  # parts of names
        ("antonym", "The lift of the wing.", 0),
        ("moved", "One is here. Two is there.", 1),  # the best one stands there already
        ("moved", "Only one sentence.", 0),
        ("title", "Only one sentence.", 0),
        ("appended", "Only one sentence.", 0),
    ],
)
def test_a_text_that_offers_nothing_is_skipped(name: str, text: str, best: int) -> None:
    assert _edited(name, text, best) is None


def test_other_numbers_differ_and_keep_their_length() -> None:
    for number in ("0", "1", "5", "9", "10", "0.35", "1,400"):
        other = other_number(number)
        assert other != number
        assert len(other) == len(number)
        assert other[0] != "0"


QUERIES = {f"q{at}": f"the lift is measured {word}" for at, word in enumerate(("twice", "once", "here"))}
TEXTS = {
    "q0": "The lift is measured twice. It rises at high speed.",
    "q1": "The lift is measured once. It falls at the 30 degree mark.",
    "q2": "Lift measured here. Drag too.",  # nothing to negate
}
FOREIGN = "shells buckle"


def _probed(tmp_path: Path, model: CountingModel, **more: int) -> dict[str, Probe]:
    rows = [
        Ranked(query, query.replace("q", "d"), text, _cosine(QUERIES[query], text)) for query, text in TEXTS.items()
    ]
    rows += [Ranked(query, "other", FOREIGN, 0.6) for query in ("q0", "q1")]
    run = Run(write_run(tmp_path / "run", QUERIES, [rows]))
    result = probe(run, cast("Judge", model), **more)
    write_probes(run, result)
    assert stored_probes(run) == result
    assert "above the original" in " ".join(probes_text(result).split())
    return {one.name: one for one in result.probes}


def _cosine(a: str, b: str) -> float:
    return CountingModel().score(a, b)


def test_changes_are_those_of_the_model(tmp_path: Path) -> None:
    """By a direct computation: a change that mixed up pairs, control and edit, or signs, would show."""
    probes = _probed(tmp_path, CountingModel())
    one = probes["negated"]
    assert (one.pairs, one.skipped, one.contradicts) == (2, 1, True)
    changes = {"not": [], "indeed": []}  # type: dict[str, list[float]]
    for query in ("q0", "q1"):
        for word, found in changes.items():
            edited = TEXTS[query].replace("lift is", f"lift is {word}")
            found.append(_cosine(QUERIES[query], edited) - _cosine(QUERIES[query], TEXTS[query]))
    assert one.change.value == pytest.approx(np.mean(changes["not"]))
    assert one.control_change.value == pytest.approx(np.mean(changes["indeed"]))
    assert one.difference.value == pytest.approx(0, abs=1e-9)  # both add a word that the query lacks
    assert one.change.low is not None
    assert one.change.low <= one.change.value <= (one.change.high or 0)
    assert one.above is not None
    assert one.above.value == 0
    # The title's words are the query's: more of them raise the score.
    title = probes["title"]
    assert title.pairs == 3
    assert title.change.value > 0
    assert title.above is not None
    assert title.above.value == 1
    assert probes["number"].pairs == 1
    assert "prompt" not in probes


def test_the_order_against_the_next_document_turns(tmp_path: Path) -> None:
    """Of two documents above the next one, those that the edit pushes below its score are counted."""
    title = _probed(tmp_path, CountingModel())["title"]
    assert title.with_next == 2  # the third query has one document
    repeated = {
        query: " ".join([*[text.split(". ")[1]] * 3, text]) if query in ("q0", "q1") else text
        for query, text in TEXTS.items()
    }
    fallen = [_cosine(QUERIES[query], repeated[query]) < 0.6 for query in ("q0", "q1")]
    assert any(fallen)
    assert title.turned is not None
    assert title.control_turned is not None
    assert title.turned.value == 0
    assert title.control_turned.value == pytest.approx(np.mean(fallen))


def test_prompts_are_dropped_where_the_model_has_them(tmp_path: Path) -> None:
    """The prompt's words are none of a document's: without them the score rises by what is computed directly."""
    prompts = {"query": "search for:", "document": ""}
    dropped = _probed(tmp_path, CountingModel(prompts))["prompt"]
    changes = [_cosine(QUERIES[one], TEXTS[one]) - _cosine(f"search for {QUERIES[one]}", TEXTS[one]) for one in QUERIES]
    assert dropped.pairs == 3
    assert dropped.change.value == pytest.approx(np.mean(changes))
    assert dropped.control_change.value == pytest.approx(0)
    assert dropped.above is None


def test_the_sample_is_checked_and_repeats(tmp_path: Path) -> None:
    few = _probed(tmp_path / "few", CountingModel(), sample=2, seed=1)
    assert few["title"].pairs == 2
    assert few == _probed(tmp_path / "again", CountingModel(), sample=2, seed=1)
    with pytest.raises(JobError, match="--sample 1"):
        _probed(tmp_path / "one", CountingModel(), sample=1)
    run = Run(write_run(tmp_path / "single", QUERIES, [[Ranked("q0", "d0", TEXTS["q0"])]]))
    with pytest.raises(RunError, match="probes need 2"):
        probe(run, cast("Judge", CountingModel()))


def test_the_command_stores_both_and_prints_json(tiny: TinyModels, tmp_path: Path) -> None:
    """With a real encoder: what is printed is what is stored."""
    texts = ["The red dog is here. A ball was old.", "The dog was not red. It is here."]
    rows = [
        Row(f"p{at}", attributed(cut_text("red dog", ["red", "dog"]), cut_text(text, text.split()), 0.0))
        for at, text in enumerate(texts)
    ]
    other = cut_text("old ball", ["old", "ball"])
    rows.append(Row("p2", attributed(other, cut_text(texts[0], texts[0].split()), 0.0)))
    run = tiny_run(tiny, tmp_path / "run", [rows])
    result = CliRunner().invoke(app, ["probe", str(tmp_path / "run"), "--quiet", "--json"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    failures, probes = stored_failures(run), stored_probes(run)
    assert failures is not None
    assert probes is not None
    assert printed == {"failures": failures.model_dump(mode="json"), "probes": probes.model_dump(mode="json")}
    assert failures.with_model
    assert probes.pairs == 2
    assert {one.name for one in probes.probes} >= {"negated", "title", "appended"}
