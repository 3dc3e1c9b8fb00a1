"""Jobs over late-interaction models: what a run stores of them, its defaults, its readers, and what is refused."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from display_pairs import explained, pair_of
from late_models import FIXED, late_folder
from sentence_transformers import MultiVectorEncoder
from tiny_models import TinyModels, random_text
from typer.testing import CliRunner

from attribution_core import Attributor
from attribution_core.display.matches import expanded_part, match_lines
from attribution_core.display.pair import pair_html, pair_text
from attribution_core.results import Match, PairAttribution
from jobs.analysis.comparison.compare import compare_runs
from jobs.analysis.faithfulness.judge import Judge
from jobs.analysis.faithfulness.orders import EMBEDDINGS
from jobs.analysis.flips.contest import DOCUMENT, QUERY, Contest
from jobs.analysis.statistics.compute import compute_statistics
from jobs.cli import main as cli
from jobs.config.job import parse_job
from jobs.config.model_folder import is_late
from jobs.doctor import examination
from jobs.engine.driver import run_job
from jobs.errors import JobError
from jobs.plan.preflight import check_before_planning
from jobs.run.reader import Run, open_run
from jobs.run.tables import attribution_schema
from jobs.views.comparison.terminal import comparison_text

QUERIES, DOCUMENTS, DEPTH = 4, 7, 3
# Without a calibration of each model.
FEW: dict[str, Any] = {"quadrature": {"rule": "riemann", "nodes": 2}, "workers": {"ray": False}}
EXPANDED = FIXED | {"attend": True}


@pytest.fixture(scope="module")
def made(tiny: TinyModels, tmp_path_factory: pytest.TempPathFactory, seed: int) -> dict[str, Any]:
    """Runs of a log (BERT, at the default level), and of pairs with whole matrices (ModernBERT)."""
    rng = random.Random(seed)
    folder = tmp_path_factory.mktemp("late")
    queries = {f"q{at}": random_text(rng, 4) for at in range(QUERIES)}
    corpus = {f"d{at}": random_text(rng, 12) for at in range(DOCUMENTS)}
    for name, of in (("queries", queries), ("corpus", corpus)):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in of.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    ranked = [f"{q} Q0 {d} {at} {1 / at} t" for q in queries for at, d in enumerate(rng.sample(sorted(corpus), 3), 1)]
    (folder / "run.trec").write_text("\n".join(ranked) + "\n")
    pairs = [
        {"id": d, "query": queries[q], "document": corpus[d], "matches": 3}
        for q, d in zip(queries, corpus, strict=False)
    ]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)) + "\n")
    log = {"log": "run.trec", "queries": "queries.jsonl", "corpus": "corpus.jsonl"}
    settings: dict[str, dict[str, Any]] = {
        "log": FEW
        | {"model": str(late_folder(tiny, "bert", expansion=FIXED)), "shards": 2}
        | {name: str(folder / place) for name, place in log.items()},
        "pairs": FEW
        | {"model": str(late_folder(tiny, "modernbert", expansion=EXPANDED, similarity="meanmaxsim"))}
        | {"input": str(folder / "pairs.jsonl"), "columns": {"a": "query", "b": "document", "id": "id"}}
        | {"store": "full", "top_k": 5},
    }
    for name, own in settings.items():
        assert run_job(parse_job(own | {"output": str(folder / name)}), quiet=True).exit_code == 0
    return {"folder": folder, "settings": settings, "queries": queries, "corpus": corpus}


def run_of(made: dict[str, Any], name: str) -> Run:
    return open_run(made["folder"] / name)


def pairs_of(run: Run) -> dict[str, PairAttribution]:
    return run.pairs(run.to_table()["pair_id"].to_pylist())


def command(*words: str | Path) -> str:
    result = CliRunner().invoke(cli.app, list(map(str, words)))
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def refused(*words: str | Path) -> str:
    result = CliRunner().invoke(cli.app, list(map(str, words)))
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("tokenpair: error: ")]
    return line


def test_a_job_takes_the_defaults_of_its_model_and_writes_them_down(made: dict[str, Any]) -> None:
    """Sums of words, of a query and a document, unless the job says otherwise."""
    for name, level in (("log", "words"), ("pairs", "pairs")):
        record = yaml.safe_load((made["folder"] / name / "job.yaml").read_text())
        assert (record["level"], record["mode"]) == (level, "retrieval")
    own = made["settings"]["pairs"] | {"output": "run"}
    assert parse_job(own | {"store": "top"}).level == "words"
    asked = parse_job(own | {"store": "top", "level": "pairs", "mode": "symmetric"})
    assert (asked.level, asked.mode) == ("pairs", "symmetric")
    other = parse_job(own | {"model": "some/model", "store": "top"})
    assert (other.level, other.mode) == ("pairs", "symmetric")
    assert parse_job(own | {"model": "some/model", "store": "top", "similarity": "maxsim"}).level == "words"


def test_kinds_of_late_interaction_are_read_from_the_folder(tiny: TinyModels, tmp_path: Path) -> None:
    assert is_late(str(late_folder(tiny)))
    assert is_late(str(tiny.folder("bert"))) is False
    assert is_late("some/model") is None
    for name, file, content in (
        ("pylate", "config_sentence_transformers.json", {"model_type": "ColBERT"}),
        ("stanford", "config.json", {"architectures": ["HF_ColBERT"]}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / file).write_text(json.dumps(content))
        assert is_late(str(tmp_path / name))


@pytest.mark.parametrize("name", ["log", "pairs"])
def test_a_run_has_the_models_own_scores_and_matches(made: dict[str, Any], name: str) -> None:
    run = run_of(made, name)
    model = MultiVectorEncoder(made["settings"][name]["model"], device="cpu")
    pairs = pairs_of(run)
    assert len(pairs) == (QUERIES * DEPTH if name == "log" else QUERIES)
    for pair in pairs.values():
        (query,), (document,) = model.encode_query([pair.a.text]), model.encode_document([pair.b.text])
        assert pair.score == pytest.approx(float(model.similarity_pairwise([query], [document])), abs=1e-5)
        assert pair.matches is not None
        similarity = query @ document.T
        mean = len(query) if name == "pairs" else 1
        assert [match.value * mean for match in pair.matches] == pytest.approx(similarity.amax(1).tolist(), abs=1e-5)
        assert sum(match.value for match in pair.matches) == pytest.approx(pair.score, abs=1e-5)
        for match in pair.matches:
            assert (match.a, match.b) == (pair.a.groups.labels[match.i], pair.b.groups.labels[match.j])
            assert match.token_j < len(pair.b.tokens)
        assert [match.token_i for match in pair.matches] == list(range(len(pair.a.tokens)))
        assert {pair.a.groups.kinds[match.i] for match in pair.matches if match.a == "[MASK]"} <= {"special"}
        assert pair.b.tokens[pair.matches[0].token_j] not in (".", ",")


def test_a_log_has_the_sums_of_its_attributor(made: dict[str, Any]) -> None:
    model = made["settings"]["log"]["model"]
    attributor = Attributor(model, quadrature="riemann", nodes=2, level="words")
    pairs = pairs_of(run_of(made, "log"))
    expected = attributor.attribute_pairs([(pair.a.text, pair.b.text) for pair in pairs.values()])
    for pair, other in zip(pairs.values(), expected, strict=True):
        for sums in ("row_sums", "col_sums"):
            np.testing.assert_allclose(getattr(pair, sums), getattr(other, sums), atol=1e-4)
        assert pair.row_lift is None
        assert pair.interactions is None
        assert not pair.has_word_pairs


def test_word_pairs_have_interactions_that_rank_them(made: dict[str, Any]) -> None:
    run = run_of(made, "pairs")
    for row, pair in zip(run.to_table().to_pylist(), pairs_of(run).values(), strict=True):
        assert pair.interactions is not None
        assert pair.matrix.sum() == pytest.approx(pair.total, abs=1e-2)
        strengths = [abs(cell["interaction"]) for cell in row["top"]]
        assert strengths == sorted(strengths, reverse=True)
        assert len(strengths) == 5
        for cell, stored in zip(pair.top(5), row["top"], strict=True):
            assert (cell.i, cell.j) == (stored["i"], stored["j"])
            assert cell.value == pytest.approx(stored["value"], abs=2e-3)
            assert cell.interaction == pytest.approx(stored["interaction"], abs=2e-3)
        assert pair.extra == {"matches_input": 3}


def test_a_run_that_was_stopped_resumes_with_the_same_rows(made: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(made["folder"] / "log", tmp_path / "log")
    (tmp_path / "log" / "_SUCCESS").unlink()
    (tmp_path / "log" / "attributions" / "part-00001.parquet").unlink()
    outcome = run_job(parse_job(made["settings"]["log"] | {"output": str(tmp_path / "log")}), quiet=True)
    assert outcome.exit_code == 0
    assert 0 < outcome.pairs_now < QUERIES * DEPTH
    again, first = (
        run.to_table().drop_columns(["row_sums", "col_sums"])
        for run in (open_run(tmp_path / "log"), run_of(made, "log"))
    )
    assert again.schema.equals(first.schema)
    assert again["matches"].to_pylist() == first["matches"].to_pylist()


def test_runs_of_other_models_have_no_such_columns() -> None:
    names = {"matches", "ties", "interactions", "interactions_scale"}
    assert not names & set(attribution_schema("full").names)
    assert set(attribution_schema("full", late=True).names) == set(attribution_schema("full").names) | names


def test_readers_of_runs_take_both_kinds(made: dict[str, Any], tiny: TinyModels, tmp_path: Path) -> None:
    """Statistics, a comparison with a run of one vector a text, and the report."""
    one_vector = made["settings"]["pairs"] | {"model": str(tiny.folder("bert")), "store": "top", "mode": "retrieval"}
    assert run_job(parse_job(one_vector | {"output": str(tmp_path / "one")}), quiet=True).exit_code == 0
    run = run_of(made, "pairs")
    comparison = compare_runs(run, open_run(tmp_path / "one"))
    assert comparison.compared == QUERIES
    assert "meanmaxsim" in comparison_text(comparison)
    found = compute_statistics(run, only=("strongest",), resamples=5).statistics
    assert found["strongest"].tables
    assert any("late interaction has none" in note for note in found["strongest"].notes)
    assert "report" in command("report", made["folder"] / "log")
    assert "Where the model matched" in command("show", made["folder"] / "log", "--query", "q0", "--doc", _first(made))
    assert "maxsim" in command("why", made["folder"] / "log", "q0")


def _first(made: dict[str, Any]) -> str:
    return str(run_of(made, "log").query("q0")[0].id)


def test_deleting_words_is_judged_by_the_models_own_scores(made: dict[str, Any]) -> None:
    """Of two documents, with words gone from the higher one, and from the query."""
    run = run_of(made, "log")
    margin = run.margin("q1")
    judge = Judge(run)
    texts = Contest.keys(margin.query, margin.documents)
    contest = Contest.of("q1", margin.query, margin.documents, judge.embed(texts), judge.similarity)
    assert contest.margin == pytest.approx(margin.score_a - margin.score_b, abs=1e-4)
    model = MultiVectorEncoder(made["settings"]["log"]["model"], device="cpu")
    above, below = model.encode_document([one.text for one in margin.documents])
    query, changed = margin.query.text, contest.side(DOCUMENT).without([0, 2])
    (left,) = contest.margins(DOCUMENT, [("document", changed)], judge.embed([("document", changed)]))
    (asked,) = model.encode_query([query])
    own = model.similarity([asked], [*model.encode_document([changed]), below])[0]
    assert left == pytest.approx(float(own[0] - own[1]), abs=1e-4)
    shorter = contest.side(QUERY).without([1])
    (left,) = contest.margins(QUERY, [("query", shorter)], judge.embed([("query", shorter)]))
    own = model.similarity(model.encode_query([shorter]), [above, below])[0]
    assert left == pytest.approx(float(own[0] - own[1]), abs=1e-4)
    assert set(contest.scored(EMBEDDINGS, judge)) == {QUERY, DOCUMENT}


def test_the_views_list_where_the_model_matched() -> None:
    """Words that met, strongest first, and one line each for what fills the query up and for its other tokens."""
    a = explained("hot wing hot", role="query")
    groups = a.groups
    filled = replace(
        groups,
        labels=(*groups.labels, "[MASK]"),
        starts=(*groups.starts, 0),
        ends=(*groups.ends, 0),
        kinds=(*groups.kinds, "special"),
    )
    pair = pair_of(replace(a, groups=filled), explained("the wing is warm", role="document"))
    met = [(0, 0, 0.5), (1, 4, 0.4), (2, 2, 0.9), (3, 4, 0.3), (4, 5, 0.1), (5, 2, 0.2), (5, 4, 0.6)]
    labels = filled.labels, pair.b.groups.labels
    matches = tuple(Match(i, j, labels[0][i], labels[1][j], at, j, value) for at, (i, j, value) in enumerate(met))
    pair = replace(pair, score=3.0, similarity="maxsim", matches=matches)
    lines = match_lines(pair, 2)
    assert [(line.a, line.b) for line in lines] == [
        ("wing", "wing"),
        ("hot", "warm"),
        ("1 weaker word match", "warm"),
        ("[MASK] × 2", "warm and 1 other"),
        ("[CLS] [SEP]", "[CLS] and 1 other"),
    ]
    assert [line.value for line in lines] == pytest.approx([0.9, 0.4, 0.3, 0.8, 0.6])
    assert sum(line.share or 0 for line in lines) == pytest.approx(1)
    assert expanded_part(pair) == pytest.approx(0.8 / 3)
    assert len(match_lines(pair, 10, special=True)) == 7
    for drawn in (pair_text(pair), pair_html(pair)):
        assert "Where the model matched" in drawn
        assert "[MASK] × 2" in drawn
    assert match_lines(replace(pair, matches=None), 5) == []
    assert "matched" not in pair_html(replace(pair, matches=None))


def test_doctor_describes_the_outputs_and_compares_scores_with_maxsim(
    tiny: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "MEASURED_SECONDS", 0.0)
    monkeypatch.setattr(
        examination, "sample_pairs", lambda: [("rain falls", "the red ball"), ("a dog", "where is it?")]
    )
    monkeypatch.setattr("attribution_core.contributions.SAMPLE", ["rain falls", "the red ball is a good dog"])
    found = examination.examine(str(late_folder(tiny, "bert", expansion=FIXED, similarity="meanmaxsim")), seconds=0)
    assert (found.mode, found.similarity, found.speed.level) == ("retrieval", "meanmaxsim", "words")
    assert found.scores.same
    assert found.sensitivity.clean
    query, document = found.sides
    assert query.outputs is not None
    assert document.outputs is not None
    assert query.outputs.projection == (24, 10)
    assert (query.outputs.expansion, query.outputs.length, query.outputs.attended) == ("[MASK]", 12, False)
    assert 0 < (query.outputs.expanded_share or 0) < 1
    assert document.outputs.skipped == (".", ",")
    assert (query.outputs.skipped, document.outputs.expansion) == ((), None)
    assert (query.reads, document.reads) == (12, 40)


def test_what_needs_one_vector_a_text_is_refused_in_one_line(made: dict[str, Any], tmp_path: Path) -> None:
    model, folder = made["settings"]["log"]["model"], made["folder"]
    log = ("--log", folder / "run.trec", "--queries", folder / "queries.jsonl")
    assert "an index needs one for each text" in refused(
        *("index", "--model", model, "--corpus", folder / "corpus.jsonl", "--output", tmp_path / "index")
    )
    assert "leave the index out" in refused(
        *("run", "--model", model, *log, "--index", tmp_path, "--output", tmp_path / "run")
    )
    assert "training needs one vector" in refused(
        *("train", "--model", model, "--train", folder / "pairs.jsonl", "--scale", "0", "1", "--output", tmp_path / "t")
    )
    own = made["settings"]["log"] | {"output": str(tmp_path / "run")}
    for wrong in ({"sums_to": "centred"}, {"similarity": "cosine"}):
        with pytest.raises(JobError, match=f"{next(iter(wrong))}: found"):
            check_before_planning(parse_job(own | wrong))


def test_texts_that_have_no_match_or_several_are_named(tiny: TinyModels, tmp_path: Path) -> None:
    """A document without a scored token is a reject; exact ties are counted; an image is no text."""
    table = pa.table({"a": ["rain", "dog"], "b": [". , .", "the red ball"]})
    pq.write_table(table, tmp_path / "pairs.parquet")
    # One value an output, of length one: every output of a text is the same, or its opposite.
    skip = (".", ",", "[CLS]", "[SEP]", "[", "]", "d")
    model = late_folder(tiny, "bert", projection=1, skip=skip)
    settings = FEW | {"model": str(model), "columns": {"a": "a", "b": "b"}, "output": str(tmp_path / "run")}
    outcome = run_job(parse_job(settings | {"input": str(tmp_path / "pairs.parquet")}), quiet=True)
    assert outcome.totals.rejected == {"b: no token left to score: the model's skip list drops every token": 1}
    assert outcome.totals.tied == 1
    assert any(line.startswith("ties     1 pair with a query token") for line in outcome.lines())
    assert open_run(tmp_path / "run").to_table()["ties"].to_pylist()[0] > 0
    picture = pa.array([{"bytes": b"\x89PNG\xff", "path": "a.png"}] * 2)
    pq.write_table(pa.table({"a": ["rain", "dog"], "b": picture}), tmp_path / "pictures.parquet")
    said = refused(
        *("run", "--model", model, "--input", tmp_path / "pictures.parquet", "--a", "a", "--b", "b"),
        *("--output", tmp_path / "pictures"),
    )
    assert "column 'b' holds struct<bytes: binary, path: string>, not text" in said
